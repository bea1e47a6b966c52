//! Who asks, and what that role may do. Each handler names the least role that it wants among its arguments, so that a
//! route without one can be seen at a look.

use super::Api;
use super::blocking;
use super::problem::ApiProblem;
use crate::service::Actor;
use crate::store::{ApiTokenRecord, Hash, StoreErrorKind, Role, StoreError};
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

/// What a person or a job carries: who it is, and by which certificate authority the controller is known. Written
/// `bbt1.ID.SECRET.AUTHORITY`, in lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it in the store; no secret.
    pub id: String,
    /// Proves it; 256 random bits.
    pub secret: String,
    /// SHA-256 of the authority's certificate in DER.
    pub authority: String,
}

const VERSION: &str = "bbt1";

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(authority: String) -> Result<Self, ring::error::Unspecified> {
        Ok(Token {
            id: random::<8>()?,
            secret: random::<32>()?,
            authority,
        })
    }

    /// What the store keeps of its secret.
    pub fn hash(&self) -> Hash {
        Hash::of(self.secret.as_bytes())
    }
}

/// So many random bytes, in hexadecimal digits.
///
/// # Errors
/// The system has none.
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
                    return Err(
                        "a part of the token is not what it should be; copy it whole".into(),
                    );
                }
                Ok(Token {
                    id: (*id).to_owned(),
                    secret: (*secret).to_owned(),
                    authority: (*authority).to_owned(),
                })
            }
            _ => Err("a token reads `bbt1.ID.SECRET.AUTHORITY`; copy it whole".into()),
        }
    }
}

/// May look.
pub struct Viewer(pub Actor);
/// May run, stop and halt.
pub struct Operator(pub Actor);
/// May let agents and people in.
pub struct Admin(pub Actor);

async fn who(parts: &Parts, api: &Api, least: Role) -> Result<Actor, ApiProblem> {
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
        return Err(none("no token was sent"));
    };
    // One sentence for all that may be wrong: nobody learns which ids there are.
    let wrong = || none("the token is not good: unknown, expired or revoked");
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
    if kept.role < least {
        let what = format!(
            "this wants the role {}, and `{}` is {}",
            word(least),
            kept.name,
            word(kept.role)
        );
        let who = Actor {
            name: kept.name,
            role: kept.role,
        };
        api.denied(&kept.id, who, least, parts).await;
        return Err(ApiProblem::new(StatusCode::FORBIDDEN, "role", what));
    }
    Ok(Actor {
        name: kept.name,
        role: kept.role,
    })
}

/// A role in a word.
pub fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// How often a token asked for what its role does not allow, since when.
pub(super) struct DenialCount {
    since: Instant,
    count: u32,
}

/// So many refusals of one token are written down in [`DENIAL_WINDOW`]: more say no more, and would fill the disk.
const MAX_LOGGED_DENIALS: u32 = 10;
const DENIAL_WINDOW: Duration = Duration::from_secs(60);
/// So much of a path is written down, in characters.
const MAX_LOGGED_PATH_CHARS: usize = 200;

impl Api {
    /// Writes down that somebody asked for what its role does not allow. A stranger, who shows no good token, is only counted:
    /// anybody could fill the log.
    async fn denied(&self, token: &str, who: Actor, least: Role, parts: &Parts) {
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
        let detail = json!({"wants": word(least)});
        let written = blocking(move || service.audit(&who, "ask", &about, "refused", detail)).await;
        if written.is_err() {
            tracing::warn!("a refusal is not in the audit log");
        }
    }

    /// A token. Those that were seen are remembered, so that the lever can be pulled while the store can't be read.
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
            Err(_) => Err(StoreError::new(StoreErrorKind::Io, "the controller ends")),
        }
    }
}

macro_rules! roles {
    ($($name:ident),*) => {$(
        impl FromRequestParts<Api> for $name {
            type Rejection = ApiProblem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiProblem> {
                who(parts, api, Role::$name).await.map($name)
            }
        }
    )*};
}
roles!(Viewer, Operator, Admin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_shown_without_its_secret() {
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
