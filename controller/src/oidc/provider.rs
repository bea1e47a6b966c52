//! Talking to the identity provider: its configuration and keys, the device flow (RFC 8628), and the authorization code with PKCE
//! (RFC 7636). Blocks for as long as the provider takes, at most [`PROVIDER_TIMEOUT`] for each request.

use super::config::{OidcConfig, is_safe_url};
use super::id_token::{Claims, ExpectedClaims, InvalidIdToken, KeySet};
use crate::providers::{ProbeContext, measure};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::wire::ProbeOutcome;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the provider may take to answer.
const PROVIDER_TIMEOUT: HumanDuration = HumanDuration::seconds(10);
/// How long the provider's configuration and keys are used before they are read again.
const CACHE_LIFETIME: Duration = Duration::from_secs(3600);
/// How often keys may be read again in [`REFRESH_WINDOW`] because a token names one that is not known: anybody can make up names.
const MAX_REFRESHES: u32 = 5;
const REFRESH_WINDOW: Duration = Duration::from_secs(60);
/// How often to ask whether a person has logged in, if the provider does not say, in seconds.
const DEFAULT_INTERVAL_SECONDS: u64 = 5;

/// Why a log-in did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider cannot be reached, or its answer is not one.
    #[error("the identity provider {0}")]
    Unavailable(String),
    /// The provider, or a check of what it said, refuses it.
    #[error("{0}")]
    Refused(String),
}

/// What the provider publishes of itself.
#[derive(Debug, Clone, Deserialize)]
struct ProviderMetadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

/// The start of a log-in on another device.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceStart {
    /// What the controller asks the provider with.
    pub device_code: String,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: String,
    /// The same with the code in it, if the provider has that.
    #[serde(default)]
    pub verification_uri_complete: Option<String>,
    /// How long the code is valid, in seconds.
    pub expires_in: u64,
    /// How often to ask, in seconds.
    #[serde(default = "default_interval")]
    pub interval: u64,
}

fn default_interval() -> u64 {
    DEFAULT_INTERVAL_SECONDS
}

/// What the provider answers when it is asked for a token.
#[derive(Debug, Clone)]
pub enum TokenAnswer {
    /// Who has logged in.
    Claims(Claims),
    /// Nobody yet; ask again.
    Pending,
    /// Nobody yet; ask less often.
    SlowDown,
}

/// An identity provider, as the owner has configured it.
pub struct IdentityProvider {
    config: OidcConfig,
    secret: Option<String>,
    state: Mutex<ProviderCache>,
}

#[derive(Debug, Default)]
struct ProviderCache {
    metadata: Option<(ProviderMetadata, Instant)>,
    keys: Option<(KeySet, Instant)>,
    refreshes: Vec<Instant>,
}

impl IdentityProvider {
    /// The provider of this configuration. It is not asked for anything yet.
    ///
    /// # Errors
    /// The file with the client's secret cannot be read.
    pub fn new(config: OidcConfig) -> Result<Self, String> {
        let secret = match &config.client_secret_file {
            None => None,
            Some(path) => {
                let text = crate::files::read_text(path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        Ok(IdentityProvider {
            config,
            secret,
            state: Mutex::default(),
        })
    }

    /// What the owner has configured.
    pub fn config(&self) -> &OidcConfig {
        &self.config
    }

    fn state(&self) -> MutexGuard<'_, ProviderCache> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a log-in on another device.
    ///
    /// # Errors
    /// The provider is not available, or has no such flow.
    pub fn start_device(&self) -> Result<DeviceStart, ProviderError> {
        let Some(endpoint) = self.metadata()?.device_authorization_endpoint else {
            return Err(ProviderError::Refused(
                "the identity provider has no device authorization (RFC 8628)".into(),
            ));
        };
        let scope = self.config.scopes.join(" ");
        let answer = self.post(&endpoint, json!({"scope": scope}))?;
        let start: DeviceStart = succeeded(answer)?;
        match is_safe_url(&start.verification_uri) {
            true => Ok(start),
            false => Err(unavailable(
                "sends people to an address that is not `https://`",
            )),
        }
    }

    /// Asks whether a person has logged in on another device.
    ///
    /// # Errors
    /// The provider is not available, the person declined, the code has expired, or the answer is not valid.
    pub fn poll_device(&self, device_code: &str) -> Result<TokenAnswer, ProviderError> {
        let form = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device_code,
        });
        self.token(form, None)
    }

    /// The address to which a browser is sent, to come back to this page with a code.
    ///
    /// # Errors
    /// The provider is not available.
    pub fn authorization_url(
        &self,
        redirect_uri: &str,
        state: &str,
        nonce: &str,
        challenge: &str,
    ) -> Result<String, ProviderError> {
        let endpoint = self.metadata()?.authorization_endpoint;
        let scope = self.config.scopes.join(" ");
        let query = [
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &scope),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ];
        let query = query.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let sign = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{sign}{}", query.join("&")))
    }

    /// Exchanges the code that a browser came back with.
    ///
    /// # Errors
    /// The provider is not available, refuses the code, or its answer is not valid.
    pub fn exchange_code(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
        nonce: &str,
    ) -> Result<Claims, ProviderError> {
        let form = json!({
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        });
        match self.token(form, Some(nonce))? {
            TokenAnswer::Claims(claims) => Ok(claims),
            _ => Err(unavailable("did not answer with a token")),
        }
    }

    fn token(&self, form: Value, nonce: Option<&str>) -> Result<TokenAnswer, ProviderError> {
        let endpoint = self.metadata()?.token_endpoint;
        let (status, answer) = self.post(&endpoint, form)?;
        match answer.get("error").and_then(Value::as_str) {
            Some("authorization_pending") => return Ok(TokenAnswer::Pending),
            Some("slow_down") => return Ok(TokenAnswer::SlowDown),
            Some("access_denied") => {
                return Err(ProviderError::Refused("the log-in was declined".into()));
            }
            Some("expired_token") => {
                return Err(ProviderError::Refused(
                    "the code has expired: log in again".into(),
                ));
            }
            _ => {}
        }
        let answer: Value = succeeded((status, answer))?;
        let Some(token) = answer.get("id_token").and_then(Value::as_str) else {
            return Err(unavailable("did not answer with an ID token"));
        };
        self.verify(token, nonce).map(TokenAnswer::Claims)
    }

    fn verify(&self, token: &str, nonce: Option<&str>) -> Result<Claims, ProviderError> {
        let expected = ExpectedClaims {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: Timestamp::now(),
        };
        let mut verified = self.keys()?.verify(token, expected);
        if verified.as_ref().err() == Some(&InvalidIdToken::UnknownKey) && self.may_refresh() {
            verified = self.read_keys()?.verify(token, expected);
        }
        verified.map_err(|error| {
            tracing::warn!(%error, "an ID token is not valid");
            ProviderError::Refused(format!(
                "the identity provider's answer is not valid: {error}"
            ))
        })
    }

    fn may_refresh(&self) -> bool {
        let mut state = self.state();
        state.refreshes.retain(|at| at.elapsed() < REFRESH_WINDOW);
        let may = state.refreshes.len() < MAX_REFRESHES as usize;
        if may {
            state.refreshes.push(Instant::now());
        }
        may
    }

    fn metadata(&self) -> Result<ProviderMetadata, ProviderError> {
        if let Some((metadata, read)) = &self.state().metadata
            && read.elapsed() < CACHE_LIFETIME
        {
            return Ok(metadata.clone());
        }
        let issuer = self.config.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let metadata: ProviderMetadata = succeeded(get(&url)?)?;
        if metadata.issuer != self.config.issuer {
            return Err(unavailable(&format!(
                "calls itself `{}`, and `issuer` is `{}`",
                metadata.issuer.escape_debug(),
                self.config.issuer
            )));
        }
        let endpoints = [
            Some(&metadata.authorization_endpoint),
            Some(&metadata.token_endpoint),
            Some(&metadata.jwks_uri),
            metadata.device_authorization_endpoint.as_ref(),
        ];
        if endpoints.into_iter().flatten().any(|url| !is_safe_url(url)) {
            return Err(unavailable("has an endpoint that is not `https://`"));
        }
        self.state().metadata = Some((metadata.clone(), Instant::now()));
        Ok(metadata)
    }

    fn keys(&self) -> Result<KeySet, ProviderError> {
        if let Some((keys, read)) = &self.state().keys
            && read.elapsed() < CACHE_LIFETIME
        {
            return Ok(keys.clone());
        }
        self.read_keys()
    }

    fn read_keys(&self) -> Result<KeySet, ProviderError> {
        let keys: KeySet = succeeded(get(&self.metadata()?.jwks_uri)?)?;
        self.state().keys = Some((keys.clone(), Instant::now()));
        Ok(keys)
    }

    /// Posts a form as the client that the provider knows.
    fn post(&self, url: &str, form: Value) -> Result<(u64, Value), ProviderError> {
        let mut form = form.as_object().cloned().unwrap_or_default();
        form.insert("client_id".into(), self.config.client_id.clone().into());
        if let Some(secret) = &self.secret {
            form.insert("client_secret".into(), secret.clone().into());
        }
        send(url, "POST", Some(form))
    }
}

fn get(url: &str) -> Result<(u64, Value), ProviderError> {
    send(url, "GET", None)
}

fn unavailable(what: &str) -> ProviderError {
    ProviderError::Unavailable(what.to_owned())
}

/// Sends a request. Returns the status and the JSON of the answer.
fn send(
    url: &str,
    method: &str,
    form: Option<Map<String, Value>>,
) -> Result<(u64, Value), ProviderError> {
    let probe: Provider = serde_json::from_value(json!({
        "type": "http",
        "url": url,
        "method": method,
        "headers": {"Accept": "application/json"},
        "arguments": form,
        "timeout": PROVIDER_TIMEOUT,
    }))
    .map_err(|error| unavailable(&format!("cannot be asked: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unavailable(&format!("cannot be asked: {error}")))?;
    let context = ProbeContext::default();
    let answer = match runtime.block_on(measure(&probe, Some(PROVIDER_TIMEOUT), &context)) {
        ProbeOutcome::Output(answer) => answer,
        ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
            tracing::warn!(url, why, "the identity provider does not answer");
            return Err(unavailable("does not answer"));
        }
    };
    let body = match &answer["body"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        body => body.clone(),
    };
    Ok((answer["status"].as_u64().unwrap_or_default(), body))
}

/// The content of an answer that is no error.
fn succeeded<T: DeserializeOwned>((status, body): (u64, Value)) -> Result<T, ProviderError> {
    if !(200..300).contains(&status) {
        let error = body
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or("no reason");
        tracing::warn!(status, error, "the identity provider refuses a request");
        return Err(ProviderError::Refused(format!(
            "the identity provider refuses it with status {status}: {}",
            error.escape_debug()
        )));
    }
    serde_json::from_value(body)
        .map_err(|error| unavailable(&format!("did not answer as expected: {error}")))
}
