//! Experiments that come with the request and are kept under no name: what they would hit, and starting them.

use super::Api;
use super::auth::Operator;
use super::experiments::{RunPlan, StartRunResult, begin, planned};
use super::extract::{JsonBody, optional_safe_integer};
use super::problem::ApiProblem;
use crate::service::{RunSpec, RequestedDocument, Actor};
use crate::store::Trigger;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::check::without_controls;
use backburn_experiments::json;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// An experiment, and how it is to be run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineRunRequest {
    /// The document's text, as in its file. It may read nothing of the controller's environment or files.
    experiment: String,
    /// Seed for random selection, up to 2^53; a random one where left out.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[schema(maximum = 9007199254740991_i64)]
    seed: Option<u64>,
    /// Configuration values that go before the document's.
    #[serde(default)]
    variables: Map<String, Value>,
    /// Whether the document's controls are left out: they are not played, and a document that has some is refused without this.
    #[serde(default, rename = "ignore-controls")]
    ignore_controls: bool,
}

fn asked(who: &Actor, request: InlineRunRequest) -> RunSpec {
    let text = match json::read(&request.experiment) {
        Ok(mut document) if request.ignore_controls => {
            match without_controls(&mut document).is_empty() {
                true => request.experiment,
                false => document.to_string(),
            }
        }
        // What is wrong with it is said when it is read as an experiment.
        _ => request.experiment,
    };
    RunSpec {
        document: RequestedDocument::Inline(text),
        reference: None,
        seed: request.seed,
        variables: request.variables,
        who: who.name.clone(),
        because: Trigger::Asked,
        approved_by: None,
        id: None,
    }
}

/// What a run of this experiment would hit on the fleet now, exactly; nothing is touched, and it is not kept. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/plans", tag = "runs", request_body = InlineRunRequest, security(("token" = ["operator"])), responses((status = 200, body = RunPlan), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn plan_given(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<InlineRunRequest>,
) -> Result<Json<RunPlan>, ApiProblem> {
    planned(&api, asked(&who, request)).await
}

/// Starts a run of this experiment, which is kept under no name: the run's journal has its SHA-256. Where the policy wants a second
/// person it is refused, since only an experiment that is kept can wait. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/runs", tag = "runs", request_body = InlineRunRequest, security(("token" = ["operator"])), responses((status = 201, body = StartRunResult), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn run_given(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<InlineRunRequest>,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    let ask = asked(&who, request);
    begin(&api, who, ask).await
}
