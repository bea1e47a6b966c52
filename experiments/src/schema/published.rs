//! The schema of experiments as it is published, read part by part. Making it from the types takes as long as everything else that
//! a short run does on this host, and a document needs few of its parts.

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// The published file, which a test compares with the schema that is made from the types.
pub(super) const PUBLISHED_TEXT: &str = include_str!("../../schema/experiment.json");

/// The key of the parts that `$ref`s name.
const DEFINITIONS: &str = "$defs";

/// A schema of which each definition is read when a `$ref` to it is followed.
pub(super) struct PublishedSchema {
    /// Everything but the definitions.
    root: Value,
    definitions: BTreeMap<&'static str, Definition>,
}

struct Definition {
    text: &'static RawValue,
    schema: OnceLock<Value>,
}

impl PublishedSchema {
    /// Reads the schema in this text, except its definitions.
    ///
    /// # Errors
    /// The text is not a JSON object, or its `$defs` are not.
    pub(super) fn read(text: &'static str) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let schema = reader.deserialize_map(Parts)?;
        reader.end()?;
        Ok(schema)
    }

    /// Everything but the definitions.
    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// What a `$ref` with this JSON pointer names, such as `/$defs/Activity`.
    pub(super) fn definition(&self, pointer: &str) -> Option<&Value> {
        let name = pointer.strip_prefix('/')?.strip_prefix(DEFINITIONS)?;
        let Definition { text, schema } = self.definitions.get(name.strip_prefix('/')?)?;
        // The text was found to be JSON when the whole was read. If it cannot be read, it allows nothing.
        Some(schema.get_or_init(|| serde_json::from_str(text.get()).unwrap_or(Value::Bool(false))))
    }
}

/// Takes a schema apart in one pass over its text.
struct Parts;

impl Visitor<'static> for Parts {
    type Value = PublishedSchema;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a schema")
    }

    fn visit_map<A: MapAccess<'static>>(self, mut parts: A) -> Result<PublishedSchema, A::Error> {
        let mut root = Map::new();
        let mut definitions = BTreeMap::new();
        while let Some(key) = parts.next_key::<&'static str>()? {
            if key != DEFINITIONS {
                root.insert(key.to_owned(), parts.next_value()?);
                continue;
            }
            let texts: BTreeMap<&'static str, &'static RawValue> = parts.next_value()?;
            definitions = (texts.into_iter())
                .map(|(name, text)| {
                    let schema = OnceLock::new();
                    (name, Definition { text, schema })
                })
                .collect();
        }
        Ok(PublishedSchema {
            root: Value::Object(root),
            definitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{document_schema, walk};
    use serde_json::json;

    #[test]
    fn published_schema_parts_are_those_of_the_types() {
        let published = PublishedSchema::read(PUBLISHED_TEXT).unwrap();
        let mut made = document_schema();
        let definitions = made.as_object_mut().unwrap().remove("$defs").unwrap();
        let hint = "run `BACKBURN_BLESS=1 cargo test -p backburn-experiments`";
        assert_eq!(*published.root(), made, "{hint}");
        let definitions = definitions.as_object().unwrap();
        assert!(definitions.len() > 20);
        assert_eq!(definitions.len(), published.definitions.len(), "{hint}");
        for (name, made) in definitions {
            let pointer = format!("/$defs/{name}");
            assert_eq!(published.definition(&pointer), Some(made), "{name}: {hint}");
        }
        for nowhere in [
            "",
            "/$defs",
            "/$defs/",
            "/$defs/Nothing",
            "/properties/title",
            "Step",
        ] {
            assert_eq!(published.definition(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn published_schema_reads_only_the_definitions_that_a_document_needs() {
        let published = PublishedSchema::read(PUBLISHED_TEXT).unwrap();
        let document = json!({"title": "t", "description": "d", "method": [
            {"type": "action", "name": "n", "provider": {"type": "process", "path": "true"}}
        ]});
        assert_eq!(walk::check_published(&published, &document, "$"), []);
        let is_read = |name: &str| published.definitions[name].schema.get().is_some();
        assert!(is_read("Activity") && is_read("Provider"));
        assert!(!is_read("Schedule") && !is_read("BlastRadius"));
    }

    #[test]
    fn check_by_the_published_schema_finds_the_same_problems() {
        let published = PublishedSchema::read(PUBLISHED_TEXT).unwrap();
        let made = document_schema();
        let documents = [
            json!(null),
            json!({}),
            json!({"title": "t", "description": "d", "method": "x", "titel": 1}),
            json!({"title": "", "description": "d", "method": [], "abort": [{"name": 1, "every": "soon"}]}),
            json!({"title": "t", "description": "d", "x-own": 1, "method": [
                {"type": "action", "name": "n", "provider": {"type": "fautl"}},
                {"type": "probe", "name": "n", "tolerance": {"type": "range"}, "provider": {"type": "http", "url": 1}},
            ], "targets": {"t": {"labels": [], "select": "200%"}}}),
        ];
        for document in documents {
            let expected = walk::check(&made, &document, "$");
            assert!(!expected.is_empty(), "{document}");
            assert_eq!(walk::check_published(&published, &document, "$"), expected);
        }
    }
}
