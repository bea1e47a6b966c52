//! The document's JSON Schema, made from the types in `document`, and the check of a value
//! against such a schema. The check knows what schemars writes and no more: it is here for its
//! messages (every problem at once, each with its place and what would do), which see
//! `docs/decisions/schema-validation.md`.

mod leaf;
mod published;
mod spelling;
mod walk;

use crate::{Problem, document::Document};
use published::{PUBLISHED_TEXT, PublishedSchema};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The JSON Schema (draft 2020-12) of an experiment whose `${name}`s have been put in place.
pub fn document_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>().to_value();
    allow_extensions(&mut schema);
    bound_integers(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".into(), json!("Backburn experiment"));
        root.insert("$id".into(), json!("urn:backburn:experiment:1"));
    }
    schema
}

/// The JSON Schema (draft 2020-12) of a document that people write, with its title and its id.
pub fn titled<T: JsonSchema>(title: &str, id: &str) -> Value {
    let mut schema = generate::<T>(false);
    bound_integers(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".into(), json!(title));
        root.insert("$id".into(), json!(id));
    }
    schema
}

/// The JSON Schema of a type of ours, e.g. of a fault's arguments or of a policy, with every part
/// in its place, so that flags can be made of its properties.
pub fn of<T: JsonSchema>() -> Value {
    let mut schema = generate::<T>(true);
    bound_integers(&mut schema);
    schema
}

fn generate<T: JsonSchema>(inline: bool) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = inline);
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Lets every object that knows its keys have `x-…` keys as well.
fn allow_extensions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("additionalProperties") == Some(&Value::Bool(false)) {
                object.insert("patternProperties".into(), json!({"^x-": true}));
            }
            object.values_mut().for_each(allow_extensions);
        }
        Value::Array(list) => list.iter_mut().for_each(allow_extensions),
        _ => {}
    }
}

/// Says in `maximum`, which everyone reads, what schemars says in `format: uint32`, which nobody does.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("format").and_then(Value::as_str) == Some("uint32") {
                object.entry("maximum").or_insert_with(|| json!(u32::MAX));
            }
            object.values_mut().for_each(bound_integers);
        }
        Value::Array(list) => list.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// Everything in an experiment document, whose `${name}`s have been put in place, that [`document_schema`] does not allow.
pub fn check_document(document: &Value) -> Vec<Problem> {
    static PUBLISHED: LazyLock<Option<PublishedSchema>> =
        LazyLock::new(|| PublishedSchema::read(PUBLISHED_TEXT).ok());
    static MADE: LazyLock<Value> = LazyLock::new(document_schema);
    // While the types are worked on, they are ahead of the published file.
    let published = match cfg!(debug_assertions) {
        true => None,
        false => PUBLISHED.as_ref(),
    };
    match published {
        Some(schema) => walk::check_published(schema, document, "$"),
        None => walk::check(&MADE, document, "$"),
    }
}

/// Everything in `value` that `schema` does not allow. `at` is where `value` stands, e.g. `$`.
///
/// `schema` is what schemars writes for a type: `$ref` into its own `$defs`, `type`, `properties`,
/// `required`, `enum`, `const`, `oneOf`, `anyOf`, `allOf`, bounds, `pattern`, and `format: duration`.
pub fn check(schema: &Value, value: &Value, at: &str) -> Vec<Problem> {
    walk::check(schema, value, at)
}

/// The value as it is meant, if the schema allows it: known words may be written in another case, e.g. `TCP`.
///
/// # Errors
/// Everything in the value that the schema does not allow.
pub fn accept(schema: &Value, value: &Value, at: &str) -> Result<Value, Vec<Problem>> {
    let problems = check(schema, value, at);
    if problems.is_empty() {
        return Ok(value.clone());
    }
    let meant = spelling::with_known_words(schema, value);
    match meant != *value && check(schema, &meant, at).is_empty() {
        true => Ok(meant),
        false => Err(problems),
    }
}

#[cfg(test)]
mod tests;
