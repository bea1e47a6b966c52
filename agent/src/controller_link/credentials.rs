//! What an agent keeps of having joined: one file, for us alone, so that a key never stands beside
//! the certificate of another.

use crate::host::{Host, HostError};
use crate::ledger::trusted_files;
use backburn_experiments::{HumanDuration, json};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where an agent belongs, and how it proves who it is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The controller, as `HOST[:PORT]`.
    pub controller: String,
    /// What the agent is called.
    pub name: String,
    /// Labels that were given.
    pub labels: BTreeMap<String, String>,
    /// The agent's key, in PEM. Never leaves this host.
    pub key: String,
    /// The agent's certificate, in PEM.
    pub certificate: String,
    /// The certificate of the controller's authority, in PEM.
    pub authority: String,
    /// How long the certificate was good for when it came.
    pub lasts: HumanDuration,
    /// When that was: seconds since 1970 by this host's clock.
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

/// Why there is no membership to go by.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Never joined.
    #[error("this agent has not joined a controller: there is no {}\nhint: `backburn-agent join --controller HOST[:PORT] --token TOKEN`; an operator of the controller makes the token", .0.display())]
    JoinError(PathBuf),
    /// The file can't be had.
    #[error("{}: {what}\nhint: join again: the file is replaced", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

impl Credentials {
    fn path(state: &Path) -> PathBuf {
        state.join("controller.json")
    }

    /// What is kept in this state folder.
    ///
    /// # Errors
    /// Nothing, or it can't be read.
    pub fn load(state: &Path) -> Result<Self, CredentialsError> {
        let path = Self::path(state);
        // Whoever can write it chooses whom this agent obeys.
        let read = trusted_files::read(&path)
            .and_then(|text| trusted_files::check_folder(state).map(|()| text));
        match read {
            // People carry this file from host to host, and mend it by hand.
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

    /// Keeps this one instead of what was there, durably.
    ///
    /// # Errors
    /// It can't be written; what was there still is.
    pub fn save(&self, host: &Host, state: &Path) -> Result<(), HostError> {
        let path = Self::path(state);
        let text = serde_json::to_vec_pretty(self).map_err(|error| HostError {
            what: format!("write {}", path.display()),
            source: error.into(),
        })?;
        host.make_folder(state)?;
        host.write_durably(&path, &text)
    }

    /// How long until the certificate is to be renewed: when two thirds of its life are over.
    pub fn renewal_in(&self) -> Duration {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(self.since);
        // A clock that was set back has the certificate younger than it is: renewed now, it is right again.
        match SystemTime::now().duration_since(since) {
            Ok(age) => (self.lasts.0 * 2 / 3).saturating_sub(age),
            Err(_) => Duration::ZERO,
        }
    }
}

/// SHA-256 of a certificate in DER, in lower-case hexadecimal digits: what a join token pins.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The fingerprint of a certificate in PEM; none where it is no certificate.
pub fn fingerprint_of_pem(pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(fingerprint(&certificate))
}

/// Seconds since 1970 by this host's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
