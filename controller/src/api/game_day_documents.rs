//! The documents of game days that the controller stores, in versions.

use super::auth::{Operator, Viewer};
use super::experiments::VersionQuery;
use super::extract::{JsonBody, PathParam, QueryParams, check_name};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{ApplyResult, GameDayDocumentInfo, VersionInfo};
use super::{Api, blocking};
use crate::service::Service;
use crate::store::{GameDayDocumentRecord, OwnedKind, StoreError, StoreErrorKind};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

fn info(service: &Service, kept: GameDayDocumentRecord) -> GameDayDocumentInfo {
    let next = service.next_game_day(&kept, Timestamp::now());
    GameDayDocumentInfo {
        name: kept.name,
        version: kept.version,
        document: kept.document,
        who: kept.who,
        at: kept.at.to_string(),
        next: next.map(|next| next.to_string()),
    }
}

/// Lists the stored game days by name.
#[utoipa::path(get, path = "/api/v1/game-day-documents", tag = "game-day-documents", security(("token" = ["viewer"])), responses((status = 200, body = Vec<GameDayDocumentInfo>)))]
pub async fn list(
    Viewer(who): Viewer,
    State(api): State<Api>,
) -> Result<Json<Vec<GameDayDocumentInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || -> Result<_, StoreError> {
        let mut shown = Vec::new();
        for kept in service.store().game_day_documents()? {
            if service.sees(&who, OwnedKind::GameDayDocument, &kept.name)? {
                shown.push(info(&service, kept));
            }
        }
        Ok(shown)
    });
    Ok(Json(found.await?))
}

/// Returns a stored game day.
#[utoipa::path(get, path = "/api/v1/game-day-documents/{name}", tag = "game-day-documents", params(("name" = String, Path, description = "The name of the game day"), VersionQuery), security(("token" = ["viewer"])), responses((status = 200, body = GameDayDocumentInfo), ProblemStatus<404>))]
pub async fn get(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    QueryParams(VersionQuery { version }): QueryParams<VersionQuery>,
) -> Result<Json<GameDayDocumentInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || -> Result<_, StoreError> {
        let kept = service.store().game_day_document(&name, version)?;
        Ok(info(&service, kept))
    });
    Ok(Json(found.await?))
}

/// Stores a game day under a name. Storing the same document again changes nothing.
#[utoipa::path(put, path = "/api/v1/game-day-documents/{name}", tag = "game-day-documents", params(("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description = "The name of the game day")), request_body(content = ref("#/components/schemas/GameDayFile"), content_type = "application/json"), security(("token" = ["operator"])), responses((status = 200, body = ApplyResult), ProblemStatus<409>, ProblemStatus<422>))]
pub async fn put(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
    JsonBody(document): JsonBody<Value>,
) -> Result<Json<ApplyResult>, ApiProblem> {
    check_name(&name, "a game day")?;
    let service = Arc::clone(&api.service);
    let applied = blocking(move || -> Result<_, ApiProblem> {
        let store = service.store();
        let is_new = match store.game_day_document_versions(&name) {
            Ok(_) if service.sees(&who, OwnedKind::GameDayDocument, &name)? => false,
            Ok(_) => {
                let what = format!("the name `{name}` is taken by a game day of another team");
                let problem = ApiProblem::new(StatusCode::CONFLICT, "team", what);
                return Err(problem.hint("use another name"));
            }
            Err(error) if error.kind == StoreErrorKind::NotThere => true,
            Err(error) => return Err(error.into()),
        };
        let before = match store.game_day_document(&name, None) {
            Ok(before) => Some(before.document),
            Err(error) if error.kind == StoreErrorKind::NotThere => None,
            Err(error) => return Err(error.into()),
        };
        service.load_game_day(&document, &who)?;
        service.audit(&who, "apply game day", &name, "asked", json!({}))?;
        if is_new {
            store.set_owners(OwnedKind::GameDayDocument, &name, &who.teams)?;
        }
        let put = store.put_game_day_document(&name, &document, &who.name, Timestamp::now())?;
        if put.changed {
            service.own_game_day_schedule(&name, &who.person)?;
        }
        service.game_days_changed();
        Ok(ApplyResult {
            before: before.filter(|_| put.changed),
            name,
            version: put.version,
            changed: put.changed,
            left_out: Vec::new(),
        })
    });
    Ok(Json(applied.await?))
}

/// Removes a stored game day. Its history is kept, and so are those that were held.
#[utoipa::path(delete, path = "/api/v1/game-day-documents/{name}", tag = "game-day-documents", params(("name" = String, Path, description = "The name of the game day")), security(("token" = ["operator"])), responses((status = 200, body = VersionInfo), ProblemStatus<404>))]
pub async fn remove(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<VersionInfo>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let removed = blocking(move || -> Result<_, ApiProblem> {
        let at = Timestamp::now();
        service.store().game_day_document(&name, None)?;
        service.audit(&who, "remove game day", &name, "asked", json!({}))?;
        let version = (service.store()).remove_game_day_document(&name, &who.name, at)?;
        Ok(VersionInfo {
            version,
            who: who.name,
            at: at.to_string(),
            removed: true,
        })
    });
    Ok(Json(removed.await?))
}

/// Lists the versions of a stored game day, oldest first.
#[utoipa::path(get, path = "/api/v1/game-day-documents/{name}/versions", tag = "game-day-documents", params(("name" = String, Path, description = "The name of the game day")), security(("token" = ["viewer"])), responses((status = 200, body = Vec<VersionInfo>), ProblemStatus<404>))]
pub async fn versions(
    _who: Viewer,
    State(api): State<Api>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Vec<VersionInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.game_day_document_versions(&name)).await?;
    Ok(Json(found.into_iter().map(VersionInfo::from).collect()))
}
