//! Agents: listing, examining and revoking them.

use super::Api;
use super::auth::{Admin, Viewer};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::pagination::{PageByName, page};
use super::problem::ApiProblem;
use super::teams::visible;
use super::types::{
    AgentInfo, DoctorFinding, DuplicateInfo, FaultInfo, LabelsRequest, OwedInjection,
};
use crate::fleet::{ConnectedAgent, DrainGuard, DuplicateAlert};
use crate::pki::agent_registry::{LabelChange, RelabelError};
use crate::store;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::wire::ProbeOutcome;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// How long an agent may take to describe its faults.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take to examine its host.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(35);

fn agent(
    kept: store::EnrolledAgent,
    connected: Option<ConnectedAgent>,
    duplicate: Option<&DuplicateAlert>,
) -> AgentInfo {
    let mut agent = AgentInfo {
        name: kept.name,
        connected: connected.is_some(),
        unresponsive: false,
        labels: kept.labels,
        labels_by: kept.labels_by,
        facts: BTreeMap::new(),
        joined: kept.enrolled.to_string(),
        revoked: kept.revoked.map(|at| at.to_string()),
        version: None,
        address: None,
        since: None,
        heard: kept.heard.map(|at| at.to_string()),
        protocol: None,
        duplicate: duplicate.map(|duplicate| DuplicateInfo {
            address: duplicate.peer.to_string(),
            at: duplicate.at.to_string(),
        }),
        runs: Vec::new(),
        faults: Vec::new(),
        owed: Vec::new(),
    };
    if let Some(connected) = connected {
        agent.unresponsive = connected.unresponsive;
        agent.facts = connected.facts;
        agent.version = Some(connected.version);
        agent.address = Some(connected.peer.to_string());
        agent.since = Some(connected.since.to_string());
        agent.heard = Some(connected.heard.to_string());
        agent.protocol = Some(connected.protocol);
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

fn shown(api: &Api, kept: store::EnrolledAgent) -> AgentInfo {
    let fleet = api.service.fleet();
    let (connected, duplicates) = (fleet.get(&kept.name), fleet.duplicates());
    let duplicate = duplicates.get(&kept.name).copied();
    agent(kept, connected, duplicate.as_ref())
}

/// Lists all agents by name, including those that are not connected.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(PageByName), security(("token" = ["viewer"])), responses((status = 200, body = Vec<AgentInfo>)))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(PageByName { after, limit }): QueryParams<PageByName>,
) -> Result<Json<Vec<AgentInfo>>, ApiProblem> {
    let (service, limit) = (Arc::clone(&api.service), page(limit)?);
    let found = blocking(move || {
        visible(
            after,
            limit,
            |after, limit| service.store().agents(after, limit),
            |agent: &store::EnrolledAgent| &agent.name,
            |agent| Ok::<_, store::StoreError>(service.sees_agent(&who, agent)),
        )
    })
    .await?;
    let fleet = api.service.fleet();
    let duplicates = fleet.duplicates();
    let agents = found.into_iter().map(|kept| {
        let connected = fleet.get(&kept.name);
        let duplicate = duplicates.get(&kept.name);
        agent(kept, connected, duplicate)
    });
    Ok(Json(agents.collect()))
}

/// Returns an agent.
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = AgentInfo), ProblemStatus<404>))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<AgentInfo>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let kept = blocking(move || store.agent(&name)).await?;
    Ok(Json(shown(&api, kept)))
}

/// Returns the faults that a connected agent can inject, with their arguments, as the agent describes them.
#[utoipa::path(get, path = "/api/v1/agents/{name}/faults", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<FaultInfo>), ProblemStatus<404>))]
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

/// Has a connected agent examine its host and returns what is available and what is missing. The agent refuses while faults act on it.
#[utoipa::path(get, path = "/api/v1/agents/{name}/doctor", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<DoctorFinding>), ProblemStatus<404>))]
pub async fn doctor(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<DoctorFinding>>, ApiProblem> {
    let Some(handle) = api.service.fleet().handle(&name) else {
        let what = format!("no agent `{}` is connected", name.escape_debug());
        return Err(ApiProblem::not_found(what));
    };
    let (service, about) = (Arc::clone(&api.service), name.clone());
    blocking(move || service.audit(&who, "doctor", &about, "asked", json!({}))).await?;
    let failed = |why: &str| {
        let what = format!("agent `{name}` could not examine its host: {why}");
        ApiProblem::new(StatusCode::SERVICE_UNAVAILABLE, "agent", what)
    };
    match tokio::time::timeout(DOCTOR_TIMEOUT, handle.examine()).await {
        Ok(ProbeOutcome::Output(findings)) => {
            let findings = serde_json::from_value(findings);
            Ok(Json(findings.map_err(|error| failed(&error.to_string()))?))
        }
        Ok(ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why)) => Err(failed(&why)),
        Err(_) => Err(failed("it did not answer in time")),
    }
}

impl From<RelabelError> for ApiProblem {
    fn from(error: RelabelError) -> Self {
        match error {
            RelabelError::Refused(refusal) if refusal.rule == "label" => {
                let problem = ApiProblem::new(StatusCode::BAD_REQUEST, "body", refusal.what);
                match refusal.hint {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                }
            }
            RelabelError::Refused(refusal) => refusal.into(),
            RelabelError::Store(error) => error.into(),
        }
    }
}

/// Changes the labels that an agent is granted, and confirms those that stay. A run that has reserved the agent keeps it.
#[utoipa::path(patch, path = "/api/v1/agents/{name}/labels", tag = "agents", params(("name" = String, Path, description = "The agent's name")), request_body = LabelsRequest, security(("token" = ["admin"])), responses((status = 200, body = AgentInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn label(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(wanted): JsonBody<LabelsRequest>,
) -> Result<Json<AgentInfo>, ApiProblem> {
    let change = LabelChange {
        set: wanted.set,
        remove: wanted.remove.into_iter().collect(),
    };
    let (service, registry) = (Arc::clone(&api.service), Arc::clone(&api.registry));
    let kept = blocking(move || {
        registry.relabel(&name, &who.person, &change, |before, after| {
            let detail = json!({"before": before, "after": after});
            service.audit(&who, "label agent", &name, "asked", detail)
        })
    })
    .await?;
    Ok(Json(shown(&api, kept)))
}

/// How to revoke an agent.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RevokeQuery {
    /// Revoke the agent at once, without waiting for its runs. The agent then reverts its faults without reporting the result.
    #[serde(default)]
    force: bool,
}

/// Revokes an agent: its certificate becomes invalid and its connection is closed. Its runs are stopped and reverted first.
#[utoipa::path(delete, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name"), RevokeQuery), security(("token" = ["admin"])), responses((status = 200, body = AgentInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn revoke(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(RevokeQuery { force }): QueryParams<RevokeQuery>,
) -> Result<Json<AgentInfo>, ApiProblem> {
    // The runs of the agent are stopped and reverted, so this comes before that.
    let (service, asked) = (Arc::clone(&api.service), (who.clone(), name.clone()));
    blocking(move || -> Result<(), ApiProblem> {
        let (who, name) = asked;
        service.store().agent(&name)?;
        Ok(service.audit(
            &who,
            "revoke agent",
            &name,
            "asked",
            json!({"force": force}),
        )?)
    })
    .await?;
    let retired = match force {
        true => DrainGuard::of(api.service.fleet(), &name),
        false => api.service.drain(&name).await?,
    };
    let detail = json!({"force": force, "runs": retired.runs()});
    let (service, registry) = (Arc::clone(&api.service), Arc::clone(&api.registry));
    let kept = blocking(move || -> Result<store::EnrolledAgent, ApiProblem> {
        registry.revoke(&name)?;
        service.audit(&who, "revoke agent", &name, "done", detail)?;
        Ok(service.store().agent(&name)?)
    })
    .await?;
    api.service.fleet().disconnect(&kept.name);
    drop(retired);
    Ok(Json(agent(kept, None, None)))
}
