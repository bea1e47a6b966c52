//! Keeps secrets out of whatever people see: journals, logs, reports, the API.

use crate::wire::{Effect, EndedInjection, PlanView, Refusal, UnrevertedInjection};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What stands where a secret stood.
pub const REDACTED: &str = "***";

/// Replaces the values of secrets, wherever they stand.
#[derive(Clone, Default)]
pub struct Redactor {
    /// As text, the longest first, so that a secret within another leaves nothing of it.
    needles: Vec<String>,
    /// Secrets that are numbers: in a text they count only where no other digit is next to them,
    /// or a secret `1` would take the ones out of every time and every port.
    numbers: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Redactor({} secrets)",
            self.needles.len() + self.numbers.len()
        )
    }
}

impl Redactor {
    /// For these secrets. Lists and objects count by their members; `true`, `false`, `null` and
    /// empty text are no secrets.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut redactor = Redactor::default();
        values.into_iter().for_each(|value| redactor.collect(value));
        for list in [&mut redactor.needles, &mut redactor.numbers] {
            list.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            list.dedup();
        }
        redactor
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                self.needles.push(text.clone());
                // What of it shows in a line of JSON, and in JSON within that.
                let mut written = text.clone();
                for _ in 0..2 {
                    let quoted = Value::String(written.clone()).to_string();
                    let inner = quoted[1..quoted.len() - 1].to_owned();
                    if inner == written {
                        break;
                    }
                    self.needles.push(inner.clone());
                    written = inner;
                }
                // Programs print a secret from a file without its line ends.
                let trimmed = text.trim();
                if !trimmed.is_empty() && trimmed != text {
                    self.needles.push(trimmed.to_owned());
                }
            }
            Value::Number(number) => self.numbers.push(number.to_string()),
            Value::Array(list) => list.iter().for_each(|member| self.collect(member)),
            Value::Object(fields) => fields.values().for_each(|member| self.collect(member)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The text without the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for needle in &self.needles {
            if redacted.contains(needle.as_str()) {
                redacted = Cow::Owned(redacted.replace(needle.as_str(), REDACTED));
            }
        }
        for number in &self.numbers {
            if let Some(without) = without_number(&redacted, number) {
                redacted = Cow::Owned(without);
            }
        }
        redacted
    }

    /// Takes the secrets out of this text, in place.
    pub fn redact(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.text(text) {
            *text = redacted;
        }
    }

    /// Takes the secrets out of all of these texts, in place.
    pub fn redact_all<'t>(&self, texts: impl IntoIterator<Item = &'t mut String>) {
        texts.into_iter().for_each(|text| self.redact(text));
    }

    /// Takes the secrets out of a plan.
    pub fn redact_plan(&self, plan: &mut PlanView) {
        self.redact_all(plan.victims.iter_mut().map(|victim| &mut victim.name));
        for change in &mut plan.changes {
            self.redact_all([
                &mut change.apply,
                &mut change.undo,
                &mut change.if_agent_dies,
            ]);
        }
        self.redact_all(plan.notes.iter_mut().chain(&mut plan.warnings));
    }

    /// Takes the secrets out of a refusal.
    pub fn redact_refusal(&self, refusal: &mut Refusal) {
        self.redact(&mut refusal.what);
        self.redact_all(&mut refusal.hint);
        for problem in &mut refusal.problems {
            self.redact(&mut problem.what);
            self.redact_all(&mut problem.hint);
        }
    }

    /// Takes the secrets out of what is seen of a fault.
    pub fn redact_effect(&self, effect: &mut Effect) {
        self.redact(&mut effect.seen);
    }

    /// Takes the secrets out of the report of an injection's end.
    pub fn redact_ended(&self, ended: &mut EndedInjection) {
        self.redact_all(&mut ended.residue);
        if let Some(effect) = &mut ended.effect {
            self.redact_effect(effect);
        }
    }

    /// Takes the secrets out of what is said of an injection that could not be reverted.
    pub fn redact_unreverted(&self, unreverted: &mut UnrevertedInjection) {
        self.redact_all(&mut unreverted.residue);
    }

    /// The value without the secrets, keys included.
    pub fn value(&self, value: Value) -> Value {
        if self.needles.is_empty() && self.numbers.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => match self.text(&text) {
                Cow::Borrowed(_) => Value::String(text),
                Cow::Owned(redacted) => Value::String(redacted),
            },
            Value::Number(number) => {
                let text = number.to_string();
                match self.needles.contains(&text) || self.numbers.contains(&text) {
                    true => Value::String(REDACTED.into()),
                    false => Value::Number(number),
                }
            }
            Value::Array(list) => list.into_iter().map(|member| self.value(member)).collect(),
            Value::Object(fields) => {
                let fields = fields
                    .into_iter()
                    .map(|(key, member)| (self.text(&key).into_owned(), self.value(member)));
                Value::Object(Map::from_iter(fields))
            }
            other => other,
        }
    }
}

/// The text without this number, if it is there.
fn without_number(text: &str, number: &str) -> Option<String> {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut without = String::new();
    let mut from = 0;
    for (start, found) in text.match_indices(number) {
        let end = start + found.len();
        if !is_digit(text[..start].chars().next_back()) && !is_digit(text[end..].chars().next()) {
            without.push_str(&text[from..start]);
            without.push_str(REDACTED);
            from = end;
        }
    }
    (from > 0).then(|| without + &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_replaced_wherever_it_stands() {
        let secrets = [
            json!("hunter2"),
            json!(4711),
            json!("a\"b\nc"),
            json!({"deep": ["hunter2hunter2"]}),
            json!(""),
        ];
        let redactor = Redactor::new(&secrets);
        assert_eq!(
            redactor.text("x-hunter2-y 4711 port=4711, 47110"),
            "x-***-y *** port=***, 47110"
        );
        assert_eq!(redactor.text("hunter2hunter2"), "***");
        let line = json!({"k": "a\"b\nc"}).to_string();
        assert_eq!(redactor.text(&line), "{\"k\":\"***\"}");
        assert_eq!(
            redactor.text(&json!(line).to_string()),
            "\"{\\\"k\\\":\\\"***\\\"}\""
        );
        assert_eq!(
            redactor.value(json!({"hunter2": [4711, 47110, "hunter2!", true, null]})),
            json!({"***": ["***", 47110, "***!", true, null]})
        );
        assert!(matches!(redactor.text("nothing"), Cow::Borrowed(_)));
        assert!(!format!("{redactor:?}").contains("hunter2"));
    }
}
