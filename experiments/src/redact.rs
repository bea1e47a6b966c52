//! Keeps secrets out of whatever people see: journals, logs, reports, the API.

use crate::hexadecimal;
use crate::wire::{Effect, EndedInjection, PlanView, Refusal, UnrevertedInjection};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// What stands where a secret stood.
pub const REDACTED: &str = "***";

/// Shortest secret, in bytes, that is looked for in other encodings: of a shorter one, the encoded form is found everywhere.
const MIN_ENCODED_BYTES: usize = 4;

/// Replaces the values of secrets, wherever they stand: as they are, and as JSON, URLs, base64 and hexadecimal digits write them.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Secrets as text, the longest first, so that a secret within another leaves nothing of it.
    needles: Vec<String>,
    /// Secrets as base64 writes them somewhere within a longer text: what is left of them where they begin at each of the three
    /// places of a group. The whole run of base64 around one is replaced.
    base64: Vec<String>,
    /// Secrets that are numbers: in a text they count only where no other digit is next to them,
    /// or a secret `1` would take the ones out of every time and every port.
    numbers: Vec<String>,
    /// Values that are no secrets and are kept out of messages of errors: they count as words only.
    words: Vec<String>,
    /// What is taken out of messages of errors, where that is more.
    errors: Option<Arc<Redactor>>,
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
        redactor.sort();
        redactor
    }

    /// The same, which also takes these values out of messages of errors: those that an experiment's configuration has from the
    /// environment or from files. In journals and reports they stay, since they say what was measured.
    #[must_use]
    pub fn hiding_in_errors<'v>(mut self, values: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut errors = self.clone();
        values
            .into_iter()
            .for_each(|value| errors.collect_words(value));
        if !errors.words.is_empty() {
            errors.sort();
            self.errors = Some(Arc::new(errors));
        }
        self
    }

    /// What is taken out of the message of an error, or of a refusal.
    pub fn errors(&self) -> &Redactor {
        self.errors.as_deref().unwrap_or(self)
    }

    fn sort(&mut self) {
        let lists = [
            &mut self.needles,
            &mut self.base64,
            &mut self.numbers,
            &mut self.words,
        ];
        for list in lists {
            list.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            list.dedup();
        }
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                self.collect_text(text);
                // Programs print a secret from a file without its line ends.
                let trimmed = text.trim();
                if !trimmed.is_empty() && trimmed != text {
                    self.collect_text(trimmed);
                }
            }
            Value::Number(number) => self.numbers.push(number.to_string()),
            Value::Array(list) => list.iter().for_each(|member| self.collect(member)),
            Value::Object(fields) => fields.values().for_each(|member| self.collect(member)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// A secret text, and how it may be written.
    fn collect_text(&mut self, text: &str) {
        self.needles.push(text.to_owned());
        // What of it shows in a line of JSON, and in JSON within that.
        for quote in [quoted, quoted_in_ascii, quoted_with_slashes] {
            let mut written = text.to_owned();
            for _ in 0..2 {
                let inner = quote(&written);
                if inner == written {
                    break;
                }
                self.needles.push(inner.clone());
                written = inner;
            }
        }
        let in_html = in_html(text);
        if in_html != text {
            self.needles.push(in_html.replace("&#39;", "&#x27;"));
            self.needles.push(in_html);
        }
        if text.len() < MIN_ENCODED_BYTES {
            return;
        }
        let hex = hexadecimal(text);
        self.needles.push(hex.to_uppercase());
        self.needles.push(hex);
        for start in 0..3 {
            let within = base64_within(text.as_bytes(), start);
            self.base64.push(within.replace('+', "-").replace('/', "_"));
            self.base64.push(within);
        }
    }

    fn collect_words(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.trim().is_empty() => {}
            Value::String(text) => {
                let quoted = quoted(text);
                self.words.extend([text.trim().to_owned(), quoted]);
            }
            Value::Number(number) => self.numbers.push(number.to_string()),
            Value::Array(list) => list.iter().for_each(|member| self.collect_words(member)),
            Value::Object(fields) => {
                (fields.values()).for_each(|member| self.collect_words(member))
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.needles.is_empty() && self.numbers.is_empty() && self.words.is_empty()
    }

    /// The text without the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for needle in &self.needles {
            if redacted.contains(needle.as_str()) {
                redacted = Cow::Owned(redacted.replace(needle.as_str(), REDACTED));
            }
        }
        for needle in &self.base64 {
            if let Some(without) = without_base64(&redacted, needle) {
                redacted = Cow::Owned(without);
            }
        }
        if redacted.contains('%') {
            for needle in &self.needles {
                if let Some(without) = without_percent_encoded(&redacted, needle) {
                    redacted = Cow::Owned(without);
                }
            }
        } else if redacted.contains('+') {
            let spaced = self.needles.iter().filter(|needle| needle.contains(' '));
            for needle in spaced.map(|needle| needle.replace(' ', "+")) {
                if redacted.contains(&needle) {
                    redacted = Cow::Owned(redacted.replace(&needle, REDACTED));
                }
            }
        }
        for word in &self.words {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            if let Some(without) = without_standing_alone(&redacted, word, is_part) {
                redacted = Cow::Owned(without);
            }
        }
        for number in &self.numbers {
            let is_digit = |c: char| c.is_ascii_digit();
            if let Some(without) = without_standing_alone(&redacted, number, is_digit) {
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
        let errors = self.errors();
        errors.redact(&mut refusal.what);
        errors.redact_all(&mut refusal.hint);
        for problem in &mut refusal.problems {
            errors.redact(&mut problem.what);
            errors.redact_all(&mut problem.hint);
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
        if self.is_empty() {
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

/// The text without this number or word, if it is there and nothing next to it is a part of the same one.
fn without_standing_alone(
    text: &str,
    word: &str,
    is_part: impl Fn(char) -> bool,
) -> Option<String> {
    let mut without = String::new();
    let mut from = 0;
    for (start, found) in text.match_indices(word) {
        let end = start + found.len();
        // What begins or ends with another character has its boundary within.
        let before = text[..start]
            .chars()
            .next_back()
            .filter(|_| word.starts_with(&is_part));
        let after = text[end..]
            .chars()
            .next()
            .filter(|_| word.ends_with(&is_part));
        if start >= from && !before.is_some_and(&is_part) && !after.is_some_and(&is_part) {
            without.push_str(&text[from..start]);
            without.push_str(REDACTED);
            from = end;
        }
    }
    (from > 0).then(|| without + &text[from..])
}

/// The text without each run of base64 that this is a part of.
fn without_base64(text: &str, needle: &str) -> Option<String> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    let mut without = String::new();
    let mut from = 0;
    for (at, found) in text.match_indices(needle) {
        let start = text[..at].rfind(|c| !is_base64(c));
        let start = start.map_or(0, |last| {
            last + text[last..].chars().next().map_or(1, char::len_utf8)
        });
        let rest = &text[at + found.len()..];
        let end = text.len() - rest.len() + rest.find(|c| !is_base64(c)).unwrap_or(rest.len());
        if at >= from {
            without.push_str(&text[from..start.max(from)]);
            without.push_str(REDACTED);
            from = end;
        }
    }
    (from > 0).then(|| without + &text[from..])
}

/// The text without this secret, wherever some or all of its bytes are percent-encoded, and spaces are `+` (RFC 3986, HTML forms).
fn without_percent_encoded(text: &str, needle: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut places = Vec::with_capacity(text.len() + 1);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        places.push(at);
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(escaped.unwrap_or(*byte));
    }
    places.push(at);
    let is_needle = |window: &[u8]| {
        let pairs = window.iter().zip(needle.as_bytes());
        let mut pairs =
            pairs.map(|(found, wanted)| found == wanted || (*found == b'+' && *wanted == b' '));
        pairs.all(|is_same| is_same)
    };
    let mut without = String::new();
    let (mut from, mut next) = (0, 0);
    for (index, window) in decoded.windows(needle.len().max(1)).enumerate() {
        if index < next || !is_needle(window) {
            continue;
        }
        next = index + needle.len();
        let (start, end) = (places[index], places[next]);
        without.push_str(text.get(from..start)?);
        without.push_str(REDACTED);
        from = end;
    }
    (from > 0).then(|| without + text.get(from..).unwrap_or_default())
}

/// A text as JSON writes it, without the quotes.
fn quoted(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A text as JSON writes it in ASCII, as Python does.
fn quoted_in_ascii(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in quoted(text).chars() {
        match c.is_ascii() {
            true => written.push(c),
            false => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    written.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    written
}

/// A text as JSON writes it with each `/` escaped, as PHP does.
fn quoted_with_slashes(text: &str) -> String {
    quoted(text).replace('/', "\\/")
}

/// A text as HTML writes it, in an element or in a quoted attribute. Reports write it with this, so that what is redacted is what they would say.
pub fn in_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// The digits of base64 (RFC 4648) that these bytes alone decide where `start` other bytes come before them in a group of three.
fn base64_within(bytes: &[u8], start: usize) -> String {
    let mut shifted = vec![0; start];
    shifted.extend_from_slice(bytes);
    let digits = BASE64_STANDARD.encode(&shifted);
    // Each digit is six bits: the first and the last ones may have bits of other bytes.
    let first = (start * 8).div_ceil(6);
    let last = shifted.len() * 8 / 6;
    digits.get(first..last).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
