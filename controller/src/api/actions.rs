//! Actions: what will be done about what runs have found.

use super::Api;
use super::auth::{Operator, Viewer};
use super::blocking;
use super::extract::{JsonBody, PathParam};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{ActionInfo, ChangeActionRequest, CloseActionRequest, NewActionRequest};
use crate::service::{Action, ActionError, NewAction, Service};
use crate::store::{ActionChange, ActionSeverity};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;
use std::sync::Arc;

impl From<ActionError> for ApiProblem {
    fn from(error: ActionError) -> Self {
        let what = error.to_string();
        match error {
            ActionError::Store(error) => error.into(),
            ActionError::Unknown(_) => ApiProblem::not_found(what),
            ActionError::Invalid { hint, .. } => {
                ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what).hint(hint)
            }
            ActionError::Refused { rule, hint, .. } => {
                ApiProblem::new(StatusCode::CONFLICT, rule, what).hint(hint)
            }
        }
    }
}

fn read_date(text: Option<&str>) -> Result<Option<Date>, ApiProblem> {
    let Some(text) = text else { return Ok(None) };
    let date = text.parse().map_err(|_| {
        let what = format!("`{}` is not a date", text.escape_debug());
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what)
            .hint("write it like `2026-12-31`")
    })?;
    Ok(Some(date))
}

fn read_severity(text: Option<&str>) -> Result<Option<ActionSeverity>, ApiProblem> {
    let Some(text) = text else { return Ok(None) };
    let severity = serde_json::from_value(text.into()).map_err(|_| {
        let what = format!("`{}` is not a severity", text.escape_debug());
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what)
            .hint("use `low`, `medium`, `high` or `critical`")
    })?;
    Ok(Some(severity))
}

fn number(text: &str) -> Result<u64, ApiProblem> {
    text.parse()
        .map_err(|_| ApiProblem::not_found(format!("there is no action `{}`", text.escape_debug())))
}

/// An action as it is answered, with the run that would close it.
fn info(service: &Service, action: Action) -> Result<ActionInfo, ApiProblem> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let is_overdue = action.is_overdue(today);
    let proof = match action.closed {
        None => service.proof(&action)?,
        Some(_) => None,
    };
    let proposed = action
        .experiment
        .clone()
        .filter(|_| is_overdue && proof.is_none());
    let severity = json!(action.severity);
    Ok(ActionInfo {
        id: action.id,
        title: action.title,
        owner: action.owner,
        due: action.due.map(|due| due.to_string()),
        severity: severity.as_str().unwrap_or_default().to_owned(),
        experiment: action.experiment,
        run: action.run,
        state: match (action.closed.is_some(), is_overdue) {
            (true, _) => "closed".into(),
            (false, true) => "overdue".into(),
            (false, false) => "open".into(),
        },
        who: action.who,
        at: action.at.to_string(),
        closed: action.closed.map(|at| at.to_string()),
        proved_by: action.proved_by,
        why: action.why,
        proof,
        proposed,
    })
}

/// Lists actions, overdue ones first, closed ones last.
#[utoipa::path(get, path = "/api/v1/actions", tag = "actions", security(("token" = ["viewer"])), responses((status = 200, body = Vec<ActionInfo>)))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
) -> Result<Json<Vec<ActionInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || {
        let actions = service.actions(&who)?;
        let infos = actions.into_iter().map(|action| info(&service, action));
        infos.collect::<Result<Vec<_>, ApiProblem>>()
    })
    .await?;
    Ok(Json(found))
}

/// Adds an action to the list.
#[utoipa::path(post, path = "/api/v1/actions", tag = "actions", request_body = NewActionRequest, security(("token" = ["operator"])), responses((status = 201, body = ActionInfo), ProblemStatus<422>))]
pub async fn add(
    Operator(who): Operator,
    State(api): State<Api>,
    JsonBody(request): JsonBody<NewActionRequest>,
) -> Result<(StatusCode, Json<ActionInfo>), ApiProblem> {
    let new = NewAction {
        due: read_date(request.due.as_deref())?,
        severity: read_severity(request.severity.as_deref())?.unwrap_or_default(),
        title: request.title,
        owner: request.owner,
        experiment: request.experiment,
        run: request.run,
    };
    let service = Arc::clone(&api.service);
    let added = blocking(move || info(&service, service.add_action(&who, new)?)).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

/// Returns the action with this number.
#[utoipa::path(get, path = "/api/v1/actions/{action}", tag = "actions", params(("action" = String, Path, description = "The action's number")), security(("token" = ["viewer"])), responses((status = 200, body = ActionInfo), ProblemStatus<404>))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(action): PathParam<String>,
) -> Result<Json<ActionInfo>, ApiProblem> {
    let (service, id) = (Arc::clone(&api.service), number(&action)?);
    let found = blocking(move || info(&service, service.action(id)?)).await?;
    Ok(Json(found))
}

/// Changes an open action.
#[utoipa::path(patch, path = "/api/v1/actions/{action}", tag = "actions", params(("action" = String, Path, description = "The action's number")), request_body = ChangeActionRequest, security(("token" = ["operator"])), responses((status = 200, body = ActionInfo), ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>))]
pub async fn change(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(action): PathParam<String>,
    JsonBody(request): JsonBody<ChangeActionRequest>,
) -> Result<Json<ActionInfo>, ApiProblem> {
    let change = ActionChange::Changed {
        due: read_date(request.due.as_deref())?,
        severity: read_severity(request.severity.as_deref())?,
        title: request.title,
        owner: request.owner,
    };
    let (service, id) = (Arc::clone(&api.service), number(&action)?);
    let changed =
        blocking(move || info(&service, service.change_action(&who, id, change)?)).await?;
    Ok(Json(changed))
}

/// Closes an action. One that names an experiment is closed only by a run of it that started after the action was added, and held.
#[utoipa::path(post, path = "/api/v1/actions/{action}/close", tag = "actions", params(("action" = String, Path, description = "The action's number")), request_body = CloseActionRequest, security(("token" = ["operator"])), responses((status = 200, body = ActionInfo), ProblemStatus<404>, ProblemStatus<409>, ProblemStatus<422>))]
pub async fn close(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(action): PathParam<String>,
    JsonBody(request): JsonBody<CloseActionRequest>,
) -> Result<Json<ActionInfo>, ApiProblem> {
    let (service, id) = (Arc::clone(&api.service), number(&action)?);
    let closed = blocking(move || {
        let closed = service.close_action(&who, id, request.run, request.why)?;
        info(&service, closed)
    })
    .await?;
    Ok(Json(closed))
}
