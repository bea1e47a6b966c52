//! How a probe's value is judged, as written in the document.

use super::{Provider, present};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a probe's value is judged.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tolerance {
    /// The value equals this. `true` is also met by a `tcp` probe that connected, and by a `dns` probe whose answer has at least one record.
    Boolean(bool),
    /// The value, or its `status` if it has one, equals this.
    Integer(i64),
    /// The value equals this text.
    Text(String),
    /// If the value has a `status`, it is one of these; otherwise the value lies between two numbers; otherwise it is one of these.
    AnyOf(Vec<Value>),
    /// A rule that names its kind.
    Rule(Box<ToleranceRule>),
}

/// A rule by which a value is judged.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToleranceRule {
    /// A regular expression matches anywhere in the text.
    Regex(RegexTolerance),
    /// A JSONPath finds something in the value.
    Jsonpath(JsonpathTolerance),
    /// A number, or text that is one, lies between two limits, both included.
    Range(RangeTolerance),
    /// A value compares with another as required.
    Compare(CompareTolerance),
    /// Another probe judges: its provider receives the value as `value`.
    Probe(Box<ProbeTolerance>),
}

/// A regular expression matches anywhere in the text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RegexTolerance {
    /// Regular expression, in the syntax of Rust's `regex` crate.
    pub pattern: String,
    /// Part of the value to judge: `status`, `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A JSONPath finds something in the value.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JsonpathTolerance {
    /// JSONPath (RFC 9535, extended by the Chaos Toolkit's dialect).
    pub path: String,
    /// Part of the value to judge: `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Expected result: exactly this value, or exactly these values in this order.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub expect: Option<Value>,
    /// Expected number of results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A number, or text that is one, lies between two limits, both included. Any other value is unknown.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RangeTolerance {
    /// The lower and the upper limit.
    pub range: (f64, f64),
    /// Part of the value to judge: `status`, `body`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A value compares with another. Only numbers, and texts that are numbers, can be more or less than others.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CompareTolerance {
    /// JSONPath to the part to compare. Default: the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Comparison operator.
    pub op: CompareOp,
    /// Value to compare with.
    pub value: Value,
}

/// A comparison operator.
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

/// Another probe judges the value.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProbeTolerance {
    /// Name of the judging probe.
    #[serde(default)]
    pub name: String,
    /// What does the work. Its arguments receive the value as `value`.
    pub provider: Provider,
    /// How the answer is judged. Default: the answer itself must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
}
