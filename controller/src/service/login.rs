//! Log-in with an identity provider. A log-in that has begun is kept in memory until the provider says who it was; what comes of it is a
//! token of that person, which lasts for hours.

use super::{Actor, Service, lock};
use crate::oidc::{Claims, IdentityProvider, OidcConfig, ProviderError, TokenAnswer, base64url};
use crate::pki::ca::{CaError, CertificateAuthority};
use crate::pki::tokens::{create_token, random_id, secret_hash};
use crate::store::{ApiTokenRecord, AuditRecord, StoreError, TokenOrigin};
use backburn_experiments::token::ApiToken;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many log-ins may be under way at a time: anybody can begin one.
const MAX_PENDING: usize = 256;
/// How long a log-in may take at most, whatever the provider says.
const MAX_PENDING_TIME: Duration = Duration::from_secs(1800);
/// How long a browser may take to come back.
const PAGE_TIME: Duration = Duration::from_secs(600);
/// By how much longer to wait between questions if the provider asks for that (RFC 8628, section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The shortest time between two questions to the provider.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// The provider, and the log-ins that are under way.
pub struct LoginDesk {
    provider: IdentityProvider,
    pending: Mutex<BTreeMap<String, PendingLogin>>,
}

/// A log-in that has begun.
struct PendingLogin {
    until: Instant,
    way: LoginWay,
}

enum LoginWay {
    /// The person enters a code on another device.
    Device {
        device_code: String,
        interval: Duration,
        /// When the provider may be asked again.
        next: Instant,
    },
    /// The person's browser comes back with a code.
    Page {
        verifier: String,
        nonce: String,
        redirect_uri: String,
    },
}

/// What a person is shown who logs in on another device.
#[derive(Debug, Clone)]
pub struct DeviceLogin {
    /// The id of the log-in, which only who began it knows.
    pub id: String,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: String,
    /// The same with the code in it, if the provider has that.
    pub verification_uri_complete: Option<String>,
    /// How long the code is valid.
    pub lasts: Duration,
    /// How often to ask.
    pub interval: Duration,
}

/// A log-in that has succeeded: the token, and what the store keeps of it.
#[derive(Debug)]
pub struct LoggedIn {
    /// The token, which nobody can be shown again.
    pub token: ApiToken,
    /// What the store keeps.
    pub kept: ApiTokenRecord,
}

/// Why a log-in did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no such log-in, or not any more.
    #[error("no log-in with this id is under way")]
    Unknown,
    /// Too many log-ins are under way.
    #[error("too many log-ins are under way")]
    Crowded,
    /// The page is not one of the owner's.
    #[error("the provider may not send a browser back to this page")]
    Page,
    /// The provider is not available, or refuses it.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The provider has said who it is, and they may not use this controller.
    #[error("{0}")]
    NotAllowed(String),
    /// The system has no random numbers.
    #[error(transparent)]
    Random(#[from] CaError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoginDesk {
    /// Log-ins with this provider.
    pub fn new(provider: IdentityProvider) -> Self {
        LoginDesk {
            provider,
            pending: Mutex::default(),
        }
    }

    /// What the owner has configured.
    pub fn config(&self) -> &OidcConfig {
        self.provider.config()
    }

    fn keep(&self, lasts: Duration, way: LoginWay) -> Result<String, LoginError> {
        let id = random_id()?;
        let mut pending = lock(&self.pending);
        pending.retain(|_, login| login.until > Instant::now());
        if pending.len() >= MAX_PENDING {
            return Err(LoginError::Crowded);
        }
        let until = Instant::now() + lasts.min(MAX_PENDING_TIME);
        pending.insert(id.clone(), PendingLogin { until, way });
        Ok(id)
    }

    /// Begins a log-in on another device.
    ///
    /// # Errors
    /// The provider is not available, or too many log-ins are under way.
    pub fn start_device(&self) -> Result<DeviceLogin, LoginError> {
        if lock(&self.pending).len() >= 2 * MAX_PENDING {
            return Err(LoginError::Crowded);
        }
        let start = self.provider.start_device()?;
        let interval = Duration::from_secs(start.interval).max(MIN_INTERVAL);
        let lasts = Duration::from_secs(start.expires_in).min(MAX_PENDING_TIME);
        let id = self.keep(
            lasts,
            LoginWay::Device {
                device_code: start.device_code,
                interval,
                next: Instant::now(),
            },
        )?;
        Ok(DeviceLogin {
            id,
            user_code: start.user_code,
            verification_uri: start.verification_uri,
            verification_uri_complete: start.verification_uri_complete,
            lasts,
            interval,
        })
    }

    /// Who has logged in on another device. None if nobody has yet.
    ///
    /// # Errors
    /// There is no such log-in, the person declined, or the provider's answer is not valid: the log-in is over then.
    pub fn poll_device(&self, id: &str) -> Result<Option<Claims>, LoginError> {
        let device_code = {
            let mut pending = lock(&self.pending);
            pending.retain(|_, login| login.until > Instant::now());
            let way = &mut pending.get_mut(id).ok_or(LoginError::Unknown)?.way;
            let LoginWay::Device {
                device_code,
                interval,
                next,
            } = way
            else {
                return Err(LoginError::Unknown);
            };
            if *next > Instant::now() {
                return Ok(None);
            }
            *next = Instant::now() + *interval;
            device_code.clone()
        };
        match self.provider.poll_device(&device_code) {
            Ok(TokenAnswer::Pending) => Ok(None),
            Ok(TokenAnswer::SlowDown) => {
                if let Some(LoginWay::Device { interval, next, .. }) =
                    lock(&self.pending).get_mut(id).map(|login| &mut login.way)
                {
                    *interval += SLOW_DOWN;
                    *next = Instant::now() + *interval;
                }
                Ok(None)
            }
            Ok(TokenAnswer::Claims(claims)) => {
                // Of several who ask at once, one gets it.
                lock(&self.pending).remove(id).ok_or(LoginError::Unknown)?;
                Ok(Some(claims))
            }
            // Ask again: the provider may come back.
            Err(error @ ProviderError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                lock(&self.pending).remove(id);
                Err(error.into())
            }
        }
    }

    /// Begins a log-in in a browser. Returns the id of the log-in, and the address to which the browser goes.
    ///
    /// # Errors
    /// The page is not one of the owner's, the provider is not available, or too many log-ins are under way.
    pub fn start_page(&self, redirect_uri: &str) -> Result<(String, String), LoginError> {
        if !self
            .config()
            .redirect_uris
            .iter()
            .any(|page| page == redirect_uri)
        {
            return Err(LoginError::Page);
        }
        let (verifier, nonce) = (format!("{}{}", random_id()?, random_id()?), random_id()?);
        let challenge = base64url(&Sha256::digest(verifier.as_bytes()));
        let id = self.keep(
            PAGE_TIME,
            LoginWay::Page {
                verifier,
                nonce: nonce.clone(),
                redirect_uri: redirect_uri.to_owned(),
            },
        )?;
        let url = (self.provider).authorization_url(redirect_uri, &id, &nonce, &challenge)?;
        Ok((id, url))
    }

    /// Who a browser that came back with this code belongs to. A log-in is over after one attempt.
    ///
    /// # Errors
    /// There is no such log-in, or the provider's answer is not valid.
    pub fn finish_page(&self, id: &str, code: &str) -> Result<Claims, LoginError> {
        let login = lock(&self.pending).remove(id);
        let login = login.filter(|login| login.until > Instant::now());
        let Some(LoginWay::Page {
            verifier,
            nonce,
            redirect_uri,
        }) = login.map(|login| login.way)
        else {
            return Err(LoginError::Unknown);
        };
        Ok(self
            .provider
            .exchange_code(code, &verifier, &redirect_uri, &nonce)?)
    }
}

impl Service {
    /// Lets people log in with this provider. The first call counts.
    pub fn set_login_desk(&self, desk: LoginDesk) {
        self.login_desk.set(desk).ok();
    }

    /// Log-ins with an identity provider, if the owner has configured one.
    pub fn login_desk(&self) -> Option<&LoginDesk> {
        self.login_desk.get()
    }

    /// Makes a token for the person that the provider has named, with the rights of their groups.
    ///
    /// # Errors
    /// No group of theirs may use this controller; the store failed.
    pub fn log_in(
        &self,
        desk: &LoginDesk,
        claims: &Claims,
        authority: &CertificateAuthority,
    ) -> Result<LoggedIn, LoginError> {
        let config = desk.config();
        let subject = claims.text("sub").unwrap_or_default();
        let grant = match config.grant(claims) {
            Ok(grant) => grant,
            Err(why) => {
                let detail = json!({"issuer": config.issuer, "subject": subject, "why": why});
                self.audit_own("login", "", "refused", detail)?;
                return Err(LoginError::NotAllowed(why));
            }
        };
        let token: ApiToken = create_token(authority)?;
        let created = Timestamp::now();
        let lasts = SignedDuration::try_from(config.session.0).unwrap_or(SignedDuration::ZERO);
        let kept = ApiTokenRecord {
            id: token.id.clone(),
            hash: secret_hash(&token.secret),
            name: grant.person.clone(),
            person: grant.person,
            teams: grant.teams,
            origin: TokenOrigin::Login,
            role: grant.role,
            is_blind: false,
            created,
            expires: Some(created.saturating_add(lasts).unwrap_or(created)),
            revoked: None,
        };
        let who = Actor::from(&kept);
        self.store().audit(&AuditRecord {
            at: created,
            who: who.name,
            role: Some(who.role),
            what: "login".into(),
            about: kept.id.clone(),
            outcome: "done".into(),
            detail: json!({
                "issuer": config.issuer, "subject": subject, "teams": kept.teams,
                "groups": claims.texts(&config.groups_claim), "expires": kept.expires,
            }),
        })?;
        self.store().put_api_token(&kept)?;
        Ok(LoggedIn { token, kept })
    }
}
