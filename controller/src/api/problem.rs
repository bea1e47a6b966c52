//! What an answer says when it is no: a problem document as in RFC 9457, with the rule and what would do.

use crate::service::StartError;
use crate::store::{StoreErrorKind, StoreError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backburn_experiments::wire::Refusal;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// Why something was not done.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(transparent)]
pub struct ApiProblem(Box<ProblemDetails>);

/// A problem document (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// What kind of problem, e.g. `urn:backburn:problem:overlap`: the last part is the rule.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, in one sentence.
    detail: String,
    /// What would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Everything that is wrong with a document, each with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<DocumentProblem>,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DocumentProblem {
    /// Where: a JSON path.
    at: String,
    /// What.
    what: String,
    /// What would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl ApiProblem {
    /// A problem of this rule.
    pub fn new(status: StatusCode, rule: &str, detail: impl Into<String>) -> Self {
        ApiProblem(Box::new(ProblemDetails {
            kind: format!("urn:backburn:problem:{rule}"),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            problems: Vec::new(),
        }))
    }

    /// The same, saying what would do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A document that is wrong.
    pub fn invalid(problems: Vec<backburn_experiments::Problem>) -> Self {
        let count = match problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let detail = format!("the experiment has {count}");
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).places(problems)
    }

    /// The same, with everything that is wrong and its place.
    #[must_use]
    pub fn places(mut self, problems: Vec<backburn_experiments::Problem>) -> Self {
        self.0.problems = problems
            .into_iter()
            .map(|problem| DocumentProblem {
                at: problem.at,
                what: problem.what,
                hint: problem.hint,
            })
            .collect();
        self
    }

    /// Something of this name is not there.
    pub fn not_found(what: impl Into<String>) -> Self {
        ApiProblem::new(StatusCode::NOT_FOUND, "not-there", what)
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(json!(self))).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"backburn\""),
            );
        }
        response
    }
}

impl From<StoreError> for ApiProblem {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotThere => ApiProblem::not_found(error.to_string()),
            StoreErrorKind::Conflict => ApiProblem::new(StatusCode::CONFLICT, "conflict", error.to_string()),
            _ => {
                tracing::error!(%error, "the store failed");
                // What is inside is for the log.
                ApiProblem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store",
                    "the controller's store can't be used",
                )
                .hint("the controller's log says why; `backburn halt` works all the same")
            }
        }
    }
}

impl From<Refusal> for ApiProblem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.rule.as_str() {
            "not-there" => StatusCode::NOT_FOUND,
            "policy" | "approval" => StatusCode::FORBIDDEN,
            _ => StatusCode::CONFLICT,
        };
        let mut problem = ApiProblem::new(status, &refusal.rule, refusal.what);
        problem.0.hint = refusal.hint;
        problem
    }
}

impl From<StartError> for ApiProblem {
    fn from(refused: StartError) -> Self {
        match refused {
            StartError::Invalid(problems) => ApiProblem::invalid(problems),
            StartError::Refusal(refusal) => refusal.into(),
            StartError::Store(error) => error.into(),
            StartError::Waits(approval) => ApiProblem::new(
                StatusCode::FORBIDDEN,
                "approval",
                format!(
                    "a second person has to approve of `{}`, by the rule `{}`",
                    approval.id, approval.rule
                ),
            ),
        }
    }
}
