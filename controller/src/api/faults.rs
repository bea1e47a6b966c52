//! The faults that the controller knows.

use super::Api;
use super::auth::Viewer;
use super::problem::ApiProblem;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A fault.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fault)]
#[serde(rename_all = "kebab-case")]
pub struct FaultInfo {
    /// Its name.
    pub name: String,
    /// What it does.
    pub summary: String,
    /// Whether it is over once done; else it has a duration.
    pub one_shot: bool,
    /// The JSON Schema of its arguments.
    pub schema: Value,
    /// Arguments that make sense.
    pub example: Value,
}

/// The faults that the controller knows. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/faults", tag = "faults", security(("token" = ["viewer"])), responses((status = 200, body = Vec<FaultInfo>), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn faults(_who: Viewer, State(api): State<Api>) -> Json<Vec<FaultInfo>> {
    let known = api.service.catalogue().iter().cloned();
    Json(known.map(FaultInfo::from).collect())
}

impl From<backburn_experiments::wire::FaultDescription> for FaultInfo {
    fn from(fault: backburn_experiments::wire::FaultDescription) -> Self {
        FaultInfo {
            name: fault.name,
            summary: fault.summary,
            one_shot: fault.one_shot,
            schema: fault.schema,
            example: fault.example,
        }
    }
}
