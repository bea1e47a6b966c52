//! Runs: what they came to, what happened in them, ending them; and what waits for a second person.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::pagination::{PageByNumber, default_page_size, page};
use super::problem::ApiProblem;
use crate::service;
use crate::store::{self, RunFilter};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::journal::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
#[serde(rename_all = "kebab-case")]
pub struct RunInfo {
    /// Its id.
    id: String,
    /// The experiment's name, where it is one of those that are kept.
    experiment: Option<String>,
    /// Its version.
    version: Option<u64>,
    /// The experiment's title.
    title: String,
    /// What every pick came from.
    seed: u64,
    /// Who asked for it.
    who: String,
    /// Why: `asked` or `schedule`.
    because: String,
    /// When it began.
    started: String,
    /// When it ended; none while it goes on.
    ended: Option<String>,
    /// What it came to: `held`, `deviated`, `not-started`, `aborted`, `inconclusive`, `not-clean` or `not-injected`.
    outcome: Option<String>,
    /// The outcome's exit code.
    exit_code: Option<u8>,
    /// Why, in full.
    verdict: Option<Value>,
    /// How many events its journal has.
    events: u64,
}

fn word(value: impl Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

impl From<store::RunRecord> for RunInfo {
    fn from(kept: store::RunRecord) -> Self {
        let new = kept.new;
        let (experiment, version) = match new.experiment {
            Some(reference) => (Some(reference.name), Some(reference.version)),
            None => (None, None),
        };
        let end = kept.end;
        RunInfo {
            id: new.id,
            experiment,
            version,
            title: new.title,
            seed: new.seed,
            who: new.who,
            because: word(new.because),
            started: new.started.to_string(),
            ended: end.as_ref().map(|end| end.ended.to_string()),
            outcome: end.as_ref().map(|end| word(end.outcome)),
            exit_code: end.as_ref().map(|end| end.outcome.exit_code()),
            verdict: end.map(|end| end.verdict),
            events: kept.events,
        }
    }
}

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Of this experiment.
    experiment: Option<String>,
    /// That came to this.
    #[param(pattern = "^(held|deviated|not-started|aborted|inconclusive|not-clean|not-injected)$")]
    outcome: Option<String>,
    /// That go on, or that do not.
    open: Option<bool>,
    /// Those that began before this one.
    before: Option<String>,
    /// At the most so many, 1 to 1000; 100 where left out.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    limit: u32,
}

/// Runs, the newest first. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunsQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunInfo>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn list(
    _who: Viewer,
    State(api): State<Api>,
    QueryParams(which): QueryParams<RunsQuery>,
) -> Result<Json<Vec<RunInfo>>, ApiProblem> {
    let limit = page(which.limit)?;
    let outcome = match which.outcome {
        None => None,
        Some(word) => Some(
            serde_json::from_value::<Outcome>(word.clone().into()).map_err(|_| {
                let what = format!("`{}` is no outcome", word.escape_debug());
                ApiProblem::new(StatusCode::BAD_REQUEST, "query", what).hint(
                    "`held`, `deviated`, `not-started`, `aborted`, `inconclusive`, `not-clean` or `not-injected`",
                )
            })?,
        ),
    };
    let filter = RunFilter {
        experiment: which.experiment,
        outcome,
        open: which.open,
    };
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.runs(&filter, which.before.as_deref(), limit)).await?;
    Ok(Json(found.into_iter().map(RunInfo::from).collect()))
}

/// A run. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/runs/{run}", tag = "runs", params(("run" = String, Path, description = "The run's id")), security(("token" = ["viewer"])), responses((status = 200, body = RunInfo), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
) -> Result<Json<RunInfo>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.run(&run)).await?;
    Ok(Json(found.into()))
}

/// An event of a run's journal.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunJournalEntry {
    /// Its number, from 1.
    number: u64,
    /// The event, as in a local run's journal.
    entry: Value,
}

/// A run's journal. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/runs/{run}/events", tag = "runs", params(("run" = String, Path, description = "The run's id"), PageByNumber), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunJournalEntry>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn events(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(PageByNumber { after, limit }): QueryParams<PageByNumber>,
) -> Result<Json<Vec<RunJournalEntry>>, ApiProblem> {
    let (store, limit) = (Arc::clone(api.service.store()), page(limit)?);
    let found = blocking(move || store.events(&run, after, limit)).await?;
    let events = found.into_iter().map(|numbered| RunJournalEntry {
        number: numbered.number,
        entry: json!(numbered.entry),
    });
    Ok(Json(events.collect()))
}

/// A run as a trace, as an OpenTelemetry collector takes it (OTLP, the JSON encoding). Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/runs/{run}/trace", tag = "runs", params(("run" = String, Path, description = "The run's id")), security(("token" = ["viewer"])), responses((status = 200, body = Value), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn trace(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
) -> Result<Json<Value>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || service.trace(&run)).await?;
    found
        .map(Json)
        .ok_or_else(|| ApiProblem::not_found("nothing is in the run's journal yet"))
}

/// Why a run is ended.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// For people; it is in the verdict.
    #[serde(default)]
    why: Option<String>,
}

/// What became of a wish to end a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct StopResult {
    /// The run.
    run: String,
    /// Whether it went on until now; what it injected is being put back.
    stopping: bool,
}

/// Ends a run; everything is put back first. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/runs/{run}/stop", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = StopRequest, security(("token" = ["operator"])), responses((status = 202, body = StopResult), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn stop(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    JsonBody(reason): JsonBody<StopRequest>,
) -> Result<(StatusCode, Json<StopResult>), ApiProblem> {
    let said = reason.why.as_deref().map(|why| format!(": {why}"));
    let why = format!("stopped by `{}`{}", who.name, said.unwrap_or_default());
    let service = Arc::clone(&api.service);
    let stopping = blocking(move || -> Result<StopResult, ApiProblem> {
        service.store().run(&run)?;
        let stopping = service.stop(&run, why);
        let outcome = if stopping { "done" } else { "was over" };
        service.audit(&who, "stop", &run, outcome, json!({"why": reason.why}))?;
        Ok(StopResult { run, stopping })
    })
    .await?;
    Ok((StatusCode::ACCEPTED, Json(stopping)))
}

/// Something that waits for a second person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Approval)]
pub struct ApprovalInfo {
    /// Its name, and the id of the run that begins with the approval.
    id: String,
    /// The experiment.
    experiment: String,
    /// Its version.
    version: u64,
    /// What every pick comes from.
    seed: u64,
    /// Configuration values that go before the document's.
    variables: Map<String, Value>,
    /// Who asked.
    who: String,
    /// When.
    at: String,
    /// The rule of the controller's policy that wants a second person.
    rule: String,
}

impl From<service::PendingApproval> for ApprovalInfo {
    fn from(kept: service::PendingApproval) -> Self {
        ApprovalInfo {
            id: kept.id,
            experiment: kept.experiment,
            version: kept.version,
            seed: kept.seed,
            variables: kept.variables,
            who: kept.who,
            at: kept.at.to_string(),
            rule: kept.rule,
        }
    }
}

/// What waits for a second person. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "runs", security(("token" = ["viewer"])), responses((status = 200, body = Vec<ApprovalInfo>), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn approvals(
    _who: Viewer,
    State(api): State<Api>,
) -> Result<Json<Vec<ApprovalInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || service.approvals()).await?;
    Ok(Json(found.into_iter().map(ApprovalInfo::from).collect()))
}

/// A run that has begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovedRun {
    /// Its id.
    run: String,
}

/// Approves of what somebody else asked for, and starts it. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/approvals/{id}", tag = "runs", params(("id" = String, Path, description = "What waits")), security(("token" = ["operator"])), responses((status = 201, body = ApprovedRun), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn approve(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<(StatusCode, Json<ApprovedRun>), ApiProblem> {
    let service = Arc::clone(&api.service);
    let run = blocking(move || -> Result<String, ApiProblem> {
        service.audit(&who, "approve", &id, "asked", json!({}))?;
        Ok(service.approve(&id, &who)?)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(ApprovedRun { run })))
}
