//! When experiments come by themselves.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::QueryParams;
use super::problem::ApiProblem;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Which times.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SchedulesQuery {
    /// How many of each, 1 to 1000; 10 where left out.
    #[serde(default = "default_count")]
    #[param(minimum = 1, maximum = 1000)]
    count: u16,
}

fn default_count() -> u16 {
    10
}

/// A schedule, with its next times.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleInfo {
    /// The experiment's name.
    experiment: String,
    /// Its version.
    version: u64,
    /// As the document says.
    schedule: Value,
    /// Its zone.
    time_zone: String,
    /// When it comes next, jitter included.
    times: Vec<String>,
}

/// The next times of each schedule. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", params(SchedulesQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<ScheduleInfo>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn list(
    _who: Viewer,
    State(api): State<Api>,
    QueryParams(SchedulesQuery { count }): QueryParams<SchedulesQuery>,
) -> Result<Json<Vec<ScheduleInfo>>, ApiProblem> {
    if !(1..=1000).contains(&count) {
        let what = format!("a `count` of {count} is none");
        return Err(ApiProblem::new(StatusCode::BAD_REQUEST, "query", what).hint("1 to 1000"));
    }
    let service = Arc::clone(&api.service);
    let found = blocking(move || service.scheduled(Timestamp::now(), count.into())).await?;
    let scheduled = found.into_iter().map(|found| ScheduleInfo {
        experiment: found.experiment,
        version: found.version,
        schedule: json!(found.schedule),
        time_zone: found.zone,
        times: found.times.iter().map(|due| due.at.to_string()).collect(),
    });
    Ok(Json(scheduled.collect()))
}
