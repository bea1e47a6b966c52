//! The owner's certificate while the controller runs: it is read again at SIGHUP and when its files change.

use super::Service;
use crate::pki::owner_certificate::{OwnerCertificate, OwnerCertificateError};
use crate::store::StoreError;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the files are looked up. A change is read when it is as old as this, so that both files are there.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the certificate stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum CertificateReloadError {
    /// The files cannot be used.
    #[error(transparent)]
    Invalid(#[from] OwnerCertificateError),
    /// What would change could not be recorded in the audit log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// Shows browsers this certificate. It can be set once.
    pub fn set_owner_certificate(&self, certificate: Arc<OwnerCertificate>) {
        if self.owner_certificate.set(certificate).is_err() {
            tracing::error!("the owner's certificate was set twice");
        }
    }

    /// The certificate of the owner's, if there is one.
    pub fn owner_certificate(&self) -> Option<&Arc<OwnerCertificate>> {
        self.owner_certificate.get()
    }

    /// Whether the files could not be used when they were read last, so that the certificate before is still shown.
    pub fn is_owner_certificate_stale(&self) -> bool {
        self.owner_certificate_stale.load(Ordering::Relaxed)
    }

    /// Reads the owner's certificate and its key again. Both are replaced together, for connections from now on; if they cannot be used,
    /// those before stay. Either is written to the log and to the audit log. Returns whether the certificate changed.
    ///
    /// # Errors
    /// Why the certificate stays as it was.
    pub fn reload_owner_certificate(&self) -> Result<bool, CertificateReloadError> {
        let Some(owner) = self.owner_certificate() else {
            return Ok(false);
        };
        let path = owner.path().display().to_string();
        let what = "load tls-certificate";
        let next = match owner.read_again() {
            Ok(next) => next,
            Err(error) => {
                self.owner_certificate_stale.store(true, Ordering::Relaxed);
                tracing::error!(%error, "the TLS certificate was not loaded again; the one before stays in force");
                self.audit_own(what, &path, "refused", json!({"why": error.to_string()}))?;
                return Err(error.into());
            }
        };
        if owner.is_current(&next) {
            self.owner_certificate_stale.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        let detail = json!({"sha256": next.fingerprint, "names": next.names, "expires": next.expires.to_string()});
        self.audit_own(what, &path, "done", detail)?;
        tracing::info!(names = ?next.names, expires = %next.expires, "the TLS certificate was loaded again");
        owner.replace(next);
        self.owner_certificate_stale.store(false, Ordering::Relaxed);
        Ok(true)
    }

    /// Reads the owner's certificate again whenever one of its files has changed, for as long as the controller runs.
    pub async fn keep_owner_certificate(self: Arc<Self>) {
        let Some(owner) = self.owner_certificate().cloned() else {
            return;
        };
        // The files may be on a disk that does not answer.
        let look = || {
            let owner = Arc::clone(&owner);
            tokio::task::spawn_blocking(move || owner.file_versions())
        };
        let mut known = owner.first_versions;
        let mut seen = known;
        loop {
            tokio::time::sleep(FILE_CHECK_INTERVAL).await;
            let Ok(now) = look().await else { return };
            if now != known && now == seen {
                known = now;
                let service = Arc::clone(&self);
                // What came of it was logged.
                tokio::task::spawn_blocking(move || service.reload_owner_certificate().ok())
                    .await
                    .ok();
            }
            seen = now;
        }
    }
}
