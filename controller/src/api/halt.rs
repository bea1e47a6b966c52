//! The halt: its status, ordering one, and ending it.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::JsonBody;
use super::problem::ApiProblem;
use super::types::{
    AgentHaltResult, GuardianRevert, HaltRequest, HaltResult, HaltStatus, OwedInjection,
};
use crate::service;
use axum::Json;
use axum::extract::State;
use backburn_experiments::wire::{EndedInjection, UnrevertedInjection};
use serde_json::json;
use std::sync::Arc;

impl From<UnrevertedInjection> for OwedInjection {
    fn from(owed: UnrevertedInjection) -> Self {
        OwedInjection {
            injection: owed.injection,
            fault: owed.fault,
            residue: owed.residue,
        }
    }
}

impl From<EndedInjection> for GuardianRevert {
    fn from(ended: EndedInjection) -> Self {
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

fn halt_status(api: &Api) -> HaltStatus {
    let halted = api.service.halted();
    HaltStatus {
        halted: halted.is_some(),
        at: halted.as_ref().map(|halted| halted.at.to_string()),
        why: halted.as_ref().and_then(|halted| halted.why.clone()),
        who: halted.map(|halted| halted.who),
    }
}

/// Returns whether a halt is in force.
#[utoipa::path(get, path = "/api/v1/halt", tag = "halt", security(("token" = ["viewer"])), responses((status = 200, body = HaltStatus)))]
pub async fn state(_who: Viewer, State(api): State<Api>) -> Json<HaltStatus> {
    Json(halt_status(&api))
}

/// Orders a halt: every run ends, every fault is reverted and observed to be gone, and no run starts until the halt ends. A halt
/// works even while the store is unavailable.
#[utoipa::path(post, path = "/api/v1/halt", tag = "halt", request_body = HaltRequest, security(("token" = ["operator"])), responses((status = 200, body = HaltResult)))]
pub async fn halt(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(why): JsonBody<HaltRequest>,
) -> Json<HaltResult> {
    // On its own task, so that the halt goes on if the client closes the connection.
    let service = Arc::clone(&api.service);
    let (name, reason) = (who.name.clone(), why.why.clone());
    let halting = tokio::spawn(async move { service.halt(&name, reason).await }).await;
    let report = match halting {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(%error, "the halt was ordered, but its report is lost");
            api.service.halt(&who.name, why.why.clone()).await
        }
    };
    // Written afterwards, and not required to succeed: a halt must not wait for the store.
    let service = Arc::clone(&api.service);
    let detail = json!({"why": why.why, "runs": report.runs, "agents": report.agents.len(), "took-ms": report.took_ms, "clean": report.clean});
    let written = blocking(move || service.audit(&who, "halt", "everything", "done", detail)).await;
    if written.is_err() {
        tracing::error!("the halt could not be written to the audit log");
    }
    Json(report.into())
}

/// Ends the halt, so that runs can start again. Runs that were stopped stay stopped.
#[utoipa::path(delete, path = "/api/v1/halt", tag = "halt", security(("token" = ["operator"])), responses((status = 200, body = HaltStatus)))]
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
    Ok(Json(halt_status(&api)))
}
