//! What a probe's value is judged by, as it is written.

use super::{Provider, present};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a probe's value is judged by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tolerance {
    /// The value is this.
    Boolean(bool),
    /// The value is this; where it has a `status`, that is.
    Integer(i64),
    /// The value is this text.
    Text(String),
    /// The value's `status` is one of these; else it lies between two numbers; else it is one of these.
    AnyOf(Vec<Value>),
    /// A rule.
    Rule(Box<ToleranceRule>),
}

/// A rule that a value is judged by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToleranceRule {
    /// Text matches a regular expression somewhere.
    Regex(RegexTolerance),
    /// A JSONPath finds something.
    Jsonpath(JsonpathTolerance),
    /// A number, or text that is one, lies between two, both included.
    Range(RangeTolerance),
    /// A value compares.
    Compare(CompareTolerance),
    /// Another probe judges: its provider is given the value as `value`.
    Probe(Box<ProbeTolerance>),
}

/// Text matches a regular expression.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RegexTolerance {
    /// The expression (Rust's `regex` syntax).
    pub pattern: String,
    /// The part of the value that is looked at: `status`, `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A JSONPath finds something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JsonpathTolerance {
    /// The path (RFC 9535, and what of the Chaos Toolkit's dialect differs).
    pub path: String,
    /// The part of the value that is looked at: `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What must be found: exactly this, or exactly these in this order.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub expect: Option<Value>,
    /// How many must be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A number, or text that is one, lies between two, both included. Of anything else nobody knows where it lies.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RangeTolerance {
    /// The lowest and the highest.
    pub range: (f64, f64),
    /// The part of the value that is looked at: `status`, `body`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A value compares. Only numbers, and text that is one, are more or less than others.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CompareTolerance {
    /// A JSONPath to what is compared. The whole value where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How.
    pub op: CompareOp,
    /// With what.
    pub value: Value,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum CompareOp {
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = ">=")]
    GreaterOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = "contains")]
    Contains,
}

/// Another probe judges.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProbeTolerance {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Who does the work; its arguments get the value as `value`.
    pub provider: Provider,
    /// What its own answer is judged by. Left out, the answer itself must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
}
