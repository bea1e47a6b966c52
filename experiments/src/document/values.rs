//! Where configured values come from.

use super::present;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A configured value: a literal, or where to find it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Configured {
    /// Where to find it: an environment variable or a file.
    From(Source),
    /// The value itself.
    Literal(Value),
}

/// Where a configured value comes from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// An environment variable of the process that runs the experiment.
    Env(FromEnvironment),
    /// A file's content, without the line end at its end.
    File(FromFile),
}

/// A value from the environment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FromEnvironment {
    /// The variable's name.
    pub key: String,
    /// The value where the variable is not set. Left out, a missing variable is an error.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub default: Option<Value>,
    /// What the text becomes, wherever it comes from: the environment, `--var`, a file of variables, the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var_type: Option<VariableType>,
}

/// What an environment variable's text becomes.
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
    /// The file's path.
    pub path: String,
}
