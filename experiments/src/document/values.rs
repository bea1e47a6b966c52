//! Where configured values come from.

use super::present;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A configured value: a literal, or its source.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Configured {
    /// The source of the value: an environment variable or a file.
    From(Source),
    /// A literal value.
    Literal(Value),
}

/// The source of a configured value.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// An environment variable of the process that runs the experiment.
    Env(FromEnvironment),
    /// The content of a file, without a newline at its end.
    File(FromFile),
}

/// A value from an environment variable.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FromEnvironment {
    /// Name of the variable.
    pub key: String,
    /// Value to use if the variable is not set. Without it, a missing variable is an error.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub default: Option<Value>,
    /// Type to which the text is converted, whether it comes from the environment, `--var`, a variables file or the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var_type: Option<VariableType>,
}

/// Type to which a variable's text is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum VariableType {
    Str,
    String,
    Bytes,
    Int,
    Integer,
    Float,
    Number,
    Bool,
    Json,
}

/// A value from a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FromFile {
    /// Path of the file.
    pub path: String,
}
