//! A Python function, so that the Chaos Toolkit's extension packages work as they are.

use super::{ProbeProvider, Transport};
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A function of a Python module.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PythonProvider {
    /// The module, as in `import`.
    #[schemars(length(min = 1))]
    pub module: String,
    /// The function in it.
    #[schemars(length(min = 1))]
    pub func: String,
    /// Keyword arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// Scopes of `secrets` that the function gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
}

impl ProbeProvider for PythonProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Python(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        timeout
    }

    fn refused_by_agents(&self) -> Option<&'static str> {
        Some("an agent runs no Python: leave out `from`, and the controller measures it")
    }

    fn runs_program(&self) -> bool {
        true
    }

    fn take_value(&mut self, value: &Value) -> Option<Result<(), String>> {
        let arguments = self.arguments.get_or_insert_default();
        arguments.insert("value".into(), value.clone());
        Some(Ok(()))
    }
}
