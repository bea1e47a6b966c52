//! How Python compares what JSON becomes there; the Chaos Toolkit's tolerances are its `==`, `<=` and `in`.

use serde_json::Value;

/// Python's `==`: `True` is 1, and 1 is 1.0.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_) | Value::Bool(_), Value::Number(_) | Value::Bool(_)) => {
            match (whole(a), whole(b)) {
                (Some(a), Some(b)) => a == b,
                _ => seeded_number(a) == seeded_number(b),
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Python's `<=`, which is an error between kinds that have no order.
pub(crate) fn at_most(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Number(_) | Value::Bool(_), Value::Number(_) | Value::Bool(_)) => {
            Ok(match (whole(a), whole(b)) {
                (Some(a), Some(b)) => a <= b,
                _ => seeded_number(a) <= seeded_number(b),
            })
        }
        (Value::String(a), Value::String(b)) => Ok(a <= b),
        (Value::Array(a), Value::Array(b)) => match a.iter().zip(b).find(|(a, b)| !equal(a, b)) {
            Some((a, b)) => at_most(a, b),
            None => Ok(a.len() <= b.len()),
        },
        _ => Err(format!("{} and {} do not compare", kind_of(a), kind_of(b))),
    }
}

/// What Python takes for true.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(_) => seeded_number(value) != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        other => other
            .as_i64()
            .map(i128::from)
            .or_else(|| other.as_u64().map(i128::from)),
    }
}

fn seeded_number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64(),
    }
}

/// A value as Python's `str` writes it: text as it is, `True`, `False` and `None`, else as JSON.
pub(crate) fn spelled(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => other.to_string(),
    }
}

/// What a value is, for a message.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
