//! Known words in another case: `TCP` where `tcp` is known.

use serde_json::{Map, Value};

/// Deeper than any value that is written by hand, and a guard against a schema that points at itself.
const MAX_DEPTH: usize = 64;

/// The value with each word that is known in another case only replaced by the known one.
pub(super) fn with_known_words(schema: &Value, value: &Value) -> Value {
    let mut value = value.clone();
    replace(schema, schema, &mut value, 0);
    value
}

fn replace(root: &Value, schema: &Value, value: &mut Value, depth: usize) {
    let Value::Object(schema) = schema else {
        return;
    };
    if depth > MAX_DEPTH {
        return;
    }
    if let Value::String(word) = value {
        let mut known = Vec::new();
        words(root, schema, depth, &mut known);
        if !known.contains(&word.as_str())
            && let Some(same) = known.iter().find(|known| known.eq_ignore_ascii_case(word))
        {
            *word = (*same).to_owned();
        }
        return;
    }
    for part in parts(root, schema) {
        replace(root, part, value, depth + 1);
    }
    match value {
        Value::Array(list) => {
            let items = schema.get("items");
            for (member, items) in list.iter_mut().zip(std::iter::repeat(items)) {
                if let Some(items) = items {
                    replace(root, items, member, depth + 1);
                }
            }
        }
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, member) in fields {
                if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                    replace(root, property, member, depth + 1);
                }
            }
        }
        _ => {}
    }
}

/// The schemas of which this one consists.
fn parts<'s>(root: &'s Value, schema: &'s Map<String, Value>) -> impl Iterator<Item = &'s Value> {
    let pointer = schema.get("$ref").and_then(Value::as_str);
    let target = pointer.and_then(|pointer| root.pointer(pointer.strip_prefix('#')?));
    let branches = ["allOf", "anyOf", "oneOf"]
        .iter()
        .filter_map(|key| schema.get(*key)?.as_array());
    target.into_iter().chain(branches.flatten())
}

/// The words that this schema knows.
fn words<'s>(
    root: &'s Value,
    schema: &'s Map<String, Value>,
    depth: usize,
    known: &mut Vec<&'s str>,
) {
    let list = schema.get("enum").and_then(Value::as_array);
    known.extend(list.into_iter().flatten().filter_map(Value::as_str));
    known.extend(schema.get("const").and_then(Value::as_str));
    if depth > MAX_DEPTH {
        return;
    }
    for part in parts(root, schema) {
        if let Value::Object(part) = part {
            words(root, part, depth + 1, known);
        }
    }
}
