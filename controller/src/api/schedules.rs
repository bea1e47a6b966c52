//! Upcoming scheduled runs, and pausing schedules.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{PauseInfo, PauseRequest, ResumeScheduleResult, UpcomingRuns};
use crate::service::SchedulePause;
use crate::store::{OwnedKind, StoreError};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::IntoParams;

/// How many upcoming runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SchedulesQuery {
    /// The number of upcoming runs of each schedule, from 1 to 1000. The default is 10.
    #[serde(default = "default_count")]
    #[param(minimum = 1, maximum = 1000)]
    count: u16,
}

fn default_count() -> u16 {
    10
}

/// Lists the upcoming runs of each schedule.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", params(SchedulesQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<UpcomingRuns>)))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(SchedulesQuery { count }): QueryParams<SchedulesQuery>,
) -> Result<Json<Vec<UpcomingRuns>>, ApiProblem> {
    if !(1..=1000).contains(&count) {
        let what = format!("`count` is out of range: {count}");
        return Err(ApiProblem::new(StatusCode::BAD_REQUEST, "query", what).hint("use 1 to 1000"));
    }
    let service = Arc::clone(&api.service);
    let found = blocking(move || {
        let mut found = service.scheduled(Timestamp::now(), count.into())?;
        let sees = found
            .iter()
            .map(|schedule| service.sees(&who, OwnedKind::Experiment, &schedule.experiment));
        let mut sees = sees.collect::<Result<Vec<_>, _>>()?.into_iter();
        found.retain(|_| sees.next().unwrap_or(false));
        Ok::<_, StoreError>(found)
    })
    .await?;
    let scheduled = found.into_iter().map(|found| UpcomingRuns {
        experiment: found.experiment,
        version: found.version,
        schedule: json!(found.schedule),
        time_zone: found.zone,
        times: match found.paused {
            Some(_) => Vec::new(),
            None => found.times.iter().map(|due| due.at.to_string()).collect(),
        },
        who: found.who,
        paused: found.paused.map(PauseInfo::from),
        stopped: found.stopped,
    });
    Ok(Json(scheduled.collect()))
}

impl From<SchedulePause> for PauseInfo {
    fn from(pause: SchedulePause) -> Self {
        PauseInfo {
            who: pause.who,
            at: pause.at.to_string(),
            why: pause.why,
        }
    }
}

/// Pauses the schedule of a stored experiment: it starts nothing until it is resumed, and nothing is made up for.
#[utoipa::path(post, path = "/api/v1/schedules/{name}/pause", tag = "schedules", params(("name" = String, Path, description = "The experiment's name")), request_body = PauseRequest, security(("token" = ["operator"])), responses((status = 200, body = PauseInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn pause(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<PauseRequest>,
) -> Result<Json<PauseInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let pause = blocking(move || service.pause_schedule(&name, request.why, &who)).await?;
    Ok(Json(pause.into()))
}

/// Resumes a paused schedule.
#[utoipa::path(post, path = "/api/v1/schedules/{name}/resume", tag = "schedules", params(("name" = String, Path, description = "The experiment's name")), security(("token" = ["operator"])), responses((status = 200, body = ResumeScheduleResult), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn resume(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<ResumeScheduleResult>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let was_paused = blocking(move || service.resume_schedule(&name, &who)).await?;
    Ok(Json(ResumeScheduleResult { was_paused }))
}
