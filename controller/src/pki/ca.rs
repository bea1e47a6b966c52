//! The controller's certificate authority. Its certificates prove to the controller which agents belong to the fleet, and to
//! agents which controller is theirs. Its key never leaves its folder.
//!
//! A URI in its certificate names an agent, and nothing else does; the common name is for people. Agents' certificates are
//! valid for clients only, so that no agent can impersonate the controller.

use backburn_experiments::join::problem_with_name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    date_time_ymd,
};
use ring::rand::SecureRandom as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::sign::any_ecdsa_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// How long an agent's certificate is valid by default.
pub const AGENT_CERTIFICATE_LIFETIME: Duration = days(30);
/// How long the controller's certificate is valid. It is regenerated after two thirds of that.
const CONTROLLER_CERTIFICATE_LIFETIME: Duration = days(90);
/// How long the authority's certificate is valid.
const CA_CERTIFICATE_LIFETIME: Duration = days(20 * 365);
/// How far an agent's clock may be behind the controller's.
const CLOCK_SKEW_ALLOWANCE: Duration = days(1);
/// The prefix of an agent's name in the URI of its certificate.
const AGENT_URI: &str = "backburn://agent/";

const fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 60 * 60)
}

/// Why an authority or a certificate could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The content of a file is invalid.
    #[error("{}: {what}\nhint: restore it from a backup; with a new authority, created in an empty folder, every agent has to join again", path.display())]
    Content {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No certificate can be created for this request or name.
    #[error("{0}")]
    Request(String),
}

/// The identity of an agent, as its certificate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The name of the agent.
    pub name: String,
    /// The certificate's serial number, in lower-case hexadecimal digits.
    pub serial: String,
}

/// A signed certificate of an agent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its serial number, as in [`AgentIdentity`].
    pub serial: String,
}

/// A certificate authority, stored in a folder.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Opens the authority in this folder, with the files `authority.key` and `authority.crt`, and creates it if there is none.
    ///
    /// # Errors
    /// A file cannot be read, written or parsed. A certificate whose key is missing is never replaced.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        let (key_file, file) = (folder.join("authority.key"), folder.join("authority.crt"));
        let content = |path: &Path, what: &dyn std::fmt::Display| CaError::Content {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let (key, pem) = (read(&key_file)?, read(&file)?);
        let key = match key {
            Some(key) => KeyPair::from_pem(&key).map_err(|error| content(&key_file, &error))?,
            None if pem.is_some() => {
                return Err(content(&key_file, &"the authority's key is missing"));
            }
            None => {
                let key = KeyPair::generate().map_err(|error| content(&key_file, &error))?;
                write_privately(folder, &key_file, key.serialize_pem().as_bytes())?;
                key
            }
        };
        // A crash between the two files leaves a key that was never used.
        let pem = match pem {
            Some(pem) => pem,
            None => {
                let made = self_signed(&key).map_err(|error| content(&file, &error))?;
                write_privately(folder, &file, made.as_bytes())?;
                made
            }
        };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| content(&file, &error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| content(&file, &error))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(content(&file, &"it does not belong to `authority.key`"));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|error| content(&file, &error))?;
        Ok(CertificateAuthority {
            issuer,
            certificate,
            pem,
        })
    }

    /// The SHA-256 hash of the certificate in DER, in lower-case hexadecimal digits. Tokens pin it.
    pub fn fingerprint(&self) -> String {
        hexadecimal(ring::digest::digest(&ring::digest::SHA256, &self.certificate).as_ref())
    }

    /// The authority's certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// Trust in certificates that this authority signed.
    pub(crate) fn roots(&self) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(|error| CaError::Request(error.to_string()))?;
        Ok(roots)
    }

    /// Signs a certificate for the agent of this name, valid for `lifetime` from now. Only the key of the request (PKCS #10 in
    /// PEM) is used, whose possession the request proves.
    ///
    /// # Errors
    /// The request cannot be parsed or is signed by another key, or the name is invalid.
    pub fn sign(&self, request: &str, name: &str, lifetime: Duration) -> Result<Signed, CaError> {
        if let Some(problem) = problem_with_name(name) {
            return Err(CaError::Request(problem));
        }
        let request = read_request(request)?;
        let mut serial = [0; 16];
        random(&mut serial)?;
        // A positive number of constant length (RFC 5280, 4.1.2.2).
        serial[0] = serial[0] & 0x3f | 0x40;
        let mut params = common(name, lifetime)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let uri = format!("{AGENT_URI}{name}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(wrong)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(wrong)?;
        Ok(Signed {
            certificate: certificate.pem(),
            serial: hexadecimal(&serial),
        })
    }

    /// Signs a certificate of the controller for these host names and addresses.
    fn sign_controller(&self, names: &[String]) -> Result<CertifiedKey, CaError> {
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::new(names).map_err(wrong)?;
        let common = common("backburn controller", CONTROLLER_CERTIFICATE_LIFETIME)?;
        params.distinguished_name = common.distinguished_name;
        (params.not_before, params.not_after) = (common.not_before, common.not_after);
        params.key_usages = common.key_usages;
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_ecdsa_type(&key).map_err(wrong)?;
        // Includes the authority's certificate, because a token pins that.
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(CertifiedKey::new(chain, key))
    }
}

/// The agent that a certificate names. TLS has verified the certificate before.
///
/// # Errors
/// The certificate does not name exactly one agent.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<AgentIdentity, CaError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(wrong)?;
    let names = certificate.subject_alternative_name().map_err(wrong)?;
    let mut names = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
            _ => None,
        });
    match (names.next(), names.next()) {
        (Some(name), None) if problem_with_name(name).is_none() => Ok(AgentIdentity {
            name: name.into(),
            serial: hexadecimal(certificate.raw_serial()),
        }),
        _ => Err(CaError::Request(
            "the certificate does not name an agent".into(),
        )),
    }
}

/// The controller's certificate, which is regenerated before it expires when a client connects.
#[derive(Debug)]
pub(crate) struct ControllerCertificate {
    authority: Arc<CertificateAuthority>,
    names: Vec<String>,
    made: Mutex<(SystemTime, Arc<CertifiedKey>)>,
}

impl ControllerCertificate {
    pub(crate) fn new(
        authority: Arc<CertificateAuthority>,
        names: Vec<String>,
    ) -> Result<Self, CaError> {
        let made = authority.sign_controller(&names)?;
        Ok(ControllerCertificate {
            authority,
            names,
            made: Mutex::new((SystemTime::now(), Arc::new(made))),
        })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        // If the clock was set back, the certificate is not valid yet.
        let age = now.duration_since(made.0).unwrap_or(Duration::MAX);
        if age >= CONTROLLER_CERTIFICATE_LIFETIME * 2 / 3 {
            match self.authority.sign_controller(&self.names) {
                Ok(new) => *made = (now, Arc::new(new)),
                Err(error) => {
                    tracing::error!(%error, "the controller's certificate could not be regenerated");
                }
            }
        }
        Arc::clone(&made.1)
    }
}

impl ResolvesServerCert for ControllerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

/// Parses a certificate request, which is signed by its own key.
pub(crate) fn read_request(pem: &str) -> Result<CertificateSigningRequestParams, CaError> {
    CertificateSigningRequestParams::from_pem(pem)
        .map_err(|error| CaError::Request(format!("invalid certificate request: {error}")))
}

fn self_signed(key: &KeyPair) -> Result<String, CaError> {
    let mut id = [0; 4];
    random(&mut id)?;
    // Authorities have different names, so that a certificate shows which one signed it.
    let name = format!("backburn authority {}", hexadecimal(&id));
    let mut params = common(&name, CA_CERTIFICATE_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(wrong)?.pem())
}

/// The parameters that all certificates have in common: a name for people, a validity, and the use of the key.
fn common(name: &str, lifetime: Duration) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| CaError::Request("the clock of this host is set before 1970".into()))?;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW_ALLOWANCE);
    params.not_after = epoch + (now + lifetime);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn wrong(error: impl std::fmt::Display) -> CaError {
    CaError::Request(error.to_string())
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), CaError> {
    ring::rand::SystemRandom::new()
        .fill(bytes)
        .map_err(|_| CaError::Request("the system has no random numbers".into()))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::File {
            path: path.into(),
            source,
        }),
    }
}

/// Writes a file that only its owner may read, atomically and synced.
fn write_privately(folder: &Path, path: &Path, content: &[u8]) -> Result<(), CaError> {
    let beside = path.with_extension("new");
    let write = || {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // A file that a crash left may be readable by others.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| CaError::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
