//! What is suggested for an agent.

use super::Api;
use super::auth::Operator;
use super::blocking;
use super::extract::PathParam;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{LeftOutInfo, SuggestionInfo, SuggestionsInfo};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::suggest::Suggestion;
use backburn_experiments::wire::Refusal;
use serde_json::json;
use std::sync::Arc;

impl From<Suggestion> for SuggestionInfo {
    fn from(suggestion: Suggestion) -> Self {
        SuggestionInfo {
            name: suggestion.name,
            reason: suggestion.reason,
            fault: suggestion.fault.to_owned(),
            experiment: suggestion.experiment,
        }
    }
}

fn problem(agent: &str, refusal: Refusal) -> ApiProblem {
    match refusal.rule.as_str() {
        "not-there" => {
            ApiProblem::not_found(format!("no agent `{}` is connected", agent.escape_debug()))
        }
        "agent" => ApiProblem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "agent",
            format!(
                "agent `{agent}` could not list its services: {}",
                refusal.what
            ),
        ),
        _ => refusal.into(),
    }
}

/// Suggests experiments for a connected agent by the services, units and containers that it sees on its host and what they are connected to.
/// Each is planned on the agent first; nothing is touched, stored or reserved.
#[utoipa::path(get, path = "/api/v1/agents/{name}/suggestions", tag = "agents", params(("name" = String, Path, description = "The agent's name")), security(("token" = ["operator"])), responses((status = 200, body = SuggestionsInfo), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn suggest(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<SuggestionsInfo>, ApiProblem> {
    let (service, about, asks) = (Arc::clone(&api.service), name.clone(), who.clone());
    // What an agent sees of its host is revealed.
    blocking(move || service.audit(&asks, "suggest", &about, "asked", json!({}))).await?;
    let found = api.service.suggest(&who, &name).await;
    let found = found.map_err(|refusal| problem(&name, refusal))?;
    let left_out = found.left_out.into_iter();
    Ok(Json(SuggestionsInfo {
        agent: name,
        suggestions: found.ready.into_iter().map(SuggestionInfo::from).collect(),
        left_out: left_out
            .map(|(why, names)| LeftOutInfo { why, names })
            .collect(),
    }))
}
