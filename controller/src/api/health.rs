//! Whether the controller is alive, and whether it can start runs.

use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::{Api, blocking};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The answer of a controller that is alive.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The version of the controller's program.
    version: &'static str,
}

/// Answers while the controller is alive. Requires no token.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Answers while the controller can start runs: its store can be read and no halt is in force. Requires no token.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = Health), ProblemStatus<503>))]
pub async fn readyz(State(api): State<Api>) -> Result<Json<Health>, ApiProblem> {
    if api.service.halted().is_some() {
        let what = "a halt is in force";
        return Err(ApiProblem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "halt",
            what,
        ));
    }
    let store = Arc::clone(api.service.store());
    blocking(move || store.setting("ready").map(|_| ())).await?;
    Ok(healthz().await)
}
