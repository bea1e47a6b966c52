//! Log-in with an identity provider: nobody has a token yet who uses these operations, so they give away nothing but what the provider
//! has confirmed, and few of them are served at a time.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::{JsonBody, PathParam};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{
    CodeLoginRequest, DeviceLoginInfo, DeviceLoginResult, PageLoginInfo, PageLoginRequest,
    TokenInfo,
};
use crate::oidc::{Claims, ProviderError};
use crate::service::{LoginDesk, LoginError, Service};
use crate::store::TokenOrigin;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many requests may wait for the provider at a time.
const MAX_WAITING: usize = 8;
/// How many do.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Counts a request that waits for the provider, until it is dropped.
struct ProviderWait;

impl ProviderWait {
    fn new() -> Result<Self, LoginError> {
        let before = WAITING.fetch_add(1, Ordering::Relaxed);
        let wait = ProviderWait;
        match before < MAX_WAITING {
            true => Ok(wait),
            false => Err(LoginError::Crowded),
        }
    }
}

impl Drop for ProviderWait {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<LoginError> for ApiProblem {
    fn from(error: LoginError) -> Self {
        let error = match error {
            LoginError::Store(error) => return error.into(),
            other => other,
        };
        let (status, rule) = match &error {
            LoginError::Store(_) | LoginError::Random(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "random")
            }
            LoginError::Unknown => (StatusCode::NOT_FOUND, "not-there"),
            LoginError::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "crowded"),
            LoginError::Page => (StatusCode::BAD_REQUEST, "body"),
            LoginError::Provider(ProviderError::Unavailable(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "provider")
            }
            LoginError::Provider(ProviderError::Refused(_)) | LoginError::NotAllowed(_) => {
                (StatusCode::FORBIDDEN, "login")
            }
        };
        ApiProblem::new(status, rule, error.to_string())
    }
}

/// Does something with the identity provider, outside the threads that serve connections.
async fn at_desk<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Service, &LoginDesk) -> Result<T, LoginError> + Send + 'static,
) -> Result<T, ApiProblem> {
    let service = Arc::clone(&api.service);
    blocking(move || -> Result<T, ApiProblem> {
        let Some(desk) = service.login_desk() else {
            return Err(ApiProblem::not_found(
                "this controller has no identity provider to log in with",
            )
            .hint("use a token; the controller's owner sets a provider up with `--oidc FILE`"));
        };
        let _wait = ProviderWait::new()?;
        Ok(work(&service, desk)?)
    })
    .await
}

/// Begins a log-in on another device (RFC 8628): a person enters a code at the identity provider.
#[utoipa::path(post, path = "/api/v1/login/device", tag = "login", responses((status = 201, body = DeviceLoginInfo), ProblemStatus<403>, ProblemStatus<404>, ProblemStatus<503>))]
pub async fn device(
    State(api): State<Api>,
) -> Result<(StatusCode, Json<DeviceLoginInfo>), ApiProblem> {
    let started = at_desk(&api, |_, desk| desk.start_device()).await?;
    let info = DeviceLoginInfo {
        login: started.id,
        user_code: started.user_code,
        verification_uri: started.verification_uri,
        verification_uri_complete: started.verification_uri_complete,
        expires_in: started.lasts.as_secs(),
        interval: started.interval.as_secs().max(1),
    };
    Ok((StatusCode::CREATED, Json(info)))
}

/// Returns the token of a person who has logged in on another device, once. As long as nobody has, the token is null: ask again after
/// `interval` seconds.
#[utoipa::path(post, path = "/api/v1/login/device/{id}", tag = "login", params(("id" = String, Path, description = "The id of the log-in")), responses((status = 200, body = DeviceLoginResult), ProblemStatus<403>, ProblemStatus<404>, ProblemStatus<503>))]
pub async fn device_result(
    State(api): State<Api>,
    PathParam(login): PathParam<String>,
) -> Result<Json<DeviceLoginResult>, ApiProblem> {
    let authority = Arc::clone(&api.authority);
    let token = at_desk(&api, move |service, desk| {
        let claims = desk.poll_device(&login)?;
        claims
            .map(|claims| finish(service, desk, &claims, &authority))
            .transpose()
    });
    Ok(Json(DeviceLoginResult {
        token: token.await?,
    }))
}

/// Begins a log-in in a browser (authorization code with PKCE). The browser goes to `url`, and comes back to the page with `code` and `state`.
#[utoipa::path(post, path = "/api/v1/login/page", tag = "login", request_body = PageLoginRequest, responses((status = 201, body = PageLoginInfo), ProblemStatus<404>, ProblemStatus<503>))]
pub async fn page(
    State(api): State<Api>,
    JsonBody(request): JsonBody<PageLoginRequest>,
) -> Result<(StatusCode, Json<PageLoginInfo>), ApiProblem> {
    let (state, url) = at_desk(&api, move |_, desk| desk.start_page(&request.redirect_uri)).await?;
    Ok((StatusCode::CREATED, Json(PageLoginInfo { url, state })))
}

/// Exchanges the code that a browser came back with for a token.
#[utoipa::path(post, path = "/api/v1/login/code", tag = "login", request_body = CodeLoginRequest, responses((status = 200, body = TokenInfo), ProblemStatus<403>, ProblemStatus<404>, ProblemStatus<503>))]
pub async fn code(
    State(api): State<Api>,
    JsonBody(request): JsonBody<CodeLoginRequest>,
) -> Result<Json<TokenInfo>, ApiProblem> {
    let authority = Arc::clone(&api.authority);
    let token = at_desk(&api, move |service, desk| {
        let claims = desk.finish_page(&request.state, &request.code)?;
        finish(service, desk, &claims, &authority)
    });
    Ok(Json(token.await?))
}

/// Ends the log-in that the token is of: the token is revoked.
#[utoipa::path(delete, path = "/api/v1/login", tag = "login", security(("token" = ["viewer"])), responses((status = 204), ProblemStatus<409>))]
pub async fn log_out(
    Viewer(who): Viewer,
    State(api): State<Api>,
) -> Result<StatusCode, ApiProblem> {
    let (service, id) = (Arc::clone(&api.service), who.token.clone());
    blocking(move || -> Result<(), ApiProblem> {
        let store = service.store();
        if store.api_token(&who.token)?.origin != TokenOrigin::Login {
            return Err(ApiProblem::new(
                StatusCode::CONFLICT,
                "login",
                format!("token `{}` is not of a log-in", who.name),
            )
            .hint("an admin revokes it with `backburn tokens revoke`"));
        }
        service.audit(&who, "logout", &who.token, "asked", json!({}))?;
        Ok(store.revoke_api_token(&who.token, Timestamp::now())?)
    })
    .await?;
    api.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn finish(
    service: &Service,
    desk: &LoginDesk,
    claims: &Claims,
    authority: &crate::pki::ca::CertificateAuthority,
) -> Result<TokenInfo, LoginError> {
    let logged_in = service.log_in(desk, claims, authority)?;
    let mut info = TokenInfo::from(logged_in.kept);
    info.token = Some(logged_in.token.to_string());
    Ok(info)
}
