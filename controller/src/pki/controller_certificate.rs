//! The controller's certificate, which its authority signs again before it expires.

use super::ca::{AuthorityKeys, CONTROLLER_CERTIFICATE_LIFETIME, CaError, CertificateAuthority};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// The controller's certificate, which is regenerated before it expires when a client connects.
#[derive(Debug)]
pub(crate) struct ControllerCertificate {
    authority: Arc<CertificateAuthority>,
    names: Vec<String>,
    made: Mutex<MadeCertificate>,
}

/// A certificate of the controller, by what and when it was signed.
#[derive(Debug)]
struct MadeCertificate {
    keys: Arc<AuthorityKeys>,
    at: SystemTime,
    certificate: Arc<CertifiedKey>,
}

impl ControllerCertificate {
    pub(crate) fn new(
        authority: Arc<CertificateAuthority>,
        names: Vec<String>,
    ) -> Result<Self, CaError> {
        let keys = authority.keys();
        let certificate = Arc::new(keys.sign_controller(&names)?);
        Ok(ControllerCertificate {
            authority,
            names,
            made: Mutex::new(MadeCertificate {
                keys,
                at: SystemTime::now(),
                certificate,
            }),
        })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        // If the clock was set back, the certificate is not valid yet.
        let age = now.duration_since(made.at).unwrap_or(Duration::MAX);
        let keys = self.authority.keys();
        if age >= CONTROLLER_CERTIFICATE_LIFETIME * 2 / 3 || !Arc::ptr_eq(&keys, &made.keys) {
            match keys.sign_controller(&self.names) {
                Ok(new) => {
                    *made = MadeCertificate {
                        keys,
                        at: now,
                        certificate: Arc::new(new),
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the controller's certificate could not be regenerated");
                }
            }
        }
        Arc::clone(&made.certificate)
    }
}

impl ResolvesServerCert for ControllerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(number: u64) -> Duration {
        Duration::from_secs(number * 24 * 60 * 60)
    }

    #[test]
    fn controller_certificate_is_regenerated_before_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(CertificateAuthority::open(folder.path()).unwrap());
        let own = ControllerCertificate::new(authority, vec!["localhost".into()]).unwrap();
        let now = SystemTime::now();
        let first = own.at(now);
        let leaf = |key: &CertifiedKey| key.cert[0].clone();
        assert_eq!(leaf(&own.at(now + days(59))), leaf(&first));
        let second = own.at(now + days(61));
        assert_ne!(leaf(&second), leaf(&first));
        assert_eq!(leaf(&own.at(now + days(62))), leaf(&second));
        assert_ne!(
            leaf(&own.at(now)),
            leaf(&second),
            "the clock was set back: not good yet"
        );
    }
}
