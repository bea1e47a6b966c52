//! Reads JSON that a person or a stranger wrote: it says where and why it cannot be read, and
//! refuses a key that an object has twice. Which of the two values is meant nobody can know, and
//! readers of JSON differ about it (RFC 8259, section 4).

use crate::Problem;
use crate::problem::{at_index, at_key};
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// The most repeated keys that are told of one text.
const MAX_REPEATED_KEYS: usize = 100;

/// The text as JSON.
///
/// # Errors
/// The text is not JSON: the problem's place is its line and column. Or objects in it have a key
/// more than once: each place is the key's JSON path.
pub fn read(text: &str) -> Result<Value, Vec<Problem>> {
    let (value, repeated) = parse(text).map_err(|problem| vec![problem])?;
    match repeated.is_empty() {
        true => Ok(value),
        false => Err(repeated),
    }
}

/// The same, from bytes.
///
/// # Errors
/// As for [`read`], and where the bytes are not text in UTF-8.
pub fn read_bytes(bytes: &[u8]) -> Result<Value, Vec<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => read(text),
        Err(error) => {
            let at = format!("byte {}", error.valid_up_to());
            Err(vec![Problem::new(at, "this is not text in UTF-8")])
        }
    }
}

/// The text as a value of this type.
///
/// # Errors
/// As for [`read`], and where the value has another form.
pub fn read_as<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Problem>> {
    serde_json::from_value(read(text)?).map_err(|error| vec![Problem::new("$", error.to_string())])
}

/// The keys that objects in this text have more than once; none where it is not JSON at all.
pub fn repeated_keys(text: &str) -> Vec<Problem> {
    parse(text).map_or_else(|_| Vec::new(), |(_, repeated)| repeated)
}

/// Problems as one line, for a message that has no room for several.
pub fn in_one_line(problems: &[Problem]) -> String {
    let each = problems.iter();
    let each = each.map(|problem| format!("{}: {}", problem.at, problem.what));
    each.collect::<Vec<_>>().join("; ")
}

/// The text as JSON, with the last value of each repeated key, and those keys: for whoever has
/// more to say about the text than that.
pub(crate) fn parse(text: &str) -> Result<(Value, Vec<Problem>), Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let repeated = RefCell::new(Vec::new());
    let reader = ValueReader {
        repeated: &repeated,
        place: ValuePath::Root,
    };
    let mut source = serde_json::Deserializer::from_str(text);
    let value = reader.deserialize(&mut source);
    let value = value.and_then(|value| source.end().map(|()| value));
    match value {
        Ok(value) => Ok((value, repeated.into_inner())),
        Err(error) => Err(problem_of(text, &error)),
    }
}

fn problem_of(text: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or(&what);
    let problem = Problem::new(
        format!("line {line}, column {column}"),
        format!("this is no JSON: {what}"),
    );
    match hint(text, line, column, what) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// Where a value stands in the text; written out only where there is a problem.
enum ValuePath<'p> {
    Root,
    Key(&'p ValuePath<'p>, &'p str),
    Index(&'p ValuePath<'p>, usize),
}

impl ValuePath<'_> {
    fn path(&self) -> String {
        match self {
            ValuePath::Root => "$".into(),
            ValuePath::Key(parent, key) => at_key(&parent.path(), key),
            ValuePath::Index(parent, index) => at_index(&parent.path(), *index),
        }
    }
}

/// Reads one value and notes the keys that are repeated in it.
struct ValueReader<'r> {
    repeated: &'r RefCell<Vec<Problem>>,
    place: ValuePath<'r>,
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueReader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element_seed(ValueReader {
            repeated: self.repeated,
            place: ValuePath::Index(&self.place, list.len()),
        })? {
            list.push(member);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let place = ValuePath::Key(&self.place, &key);
            if fields.contains_key(&key) {
                self.note(place.path(), &key);
            }
            let value = members.next_value_seed(ValueReader {
                repeated: self.repeated,
                place,
            })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

impl ValueReader<'_> {
    fn note(&self, at: String, key: &str) {
        let mut repeated = self.repeated.borrow_mut();
        let is_new = repeated.iter().all(|problem: &Problem| problem.at != at);
        if is_new && repeated.len() < MAX_REPEATED_KEYS {
            repeated.push(
                Problem::new(at, format!("the key `{key}` is there more than once"))
                    .hint("keep one of them: nobody can know which one is meant"),
            );
        }
    }
}

fn hint(text: &str, line: usize, column: usize, what: &str) -> Option<&'static str> {
    let here = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // serde_json counts columns in bytes, from 1; the byte it stopped at is the last one read.
    let rest = here.get(column.saturating_sub(1)..).unwrap_or_default();
    let start = text.trim_start();
    if start.is_empty() {
        Some("the text is empty; a document starts with `{`")
    } else if !start.starts_with(['{', '[']) {
        Some("JSON is wanted, which starts with `{`; YAML has to be turned into JSON first")
    } else if what.contains("trailing comma") {
        Some("take out the comma before the closing bracket")
    } else if what.contains("EOF") {
        Some("a `}`, a `]` or a `\"` is missing at the end")
    } else if rest.starts_with('\'') {
        Some("JSON has double quotes only")
    } else if rest.starts_with('/') || rest.starts_with('#') {
        Some("JSON has no comments; use an `x-…` key")
    } else if what.contains("expected `,`") {
        Some("a comma is missing before this, or a quote or a bracket is not closed")
    } else if what.contains("key must be a string") {
        Some("a key stands in double quotes")
    } else if what.contains("control character") {
        Some("a line end within text is written `\\n`")
    } else if what.contains("trailing characters") {
        Some("the document has ended before this: there is a closing bracket too many")
    } else if what.contains("recursion limit") {
        Some("at the most 127 lists and objects stand within each other")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_usual_slip_has_its_place_and_a_hint() {
        for (text, at, hint) in [
            ("", "line 1, column 0", "empty"),
            ("title: x", "line 1, column 2", "YAML"),
            ("{\"a\": 1,}", "line 1, column 9", "comma before"),
            (
                "{\"a\": 1\n\"b\": 2}",
                "line 2, column 1",
                "comma is missing",
            ),
            ("{'a': 1}", "line 1, column 2", "double quotes"),
            ("{\"a\": 'x'}", "line 1, column 7", "double quotes"),
            ("{\n// c\n\"a\": 1}", "line 2, column 1", "comments"),
            ("{\"a\": {", "line 1, column 7", "missing at the end"),
            ("{}}", "line 1, column 3", "too many"),
            ("{a: 1}", "line 1, column 2", "key"),
            ("{\"a\": \"x\ny\"}", "line 2, column 0", "`\\n`"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.at, at, "{text:?}: {problem}");
            assert!(
                problem.hint.as_deref().unwrap_or_default().contains(hint),
                "{text:?}: {problem}"
            );
        }
        assert!(parse("\u{feff}{}").is_ok());
        assert!(parse(&"[".repeat(1_000)).is_err());
    }

    #[test]
    fn repeated_keys_are_all_refused_with_their_paths() {
        let problems = read(
            r#"{"a": {"b": 1, "c": [{"d": 1}, {"d": 1, "d": 2, "d": 3}], "b": 2}, "a": {"x y": 1, "x y": 1}, "\u0065": 1, "e": 1}"#,
        )
        .unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
        assert_eq!(places, ["$.a.c[1].d", "$.a.b", "$.a", "$.a['x y']", "$.e"]);
        assert!(read(r#"{"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, {"k": 1}]}"#).is_ok());
        assert!(read_as::<Vec<u8>>("[1, 2]").is_ok_and(|list| list == [1, 2]));
        assert!(read_as::<Vec<u8>>("[256]").is_err());
        assert!(read_bytes(b"\xff").is_err());
    }

    #[test]
    fn a_text_without_repeated_keys_is_read_as_serde_json_reads_it() {
        let text = r#"{"z": null, "a": [true, -1, 18446744073709551615, 1.5, 1e400, "é\n"], "$serde_json::private::RawValue": 1}"#;
        assert!(read(text).is_err(), "a number beyond all bounds");
        let text = text.replace("1e400", "1e300");
        let wanted = json!({"z": null, "a": [true, -1, u64::MAX, 1.5, 1e300, "é\n"], "$serde_json::private::RawValue": 1});
        assert_eq!(read(&text).unwrap(), wanted);
        assert!(read(&format!("{}{}", "[".repeat(127), "]".repeat(127))).is_ok());
        assert!(read(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_err());
    }
}
