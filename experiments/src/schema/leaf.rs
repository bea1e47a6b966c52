//! What a schema says of one value alone: words, texts, numbers, types, and what to call them.

use crate::percent::Percent;
use crate::problem::{at_key, list_words, meant};
use crate::{HumanDuration, Problem};
use regex::Regex;
use serde_json::{Map, Value};

/// The key by whose constant all of these differ.
pub(super) fn shared_tag<'s>(branches: &[&'s Value]) -> Option<&'s str> {
    let properties = branches.first()?.get("properties")?.as_object()?;
    properties
        .keys()
        .map(String::as_str)
        .find(|key| branches.iter().all(|branch| tag_of(branch, key).is_some()))
}

pub(super) fn tag_of<'s>(branch: &'s Value, tag: &str) -> Option<&'s str> {
    branch.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// The one key that each of these must have, where each has one.
pub(super) fn single_keys<'s>(branches: &[&'s Value]) -> Option<Vec<&'s str>> {
    branches
        .iter()
        .map(
            |branch| match branch.get("required")?.as_array()?.as_slice() {
                [Value::String(key)] if branch.get("properties")?.as_object()?.len() == 1 => {
                    Some(key.as_str())
                }
                _ => None,
            },
        )
        .collect()
}

pub(super) fn none_of_the_keys(object: &Map<String, Value>, keys: &[&str], at: &str) -> Problem {
    let wrong = object.keys().find(|key| !key.starts_with("x-"));
    match wrong {
        Some(key) => Problem::new(at_key(at, key), format!("`{key}` is not known here"))
            .hint(meant(key, keys).unwrap_or_default()),
        None => {
            Problem::new(at, "the object is empty").hint(format!("one of {}", list_words(keys)))
        }
    }
}

pub(super) fn unknown_word(word: &str, known: &[&str], at: &str) -> Problem {
    let problem = Problem::new(at, format!("`{word}` is not known here"));
    match meant(word, known) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

pub(super) fn check_words(
    schema: &Map<String, Value>,
    value: &Value,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    let known = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(known)), _) => known.as_slice(),
        (_, Some(only)) => std::slice::from_ref(only),
        _ => return,
    };
    if known.contains(value) {
        return;
    }
    let words: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    problems.push(match value {
        Value::String(word) => unknown_word(word, &words, at),
        other => {
            let list: Vec<String> = known.iter().map(shown).collect();
            Problem::new(at, format!("{} is not known here", shown(other)))
                .hint(format!("one of {}", list.join(", ")))
        }
    });
}

pub(super) fn check_text(
    schema: &Map<String, Value>,
    text: &str,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    let length = text.chars().count() as u64;
    if schema
        .get("minLength")
        .and_then(Value::as_u64)
        .is_some_and(|least| length < least)
    {
        let what = if text.is_empty() {
            "the text is empty".into()
        } else {
            format!("`{text}` is too short")
        };
        problems.push(Problem::new(at, what));
    }
    if let Some(most) = schema
        .get("maxLength")
        .and_then(Value::as_u64)
        .filter(|most| length > *most)
    {
        problems.push(Problem::new(
            at,
            format!("the text is longer than {most} characters"),
        ));
    }
    if let Some(pattern) = schema
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|pattern| !matches(pattern, text))
    {
        let problem = || Problem::new(at, format!("`{text}` is not written as expected"));
        let examples = unreadable(schema, &Value::String(text.to_owned()), at);
        problems.push(match (examples, in_plain_words(pattern)) {
            (Some(problem), _) => problem,
            (None, Some(words)) => problem().hint(words),
            (None, None) => problem(),
        });
    } else if is_percent(schema)
        && let Ok(Percent(percent)) = text.parse()
        && let Some(percent) = serde_json::Number::from_f64(percent)
    {
        check_number(schema, &percent, at, problems);
    }
    if schema.get("format").and_then(Value::as_str) == Some("duration")
        && let Err(what) = text.parse::<HumanDuration>()
    {
        problems.push(Problem::new(at, what));
    }
}

fn is_percent(schema: &Map<String, Value>) -> bool {
    schema.get("format").and_then(Value::as_str) == Some("percent")
}

/// What a simple pattern asks for, in words. Patterns themselves are never shown: few people read them.
fn in_plain_words(pattern: &str) -> Option<String> {
    let start = pattern.strip_prefix('^')?;
    let is_plain = !start.contains(|c| r"\.[]()*+?{}|$^".contains(c));
    is_plain.then(|| format!("it has to begin with `{start}`"))
}

/// The problem of a value that cannot be read, with the examples of its schema; none where the schema has none.
pub(super) fn unreadable(schema: &Map<String, Value>, value: &Value, at: &str) -> Option<Problem> {
    let examples = schema.get("examples")?.as_array()?;
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("`{example}`"))
        .collect();
    let (last, first) = examples.split_last()?;
    let examples = match first.is_empty() {
        true => last.clone(),
        false => format!("{} or {last}", first.join(", ")),
    };
    let title = schema.get("title").and_then(Value::as_str);
    let title = title.unwrap_or("value");
    Some(
        Problem::new(at, format!("expected a {title}, got {}", shown(value)))
            .hint(format!("for example {examples}")),
    )
}

pub(super) fn check_number(
    schema: &Map<String, Value>,
    number: &serde_json::Number,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let (format_least, format_most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (Some(0.0), Some(f64::from(u8::MAX))),
        Some("uint16") => (Some(0.0), Some(f64::from(u16::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("uint64" | "uint") => (Some(0.0), None),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        // Past an i64 the parser keeps a u64 or a float.
        Some("int64") if number.as_i64().is_none() => (None, Some(i64::MAX as f64 - 1_024.0)),
        _ => (None, None),
    };
    let number = match is_percent(schema) {
        true => format!("{value} %"),
        false => number.to_string(),
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let least = bound("minimum").or(format_least);
    let most = bound("maximum").or(format_most);
    let mut wrong = |side: &str, limit: f64| {
        problems.push(Problem::new(at, format!("`{number}` is {side} {limit}")));
    };
    if let Some(least) = least.filter(|least| value < *least) {
        wrong("less than", least);
    }
    if let Some(most) = most.filter(|most| value > *most) {
        wrong("more than", most);
    }
    if let Some(limit) = bound("exclusiveMinimum").filter(|limit| value <= *limit) {
        wrong("not more than", limit);
    }
    if let Some(limit) = bound("exclusiveMaximum").filter(|limit| value >= *limit) {
        wrong("not less than", limit);
    }
}

pub(super) fn matches(pattern: &str, text: &str) -> bool {
    if let Some(start) = pattern
        .strip_prefix('^')
        .filter(|rest| !rest.contains(|c| r"\.[]()*+?{}|$^".contains(c)))
    {
        return text.starts_with(start);
    }
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// Whether a value is of a JSON Schema type. `1.0` is no integer here, as it is none to serde.
pub(super) fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn type_word(name: &str) -> &'static str {
    match name {
        "boolean" => "`true` or `false`",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "an object",
        _ => "nothing",
    }
}

pub(super) fn wrong_type(
    types: &[String],
    schema: &Map<String, Value>,
    value: &Value,
    at: &str,
) -> Problem {
    let mut wanted: Vec<&str> = types
        .iter()
        .filter(|name| *name != "null")
        .map(|name| type_word(name))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let problem = Problem::new(
        at,
        format!(
            "{} stands where {} is wanted",
            shown(value),
            wanted.join(" or ")
        ),
    );
    let is_duration = schema.get("format").and_then(Value::as_str) == Some("duration");
    match value {
        _ if is_duration => {
            problem.hint("a duration is `1m30s`, `250ms`, `PT90S` or a number of seconds")
        }
        Value::String(text) if !types.is_empty() => match serde_json::from_str::<Value>(text) {
            Ok(inner) if types.iter().any(|name| is_type(name, &inner)) => {
                problem.hint("leave out the quotes")
            }
            _ => problem,
        },
        _ if types.iter().any(|name| name == "array") && !value.is_array() => {
            problem.hint("put it in `[` and `]`")
        }
        _ => problem,
    }
}

/// A value as a message shows it, short.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("`{}…`", &text[..end]),
                None => format!("`{text}`"),
            }
        }
    }
}
