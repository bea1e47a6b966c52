//! Upcoming scheduled runs.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::QueryParams;
use super::problem::ApiProblem;
use super::types::UpcomingRuns;
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
        let sees = found.iter().map(|schedule| {
            service.sees(&who, OwnedKind::Experiment, &schedule.experiment)
        });
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
        times: found.times.iter().map(|due| due.at.to_string()).collect(),
    });
    Ok(Json(scheduled.collect()))
}
