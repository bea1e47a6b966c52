//! The faults that the controller knows.

use super::Api;
use super::auth::Viewer;
use super::types::FaultInfo;
use axum::Json;
use axum::extract::State;

/// Lists the faults that the controller knows: its own, and the plug-ins that agents announce.
#[utoipa::path(get, path = "/api/v1/faults", tag = "faults", security(("token" = ["viewer"])), responses((status = 200, body = Vec<FaultInfo>)))]
pub async fn faults(_who: Viewer, State(api): State<Api>) -> Json<Vec<FaultInfo>> {
    let plugins = api.service.fleet().plugins().list();
    let known = api.service.catalogue().iter().cloned();
    Json(known.chain(plugins).map(FaultInfo::from).collect())
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
