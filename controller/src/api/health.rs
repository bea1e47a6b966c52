//! Whether the controller is alive, and whether it can start runs.

use super::problem::ApiProblem;
use super::{Api, blocking};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Whether the controller lives. Wants no token.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether it can start runs: its store can be read, and the halt lever is not pulled. Wants no token.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = Health), (status = 503, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn readyz(State(api): State<Api>) -> Result<Json<Health>, ApiProblem> {
    if api.service.halted().is_some() {
        let what = "the halt lever is pulled";
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
