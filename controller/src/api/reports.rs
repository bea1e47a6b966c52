//! Reports of runs and of game days.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::{PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::safe_integer::optional_safe_integer;
use crate::report::ReportFormat;
use crate::service::{ReportError, ReportMoment};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
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

/// Which form of the report of a game day is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GameDayReportQuery {
    /// The format: `html`, `markdown` or `json`. The default is `markdown`.
    #[serde(default)]
    #[param(value_type = String, pattern = "^(html|markdown|json)$")]
    format: ReportFormat,
    /// How many of the game day's notes the report has, for comparison with one that was made earlier. The default is all.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    notes: Option<u64>,
    /// How many notes each run has in the report, by step, e.g. `3,0`, for comparison. The default is all.
    #[serde(default, rename = "run-notes", deserialize_with = "counts")]
    #[param(rename = "run-notes", value_type = Option<String>, pattern = "^[0-9]{1,9}(,[0-9]{1,9}){0,99}$")]
    run_notes: Option<Vec<u64>>,
    /// The number of the last change of an action that the report knows, for comparison. The default is the latest.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    actions: Option<u64>,
}

/// Reads a list of counts such as `3,0`.
fn counts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u64>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    let is_number =
        |count: &str| (1..=9).contains(&count.len()) && count.bytes().all(|c| c.is_ascii_digit());
    let counts: Vec<&str> = text.split(',').collect();
    if counts.len() > 100 || !counts.iter().all(|count| is_number(count)) {
        return Err(D::Error::custom("expected up to 100 counts such as `3,0`"));
    }
    let counts = counts.iter().filter_map(|count| count.parse().ok());
    Ok(Some(counts.collect()))
}

impl From<ReportError> for ApiProblem {
    fn from(error: ReportError) -> Self {
        let what = error.to_string();
        match error {
            ReportError::Store(error) => error.into(),
            ReportError::IsOpen(_) => ApiProblem::new(StatusCode::CONFLICT, "open", what)
                .hint("follow the run with `backburn runs RUN --follow`, or stop it with `backburn stop RUN`"),
            ReportError::GameDayIsOpen(_) => ApiProblem::new(StatusCode::CONFLICT, "open", what)
                .hint("`backburn gameday next GAMEDAY` goes on to its end, `backburn gameday stop GAMEDAY` ends it"),
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
    let moment = ReportMoment {
        notes: which.notes,
        actions: which.actions,
        run_notes: None,
    };
    let text = blocking(move || {
        let report = service.report(&run, &moment)?;
        Ok::<_, ReportError>(report.render(which.format))
    })
    .await?;
    Ok(answer(which.format, text))
}

/// Returns the report of a game day that is over: what was asked, what was hit, who noticed it when, what was decided, and the proof
/// that everything is reverted. The same journals and notes give the same bytes.
#[utoipa::path(get, path = "/api/v1/game-days/{id}/report", tag = "game-days", operation_id = "game_day_report", params(("id" = String, Path, description = "The id of the game day"), GameDayReportQuery), security(("token" = ["viewer"])), responses((status = 200, content((String = "text/markdown"), (String = "text/html"), (Value = "application/json"))), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn game_day_report(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    QueryParams(which): QueryParams<GameDayReportQuery>,
) -> Result<Response, ApiProblem> {
    let service = Arc::clone(&api.service);
    let moment = ReportMoment {
        notes: which.notes,
        actions: which.actions,
        run_notes: which.run_notes,
    };
    let text = blocking(move || {
        let report = service.game_day_report(&id, &moment)?;
        Ok::<_, ReportError>(report.render(which.format))
    })
    .await?;
    Ok(answer(which.format, text))
}

fn answer(format: ReportFormat, text: String) -> Response {
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, fixed(format.content_type())),
        (header::CONTENT_SECURITY_POLICY, fixed(REPORT_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ];
    (headers, text).into_response()
}
