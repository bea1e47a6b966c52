//! Authentication by token and authorization by role. Each handler names the role that it requires among its arguments,
//! so that a handler without one stands out.

use super::Api;
use super::blocking;
use super::problem::ApiProblem;
use crate::connection_slots::{Slot, Standing};
use crate::page::session::{self, PageSessions, ShownSession};
use crate::pki::tokens::secret_hash;
use crate::service::Actor;
use crate::store::{ApiTokenRecord, Role, StoreError, StoreErrorKind};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use backburn_experiments::token::ApiToken;
use jiff::Timestamp;
use serde_json::json;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// The caller, who has role `viewer` or more: may read.
pub struct Viewer(pub Actor);
/// The caller, who has role `operator` or more: may run, stop and halt.
pub struct Operator(pub Actor);
/// The caller, who has role `admin`: may admit and revoke agents, people and jobs.
pub struct Admin(pub Actor);

/// Authenticates the caller by the request's token and checks the role.
async fn authenticate(parts: &mut Parts, api: &Api, required: Role) -> Result<Actor, ApiProblem> {
    let none = |what: &str| {
        ApiProblem::new(StatusCode::UNAUTHORIZED, "token", what).hint(
            "send `Authorization: Bearer TOKEN`; an admin makes one with `backburn tokens make NAME`",
        )
    };
    let kept = match parts.headers.get(header::AUTHORIZATION) {
        Some(shown) => {
            let shown = shown.to_str().ok();
            let Some(shown) = shown.and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then_some(token)
            }) else {
                return Err(none("the request has no token"));
            };
            api.token_of_bearer(shown).await?
        }
        None => match session::shown(&parts.headers) {
            Some(shown) => {
                if let Some(why) = session::foreign_request(parts) {
                    return Err(ApiProblem::new(StatusCode::FORBIDDEN, "origin", why)
                        .hint("use the page itself, or send a token"));
                }
                api.token_of_session(&shown).await?
            }
            None => return Err(none("the request has no token")),
        },
    };
    // One message for all causes, so that nobody learns which ids exist.
    let Some(kept) = kept else {
        return Err(none(
            "the token is not valid: it is unknown, expired or revoked",
        ));
    };
    if let Some(slot) = parts.extensions.get::<Arc<Slot>>() {
        slot.raise(match kept.role {
            Role::Viewer => Standing::Viewer,
            Role::Operator | Role::Admin => Standing::Operator,
        });
    }
    let who = Actor::from(&kept);
    if kept.role < required {
        let what = format!(
            "requires role `{}`; token `{}` has role `{}`",
            role_name(required),
            kept.name,
            role_name(kept.role)
        );
        api.record_denial(who, required, parts).await;
        return Err(ApiProblem::new(StatusCode::FORBIDDEN, "role", what));
    }
    super::blind::guard(parts, &who)?;
    super::teams::guard(parts, api, &who).await?;
    Ok(who)
}

/// The name of a role, as it is written in requests and answers.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// How many requests of a token its role did not allow, since the first of them.
pub(super) struct DenialCount {
    since: Instant,
    count: u32,
}

/// How many denied requests of one token are written to the audit log in [`DENIAL_WINDOW`]. More would only fill the disk.
const MAX_LOGGED_DENIALS: u32 = 10;
const DENIAL_WINDOW: Duration = Duration::from_secs(60);
/// How much of a path is written to the audit log, in characters.
const MAX_LOGGED_PATH_CHARS: usize = 200;

impl Api {
    /// Records in the audit log that the role of a token did not allow a request. Requests without a valid token are not recorded:
    /// anybody could fill the log.
    async fn record_denial(&self, who: Actor, required: Role, parts: &Parts) {
        let is_written = {
            let mut denial_counts = self
                .denial_counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            denial_counts
                .retain(|_, denial_counts| now.duration_since(denial_counts.since) < DENIAL_WINDOW);
            let denial_counts = denial_counts.entry(who.token.clone());
            let denial_counts = denial_counts.or_insert(DenialCount {
                since: now,
                count: 0,
            });
            denial_counts.count += 1;
            denial_counts.count <= MAX_LOGGED_DENIALS
        };
        if !is_written {
            return;
        }
        let path = parts.uri.path().chars().take(MAX_LOGGED_PATH_CHARS);
        let about: String = format!("{} ", parts.method)
            .chars()
            .take(MAX_LOGGED_PATH_CHARS)
            .chain(path)
            .collect();
        let service = self.service.clone();
        let detail = json!({"wants": role_name(required)});
        let written = blocking(move || service.audit(&who, "ask", &about, "refused", detail)).await;
        if written.is_err() {
            tracing::warn!("a denied request could not be written to the audit log");
        }
    }

    /// The record of a valid token, by its text. None if it proves nothing.
    async fn token_of_bearer(&self, text: &str) -> Result<Option<ApiTokenRecord>, StoreError> {
        let Ok(token) = text.parse::<ApiToken>() else {
            return Ok(None);
        };
        let kept = self.known_token(&token.id).await?;
        Ok(kept.filter(|kept| {
            let proved: bool = secret_hash(&token.secret).0.ct_eq(&kept.hash.0).into();
            proved && kept.is_valid(Timestamp::now())
        }))
    }

    /// The record of the valid token that a browser has signed in with. None if its session proves nothing.
    async fn token_of_session(
        &self,
        shown: &ShownSession,
    ) -> Result<Option<ApiTokenRecord>, StoreError> {
        let kept = self.known_token(&shown.token).await?;
        let (sessions, now) = (PageSessions::of(&self.authority), Timestamp::now());
        Ok(kept.filter(|kept| sessions.is_valid(shown, kept, now) && kept.is_valid(now)))
    }

    /// The record of the token with this id. None if there is none.
    async fn known_token(&self, id: &str) -> Result<Option<ApiTokenRecord>, StoreError> {
        match self.token(id).await {
            Ok(kept) => Ok(Some(kept)),
            Err(error) if error.kind == StoreErrorKind::NotThere => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the token with this id is still valid. If that cannot be found out, what was known last counts.
    pub(super) async fn is_valid(&self, id: &str) -> bool {
        let token = self.token(id).await;
        token.is_ok_and(|token| token.is_valid(Timestamp::now()))
    }

    /// Looks a token up in the store. Tokens are cached, so that a halt works while the store is not available.
    async fn token(&self, id: &str) -> Result<ApiTokenRecord, StoreError> {
        let (store, id_) = (self.service.store().clone(), id.to_owned());
        let read = tokio::task::spawn_blocking(move || store.api_token(&id_)).await;
        match read {
            Ok(Ok(token)) => {
                self.cache_token(token.clone());
                Ok(token)
            }
            Ok(Err(error)) if error.kind == StoreErrorKind::NotThere => {
                self.forget(id);
                Err(error)
            }
            Ok(Err(error)) => self.cached_token(id).ok_or(error),
            Err(_) => Err(StoreError::new(
                StoreErrorKind::Io,
                "the controller is shutting down",
            )),
        }
    }
}

macro_rules! roles {
    ($($name:ident),*) => {$(
        impl FromRequestParts<Api> for $name {
            type Rejection = ApiProblem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiProblem> {
                authenticate(parts, api, Role::$name).await.map($name)
            }
        }
    )*};
}
roles!(Viewer, Operator, Admin);
