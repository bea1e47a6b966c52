//! Runs: their results and journals, stopping them, and approvals.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blind::{hidden_entry, hidden_run, hides_run};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::pagination::{PageByNumber, default_page_size, page};
use super::problem::ApiProblem;
use super::teams::visible;
use super::types::{
    ApprovalInfo, ApprovedRun, RejectRequest, RunInfo, RunJournalEntry, RunPlan, StopRequest,
    StopResult,
};
use crate::service;
use crate::store::{self, OwnedKind, RunFilter, StoreError};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::journal::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::IntoParams;

/// The text that a value without fields is written as.
fn serialized_name(value: impl Serialize) -> String {
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
        let state = match (&end, kept.waiting) {
            (Some(_), _) => "over",
            (None, true) => "waiting-for-approval",
            (None, false) => "open",
        };
        RunInfo {
            id: new.id,
            experiment,
            version,
            title: new.title,
            seed: new.seed,
            who: new.who,
            because: serialized_name(new.because),
            state: state.to_owned(),
            started: new.started.to_string(),
            ended: end.as_ref().map(|end| end.ended.to_string()),
            outcome: end.as_ref().map(|end| serialized_name(end.outcome)),
            exit_code: end.as_ref().map(|end| end.outcome.exit_code()),
            verdict: end.map(|end| end.verdict),
            events: kept.events,
            cleaned: kept.cleaned.map(|at| at.to_string()),
        }
    }
}

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Only runs of the stored experiment with this name.
    experiment: Option<String>,
    /// Only runs with this outcome.
    #[param(pattern = "^(held|deviated|not-started|aborted|inconclusive|not-clean|not-injected)$")]
    outcome: Option<String>,
    /// Only open runs (`true`), including those that wait for an approval, or only runs that are over (`false`).
    open: Option<bool>,
    /// Only runs that started before the run with this id.
    before: Option<String>,
    /// The greatest number of runs to return, from 1 to 1000. The default is 100.
    #[serde(default = "default_page_size")]
    #[param(minimum = 1, maximum = 1000)]
    limit: u32,
}

/// Lists runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunsQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunInfo>), ProblemStatus<404>))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(which): QueryParams<RunsQuery>,
) -> Result<Json<Vec<RunInfo>>, ApiProblem> {
    let limit = page(which.limit)?;
    let outcome = match which.outcome {
        None => None,
        Some(word) => Some(
            serde_json::from_value::<Outcome>(word.clone().into()).map_err(|_| {
                let what = format!("`{}` is not an outcome", word.escape_debug());
                ApiProblem::new(StatusCode::BAD_REQUEST, "query", what).hint(
                    "use `held`, `deviated`, `not-started`, `aborted`, `inconclusive`, `not-clean` or `not-injected`",
                )
            })?,
        ),
    };
    let filter = RunFilter {
        experiment: which.experiment,
        outcome,
        open: which.open,
    };
    let service = Arc::clone(&api.service);
    let found = blocking(move || {
        if let Some(before) = &which.before
            && !service.sees(&who, OwnedKind::Run, before)?
        {
            return Err(ApiProblem::not_found(format!(
                "there is no run `{}`",
                before.escape_debug()
            )));
        }
        // What a run that is not revealed is filtered by would tell what it is.
        let tells = filter.experiment.is_some() || filter.outcome.is_some();
        let found = visible(
            which.before,
            limit,
            |before, limit| service.store().runs(&filter, before, limit),
            |run: &store::RunRecord| &run.new.id,
            |run| {
                Ok(service.sees(&who, OwnedKind::Run, &run.new.id)?
                    && !(tells && hides_run(&service, &who, run)?))
            },
        )?;
        let mut shown = Vec::new();
        for run in found {
            shown.push(shown_run(&service, &who, run)?);
        }
        Ok(shown)
    })
    .await?;
    Ok(Json(found))
}

/// Returns a run.
#[utoipa::path(get, path = "/api/v1/runs/{run}", tag = "runs", params(("run" = String, Path, description = "The run's id")), security(("token" = ["viewer"])), responses((status = 200, body = RunInfo), ProblemStatus<404>))]
pub async fn get(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
) -> Result<Json<RunInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || -> Result<_, StoreError> {
        let run = service.store().run(&run)?;
        shown_run(&service, &who, run)
    });
    Ok(Json(found.await?))
}

/// A run as the caller may see it.
pub(super) fn shown_run(
    service: &service::Service,
    who: &service::Actor,
    run: store::RunRecord,
) -> Result<RunInfo, StoreError> {
    let is_hidden = hides_run(service, who, &run)?;
    let shown = RunInfo::from(run);
    Ok(match is_hidden {
        true => hidden_run(shown),
        false => shown,
    })
}

/// Returns events of a run's journal, oldest first.
#[utoipa::path(get, path = "/api/v1/runs/{run}/events", tag = "runs", params(("run" = String, Path, description = "The run's id"), PageByNumber), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunJournalEntry>), ProblemStatus<404>))]
pub async fn events(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(PageByNumber { after, limit }): QueryParams<PageByNumber>,
) -> Result<Json<Vec<RunJournalEntry>>, ApiProblem> {
    let (service, limit) = (Arc::clone(&api.service), page(limit)?);
    let (found, is_hidden) = blocking(move || -> Result<_, StoreError> {
        let found = service.store().events(&run, after, limit)?;
        let run = service.store().run(&run)?;
        Ok((found, hides_run(&service, &who, &run)?))
    })
    .await?;
    let events = found.into_iter().filter_map(|numbered| {
        let entry = match is_hidden {
            true => hidden_entry(numbered.entry)?,
            false => numbered.entry,
        };
        Some(RunJournalEntry {
            number: numbered.number,
            entry: json!(entry),
        })
    });
    Ok(Json(events.collect()))
}

/// Returns a run as an OpenTelemetry trace (OTLP in JSON).
#[utoipa::path(get, path = "/api/v1/runs/{run}/trace", tag = "runs", params(("run" = String, Path, description = "The run's id")), security(("token" = ["viewer"])), responses((status = 200, body = Value), ProblemStatus<404>))]
pub async fn trace(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
) -> Result<Json<Value>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || service.trace(&run)).await?;
    found
        .map(Json)
        .ok_or_else(|| ApiProblem::not_found("the run's journal is still empty"))
}

/// Stops a run. Its faults are reverted first. A run that waits for an approval is not started.
#[utoipa::path(post, path = "/api/v1/runs/{run}/stop", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = StopRequest, security(("token" = ["operator"])), responses((status = 202, body = StopResult), ProblemStatus<404>))]
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
        let detail = json!({"why": reason.why});
        // What ends faults does not depend on the store: a run that acts is stopped whether or not that can be recorded.
        if service.active_runs().contains_key(&run) {
            let stopping = service.stop(&run, why);
            if let Err(error) = service.audit(&who, "stop", &run, "done", detail) {
                tracing::error!(run, %error, "the stop of a run could not be written to the audit log");
            }
            return Ok(StopResult { run, stopping });
        }
        let is_over = service.store().run(&run)?.end.is_some();
        let outcome = if is_over { "was over" } else { "asked" };
        service.audit(&who, "stop", &run, outcome, detail)?;
        let stopping = service.stop_or_withdraw(&run, why)?;
        Ok(StopResult { run, stopping })
    })
    .await?;
    Ok((StatusCode::ACCEPTED, Json(stopping)))
}

impl From<store::WaitingRun> for ApprovalInfo {
    fn from(kept: store::WaitingRun) -> Self {
        let (new, approval) = (kept.run.new, kept.approval);
        let (experiment, version) = match new.experiment {
            Some(reference) => (reference.name, reference.version),
            None => Default::default(),
        };
        let plan = approval.plan.and_then(|plan| {
            let plan: Option<service::ApprovalPlan> = serde_json::from_value(plan).ok();
            plan.map(|plan| (plan.variables, plan.preview))
        });
        let (variables, preview) = match plan {
            Some((variables, preview)) => (variables, Some(preview)),
            // It is not known which of these are secrets.
            None => {
                let hidden = |(name, _)| (name, "(not shown)".into());
                (approval.variables.into_iter().map(hidden).collect(), None)
            }
        };
        ApprovalInfo {
            id: new.id,
            experiment,
            version,
            seed: new.seed,
            variables,
            who: new.who,
            person: approval.person,
            at: new.started.to_string(),
            expires: approval.expires.to_string(),
            rule: approval.rule,
            fingerprint: approval.fingerprint,
            plan: preview.map(|preview| RunPlan::new(new.title.clone(), new.seed, preview)),
            title: new.title,
        }
    }
}

/// Lists the runs that wait for an approval, each with what it would do.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "runs", security(("token" = ["viewer"])), responses((status = 200, body = Vec<ApprovalInfo>)))]
pub async fn approvals(
    Viewer(who): Viewer,
    State(api): State<Api>,
) -> Result<Json<Vec<ApprovalInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || {
        let mut found = service.waiting_runs()?;
        let sees = found
            .iter()
            .map(|run| service.sees(&who, OwnedKind::Run, &run.approval.run));
        let mut sees = sees.collect::<Result<Vec<_>, _>>()?.into_iter();
        found.retain(|_| sees.next().unwrap_or(false));
        Ok::<_, StoreError>(found)
    })
    .await?;
    Ok(Json(found.into_iter().map(ApprovalInfo::from).collect()))
}

/// Returns a run that waits for an approval, with what it would do.
#[utoipa::path(get, path = "/api/v1/approvals/{id}", tag = "runs", params(("id" = String, Path, description = "The id of the run")), security(("token" = ["viewer"])), responses((status = 200, body = ApprovalInfo), ProblemStatus<404>))]
pub async fn approval(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<Json<ApprovalInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || service.waiting_run(&id)).await?;
    Ok(Json(found.into()))
}

/// Which plan is approved.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ApproveQuery {
    /// The fingerprint of the plan that is approved, or its first digits, at least 8. If the run has another plan by now, it is not started. The default is the plan that is stored.
    plan: Option<String>,
}

/// Approves a run that another person requested, and starts it, if it would still do what its plan says. Otherwise the run waits
/// on, with its new plan.
#[utoipa::path(post, path = "/api/v1/approvals/{id}", tag = "runs", params(("id" = String, Path, description = "The id of the run"), ApproveQuery), security(("token" = ["operator"])), responses((status = 201, body = ApprovedRun), ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>, ProblemStatus<423>))]
pub async fn approve(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    QueryParams(ApproveQuery { plan }): QueryParams<ApproveQuery>,
) -> Result<(StatusCode, Json<ApprovedRun>), ApiProblem> {
    let service = Arc::clone(&api.service);
    let run = blocking(move || -> Result<String, ApiProblem> {
        service.audit(&who, "approve", &id, "asked", json!({"plan": plan}))?;
        Ok(service.approve(&id, plan.as_deref(), &who)?)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(ApprovedRun { run })))
}

/// Rejects a run that waits for an approval. It ends as not started.
#[utoipa::path(post, path = "/api/v1/approvals/{id}/reject", tag = "runs", params(("id" = String, Path, description = "The id of the run")), request_body = RejectRequest, security(("token" = ["operator"])), responses((status = 204), ProblemStatus<403>, ProblemStatus<404>))]
pub async fn reject(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    JsonBody(request): JsonBody<RejectRequest>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || service.reject(&id, request.why.as_deref(), &who)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Withdraws a run that the caller requested and that waits for an approval. It ends as not started.
#[utoipa::path(post, path = "/api/v1/approvals/{id}/withdraw", tag = "runs", params(("id" = String, Path, description = "The id of the run")), security(("token" = ["operator"])), responses((status = 204), ProblemStatus<403>, ProblemStatus<404>))]
pub async fn withdraw(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || service.withdraw(&id, &who)).await?;
    Ok(StatusCode::NO_CONTENT)
}
