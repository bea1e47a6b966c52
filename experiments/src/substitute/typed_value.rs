//! Values that come from outside the document: `--var`, `--var-file`, the API's `variables`. What
//! is given as text becomes what the document says that the variable is, whatever it comes from.

use super::source::is_source;
use crate::chaostoolkit::convert;
use crate::{Problem, json};
use serde_json::{Number, Value};

/// A value that was given.
pub(super) struct TypedValue {
    /// What the variable is where it stands alone.
    pub(super) value: Value,
    /// What stands within a text; left out where the value itself is written out.
    pub(super) text: Option<String>,
}

impl TypedValue {
    fn plain(value: Value) -> Self {
        TypedValue { value, text: None }
    }

    fn with_text(value: Value, text: &str) -> Self {
        TypedValue {
            value,
            text: Some(text.to_owned()),
        }
    }
}

/// What a given value is, where `declared` is what the document writes for that variable.
///
/// # Errors
/// It cannot become what the document says, or it is JSON with a repeated key.
pub(super) fn typed(
    given: &Value,
    declared: Option<&Value>,
    at: &str,
) -> Result<TypedValue, Problem> {
    let kind = declared.and_then(declared_kind);
    let Value::String(text) = given else {
        // The giver has said what it is; it is spelled as it was written there, which is JSON.
        let value = match kind {
            Some(kind) => convert(kind, given.clone()).ok_or_else(|| no_such(kind, at))?,
            None => given.clone(),
        };
        let text = matches!(given, Value::Bool(_) | Value::Null).then(|| given.to_string());
        return Ok(TypedValue {
            text: text.filter(|_| kind.is_none()),
            value,
        });
    };
    // A text in double quotes is text, whatever it looks like.
    let quoted = match text.starts_with('"') {
        true => serde_json::from_str::<String>(text).ok(),
        false => None,
    };
    let is_quoted = quoted.is_some();
    let text = quoted.as_ref().unwrap_or(text);
    if let Some(kind) = kind {
        let value = convert(kind, Value::String(text.clone()));
        return value
            .map(TypedValue::plain)
            .ok_or_else(|| no_such(kind, at));
    }
    match declared {
        _ if is_quoted => Ok(TypedValue::plain(text.clone().into())),
        Some(Value::String(_)) => Ok(TypedValue::plain(text.clone().into())),
        Some(Value::Number(_)) => Ok(number(text, false).map_or_else(
            || TypedValue::plain(text.clone().into()),
            |number| TypedValue::with_text(number.into(), text),
        )),
        Some(Value::Bool(_)) => Ok(match text.as_str() {
            "true" => TypedValue::with_text(true.into(), text),
            "false" => TypedValue::with_text(false.into(), text),
            _ => TypedValue::plain(text.clone().into()),
        }),
        Some(Value::Object(_)) if declared.and_then(is_source) == Some("file") => {
            Ok(TypedValue::plain(text.clone().into()))
        }
        Some(Value::Array(_)) => list_or_object(text, at),
        Some(Value::Object(_)) if declared.and_then(is_source).is_none() => {
            list_or_object(text, at)
        }
        // Nothing says what it is: what is written exactly as JSON writes it is that.
        _ => match text.as_str() {
            "true" => Ok(TypedValue::with_text(true.into(), text)),
            "false" => Ok(TypedValue::with_text(false.into(), text)),
            "null" => Ok(TypedValue::with_text(Value::Null, text)),
            _ => match number(text, true) {
                Some(number) => Ok(TypedValue::with_text(number.into(), text)),
                None => list_or_object(text, at),
            },
        },
    }
}

/// The type that a declaration has: `env_var_type`.
fn declared_kind(declared: &Value) -> Option<&str> {
    is_source(declared).filter(|kind| *kind == "env")?;
    declared.get("env_var_type")?.as_str()
}

fn no_such(kind: &str, at: &str) -> Problem {
    // The value itself stays out of the message: it may be a secret.
    Problem::new(at, format!("the value that was given is no `{kind}`"))
        .hint("the variable's `env_var_type` says what it has to be")
}

/// The number that a text is. None where its digits would not all be kept: of a whole number that
/// is too large and, where `exactly`, of anything that JSON would not write back the same.
fn number(text: &str, exactly: bool) -> Option<Number> {
    let number: Number = serde_json::from_str(text.trim()).ok()?;
    let is_whole = text
        .bytes()
        .all(|byte| byte == b'-' || byte.is_ascii_digit());
    let is_kept = match exactly {
        true => number.to_string() == text,
        false => !is_whole || !number.is_f64(),
    };
    is_kept.then_some(number)
}

/// The list or the object that a text is; else the text.
fn list_or_object(text: &str, at: &str) -> Result<TypedValue, Problem> {
    if !text.trim_start().starts_with(['[', '{']) {
        return Ok(TypedValue::plain(text.into()));
    }
    if let Some(problem) = json::repeated_keys(text).into_iter().next() {
        let below = problem.at.trim_start_matches('$').to_owned();
        return Err(Problem {
            at: format!("{at}{below}"),
            ..problem
        });
    }
    Ok(match json::read(text) {
        Ok(value) => TypedValue::with_text(value, text),
        Err(_) => TypedValue::plain(text.into()),
    })
}
