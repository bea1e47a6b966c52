//! Why a value is not within its tolerance, in words: the part of it that was judged, and what was wanted.

use super::{CompiledTolerance, Criterion, as_json, part, status_of};
use crate::redact::Redactor;
use serde_json::Value;
use serde_json_path::JsonPath;

/// The most characters of a value, or of what is wanted, that a reason shows.
pub const MAX_SHOWN_CHARACTERS: usize = 120;

impl CompiledTolerance {
    /// Why this value is not within the tolerance, where [`CompiledTolerance::accepts`] said `outcome` of it.
    /// None where it is within. Secrets are taken out before anything is cut short, so that no
    /// part of one is left at the end.
    pub fn reason(
        &self,
        value: &Value,
        outcome: &Result<bool, String>,
        redactor: &Redactor,
    ) -> Option<String> {
        let words = ReasonWriter {
            redactor: redactor.errors(),
        };
        match outcome {
            Ok(true) => None,
            Ok(false) => Some(words.outside(&self.0, value)),
            Err(why) => {
                let why = words.redactor.text(why);
                Some(format!("{why}: {}", words.judged(&self.0, value)))
            }
        }
    }
}

struct ReasonWriter<'r> {
    redactor: &'r Redactor,
}

impl ReasonWriter<'_> {
    fn outside(&self, rule: &Criterion, value: &Value) -> String {
        let judged = self.judged(rule, value);
        let wanted = match rule {
            Criterion::Is(wanted) => {
                return format!("{judged} is out of tolerance {}", self.json(wanted));
            }
            Criterion::SuccessOrIs(wanted) => {
                return format!("{judged} is out of tolerance {wanted}");
            }
            Criterion::StatusOrIs(wanted) => {
                return format!("{judged} is out of tolerance {wanted}");
            }
            Criterion::OneOf(list) => {
                let list = self.json(&Value::Array(list.clone()));
                return format!("{judged} is out of tolerance {list}");
            }
            Criterion::Regex { regex, .. } => format!("no match of {}", self.text(regex.as_str())),
            Criterion::Jsonpath { expect, count, .. } => match (expect, count) {
                (Some(expect), _) => format!("{} is wanted", self.json(expect)),
                (None, Some(count)) => format!("{count} are wanted"),
                (None, None) => "something is wanted".into(),
            },
            Criterion::Range { least, most, .. } => format!("{least} to {most} is wanted"),
            Criterion::Compare { op, with, .. } => {
                let op = serde_json::to_value(op).unwrap_or_default();
                let op = op.as_str().unwrap_or_default();
                format!("`{op} {}` is wanted", self.json(with))
            }
            Criterion::Probe { .. } | Criterion::Truthy => "something true is wanted".into(),
        };
        // A path's words are a sentence of their own.
        let is = match rule {
            Criterion::Jsonpath { .. } | Criterion::Compare { path: Some(_), .. } => ", which is",
            _ => " is",
        };
        format!("{judged}{is} out of tolerance: {wanted}")
    }

    /// What of the value was judged.
    fn judged(&self, rule: &Criterion, value: &Value) -> String {
        match rule {
            Criterion::StatusOrIs(_) | Criterion::OneOf(_) => match status_of(value) {
                Some(status) => format!("status {}", self.json(status)),
                None => self.shown(value),
            },
            Criterion::Regex { target, .. } | Criterion::Range { target, .. } => {
                self.part(value, target.as_deref())
            }
            Criterion::Jsonpath { path, target, .. } => self.found(path, value, target.as_deref()),
            Criterion::Compare {
                path: Some(path), ..
            } => self.found(path, value, None),
            Criterion::Is(_)
            | Criterion::SuccessOrIs(_)
            | Criterion::Compare { path: None, .. }
            | Criterion::Probe { .. }
            | Criterion::Truthy => self.shown(value),
        }
    }

    /// A part of a value, with its name.
    fn part(&self, value: &Value, target: Option<&str>) -> String {
        let shown = part(value, target).map_or_else(|_| self.shown(value), |part| self.shown(part));
        match name_of(value, target) {
            Some(name) => format!("{name} {shown}"),
            None => shown,
        }
    }

    /// What a path finds in a part of a value.
    fn found(&self, path: &JsonPath, value: &Value, target: Option<&str>) -> String {
        let name = name_of(value, target);
        let Ok(looked_at) = part(value, target) else {
            return self.shown(value);
        };
        let within = name.map_or_else(String::new, |name| format!(" in {name}"));
        let json = match as_json(looked_at) {
            Ok(json) if !json.is_string() => json,
            Ok(_) => {
                let name = name.unwrap_or("value");
                return format!("the {name} is not JSON ({})", self.shown(looked_at));
            }
            Err(_) => return self.part(value, target),
        };
        let found = path.query(&json).all();
        let path = self.text(&path.to_string());
        match found[..] {
            [] => {
                let shown = self.shown(&json);
                match name {
                    Some(name) => format!("{path} finds nothing in {name} {shown}"),
                    None => format!("{path} finds nothing in {shown}"),
                }
            }
            [one] => format!("{path} finds {}{within}", self.shown(one)),
            ref several => {
                let list: Value = several.iter().map(|one| (*one).clone()).collect();
                let count = several.len();
                format!("{path} finds {count} values {}{within}", self.json(&list))
            }
        }
    }

    /// A value: text as it is, anything else as JSON.
    fn shown(&self, value: &Value) -> String {
        match value {
            Value::String(text) => self.text(text.trim_end()),
            other => self.json(other),
        }
    }

    fn json(&self, value: &Value) -> String {
        cut(&self.redactor.value(value.clone()).to_string())
    }

    fn text(&self, text: &str) -> String {
        let clean = self.redactor.text(text);
        format!("`{}`", cut(&clean.replace('\n', "\\n")))
    }
}

/// The name of the part that is looked at, where the value has it.
fn name_of<'t>(value: &Value, target: Option<&'t str>) -> Option<&'t str> {
    target.filter(|target| value.get(target).is_some())
}

fn cut(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(MAX_SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
