//! Experiments that come with the request and are not stored: planning and running them.

use super::Api;
use super::auth::Operator;
use super::experiments::{plan_request, start_request};
use super::extract::JsonBody;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{InlineRunRequest, RunPlan, StartRunResult};
use crate::service::{Actor, RequestedDocument, RunSpec};
use crate::store::Trigger;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::chaostoolkit::without_controls;
use backburn_experiments::json;

fn run_request(who: &Actor, request: InlineRunRequest) -> RunSpec {
    let text = match json::read(&request.experiment) {
        Ok(mut document) if request.ignore_controls => {
            match without_controls(&mut document).is_empty() {
                true => request.experiment,
                false => document.to_string(),
            }
        }
        // A text that is not JSON is reported when it is checked as an experiment.
        _ => request.experiment,
    };
    RunSpec {
        document: RequestedDocument::Inline(text),
        reference: None,
        seed: request.seed,
        variables: request.variables,
        who: who.name.clone(),
        person: who.person.clone(),
        teams: who.teams.clone(),
        because: Trigger::Asked,
        lock: request.lock,
    }
}

/// Returns what a run of this experiment would affect on the fleet now, without changing anything. The experiment is not stored.
#[utoipa::path(post, path = "/api/v1/plans", tag = "runs", request_body = InlineRunRequest, security(("token" = ["operator"])), responses((status = 200, body = RunPlan), ProblemStatus<409>, ProblemStatus<422>))]
pub async fn plan_given(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<InlineRunRequest>,
) -> Result<Json<RunPlan>, ApiProblem> {
    let ask = run_request(&who, request);
    plan_request(&api, who, ask).await
}

/// Starts a run of this experiment, which is not stored; the run's journal records its SHA-256. The run is refused if the policy
/// requires an approval: only runs of stored experiments can wait for one.
#[utoipa::path(post, path = "/api/v1/runs", tag = "runs", request_body = InlineRunRequest, security(("token" = ["operator"])), responses((status = 201, body = StartRunResult), ProblemStatus<409>, ProblemStatus<422>, ProblemStatus<423>))]
pub async fn run_given(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<InlineRunRequest>,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    let lock_wait = request.lock_wait;
    let ask = run_request(&who, request);
    start_request(&api, who, ask, lock_wait).await
}
