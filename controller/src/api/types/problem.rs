//! Problem documents (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// The type of the problem, e.g. `urn:backburn:problem:overlap`. The last part is the rule.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, in one sentence.
    pub detail: String,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The id of the run that is recorded as not started, where a rule kept one from starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// All problems of a document, each with its JSON path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<DocumentProblem>,
    /// The id of the request, by which it is found in the controller's log; also in the header `X-Request-Id`.
    #[serde(
        default,
        rename = "request-id",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_id: Option<String>,
}

impl ProblemDetails {
    /// The rule that was violated: the last part of the problem's type.
    pub fn rule(&self) -> &str {
        self.kind.rsplit(':').next().unwrap_or_default()
    }
}

/// One problem of a document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DocumentProblem {
    /// The JSON path of the problem.
    pub at: String,
    /// What is wrong, in one sentence.
    pub what: String,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
