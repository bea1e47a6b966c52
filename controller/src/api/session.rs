//! Signing in with a browser: a token is exchanged for a cookie that no script can read, and that no other site can use.

use super::Api;
use super::auth::{Viewer, role_name};
use super::blocking;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::SessionInfo;
use crate::page::session::{PageSessions, no_cookie};
use crate::service::Actor;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::AppendHeaders;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

/// A header that sets or removes the cookie.
type SetCookie = AppendHeaders<[(header::HeaderName, String); 1]>;

fn info(api: &Api, who: Actor, expires: Option<Timestamp>) -> SessionInfo {
    SessionInfo {
        name: who.name,
        person: who.person,
        role: role_name(who.role).to_owned(),
        teams: who.teams,
        expires: expires.map(|at| at.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        blind: who.is_blind,
        local: false,
        now: Timestamp::now().to_string(),
        identity_provider: api.service.login_desk().is_some(),
    }
}

/// Returns who the caller is, and what the token allows.
#[utoipa::path(get, path = "/api/v1/session", tag = "login", security(("token" = ["viewer"])), responses((status = 200, body = SessionInfo)))]
pub async fn get(Viewer(who): Viewer, State(api): State<Api>) -> Json<SessionInfo> {
    Json(info(&api, who, None))
}

/// Signs a browser in: the token in the `Authorization` header is exchanged for a cookie, which is as good as the token for 12 hours, as long
/// as the token is valid. Only the page itself can use it.
#[utoipa::path(post, path = "/api/v1/session", tag = "login", security(("token" = ["viewer"])), responses((status = 201, body = SessionInfo), ProblemStatus<400>))]
pub async fn sign_in(
    Viewer(who): Viewer,
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<(StatusCode, SetCookie, Json<SessionInfo>), ApiProblem> {
    if !headers.contains_key(header::AUTHORIZATION) {
        // A session that could renew itself would never end.
        return Err(ApiProblem::new(
            StatusCode::BAD_REQUEST,
            "token",
            "a session begins with a token, not with the cookie of another session",
        )
        .hint("send `Authorization: Bearer TOKEN`"));
    }
    let (service, asking) = (Arc::clone(&api.service), who.clone());
    let kept = blocking(move || -> Result<_, ApiProblem> {
        service.audit(&asking, "sign in", &asking.token, "asked", json!({}))?;
        Ok(service.store().api_token(&asking.token)?)
    })
    .await?;
    let sessions = PageSessions::of(&api.authority);
    let (cookie, until) = sessions.cookie(&kept, Timestamp::now());
    let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok((
        StatusCode::CREATED,
        cookie,
        Json(info(&api, who, Some(until))),
    ))
}

/// Signs a browser out: its cookie is removed. The token stays valid; `DELETE /api/v1/login` ends one of a log-in.
#[utoipa::path(delete, path = "/api/v1/session", tag = "login", security(("token" = ["viewer"])), responses((status = 204)))]
pub async fn sign_out(
    Viewer(who): Viewer,
    State(api): State<Api>,
) -> Result<(StatusCode, SetCookie), ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || service.audit(&who, "sign out", &who.token, "asked", json!({}))).await?;
    let removed = AppendHeaders([(header::SET_COOKIE, no_cookie())]);
    Ok((StatusCode::NO_CONTENT, removed))
}
