//! Tokens of people and jobs, and join tokens of agents.

use super::Api;
use super::auth::{Admin, role_name};
use super::blocking;
use super::extract::{JsonBody, PathParam, check_name, check_person};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{JoinTokenInfo, JoinTokenRequest, RevokedTokens, TokenInfo, TokenRequest};
use crate::pki::agent_registry::problem_with_labels;
use crate::pki::tokens::{create_token, secret_hash};
use crate::store::{self, Role, TokenOrigin};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::HumanDuration;
use backburn_experiments::join::{JoinToken, problem_with_name};
use backburn_experiments::token::ApiToken;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a join token is valid by default.
const DEFAULT_JOIN_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

impl From<store::JoinTokenRecord> for JoinTokenInfo {
    fn from(kept: store::JoinTokenRecord) -> Self {
        JoinTokenInfo {
            id: kept.id,
            token: None,
            who: kept.who,
            expires: kept.expires.to_string(),
            agent: kept.agent,
            labels: kept.labels,
        }
    }
}

impl From<store::ApiTokenRecord> for TokenInfo {
    fn from(kept: store::ApiTokenRecord) -> Self {
        TokenInfo {
            id: kept.id,
            token: None,
            name: kept.name,
            person: kept.person,
            teams: kept.teams,
            role: role_name(kept.role).to_owned(),
            blind: kept.is_blind,
            created: kept.created.to_string(),
            expires: kept.expires.map(|at| at.to_string()),
            revoked: kept.revoked.map(|at| at.to_string()),
        }
    }
}

fn wrong(what: impl Into<String>) -> ApiProblem {
    ApiProblem::new(StatusCode::BAD_REQUEST, "body", what)
}

/// The time after a duration such as `30d` from now.
fn expiry(lasts: &str) -> Result<Timestamp, ApiProblem> {
    let span: HumanDuration = lasts.parse().map_err(wrong)?;
    let span = SignedDuration::try_from(span.0).map_err(|error| wrong(error.to_string()))?;
    Timestamp::now()
        .checked_add(span)
        .map_err(|error| wrong(error.to_string()))
}

fn no_randomness<E>(_: E) -> ApiProblem {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiProblem::new(status, "random", "the system provides no random numbers")
}

/// Lists the join tokens that have not been used.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "tokens", security(("token" = ["admin"])), responses((status = 200, body = Vec<JoinTokenInfo>)))]
pub async fn join_tokens(
    _who: Admin,
    State(api): State<Api>,
) -> Result<Json<Vec<JoinTokenInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.join_tokens()).await?;
    Ok(Json(found.into_iter().map(JoinTokenInfo::from).collect()))
}

/// Makes a join token, with which one agent may join once.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "tokens", request_body = JoinTokenRequest, security(("token" = ["admin"])), responses((status = 201, body = JoinTokenInfo)))]
pub async fn make_join_token(
    Admin(who): Admin,
    State(api): State<Api>,
    JsonBody(wanted): JsonBody<JoinTokenRequest>,
) -> Result<(StatusCode, Json<JoinTokenInfo>), ApiProblem> {
    if let Some(problem) = wanted.agent.as_deref().and_then(problem_with_name) {
        return Err(wrong(problem));
    }
    if let Some(problem) = problem_with_labels(&wanted.labels) {
        return Err(wrong(problem));
    }
    let lasts = wanted
        .lasts
        .unwrap_or_else(|| HumanDuration(DEFAULT_JOIN_TOKEN_LIFETIME).to_string());
    let expires = expiry(&lasts)?;
    let token: JoinToken = create_token(&api.authority).map_err(no_randomness)?;
    let kept = store::JoinTokenRecord {
        id: token.id.clone(),
        hash: secret_hash(&token.secret),
        who: who.name.clone(),
        expires,
        agent: wanted.agent,
        labels: wanted.labels,
    };
    let service = Arc::clone(&api.service);
    let kept = blocking(move || -> Result<_, ApiProblem> {
        let detail = json!({"expires": kept.expires, "agent": kept.agent, "labels": kept.labels});
        service.audit(&who, "make join token", &kept.id, "asked", detail)?;
        service.store().put_join_token(&kept)?;
        Ok(kept)
    })
    .await?;
    let mut made = JoinTokenInfo::from(kept);
    made.token = Some(token.to_string());
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revokes a join token.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "The token's id")), security(("token" = ["admin"])), responses((status = 204), ProblemStatus<404>))]
pub async fn remove_join_token(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || -> Result<(), ApiProblem> {
        let tokens = service.store().join_tokens()?;
        if let Some(token) = tokens.iter().find(|token| token.id == id) {
            let detail = json!({"agent": token.agent, "labels": token.labels});
            service.audit(&who, "remove join token", &id, "asked", detail)?;
        }
        service.store().remove_join_token(&id)?;
        Ok(service.audit(&who, "remove join token", &id, "done", json!({}))?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists all tokens, including those that are expired or revoked.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", security(("token" = ["admin"])), responses((status = 200, body = Vec<TokenInfo>)))]
pub async fn list(_who: Admin, State(api): State<Api>) -> Result<Json<Vec<TokenInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.api_tokens()).await?;
    Ok(Json(found.into_iter().map(TokenInfo::from).collect()))
}

/// Makes a token for a person or a job.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest, security(("token" = ["admin"])), responses((status = 201, body = TokenInfo)))]
pub async fn make(
    Admin(who): Admin,
    State(api): State<Api>,
    JsonBody(wanted): JsonBody<TokenRequest>,
) -> Result<(StatusCode, Json<TokenInfo>), ApiProblem> {
    check_name(&wanted.name, "a token")?;
    let person = wanted.person.unwrap_or_else(|| wanted.name.clone());
    check_person(&person)?;
    let role: Role = serde_json::from_value(wanted.role.clone().into()).map_err(|_| {
        wrong(format!("`{}` is not a role", wanted.role.escape_debug()))
            .hint("use `viewer`, `operator` or `admin`")
    })?;
    for team in &wanted.teams {
        check_name(team, "a team")?;
    }
    if role == Role::Admin && !wanted.teams.is_empty() {
        let what = "a token with role `admin` cannot be limited to teams: it admits people and agents to all of them";
        return Err(wrong(what).hint("use `operator` or `viewer`, or leave the teams out"));
    }
    if role == Role::Admin && wanted.blind {
        let what = "a token with role `admin` cannot be blind: it may read everything";
        return Err(wrong(what).hint("use `operator` or `viewer`"));
    }
    let expires = wanted.lasts.as_deref().map(expiry).transpose()?;
    let token: ApiToken = create_token(&api.authority).map_err(no_randomness)?;
    let kept = store::ApiTokenRecord {
        id: token.id.clone(),
        hash: secret_hash(&token.secret),
        name: wanted.name,
        person,
        teams: wanted.teams,
        origin: TokenOrigin::Made,
        role,
        is_blind: wanted.blind,
        created: Timestamp::now(),
        expires,
        revoked: None,
    };
    let service = Arc::clone(&api.service);
    let kept = blocking(move || -> Result<_, ApiProblem> {
        let detail = json!({
            "name": kept.name, "of": kept.person, "role": kept.role, "teams": kept.teams, "expires": kept.expires, "blind": kept.is_blind,
        });
        service.audit(&who, "make token", &kept.id, "asked", detail)?;
        service.store().put_api_token(&kept)?;
        Ok(kept)
    })
    .await?;
    let mut made = TokenInfo::from(kept);
    made.token = Some(token.to_string());
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revokes a token. The last one with role `admin` cannot be revoked; those of log-ins do not count.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "The token's id")), security(("token" = ["admin"])), responses((status = 204), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn revoke(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    let revoked = id.clone();
    blocking(move || -> Result<(), ApiProblem> {
        let token = service.store().api_token(&id)?;
        let detail = json!({"name": token.name, "of": token.person});
        service.audit(&who, "revoke token", &id, "asked", detail)?;
        service.store().revoke_api_token(&id, Timestamp::now())?;
        // What its bearer waits for may not start any more.
        Ok(service.end_lapsed_waits()?)
    })
    .await?;
    api.forget(&revoked);
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes all tokens of a person. The last one with role `admin` cannot be revoked; none is then.
#[utoipa::path(delete, path = "/api/v1/people/{name}", tag = "tokens", params(("name" = String, Path, description = "The person")), security(("token" = ["admin"])), responses((status = 200, body = RevokedTokens), ProblemStatus<404>, ProblemStatus<409>))]
pub async fn revoke_person(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(person): PathParam<String>,
) -> Result<Json<RevokedTokens>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let revoked = blocking(move || -> Result<_, ApiProblem> {
        service.audit(&who, "revoke person", &person, "asked", json!({}))?;
        let revoked = service.store().revoke_person(&person, Timestamp::now())?;
        service.end_lapsed_waits()?;
        Ok(revoked)
    })
    .await?;
    revoked.iter().for_each(|id| api.forget(id));
    Ok(Json(RevokedTokens { revoked }))
}
