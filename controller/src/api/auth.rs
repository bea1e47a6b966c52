//! Authentication by token and authorization by role. Each handler names the role that it requires among its arguments,
//! so that a handler without one stands out.

use super::Api;
use super::blocking;
use super::problem::ApiProblem;
use crate::service::Actor;
use crate::store::{ApiTokenRecord, Hash, Role, StoreError, StoreErrorKind};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use std::fmt;
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// The credential of a person or a job, with the fingerprint of the certificate authority that proves the controller's identity.
/// Written `bbt1.ID.SECRET.AUTHORITY`, in lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The id of the token in the store. It is not secret.
    pub id: String,
    /// The secret that proves possession of the token: 256 random bits.
    pub secret: String,
    /// The SHA-256 hash of the certificate authority's certificate in DER.
    pub authority: String,
}

const VERSION: &str = "bbt1";

impl Token {
    /// Makes a token with a random id and secret.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn new(authority: String) -> Result<Self, ring::error::Unspecified> {
        Ok(Token {
            id: random::<8>()?,
            secret: random::<32>()?,
            authority,
        })
    }

    /// The hash of the secret, which the store keeps in its place.
    pub fn hash(&self) -> Hash {
        Hash::of(self.secret.as_bytes())
    }
}

/// `N` random bytes in hexadecimal digits.
///
/// # Errors
/// The system provides no random numbers.
pub fn random<const N: usize>() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token {
            id,
            secret,
            authority,
        } = self;
        write!(f, "{VERSION}.{id}.{secret}.{authority}")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        match parts.as_slice() {
            [VERSION, id, secret, authority] => {
                let hexadecimal = |part: &&str, length| {
                    part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
                };
                if !(hexadecimal(id, 16) && hexadecimal(secret, 64) && hexadecimal(authority, 64)) {
                    return Err("the token is malformed; copy all of it".into());
                }
                Ok(Token {
                    id: (*id).to_owned(),
                    secret: (*secret).to_owned(),
                    authority: (*authority).to_owned(),
                })
            }
            _ => Err("a token has the form `bbt1.ID.SECRET.AUTHORITY`; copy all of it".into()),
        }
    }
}

/// The caller, who has role `viewer` or more: may read.
pub struct Viewer(pub Actor);
/// The caller, who has role `operator` or more: may run, stop and halt.
pub struct Operator(pub Actor);
/// The caller, who has role `admin`: may admit and revoke agents, people and jobs.
pub struct Admin(pub Actor);

/// Authenticates the caller by the request's token and checks the role.
async fn authenticate(parts: &Parts, api: &Api, required: Role) -> Result<Actor, ApiProblem> {
    let none = |what: &str| {
        ApiProblem::new(StatusCode::UNAUTHORIZED, "token", what).hint(
            "send `Authorization: Bearer TOKEN`; an admin makes one with `backburn tokens make NAME`",
        )
    };
    let shown = parts.headers.get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok());
    let Some(shown) = shown.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }) else {
        return Err(none("the request has no token"));
    };
    // One message for all causes, so that nobody learns which ids exist.
    let wrong = || none("the token is not valid: it is unknown, expired or revoked");
    let token: Token = shown.parse().map_err(|_| wrong())?;
    let kept = match api.token(&token.id).await {
        Ok(kept) => kept,
        Err(error) if error.kind == StoreErrorKind::NotThere => return Err(wrong()),
        Err(error) => return Err(error.into()),
    };
    let proved: bool = token.hash().0.ct_eq(&kept.hash.0).into();
    let over = kept
        .expires
        .is_some_and(|expires| expires <= Timestamp::now());
    if !proved || over || kept.revoked.is_some() {
        return Err(wrong());
    }
    if kept.role < required {
        let what = format!(
            "requires role `{}`; token `{}` has role `{}`",
            role_name(required),
            kept.name,
            role_name(kept.role)
        );
        let who = Actor {
            name: kept.name,
            role: kept.role,
        };
        api.record_denial(&kept.id, who, required, parts).await;
        return Err(ApiProblem::new(StatusCode::FORBIDDEN, "role", what));
    }
    Ok(Actor {
        name: kept.name,
        role: kept.role,
    })
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
    async fn record_denial(&self, token: &str, who: Actor, required: Role, parts: &Parts) {
        let is_written = {
            let mut denial_counts = self
                .denial_counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            denial_counts
                .retain(|_, denial_counts| now.duration_since(denial_counts.since) < DENIAL_WINDOW);
            let denial_counts = denial_counts.entry(token.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_debug_output_hides_secret_and_text_parses_back() {
        let token = Token::new("ab".repeat(32)).unwrap();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        for wrong in [
            "",
            "bbt1",
            "bbj1.a.b.c",
            "bbt1.a.b.c",
            "bbt1...",
            "bbt1.a.b.c.d",
        ] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
