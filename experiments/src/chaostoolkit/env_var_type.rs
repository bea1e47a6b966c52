//! The types that `env_var_type` gives to a text from the environment.

use crate::json;
use serde_json::Value;

/// What an environment variable's text becomes, as the Chaos Toolkit converts it; a default is
/// converted as well. None where it cannot be.
pub fn convert(kind: &str, value: Value) -> Option<Value> {
    let text = value.as_str().map(|text| text.trim().replace('_', ""));
    match (kind, &value) {
        ("str" | "string" | "bytes", _) => Some(value),
        ("int" | "integer", Value::String(_)) => text?.parse::<i64>().ok().map(Value::from),
        ("int" | "integer", Value::Bool(flag)) => Some(Value::from(i64::from(*flag))),
        ("int" | "integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => Some(Value::from(whole)),
            None => number
                .as_f64()
                .filter(|float| float.abs() < 9e15)
                .map(|float| Value::from(float as i64)),
        },
        ("float" | "number", Value::String(_)) => text?.parse::<f64>().ok().and_then(finite),
        ("float" | "number", Value::Bool(flag)) => finite(f64::from(u8::from(*flag))),
        ("float" | "number", Value::Number(number)) => number.as_f64().and_then(finite),
        ("bool", Value::Bool(_)) => Some(value),
        ("bool", Value::String(text)) => Some(Value::Bool(
            !["false", "0", "no"].contains(&text.to_lowercase().as_str()),
        )),
        ("json", Value::String(text)) if !text.is_empty() => json::read(text).ok(),
        ("json", _) => Some(value),
        _ => None,
    }
}

fn finite(float: f64) -> Option<Value> {
    serde_json::Number::from_f64(float).map(Value::Number)
}
