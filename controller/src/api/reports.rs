//! Reports of runs.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::{PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::safe_integer::optional_safe_integer;
use crate::report::ReportFormat;
use crate::service::ReportError;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// What a browser lets a report do: show its own styles. It has no script, and belongs to no origin.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// Which form of the report is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// The format: `html`, `markdown` or `json`. The default is `markdown`.
    #[serde(default)]
    #[param(value_type = String, pattern = "^(html|markdown|json)$")]
    format: ReportFormat,
    /// How many of the run's notes the report has, for comparison with one that was made earlier. The default is all.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    notes: Option<u64>,
    /// The number of the last change of an action that the report knows, for comparison. The default is the latest.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    actions: Option<u64>,
}

impl From<ReportError> for ApiProblem {
    fn from(error: ReportError) -> Self {
        let what = error.to_string();
        match error {
            ReportError::Store(error) => error.into(),
            ReportError::IsOpen(_) => ApiProblem::new(StatusCode::CONFLICT, "open", what)
                .hint("follow the run with `backburn runs RUN --follow`, or stop it with `backburn stop RUN`"),
            ReportError::Journal { .. } => {
                ApiProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal", what)
            }
        }
    }
}

/// Returns the report of a run that is over: what was asked, what was hit, what was measured, and the proof that everything is
/// reverted. The same journal and notes give the same bytes.
#[utoipa::path(get, path = "/api/v1/runs/{run}/report", tag = "runs", params(("run" = String, Path, description = "The run's id"), ReportQuery), security(("token" = ["viewer"])), responses((status = 200, content((String = "text/markdown"), (String = "text/html"), (Value = "application/json"))), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn run_report(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(which): QueryParams<ReportQuery>,
) -> Result<Response, ApiProblem> {
    let service = Arc::clone(&api.service);
    let text = blocking(move || {
        let report = service.report(&run, which.notes, which.actions)?;
        Ok::<_, ReportError>(report.render(which.format))
    })
    .await?;
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, fixed(which.format.content_type())),
        (header::CONTENT_SECURITY_POLICY, fixed(REPORT_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ];
    Ok((headers, text).into_response())
}
