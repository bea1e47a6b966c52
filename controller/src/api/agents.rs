//! Agents: who is connected, who is known, and keeping somebody out.

use super::Api;
use super::experiments::AfterName;
use super::halt::Left;
use super::input::{Asked, Named};
use super::operations::{Fault, blocking, page};
use super::problem::Problem;
use super::who::{Admin, Viewer};
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
const DESCRIBED_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to look what its host can do.
const EXAMINED_WITHIN: Duration = Duration::from_secs(35);

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Agent {
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
    owed: Vec<Left>,
}

fn agent(kept: store::Agent, connected: Option<ConnectedAgent>) -> Agent {
    let mut agent = Agent {
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
        agent.owed = connected.owed.into_iter().map(Left::from).collect();
    }
    agent
}

/// Agents by name, those that are not connected too. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(AfterName), security(("token" = ["viewer"])), responses((status = 200, body = Vec<Agent>), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    _who: Viewer,
    State(api): State<Api>,
    Asked(AfterName { after, limit }): Asked<AfterName>,
) -> Result<Json<Vec<Agent>>, Problem> {
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
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Agent), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Agent>, Problem> {
    let store = Arc::clone(api.service.store());
    let kept = blocking(move || store.agent(&name)).await?;
    let connected = api.service.fleet().get(&kept.name);
    Ok(Json(agent(kept, connected)))
}

/// All about the faults that an agent can inject, as it says itself. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/agents/{name}/faults", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<Fault>), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn faults(
    _who: Viewer,
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Vec<Fault>>, Problem> {
    let Some(handle) = api.service.fleet().handle(&name) else {
        let what = format!("no agent `{}` is connected", name.escape_debug());
        return Err(Problem::not_there(what));
    };
    match tokio::time::timeout(DESCRIBED_WITHIN, handle.describe()).await {
        Ok(Some(faults)) => Ok(Json(faults.into_iter().map(Fault::from).collect())),
        Ok(None) | Err(_) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "agent",
            format!("agent `{name}` does not answer"),
        )),
    }
}

/// A thing that a host was examined for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Finding {
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
#[utoipa::path(get, path = "/api/v1/agents/{name}/doctor", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<Finding>), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn doctor(
    _who: Viewer,
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Vec<Finding>>, Problem> {
    let Some(handle) = api.service.fleet().handle(&name) else {
        let what = format!("no agent `{}` is connected", name.escape_debug());
        return Err(Problem::not_there(what));
    };
    let no = |why: &str| {
        let what = format!("agent `{name}` does not say: {why}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "agent", what)
    };
    match tokio::time::timeout(EXAMINED_WITHIN, handle.examine()).await {
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
pub struct Revocation {
    /// At once: what it has to put back is left to itself, and nobody is told whether it did.
    #[serde(default)]
    force: bool,
}

/// Keeps an agent out: its certificate is good for nothing any more, and its link is closed. Runs that it takes part in are
/// stopped first, and put back. Wants the role admin.
#[utoipa::path(delete, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name"), Revocation), security(("token" = ["admin"])), responses((status = 200, body = Agent), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json")))]
pub async fn revoke(
    Admin(who): Admin,
    State(api): State<Api>,
    Named(name): Named<String>,
    Asked(Revocation { force }): Asked<Revocation>,
) -> Result<Json<Agent>, Problem> {
    let retired = match force {
        true => DrainGuard::of(api.service.fleet(), &name),
        false => api.service.retire(&name).await?,
    };
    let detail = json!({"force": force, "runs": retired.runs()});
    let (service, enrolment) = (Arc::clone(&api.service), Arc::clone(&api.enrolment));
    let kept = blocking(move || -> Result<store::Agent, Problem> {
        enrolment.revoke(&name)?;
        service.audit(&who, "revoke agent", &name, "done", detail)?;
        Ok(service.store().agent(&name)?)
    })
    .await?;
    api.service.fleet().dismiss(&kept.name);
    drop(retired);
    Ok(Json(agent(kept, None)))
}
