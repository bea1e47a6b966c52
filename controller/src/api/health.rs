//! Whether the controller is alive, and whether it serves requests.

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

/// The answer of a controller that serves requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyState {
    /// Always `ok`.
    status: &'static str,
    /// The version of the controller's program.
    version: &'static str,
    /// Whether a halt is in force, so that no run starts. The controller is ready nevertheless: it can be told to resume.
    halted: bool,
}

/// Answers while the controller serves requests: its store can be read, and it is not shutting down. A halt does not make it
/// unready, because whoever routes by this would cut off the request that ends the halt. Requires no token.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = ReadyState), ProblemStatus<503>))]
pub async fn readyz(State(api): State<Api>) -> Result<Json<ReadyState>, ApiProblem> {
    if api.service.is_ending() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(ApiProblem::new(
            status,
            "ending",
            "the controller is shutting down",
        ));
    }
    let store = Arc::clone(api.service.store());
    blocking(move || store.setting("ready").map(|_| ())).await?;
    Ok(Json(ReadyState {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        halted: api.service.halted().is_some(),
    }))
}
