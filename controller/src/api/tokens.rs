//! Tokens: those that let agents join, and those that let people and jobs command.

use super::Api;
use super::auth::{Admin, Token, random, word};
use super::blocking;
use super::extract::{JsonBody, PathParam, check_name};
use super::problem::ApiProblem;
use crate::store::{self, Hash, Role};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backburn_experiments::Span;
use backburn_experiments::join::{JoinToken, problem_with_name};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a join token is good, where nothing is said.
const DEFAULT_JOIN_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// A join token that is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The only name under which an agent may join with it; it takes the place of one that has the name.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    agent: Option<String>,
    /// How long it is good, e.g. `1h`, which it is where nothing is said.
    #[serde(default)]
    #[schema(pattern = "^([0-9]{1,4}[dhms]|[0-9]{1,4}h[0-9]{1,4}m|[0-9]{1,4}m[0-9]{1,4}s)$")]
    lasts: Option<String>,
}

/// A join token, or what is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct JoinTokenInfo {
    /// Names it.
    id: String,
    /// The token itself, once: when it is made.
    token: Option<String>,
    /// Who made it.
    who: String,
    /// Until when it is good.
    expires: String,
    /// The only name under which an agent may join with it.
    agent: Option<String>,
}

/// A token that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is: what the audit log calls whoever uses it.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(pattern = "^(viewer|operator|admin)$")]
    role: String,
    /// How long it is good, e.g. `30d`; for ever where nothing is said.
    #[serde(default)]
    #[schema(pattern = "^([0-9]{1,4}[dhms]|[0-9]{1,4}h[0-9]{1,4}m|[0-9]{1,4}m[0-9]{1,4}s)$")]
    lasts: Option<String>,
}

/// A token, or what is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenInfo {
    /// Names it.
    id: String,
    /// The token itself, once: when it is made.
    token: Option<String>,
    /// Whose it is.
    name: String,
    /// What it may do.
    role: String,
    /// When it was made.
    created: String,
    /// Until when it is good.
    expires: Option<String>,
    /// When it was revoked.
    revoked: Option<String>,
}

impl From<store::JoinTokenRecord> for JoinTokenInfo {
    fn from(kept: store::JoinTokenRecord) -> Self {
        JoinTokenInfo {
            id: kept.id,
            token: None,
            who: kept.who,
            expires: kept.expires.to_string(),
            agent: kept.agent,
        }
    }
}

impl From<store::ApiTokenRecord> for TokenInfo {
    fn from(kept: store::ApiTokenRecord) -> Self {
        TokenInfo {
            id: kept.id,
            token: None,
            name: kept.name,
            role: word(kept.role).to_owned(),
            created: kept.created.to_string(),
            expires: kept.expires.map(|at| at.to_string()),
            revoked: kept.revoked.map(|at| at.to_string()),
        }
    }
}

fn wrong(what: impl Into<String>) -> ApiProblem {
    ApiProblem::new(StatusCode::BAD_REQUEST, "body", what)
}

/// When something ends that lasts this long from now.
fn until(lasts: &str) -> Result<Timestamp, ApiProblem> {
    let span: Span = lasts.parse().map_err(wrong)?;
    let span = SignedDuration::try_from(span.0).map_err(|error| wrong(error.to_string()))?;
    Timestamp::now()
        .checked_add(span)
        .map_err(|error| wrong(error.to_string()))
}

fn no_randomness<E>(_: E) -> ApiProblem {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiProblem::new(status, "random", "the system has no random numbers")
}

/// Join tokens that were not used. Wants the role admin.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "tokens", security(("token" = ["admin"])), responses((status = 200, body = Vec<JoinTokenInfo>), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn join_tokens(
    _who: Admin,
    State(api): State<Api>,
) -> Result<Json<Vec<JoinTokenInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.join_tokens()).await?;
    Ok(Json(found.into_iter().map(JoinTokenInfo::from).collect()))
}

/// Makes a token with which one agent may join, once. Wants the role admin.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "tokens", request_body = JoinTokenRequest, security(("token" = ["admin"])), responses((status = 201, body = JoinTokenInfo), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn make_join_token(
    Admin(who): Admin,
    State(api): State<Api>,
    JsonBody(wanted): JsonBody<JoinTokenRequest>,
) -> Result<(StatusCode, Json<JoinTokenInfo>), ApiProblem> {
    if let Some(problem) = wanted.agent.as_deref().and_then(problem_with_name) {
        return Err(wrong(problem));
    }
    let lasts = wanted
        .lasts
        .unwrap_or_else(|| Span(DEFAULT_JOIN_TOKEN_LIFETIME).to_string());
    let expires = until(&lasts)?;
    let token = JoinToken {
        id: random::<8>().map_err(no_randomness)?,
        secret: random::<32>().map_err(no_randomness)?,
        authority: api.authority.fingerprint(),
    };
    let kept = store::JoinTokenRecord {
        id: token.id.clone(),
        hash: Hash::of(token.secret.as_bytes()),
        who: who.name.clone(),
        expires,
        agent: wanted.agent,
    };
    let service = Arc::clone(&api.service);
    let kept = blocking(move || -> Result<_, ApiProblem> {
        let detail = json!({"expires": kept.expires, "agent": kept.agent});
        service.audit(&who, "make join token", &kept.id, "asked", detail)?;
        service.store().put_join_token(&kept)?;
        Ok(kept)
    })
    .await?;
    let mut made = JoinTokenInfo::from(kept);
    made.token = Some(token.to_string());
    Ok((StatusCode::CREATED, Json(made)))
}

/// Makes a join token useless. Wants the role admin.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "The token's id")), security(("token" = ["admin"])), responses((status = 204), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn remove_join_token(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || -> Result<(), ApiProblem> {
        service.store().remove_join_token(&id)?;
        Ok(service.audit(&who, "remove join token", &id, "done", json!({}))?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tokens, those that are good for nothing any more too. Wants the role admin.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", security(("token" = ["admin"])), responses((status = 200, body = Vec<TokenInfo>), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn list(_who: Admin, State(api): State<Api>) -> Result<Json<Vec<TokenInfo>>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let found = blocking(move || store.api_tokens()).await?;
    Ok(Json(found.into_iter().map(TokenInfo::from).collect()))
}

/// Makes a token. Wants the role admin.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest, security(("token" = ["admin"])), responses((status = 201, body = TokenInfo), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 415, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn make(
    Admin(who): Admin,
    State(api): State<Api>,
    JsonBody(wanted): JsonBody<TokenRequest>,
) -> Result<(StatusCode, Json<TokenInfo>), ApiProblem> {
    check_name(&wanted.name, "a token")?;
    let role: Role = serde_json::from_value(wanted.role.clone().into()).map_err(|_| {
        wrong(format!("`{}` is no role", wanted.role.escape_debug()))
            .hint("`viewer`, `operator` or `admin`")
    })?;
    let expires = wanted.lasts.as_deref().map(until).transpose()?;
    let token = Token::new(api.authority.fingerprint()).map_err(no_randomness)?;
    let kept = store::ApiTokenRecord {
        id: token.id.clone(),
        hash: token.hash(),
        name: wanted.name,
        role,
        created: Timestamp::now(),
        expires,
        revoked: None,
    };
    let service = Arc::clone(&api.service);
    let kept = blocking(move || -> Result<_, ApiProblem> {
        let detail = json!({"name": kept.name, "role": kept.role, "expires": kept.expires});
        service.audit(&who, "make token", &kept.id, "asked", detail)?;
        service.store().put_api_token(&kept)?;
        Ok(kept)
    })
    .await?;
    let mut made = TokenInfo::from(kept);
    made.token = Some(token.to_string());
    Ok((StatusCode::CREATED, Json(made)))
}

/// Makes a token useless. Wants the role admin.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "The token's id")), security(("token" = ["admin"])), responses((status = 204), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn revoke(
    Admin(who): Admin,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
) -> Result<StatusCode, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || -> Result<(), ApiProblem> {
        service.store().revoke_api_token(&id, Timestamp::now())?;
        Ok(service.audit(&who, "revoke token", &id, "done", json!({}))?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
