//! Experiments that are kept, and starting them.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::{JsonBody, PathParam, QueryParams, check_name, optional_safe_integer};
use super::pagination::{PageByName, page};
use super::problem::ApiProblem;
use crate::service::{RunSpec, RequestedDocument, StartError, Actor};
use crate::store::{self, Trigger, ExperimentRef};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::check::without_controls;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Which version.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VersionQuery {
    /// A version; the latest where left out.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    pub version: Option<u64>,
}

/// What becomes of the Chaos Toolkit's controls.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ControlsQuery {
    /// Whether the document's controls are left out: they are not played, and a document that has some is refused without this.
    #[serde(default, rename = "ignore-controls")]
    #[param(rename = "ignore-controls")]
    ignore_controls: bool,
}

/// An experiment that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Experiment)]
pub struct StoredExperiment {
    /// Its name.
    name: String,
    /// Its version, from 1.
    version: u64,
    /// The document.
    document: Value,
    /// Who put it there: a token's name.
    who: String,
    /// When.
    at: String,
}

impl From<store::StoredExperiment> for StoredExperiment {
    fn from(kept: store::StoredExperiment) -> Self {
        StoredExperiment {
            name: kept.name,
            version: kept.version,
            document: kept.document,
            who: kept.who,
            at: kept.at.to_string(),
        }
    }
}

/// A version of an experiment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExperimentVersion {
    /// Its number.
    version: u64,
    /// Who made it.
    who: String,
    /// When.
    at: String,
    /// Whether it removed the experiment.
    removed: bool,
}

/// What putting an experiment did.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApplyResult {
    /// Its name.
    name: String,
    /// The version that holds now.
    version: u64,
    /// Whether it is a new one.
    changed: bool,
    /// The document of the version before, where there is one and it was another.
    before: Option<Value>,
    /// The JSON paths of controls that were left out.
    #[serde(rename = "left-out")]
    left_out: Vec<String>,
}

/// How an experiment is to be run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRunRequest {
    /// A version; the latest where left out.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[schema(maximum = 9007199254740991_i64)]
    version: Option<u64>,
    /// What every pick comes from, up to 2^53; a random one where left out.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[schema(maximum = 9007199254740991_i64)]
    seed: Option<u64>,
    /// Configuration values that go before the document's.
    #[serde(default)]
    variables: Map<String, Value>,
}

/// A run that has begun, or waits for a second person.
#[derive(Debug, Serialize, ToSchema)]
pub struct StartRunResult {
    /// The run's id; none where it waits.
    run: Option<String>,
    /// What waits, and for whose approval.
    approval: Option<super::runs::ApprovalInfo>,
}

/// What a run would hit now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct RunPlan {
    /// The experiment's title.
    title: String,
    /// What every pick came from.
    seed: u64,
    /// The agents that would take part.
    agents: Vec<String>,
    /// Each injection: action, agent, fault, and what would be done with its undo, or why it would be refused.
    injections: Vec<Value>,
    /// How often each probe of the hypothesis would be looked at, and what so many good looks would exclude.
    looks: Vec<Value>,
    /// Programs and Python functions that the controller would run and that are not there: it would not be started.
    missing: Vec<Value>,
    /// What should be known before it is run, e.g. that nothing would be measured.
    warnings: Vec<String>,
}

/// Experiments by name. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/experiments", tag = "experiments", params(PageByName), security(("token" = ["viewer"])), responses((status = 200, body = Vec<StoredExperiment>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn list(
    _who: Viewer,
    State(api): State<Api>,
    QueryParams(PageByName { after, limit }): QueryParams<PageByName>,
) -> Result<Json<Vec<StoredExperiment>>, ApiProblem> {
    let (store, limit) = (Arc::clone(api.service.store()), page(limit)?);
    let found = blocking(move || store.experiments(after.as_deref(), limit)).await?;
    Ok(Json(
        found.into_iter().map(StoredExperiment::from).collect(),
    ))
}

/// An experiment. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, description = "The experiment's name"), VersionQuery), security(("token" = ["viewer"])), responses((status = 200, body = StoredExperiment), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(VersionQuery { version }): QueryParams<VersionQuery>,
) -> Result<Json<StoredExperiment>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.experiment(&name, version)).await?;
    Ok(Json(found.into()))
}

/// Keeps an experiment under a name. The same document again changes nothing. Wants the role operator.
#[utoipa::path(put, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description = "The experiment's name"), ControlsQuery), request_body(content = ref("#/components/schemas/Document"), content_type = "application/json"), security(("token" = ["operator"])), responses((status = 200, body = ApplyResult), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 413, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
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
        service
            .understand(&document, &Map::new())
            .map_err(ApiProblem::invalid)?;
        let store = service.store();
        let before = match store.experiment(&name, None) {
            Ok(before) => Some(before.document),
            Err(error) if error.kind == store::StoreErrorKind::NotThere => None,
            Err(error) => return Err(error.into()),
        };
        let put = store.put_experiment(&name, &document, &who.name, Timestamp::now())?;
        if put.changed {
            let detail = json!({"version": put.version});
            service.audit(&who, "apply", &name, "done", detail)?;
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

/// Removes an experiment; its history stays. Wants the role operator.
#[utoipa::path(delete, path = "/api/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), security(("token" = ["operator"])), responses((status = 200, body = ExperimentVersion), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn remove(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<ExperimentVersion>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let removed = blocking(move || -> Result<ExperimentVersion, ApiProblem> {
        let at = Timestamp::now();
        let version = service.store().remove_experiment(&name, &who.name, at)?;
        service.audit(&who, "remove", &name, "done", json!({}))?;
        Ok(ExperimentVersion {
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

/// An experiment's history, oldest first. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/experiments/{name}/versions", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<ExperimentVersion>), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn versions(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<ExperimentVersion>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.experiment_versions(&name)).await?;
    let versions = found.into_iter().map(|found| ExperimentVersion {
        version: found.version,
        who: found.who,
        at: found.at.to_string(),
        removed: found.removed,
    });
    Ok(Json(versions.collect()))
}

/// What is asked for, as the service takes it.
async fn asked(
    api: &Api,
    who: &Actor,
    name: String,
    request: StartRunRequest,
) -> Result<RunSpec, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let version = request.version;
    let kept = blocking(move || store.experiment(&name, version)).await?;
    Ok(RunSpec {
        document: RequestedDocument::Stored(kept.document),
        reference: Some(ExperimentRef {
            name: kept.name,
            version: kept.version,
        }),
        seed: request.seed,
        variables: request.variables,
        who: who.name.clone(),
        because: Trigger::Asked,
        approved_by: None,
        id: None,
    })
}

/// What a run would hit on the fleet now, exactly; nothing is touched. Wants the role viewer.
#[utoipa::path(post, path = "/api/v1/experiments/{name}/plan", tag = "experiments", params(("name" = String, Path, description = "The experiment's name")), request_body = StartRunRequest, security(("token" = ["viewer"])), responses((status = 200, body = RunPlan), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn plan(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<StartRunRequest>,
) -> Result<Json<RunPlan>, ApiProblem> {
    planned(&api, asked(&api, &who, name, request).await?).await
}

/// What a run that is asked for would hit.
pub(super) async fn planned(api: &Api, ask: RunSpec) -> Result<Json<RunPlan>, ApiProblem> {
    let title = ask.document.title();
    let (seed, preview) = api.service.plan(ask).await?;
    let injections = preview.injections.iter().map(|injection| json!(injection));
    Ok(Json(RunPlan {
        title,
        seed,
        injections: injections.collect(),
        agents: preview.agents,
        looks: preview.looks.iter().map(|looks| json!(looks)).collect(),
        missing: preview
            .missing
            .iter()
            .map(|missing| json!(missing))
            .collect(),
        warnings: preview.warnings,
    }))
}

/// Starts a run. Wants the role operator.
#[utoipa::path(post, path = "/api/v1/experiments/{name}/runs", tag = "runs", params(("name" = String, Path, description = "The experiment's name")), request_body = StartRunRequest, security(("token" = ["operator"])), responses((status = 201, body = StartRunResult), (status = 202, description = "It waits for a second person", body = StartRunResult), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json"), (status = 409, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json"), (status = 422, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn run(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<StartRunRequest>,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    let ask = asked(&api, &who, name, request).await?;
    begin(&api, who, ask).await
}

/// Starts a run that is asked for, and has the audit log say so.
pub(super) async fn begin(
    api: &Api,
    who: Actor,
    ask: RunSpec,
) -> Result<(StatusCode, Json<StartRunResult>), ApiProblem> {
    let sha256 = ask.document.sha256();
    let name = match (&ask.reference, &sha256) {
        (Some(reference), _) => reference.name.clone(),
        (None, Some(hash)) => format!("sha256:{hash}"),
        (None, None) => String::new(),
    };
    let mut detail = json!({"seed": ask.seed});
    if let Some(hash) = sha256 {
        detail["sha256"] = hash.into();
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
            Err(StartError::Waits(approval)) => Ok((
                StatusCode::ACCEPTED,
                StartRunResult {
                    run: None,
                    approval: Some((*approval).into()),
                },
            )),
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
