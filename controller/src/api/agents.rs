//! Agents: who is connected, who is known, and keeping somebody out.

use super::Api;
use super::auth::{Admin, Viewer};
use super::blocking;
use super::extract::{PathParam, QueryParams};
use super::faults::FaultInfo;
use super::halt::OwedInjection;
use super::pagination::PageByName;
use super::pagination::page;
use super::problem::ApiProblem;
use crate::fleet::{ConnectedAgent, DrainGuard};
use crate::store;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::wire::Probed;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// How long an agent may take to describe its faults.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to look what its host can do.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(35);

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentInfo {
    /// Its name.
    name: String,
    /// Whether it is connected.
    connected: bool,
    /// Whether it is connected and does not answer: nothing was heard of it for a lease, although it was asked.
    unresponsive: bool,
    /// Given and found.
    labels: BTreeMap<String, String>,
    /// When it joined.
    joined: String,
    /// When it was revoked.
    revoked: Option<String>,
    /// The version of its program, where it is connected.
    version: Option<String>,
    /// Where it calls from.
    address: Option<String>,
    /// Since when.
    since: Option<String>,
    /// The runs that hold it; more than one where all of them share it.
    runs: Vec<String>,
    /// The faults that it can inject.
    faults: Vec<String>,
    /// What it could not put back: somebody has to look.
    owed: Vec<OwedInjection>,
}

fn agent(kept: store::EnrolledAgent, connected: Option<ConnectedAgent>) -> AgentInfo {
    let mut agent = AgentInfo {
        name: kept.name,
        connected: connected.is_some(),
        unresponsive: false,
        labels: kept.labels,
        joined: kept.enrolled.to_string(),
        revoked: kept.revoked.map(|at| at.to_string()),
        version: None,
        address: None,
        since: None,
        runs: Vec::new(),
        faults: Vec::new(),
        owed: Vec::new(),
    };
    if let Some(connected) = connected {
        agent.unresponsive = connected.unresponsive;
        agent.labels = connected.labels;
        agent.version = Some(connected.version);
        agent.address = Some(connected.peer.to_string());
        agent.since = Some(connected.since.to_string());
        agent.runs = connected.runs;
        agent.faults = connected.faults.to_vec();
        agent.owed = connected
            .owed
            .into_iter()
            .map(OwedInjection::from)
            .collect();
    }
    agent
}

/// Agents by name, those that are not connected too. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(PageByName), security(("token" = ["viewer"])), responses((status = 200, body = Vec<AgentInfo>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn list(
    _who: Viewer,
    State(api): State<Api>,
    QueryParams(PageByName { after, limit }): QueryParams<PageByName>,
) -> Result<Json<Vec<AgentInfo>>, ApiProblem> {
    let (store, limit) = (Arc::clone(api.service.store()), page(limit)?);
    let found = blocking(move || store.agents(after.as_deref(), limit)).await?;
    let fleet = api.service.fleet();
    let agents = found.into_iter().map(|kept| {
        let connected = fleet.get(&kept.name);
        agent(kept, connected)
    });
    Ok(Json(agents.collect()))
}

/// An agent. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = AgentInfo), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<AgentInfo>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let kept = blocking(move || store.agent(&name)).await?;
    let connected = api.service.fleet().get(&kept.name);
    Ok(Json(agent(kept, connected)))
}

/// All about the faults that an agent can inject, as it says itself. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents/{name}/faults", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<FaultInfo>), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 503, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn faults(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<FaultInfo>>, ApiProblem> {
    let Some(handle) = api.service.fleet().handle(&name) else {
        let what = format!("no agent `{}` is connected", name.escape_debug());
        return Err(ApiProblem::not_found(what));
    };
    match tokio::time::timeout(DESCRIBE_TIMEOUT, handle.describe()).await {
        Ok(Some(faults)) => Ok(Json(faults.into_iter().map(FaultInfo::from).collect())),
        Ok(None) | Err(_) => Err(ApiProblem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "agent",
            format!("agent `{name}` does not answer"),
        )),
    }
}

/// A thing that a host was examined for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Finding)]
pub struct DoctorFinding {
    /// What.
    name: String,
    /// Whether it is there: `yes`, `no` or `partly`.
    ok: String,
    /// What was seen.
    seen: String,
    /// What that means for faults, and what would do, where it is not all there.
    hint: Option<String>,
}

/// What an agent's host can do, and what is missing, as it finds now. Not while faults act on it. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents/{name}/doctor", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<DoctorFinding>), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 503, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn doctor(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<DoctorFinding>>, ApiProblem> {
    let Some(handle) = api.service.fleet().handle(&name) else {
        let what = format!("no agent `{}` is connected", name.escape_debug());
        return Err(ApiProblem::not_found(what));
    };
    let no = |why: &str| {
        let what = format!("agent `{name}` does not say: {why}");
        ApiProblem::new(StatusCode::SERVICE_UNAVAILABLE, "agent", what)
    };
    match tokio::time::timeout(DOCTOR_TIMEOUT, handle.examine()).await {
        Ok(Probed::Output(findings)) => {
            let findings = serde_json::from_value(findings);
            Ok(Json(findings.map_err(|error| no(&error.to_string()))?))
        }
        Ok(Probed::NoAnswer(why) | Probed::Broken(why)) => Err(no(&why)),
        Err(_) => Err(no("no answer came in time")),
    }
}

/// How an agent is kept out.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RevokeQuery {
    /// At once: what it has to put back is left to itself, and nobody is told whether it did.
    #[serde(default)]
    force: bool,
}

/// Keeps an agent out: its certificate is good for nothing any more, and its link is closed. Runs that it takes part in are
/// stopped first, and put back. Wants the role admin.
#[utoipa::path(delete, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name"), RevokeQuery), security(("token" = ["admin"])), responses((status = 200, body = AgentInfo), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn revoke(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(RevokeQuery { force }): QueryParams<RevokeQuery>,
) -> Result<Json<AgentInfo>, ApiProblem> {
    let retired = match force {
        true => DrainGuard::of(api.service.fleet(), &name),
        false => api.service.retire(&name).await?,
    };
    let detail = json!({"force": force, "runs": retired.runs()});
    let (service, registry) = (Arc::clone(&api.service), Arc::clone(&api.registry));
    let kept = blocking(move || -> Result<store::EnrolledAgent, ApiProblem> {
        registry.revoke(&name)?;
        service.audit(&who, "revoke agent", &name, "done", detail)?;
        Ok(service.store().agent(&name)?)
    })
    .await?;
    api.service.fleet().dismiss(&kept.name);
    drop(retired);
    Ok(Json(agent(kept, None)))
}
