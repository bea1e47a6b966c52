//! Stored experiments: storing, planning and running them.

use super::Api;
use super::auth::{Operator, Viewer, role_name};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams, check_name};
use super::openapi::ProblemStatus;
use super::pagination::{PageByName, page};
use super::problem::ApiProblem;
use super::teams::{check_experiment_name, visible};
use super::types::safe_integer::optional_safe_integer;
use super::types::{
    ApplyResult, ExperimentInfo, RunPlan, StartRunRequest, StartRunResult, VersionInfo,
};
use crate::service::{Actor, RequestedDocument, RunSpec, RunStartError, audit_record};
use crate::store::{self, ExperimentRef, OwnedKind, Role, Trigger, put_secrets_back, take_secrets};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::chaostoolkit::without_controls;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// The version of an experiment.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VersionQuery {
    /// The version. The default is the latest.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    pub version: Option<u64>,
}

/// How to treat the Chaos Toolkit's controls.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ControlsQuery {
    /// Whether to remove the document's Chaos Toolkit controls, which are not supported. A document with controls is refused otherwise.
    #[serde(default, rename = "ignore-controls")]
    #[param(rename = "ignore-controls")]
    ignore_controls: bool,
}

impl From<store::ExperimentRecord> for ExperimentInfo {
    fn from(kept: store::ExperimentRecord) -> Self {
        ExperimentInfo {
            name: kept.name,
            version: kept.version,
            document: kept.document,
            who: kept.who,
            at: kept.at.to_string(),
        }
    }
}

/// Lists the stored experiments by name.
#[utoipa::path(get, path = "/api/v1/experiments", tag = "experiments", params(PageByName), security(("token" = ["viewer"])), responses((status = 200, body = Vec<ExperimentInfo>)))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(PageByName { after, limit }): QueryParams<PageByName>,
) -> Result<Json<Vec<ExperimentInfo>>, ApiProblem> {
    let (service, limit) = (Arc::clone(&api.service), page(limit)?);
    let found = blocking(move || {
        visible(
            after,
            limit,
            |after, limit| service.store().experiments(after, limit),
            |experiment: &store::ExperimentRecord| &experiment.name,
            |experiment| service.sees(&who, OwnedKind::Experiment, &experiment.name),
        )
    })
    .await?;
    Ok(Json(found.into_iter().map(ExperimentInfo::from).collect()))
}

/// Returns a stored experiment.
#[utoipa::path(get, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, description = "The experiment's name"), VersionQuery), security(("token" = ["viewer"])), responses((status = 200, body = ExperimentInfo), ProblemStatus<404>))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(VersionQuery { version }): QueryParams<VersionQuery>,
) -> Result<Json<ExperimentInfo>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.experiment(&name, version)).await?;
    Ok(Json(found.into()))
}

/// Stores an experiment under a name. Storing the same document again changes nothing.
#[utoipa::path(put, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description = "The experiment's name"), ControlsQuery), request_body(content = ref("#/components/schemas/Document"), content_type = "application/json"), security(("token" = ["operator"])), responses((status = 200, body = ApplyResult), ProblemStatus<422>))]
pub async fn put(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(ControlsQuery { ignore_controls }): QueryParams<ControlsQuery>,
    JsonBody(mut document): JsonBody<Value>,
) -> Result<Json<ApplyResult>, ApiProblem> {
    check_name(&name, "an experiment")?;
    let left_out = match ignore_controls {
        true => without_controls(&mut document),
        false => Vec::new(),
    };
    let service = Arc::clone(&api.service);
    let applied = blocking(move || -> Result<ApplyResult, ApiProblem> {
        let store = service.store();
        check_experiment_name(&service, &who, &name)?;
        let before = match store.experiment_with_secrets(&name, None) {
            Ok(before) => Some(before.document),
            Err(error) if error.kind == store::StoreErrorKind::NotThere => None,
            Err(error) => return Err(error.into()),
        };
        // A placeholder, as documents are shown with, stands for the secret that is stored already.
        let before = before.map(|mut before| {
            put_secrets_back(&mut document, &take_secrets(&mut before));
            before
        });
        service
            .load_experiment(&document, &Map::new())
            .map_err(ApiProblem::invalid)?;
        let is_scheduled = document.get("schedule").is_some();
        let takes_over = is_scheduled && !service.owns_schedule(&name, &who)?;
        let mut detail = json!({});
        if takes_over {
            detail["schedule"] = format!("has the rights of `{}` from now on", who.name).into();
        }
        let record = audit_record(&who, "apply", &name, "done", detail);
        let put =
            store.put_experiment_audited(&name, &document, &who.teams, &record, takes_over)?;
        if takes_over {
            service.own_schedule(&name, &who)?;
        }
        Ok(ApplyResult {
            before: before.filter(|_| put.changed),
            name,
            version: put.version,
            changed: put.changed,
            left_out,
        })
    })
    .await?;
    api.service.reschedule();
    Ok(Json(applied))
}

/// Removes a stored experiment. Its history is kept.
#[utoipa::path(delete, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), security(("token" = ["operator"])), responses((status = 200, body = VersionInfo), ProblemStatus<404>))]
pub async fn remove(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<VersionInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let removed = blocking(move || -> Result<VersionInfo, ApiProblem> {
        let at = Timestamp::now();
        let last = service.store().experiment(&name, None)?.version;
        service.audit(&who, "remove", &name, "asked", json!({"version": last}))?;
        let version = service.store().remove_experiment(&name, &who.name, at)?;
        service.audit(&who, "remove", &name, "done", json!({"version": version}))?;
        service.forget_schedule(&name)?;
        // Runs of it that wait for approval may not start any more.
        service.end_lapsed_waits()?;
        Ok(VersionInfo {
            version,
            who: who.name,
            at: at.to_string(),
            removed: true,
        })
    })
    .await?;
    api.service.reschedule();
    Ok(Json(removed))
}

/// Lists the versions of a stored experiment, oldest first.
#[utoipa::path(get, path = "/api/v1/experiments/{name}/versions", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<VersionInfo>), ProblemStatus<404>))]
pub async fn versions(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<VersionInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.experiment_versions(&name)).await?;
    Ok(Json(found.into_iter().map(VersionInfo::from).collect()))
}

/// The service's request for a run of a stored experiment.
async fn run_request(
    api: &Api,
    who: &Actor,
    name: String,
    request: StartRunRequest,
) -> Result<RunSpec, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let version = request.version;
    let kept = blocking(move || store.experiment_with_secrets(&name, version)).await?;
    Ok(RunSpec {
        document: RequestedDocument::Stored(kept.document),
        reference: Some(ExperimentRef {
            name: kept.name,
            version: kept.version,
        }),
        seed: request.seed,
        variables: request.variables,
        who: who.name.clone(),
        person: who.person.clone(),
        teams: who.teams.clone(),
        because: Trigger::Asked,
        lock: request.lock,
    })
}

/// Returns what a run of a stored experiment would affect on the fleet now, without changing anything.
#[utoipa::path(post, path = "/api/v1/experiments/{name}/plan", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), request_body = StartRunRequest, security(("token" = ["viewer"])), responses((status = 200, body = RunPlan), ProblemStatus<403>, ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>))]
pub async fn plan(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<StartRunRequest>,
) -> Result<Json<RunPlan>, ApiProblem> {
    if who.role < Role::Operator && !request.variables.is_empty() {
        let what = format!(
            "`variables` require role `operator`; token `{}` has role `{}`",
            who.name,
            role_name(who.role)
        );
        let problem = ApiProblem::new(StatusCode::FORBIDDEN, "role", what);
        return Err(problem.hint("plan without variables"));
    }
    let ask = run_request(&api, &who, name, request).await?;
    plan_request(&api, who, ask).await
}

/// Plans a run without changing anything, and records in the audit log who asked for it.
pub(super) async fn plan_request(
    api: &Api,
    who: Actor,
    ask: RunSpec,
) -> Result<Json<RunPlan>, ApiProblem> {
    let title = ask.document.title();
    let (about, mut detail) = audited_document(&ask);
    detail["variables"] = ask.variables.keys().cloned().collect();
    let service = Arc::clone(&api.service);
    blocking(move || service.audit(&who, "plan", &about, "asked", detail)).await?;
    let (seed, preview) = api.service.plan(ask).await?;
    Ok(Json(RunPlan::new(title, seed, preview)))
}

/// Starts a run of a stored experiment.
#[utoipa::path(post, path = "/api/v1/experiments/{name}/runs", tag = "runs", params(("name" = String, Path, description = "The experiment's name")), request_body = StartRunRequest, security(("token" = ["operator"])), responses((status = 201, body = StartRunResult), (status = 202, description = "The run waits for an approval", body = StartRunResult), ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>, ProblemStatus<423>))]
pub async fn run(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<StartRunRequest>,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    let lock_wait = request.lock_wait;
    let ask = run_request(&api, &who, name, request).await?;
    start_request(&api, who, ask, lock_wait).await
}

/// What the audit log says about the document of a request: its name or hash, and details.
fn audited_document(ask: &RunSpec) -> (String, Value) {
    let mut detail = json!({"seed": ask.seed});
    match (&ask.reference, ask.document.sha256()) {
        (Some(reference), _) => {
            detail["version"] = reference.version.into();
            (reference.name.clone(), detail)
        }
        (None, Some(hash)) => {
            let name = format!("sha256:{hash}");
            detail["sha256"] = hash.into();
            (name, detail)
        }
        (None, None) => (String::new(), detail),
    }
}

/// Starts a run and records that in the audit log. It waits for the run's lock for `lock_wait` seconds, and records nothing meanwhile.
pub(super) async fn start_request(
    api: &Api,
    who: Actor,
    ask: RunSpec,
    lock_wait: u8,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    if let Some(lock) = &ask.lock {
        let patience = Duration::from_secs(lock_wait.into());
        api.service.until_unlocked(lock, patience).await?;
    }
    let (name, mut detail) = audited_document(&ask);
    if let Some(lock) = &ask.lock {
        detail["lock"] = lock.clone().into();
    }
    let service = Arc::clone(&api.service);
    let begun = blocking(move || -> Result<_, ApiProblem> {
        service.audit(&who, "run", &name, "asked", detail)?;
        match service.start(ask) {
            Ok(run) => Ok((
                StatusCode::CREATED,
                StartRunResult {
                    run: Some(run),
                    approval: None,
                },
            )),
            Err(RunStartError::Waits(waiting)) => {
                let detail = json!({"run": waiting.approval.run, "rule": waiting.approval.rule});
                service.audit(&who, "run", &name, "waits", detail)?;
                Ok((
                    StatusCode::ACCEPTED,
                    StartRunResult {
                        run: None,
                        approval: Some((*waiting).into()),
                    },
                ))
            }
            Err(refused) => {
                let problem = ApiProblem::from(refused);
                service.audit(&who, "run", &name, "refused", json!(problem))?;
                Err(problem)
            }
        }
    })
    .await?;
    Ok((begun.0, Json(begun.1)))
}
