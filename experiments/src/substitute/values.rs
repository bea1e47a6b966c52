//! The values that are put in place, and where they come from.

use super::names;
use crate::python;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Where configured values come from, besides the document.
pub struct Sources<'a> {
    /// An environment variable's value.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// A file's content, or why it could not be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// From `--var`, `--var-file` and the API; they go before the document's configuration. A text
    /// becomes what the document says that the variable is. They are data: one that has the shape of
    /// a source (`{"type": "env", …}`, `{"type": "file", …}`) is refused, and nothing is read for it.
    pub variables: &'a Map<String, Value>,
    /// From `--var-file`, by scope; a scope takes the place of the document's.
    pub secrets: &'a Map<String, Value>,
}

/// What `${name}` can stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// The configuration, resolved.
    pub configuration: Map<String, Value>,
    /// The secrets, resolved: scope, key, value.
    pub secrets: Map<String, Value>,
    /// How values of the configuration that were given as text were written: within a text they
    /// stand like that, `1.10` and not `1.1`.
    pub texts: BTreeMap<String, String>,
    /// What messages never quote.
    pub confidential: Confidential,
}

/// What came from the environment, from a file or from a secret, and is never quoted in a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Confidential {
    /// Values of the configuration that the environment or a file gave.
    pub values: Vec<Value>,
    /// Names of variables whose value came from the environment, from a file or from a secret, or is made of one that did.
    pub names: BTreeSet<String>,
}

impl Values {
    /// The value of a name: the configuration's first, then the secrets' scopes in their order.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.configuration.get(name).or_else(|| {
            self.secrets
                .values()
                .find_map(|scope| scope.as_object()?.get(name))
        })
    }

    /// Every name there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let secrets = self
            .secrets
            .values()
            .filter_map(Value::as_object)
            .flat_map(Map::keys);
        self.configuration.keys().chain(secrets).map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names().next().is_none()
    }

    /// The values that this activity uses, without those that its own configuration replaces. The others are not copied: there may
    /// be a thousand activities, and megabytes of values.
    pub(super) fn for_activity(
        &self,
        activity: &Map<String, Value>,
        own: &Map<String, Value>,
    ) -> Values {
        let mut used = Vec::new();
        activity
            .values()
            .for_each(|value| names::of(value, &mut used));
        let used: BTreeSet<&str> = used.into_iter().collect();
        let only_used = |fields: &Map<String, Value>| -> Map<String, Value> {
            let used = fields
                .iter()
                .filter(|(name, _)| used.contains(name.as_str()));
            used.map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        let mut values = Values {
            configuration: only_used(&self.configuration),
            ..Values::default()
        };
        for name in own.keys() {
            values.configuration.remove(name);
        }
        for (scope, fields) in &self.secrets {
            if let Some(fields) = fields.as_object() {
                values
                    .secrets
                    .insert(scope.clone(), only_used(fields).into());
            }
        }
        let texts = self
            .texts
            .iter()
            .filter(|(name, _)| used.contains(name.as_str()) && !own.contains_key(*name));
        values.texts = texts
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect();
        values.confidential.names = self.confidential.names.clone();
        values
    }

    /// What stands within a text for this name: as it was given, else as Python writes it.
    pub(super) fn written_out(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(text) = self.texts.get(name) {
            return Some(text.into());
        }
        Some(python::spelled(self.get(name)?).into())
    }
}
