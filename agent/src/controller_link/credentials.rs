//! What an agent keeps after it has joined a controller: one file that only its user can read, so that a key is never combined with another
//! key's certificate.

use super::deadline::ConnectError;
use super::proxy::Route;
use crate::host::{Host, HostError};
use crate::trusted_files;
use backburn_experiments::{HumanDuration, hexadecimal, json};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The controller that an agent has joined, and how the agent proves its identity.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The controller's address, as `HOST[:PORT]`.
    pub controller: String,
    /// The name under which the agent has joined.
    pub name: String,
    /// The labels that were given when it joined a controller that takes an agent's own word for them; empty for a controller that grants
    /// labels.
    pub labels: BTreeMap<String, String>,
    /// The agent's private key, in PEM. It never leaves this host.
    pub key: String,
    /// The agent's certificate, in PEM.
    pub certificate: String,
    /// The certificate of the controller's certificate authority, in PEM; two while the authority is being replaced.
    pub authority: String,
    /// The certificate's lifetime when it was issued.
    pub lasts: HumanDuration,
    /// The HTTP proxy that was given when the agent joined, as a URL. It may have a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The proxy that this process was told to use instead, which is not kept.
    #[serde(skip)]
    pub proxy_in_use: Option<String>,
    /// When it was issued: seconds since 1970 by this host's clock.
    pub since: u64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("controller", &self.controller)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why there are no usable credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The agent has never joined a controller.
    #[error("this agent has not joined a controller: {} does not exist\nhint: run `backburn-agent join --controller HOST[:PORT] --token TOKEN`; an operator of the controller creates the token", .0.display())]
    JoinError(PathBuf),
    /// The file cannot be used.
    #[error("{}: {what}\nhint: join again; that replaces the file", path.display())]
    Unreadable {
        /// The path of the credentials.
        path: PathBuf,
        /// Why it cannot be used.
        what: String,
    },
}

impl Credentials {
    fn path(state: &Path) -> PathBuf {
        state.join("controller.json")
    }

    /// Reads the credentials from this state folder.
    ///
    /// # Errors
    /// There are none, or they cannot be used.
    pub fn load(state: &Path) -> Result<Self, CredentialsError> {
        let path = Self::path(state);
        // Whoever can write the file chooses the controller that this agent obeys.
        let read = trusted_files::read(&path)
            .and_then(|text| trusted_files::check_folder(state).map(|()| text));
        match read {
            // People copy this file between hosts and edit it by hand.
            Ok(text) => json::read_bytes(&text)
                .map_err(|problems| json::in_one_line(&problems))
                .and_then(|kept| serde_json::from_value(kept).map_err(|error| error.to_string()))
                .map_err(|what| CredentialsError::Unreadable { path, what }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(CredentialsError::JoinError(path))
            }
            Err(error) => Err(CredentialsError::Unreadable {
                path,
                what: error.to_string(),
            }),
        }
    }

    /// Replaces the credentials in this state folder, durably.
    ///
    /// # Errors
    /// The file cannot be written; what was there still is.
    pub fn save(&self, host: &Host, state: &Path) -> Result<(), HostError> {
        let path = Self::path(state);
        let text = serde_json::to_vec_pretty(self).map_err(|error| HostError {
            what: format!("write {}", path.display()),
            source: error.into(),
        })?;
        host.make_folder(state)?;
        host.write_durably(&path, &text)
    }

    /// How the controller is reached.
    ///
    /// # Errors
    /// The proxy is not named as it should be.
    pub(super) fn route(&self) -> Result<Route, ConnectError> {
        let proxy = self.proxy_in_use.as_ref().or(self.proxy.as_ref());
        Route::new(&self.controller, proxy.map(String::as_str))
    }

    /// How long until the certificate is to be renewed, which is after two thirds of its lifetime.
    pub fn renewal_in(&self) -> Duration {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(self.since);
        // If the clock was set back, the age is unknown: renewing now corrects it.
        match SystemTime::now().duration_since(since) {
            Ok(age) => (self.lasts.0 * 2 / 3).saturating_sub(age),
            Err(_) => Duration::ZERO,
        }
    }
}

/// The SHA-256 fingerprint of a certificate in DER, in lower-case hexadecimal digits. A join token pins it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hexadecimal(digest(&SHA256, certificate))
}

/// The fingerprints of certificates in PEM; none if one of them is not a certificate.
pub fn fingerprints_of_pem(pem: &str) -> Vec<String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.unwrap_or_default();
    certificates.iter().map(fingerprint).collect()
}

/// Seconds since 1970 by this host's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
