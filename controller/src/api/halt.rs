//! The lever over HTTP.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::JsonBody;
use super::problem::ApiProblem;
use crate::service;
use axum::Json;
use axum::extract::State;
use backburn_experiments::wire::{Ended, Owed};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use utoipa::ToSchema;

/// Whether the lever is pulled.
#[derive(Debug, Serialize, ToSchema)]
pub struct HaltStatus {
    /// Whether nothing new starts.
    halted: bool,
    /// Who pulled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Why it is pulled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HaltRequest {
    /// For people.
    #[serde(default)]
    why: Option<String>,
}

/// What an agent did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AgentHaltResult {
    /// Its name.
    agent: String,
    /// From the command until it said that everything is observed gone, in milliseconds; none where it has not.
    took_ms: Option<f64>,
    /// What it could not put back.
    owed: Vec<OwedInjection>,
    /// Whether it is connected and does not answer: what it was asked for may still act.
    unresponsive: bool,
    /// What its guardian has said that it put back, because its worker died or hung.
    guardian: Vec<GuardianRevert>,
}

/// What a guardian put back for a worker that died or hung.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuardianRevert {
    /// The injection.
    injection: String,
    /// Whether it was observed gone.
    clean: bool,
    /// What is still there, where it was not.
    residue: Vec<String>,
}

/// Something that could not be put back.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwedInjection {
    /// The injection.
    injection: String,
    /// Its fault.
    fault: String,
    /// What is still there.
    residue: Vec<String>,
}

/// What a pull of the lever did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HaltReport)]
#[serde(rename_all = "kebab-case")]
pub struct HaltResult {
    /// The runs that were ended.
    runs: Vec<String>,
    /// What each agent did, the slowest first.
    agents: Vec<AgentHaltResult>,
    /// From the command until everything was observed gone, or we stopped waiting, in milliseconds.
    took_ms: f64,
    /// Whether everything is observed gone.
    clean: bool,
    /// Runs some of whose faults are not known to be over.
    unknown: Vec<String>,
    /// Whether the store remembers it; where it does not, a restart of the controller lets go of the lever.
    remembered: bool,
}

impl From<Owed> for OwedInjection {
    fn from(owed: Owed) -> Self {
        OwedInjection {
            injection: owed.injection,
            fault: owed.fault,
            residue: owed.residue,
        }
    }
}

impl From<Ended> for GuardianRevert {
    fn from(ended: Ended) -> Self {
        GuardianRevert {
            injection: ended.injection,
            clean: ended.clean,
            residue: ended.residue,
        }
    }
}

impl From<service::HaltReport> for HaltResult {
    fn from(report: service::HaltReport) -> Self {
        let agents = report.agents.into_iter().map(|agent| AgentHaltResult {
            agent: agent.agent,
            took_ms: agent.took_ms,
            owed: agent.owed.into_iter().map(OwedInjection::from).collect(),
            unresponsive: agent.unresponsive,
            guardian: agent
                .guardian
                .into_iter()
                .map(GuardianRevert::from)
                .collect(),
        });
        HaltResult {
            runs: report.runs,
            agents: agents.collect(),
            took_ms: report.took_ms,
            clean: report.clean,
            unknown: report.unknown,
            remembered: report.remembered,
        }
    }
}

fn lever(api: &Api) -> HaltStatus {
    let halted = api.service.halted();
    HaltStatus {
        halted: halted.is_some(),
        at: halted.as_ref().map(|halted| halted.at.to_string()),
        why: halted.as_ref().and_then(|halted| halted.why.clone()),
        who: halted.map(|halted| halted.who),
    }
}

/// Whether the halt lever is pulled. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/halt", tag = "halt", security(("token" = ["viewer"])), responses((status = 200, body = HaltStatus), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn state(_who: Viewer, State(api): State<Api>) -> Json<HaltStatus> {
    Json(lever(&api))
}

/// Pulls the lever: every run stops, every fault is put back and observed gone, and nothing new starts. Works while the store
/// does not. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/halt", tag = "halt", request_body = HaltRequest, security(("token" = ["operator"])), responses((status = 200, body = HaltResult), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn halt(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(why): JsonBody<HaltRequest>,
) -> Json<HaltResult> {
    // On a task of its own: whoever asked may go away, the lever stays pulled to its end.
    let service = Arc::clone(&api.service);
    let (name, reason) = (who.name.clone(), why.why.clone());
    let pulled = tokio::spawn(async move { service.halt(&name, reason).await }).await;
    let report = match pulled {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(%error, "the lever was pulled, and its report is lost");
            api.service.halt(&who.name, why.why.clone()).await
        }
    };
    // After the deed, and whether or not it can be written: this is the one deed that does not wait for paper.
    let service = Arc::clone(&api.service);
    let detail = json!({"why": why.why, "runs": report.runs, "agents": report.agents.len(), "took-ms": report.took_ms, "clean": report.clean});
    let written = blocking(move || service.audit(&who, "halt", "everything", "done", detail)).await;
    if written.is_err() {
        tracing::error!("the halt is not in the audit log");
    }
    Json(report.into())
}

/// Lets runs start again. What was stopped stays stopped. Wants the role operator.
#[utoipa::path(delete, path = "/api/v1/halt", tag = "halt", security(("token" = ["operator"])), responses((status = 200, body = HaltStatus), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 503, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn resume(
    Operator(who): Operator,
    State(api): State<Api>,
) -> Result<Json<HaltStatus>, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || {
        service.audit(&who, "resume", "everything", "asked", json!({}))?;
        service.resume()
    })
    .await?;
    Ok(Json(lever(&api)))
}
