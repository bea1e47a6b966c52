//! The halt: its status, ordering one, and ending it.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::{JsonBody, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{
    AgentHaltResult, GuardianRevert, HaltRequest, HaltResult, HaltStatus, OwedInjection, TeamHalt,
};
use crate::service::{self, Actor};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::wire::{EndedInjection, UnrevertedInjection};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::IntoParams;

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
    let last = api.service.last_halt();
    HaltStatus {
        halted: halted.is_some(),
        last_took_ms: last.map(|last| last.seconds * 1000.0),
        last_clean: last.map(|last| last.clean),
        at: halted.as_ref().map(|halted| halted.at.to_string()),
        why: halted.as_ref().and_then(|halted| halted.why.clone()),
        who: halted.map(|halted| halted.who),
        teams: api
            .service
            .halted_teams()
            .into_iter()
            .map(|(team, halted)| TeamHalt {
                team,
                who: halted.who,
                at: halted.at.to_string(),
                why: halted.why,
            })
            .collect(),
    }
}

/// Returns whether a halt is in force.
#[utoipa::path(get, path = "/api/v1/halt", tag = "halt", security(("token" = ["viewer"])), responses((status = 200, body = HaltStatus)))]
pub async fn state(_who: Viewer, State(api): State<Api>) -> Json<HaltStatus> {
    Json(halt_status(&api))
}

/// Orders a halt: every run ends, every fault is reverted and observed to be gone, and no run starts until the halt ends. A halt
/// works even while the store is unavailable. Any operator may halt the whole fleet, or the agents of one team of the token.
#[utoipa::path(post, path = "/api/v1/halt", tag = "halt", request_body = HaltRequest, security(("token" = ["operator"])), responses((status = 200, body = HaltResult), ProblemStatus<404>))]
pub async fn halt(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(wanted): JsonBody<HaltRequest>,
) -> Result<Json<HaltResult>, ApiProblem> {
    if let Some(team) = &wanted.team {
        check_team(&who, team)?;
    }
    let is_blind = who.is_blind;
    // On its own task, so that the halt goes on if the client closes the connection.
    let service = Arc::clone(&api.service);
    let (name, why, team) = (who.name.clone(), wanted.why.clone(), wanted.team.clone());
    let order = async move {
        match team {
            None => Ok(service.halt(&name, why).await),
            Some(team) => service.halt_team(&team, &name, why).await,
        }
    };
    let report = match tokio::spawn(order).await {
        Ok(report) => report?,
        Err(error) => {
            tracing::error!(%error, "the halt was ordered, but its report is lost; the whole fleet is halted");
            api.service.halt(&who.name, wanted.why.clone()).await
        }
    };
    // Written afterwards, and not required to succeed: a halt must not wait for the store.
    let service = Arc::clone(&api.service);
    let about = about(wanted.team.as_deref());
    let detail = json!({"why": wanted.why, "runs": report.runs, "agents": report.agents.len(), "took-ms": report.took_ms, "clean": report.clean});
    let written = blocking(move || service.audit(&who, "halt", &about, "done", detail)).await;
    if written.is_err() {
        tracing::error!("the halt could not be written to the audit log");
    }
    let mut result = HaltResult::from(report);
    if is_blind {
        // What was reverted where would tell what was hit.
        result.agents.clear();
    }
    Ok(Json(result))
}

/// Which halt to end.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResumeQuery {
    /// End the halt of this team. By default the halt of the whole fleet is ended; those of teams stay in force.
    team: Option<String>,
}

/// Ends the halt, so that runs can start again. Runs that were stopped stay stopped. A token that is limited to teams ends the halt
/// of a team of its own, or one of the whole fleet that it has ordered itself.
#[utoipa::path(delete, path = "/api/v1/halt", tag = "halt", params(ResumeQuery), security(("token" = ["operator"])), responses((status = 200, body = HaltStatus)))]
pub async fn resume(
    Operator(who): Operator,
    State(api): State<Api>,
    QueryParams(ResumeQuery { team }): QueryParams<ResumeQuery>,
) -> Result<Json<HaltStatus>, ApiProblem> {
    match &team {
        Some(team) => check_team(&who, team)?,
        None => {
            let halted = api.service.halted();
            let is_own = halted.is_none_or(|halted| halted.who == who.name);
            if !who.teams.is_empty() && !is_own {
                return Err(ApiProblem::new(
                    StatusCode::FORBIDDEN,
                    "team",
                    format!(
                        "token `{}` is limited to teams, and another one halted the whole fleet",
                        who.name
                    ),
                )
                .hint("ask an operator of all teams to resume"));
            }
        }
    }
    let service = Arc::clone(&api.service);
    blocking(move || {
        service.audit(&who, "resume", &about(team.as_deref()), "asked", json!({}))?;
        match team {
            None => service.resume(),
            Some(team) => service.resume_team(&team),
        }
    })
    .await?;
    Ok(Json(halt_status(&api)))
}

/// What a halt concerns, for the audit log.
fn about(team: Option<&str>) -> String {
    team.map_or("everything".into(), |team| format!("team {team}"))
}

/// Refuses a team that the token is not limited to.
fn check_team(who: &Actor, team: &str) -> Result<(), ApiProblem> {
    match who.teams.is_empty() || who.teams.contains(team) {
        true => Ok(()),
        false => Err(ApiProblem::new(
            StatusCode::FORBIDDEN,
            "team",
            format!(
                "token `{}` does not belong to team `{}`",
                who.name,
                team.escape_debug()
            ),
        )
        .hint("any operator may halt the whole fleet: `backburn halt`")),
    }
}
