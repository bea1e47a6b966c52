//! The answer to a request that fails: a problem document (RFC 9457) with the rule that was violated and a hint.

use super::types::{DocumentProblem, ProblemDetails};
use crate::service::{GameDayError, LOCK_RULE, RunStartError};
use crate::store::{StoreError, StoreErrorKind};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backburn_experiments::wire::Refusal;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// The reason why a request failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(transparent)]
pub struct ApiProblem(Box<ProblemDetails>);

impl ApiProblem {
    /// A problem that a violation of this rule causes.
    pub fn new(status: StatusCode, rule: &str, detail: impl Into<String>) -> Self {
        ApiProblem(Box::new(ProblemDetails {
            kind: format!("urn:backburn:problem:{rule}"),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            run: None,
            problems: Vec::new(),
            request_id: None,
        }))
    }

    /// Adds a hint: what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    fn hint_if(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint;
        self
    }

    /// The problem of an experiment document that is invalid.
    pub fn invalid(problems: Vec<backburn_experiments::Problem>) -> Self {
        let count = match problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let detail = format!("the experiment has {count}");
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
            .with_document_problems(problems)
    }

    /// The problem of a game day, or of what is added to one, that is invalid.
    pub fn invalid_game_day(problems: Vec<backburn_experiments::Problem>) -> Self {
        let count = match problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let detail = format!("what was sent has {count}");
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
            .with_document_problems(problems)
    }

    /// Adds all problems of the document, each with its JSON path.
    #[must_use]
    pub fn with_document_problems(mut self, problems: Vec<backburn_experiments::Problem>) -> Self {
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

    /// The problem of a request for something that does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        ApiProblem::new(StatusCode::NOT_FOUND, "not-there", what)
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(mut self) -> Response {
        self.0.request_id = crate::request_id::current();
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
            StoreErrorKind::NotThere => {
                ApiProblem::not_found(error.to_string()).hint_if(error.hint)
            }
            StoreErrorKind::Conflict => {
                ApiProblem::new(StatusCode::CONFLICT, "conflict", error.to_string())
                    .hint_if(error.hint)
            }
            _ => {
                tracing::error!(%error, "the store failed");
                // The details belong in the log: they could reveal what is stored.
                ApiProblem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store",
                    "the controller's store is not available",
                )
                .hint("see the controller's log; `backburn halt` works nevertheless")
            }
        }
    }
}

impl From<Refusal> for ApiProblem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.rule.as_str() {
            "not-there" => StatusCode::NOT_FOUND,
            "policy" | "approval" => StatusCode::FORBIDDEN,
            LOCK_RULE => StatusCode::LOCKED,
            _ => StatusCode::CONFLICT,
        };
        let mut problem = ApiProblem::new(status, &refusal.rule, refusal.what);
        problem.0.hint = refusal.hint;
        problem
    }
}

impl From<GameDayError> for ApiProblem {
    fn from(error: GameDayError) -> Self {
        match error {
            GameDayError::Invalid(problems) => ApiProblem::invalid_game_day(problems),
            GameDayError::Refusal(refusal) => refusal.into(),
            GameDayError::Store(error) => error.into(),
        }
    }
}

impl From<RunStartError> for ApiProblem {
    fn from(refused: RunStartError) -> Self {
        match refused {
            RunStartError::Invalid(problems) => ApiProblem::invalid(problems),
            RunStartError::Refusal(refusal) => refusal.into(),
            RunStartError::NotStarted { run, refusal } => {
                let mut problem = ApiProblem::from(refusal);
                problem.0.run = Some(run);
                problem
            }
            RunStartError::Store(error) => error.into(),
            RunStartError::Waits(waiting) => ApiProblem::new(
                StatusCode::FORBIDDEN,
                "approval",
                format!(
                    "run `{}` waits for an approval, which rule `{}` requires",
                    waiting.approval.run, waiting.approval.rule
                ),
            ),
        }
    }
}
