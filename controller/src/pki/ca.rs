//! The controller's certificate authority. Its certificates prove to the controller which agents belong to the fleet, and to
//! agents which controller is theirs. Its key never leaves its folder.
//!
//! A URI in its certificate names an agent, and nothing else does; the common name is for people. Agents' certificates are
//! valid for clients only, so that no agent can impersonate the controller.

pub use super::agent_certificate::{AgentIdentity, expiry, identity};
pub use super::ca_error::CaError;

use super::agent_certificate::AGENT_URI;
use super::ca_error::wrong;
use super::key_files::{files, move_file, read, remove, write_privately};
use backburn_experiments::hexadecimal;
use backburn_experiments::join::problem_with_name;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    date_time_ymd,
};
use ring::rand::SecureRandom as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::sign::any_ecdsa_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

/// How long an agent's certificate is valid by default.
pub const AGENT_CERTIFICATE_LIFETIME: Duration = days(30);
/// How long the controller's certificate is valid. It is regenerated after two thirds of that.
pub(super) const CONTROLLER_CERTIFICATE_LIFETIME: Duration = days(90);
/// How long the authority's certificate is valid.
const CA_CERTIFICATE_LIFETIME: Duration = days(20 * 365);
/// How far an agent's clock may be behind the controller's.
const CLOCK_SKEW_ALLOWANCE: Duration = days(1);

/// The names of an authority's files in its folder.
pub const AUTHORITY_FILES: &[&str] = &[
    "authority.key",
    "authority.crt",
    "retiring.key",
    "retiring.crt",
];
/// The name of the files of the authority in force.
const CURRENT: &str = "authority";
/// The name of the files of the authority that is being replaced.
const RETIRING: &str = "retiring";
/// The name of the files of a new authority while it is created.
const NEXT: &str = "next";

const fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 60 * 60)
}

/// A signed certificate of an agent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate, in PEM.
    pub certificate: String,
    /// The fingerprint of the authority that has signed it.
    pub issuer: String,
    /// Its serial number, as in [`AgentIdentity`].
    pub serial: String,
}

/// A certificate authority, stored in a folder.
///
/// While it is being replaced there are two: the current one signs agents' certificates and is pinned by new tokens; the
/// retiring one still signs the controller's certificate, because agents and tokens from before trust nothing else. A
/// certificate of the retiring authority that the current one has signed, the bridge, makes that one acceptable to those who
/// trust the current one only.
pub struct CertificateAuthority {
    folder: PathBuf,
    keys: RwLock<Arc<AuthorityKeys>>,
}

/// The keys and certificates of an authority, as they were read.
pub(crate) struct AuthorityKeys {
    current: KeyAndCertificate,
    retiring: Option<Retiring>,
}

struct KeyAndCertificate {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

struct Retiring {
    authority: KeyAndCertificate,
    bridge: CertificateDer<'static>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AuthorityKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityKeys").finish_non_exhaustive()
    }
}

impl KeyAndCertificate {
    /// Reads a key and its certificate. None if there is neither.
    fn read(folder: &Path, name: &str) -> Result<Option<Self>, CaError> {
        let (key_file, file) = files(folder, name);
        let content = |path: &Path, what: &dyn std::fmt::Display| CaError::Content {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let (key, pem) = match (read(&key_file)?, read(&file)?) {
            (Some(key), Some(pem)) => (key, pem),
            (None, Some(_)) => {
                return Err(content(&key_file, &"the authority's key is missing"));
            }
            // A crash between the two files leaves a key that was never used.
            (_, None) => return Ok(None),
        };
        let key = KeyPair::from_pem(&key).map_err(|error| content(&key_file, &error))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| content(&file, &error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| content(&file, &error))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let what = format!("it does not belong to `{name}.key`");
            return Err(content(&file, &what));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|error| content(&file, &error))?;
        Ok(Some(KeyAndCertificate {
            issuer,
            certificate,
            pem,
        }))
    }

    fn create(folder: &Path, name: &str) -> Result<(), CaError> {
        let (key_file, file) = files(folder, name);
        // A key that a crash left without a certificate was never used, and is used now.
        let key = match read(&key_file)? {
            Some(key) => KeyPair::from_pem(&key).map_err(wrong)?,
            None => {
                let key = KeyPair::generate().map_err(wrong)?;
                write_privately(folder, &key_file, key.serialize_pem().as_bytes())?;
                key
            }
        };
        write_privately(folder, &file, self_signed(&key)?.as_bytes())
    }
}

impl AuthorityKeys {
    fn read(folder: &Path) -> Result<Self, CaError> {
        complete_rotation(folder)?;
        let current = match KeyAndCertificate::read(folder, CURRENT)? {
            Some(current) => current,
            None => {
                KeyAndCertificate::create(folder, CURRENT)?;
                KeyAndCertificate::read(folder, CURRENT)?.ok_or_else(|| CaError::Content {
                    path: folder.to_owned(),
                    what: "the authority was removed while it was created".into(),
                })?
            }
        };
        let retiring = match KeyAndCertificate::read(folder, RETIRING)? {
            Some(authority) => Some(Retiring {
                bridge: bridge(&authority, &current)?,
                authority,
            }),
            None => None,
        };
        Ok(AuthorityKeys { current, retiring })
    }

    /// Trust in certificates that these authorities signed.
    pub(crate) fn roots(&self) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        let retiring = self.retiring.as_ref().map(|old| &old.authority);
        for authority in [&self.current].into_iter().chain(retiring) {
            roots.add(authority.certificate.clone()).map_err(wrong)?;
        }
        Ok(roots)
    }

    /// Signs a certificate of the controller for these host names and addresses.
    pub(super) fn sign_controller(&self, names: &[String]) -> Result<CertifiedKey, CaError> {
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::new(names).map_err(wrong)?;
        let common = common("backburn controller", CONTROLLER_CERTIFICATE_LIFETIME)?;
        params.distinguished_name = common.distinguished_name;
        (params.not_before, params.not_after) = (common.not_before, common.not_after);
        params.key_usages = common.key_usages;
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signer = match &self.retiring {
            Some(retiring) => &retiring.authority,
            None => &self.current,
        };
        let certificate = params.signed_by(&key, &signer.issuer).map_err(wrong)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_ecdsa_type(&key).map_err(wrong)?;
        // Includes the authorities' certificates, because a token pins one of them.
        let mut chain = vec![certificate.der().clone()];
        if let Some(retiring) = &self.retiring {
            chain.push(retiring.authority.certificate.clone());
            chain.push(retiring.bridge.clone());
        }
        chain.push(self.current.certificate.clone());
        Ok(CertifiedKey::new(chain, key))
    }
}

/// The certificate by which the current authority vouches for the retiring one.
fn bridge(
    retiring: &KeyAndCertificate,
    current: &KeyAndCertificate,
) -> Result<CertificateDer<'static>, CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(&retiring.certificate).map_err(wrong)?;
    let name = parsed.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
    let mut params = common(name, CA_CERTIFICATE_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signed = params
        .signed_by(retiring.issuer.key(), &current.issuer)
        .map_err(wrong)?;
    Ok(signed.der().clone())
}

/// Completes a rotation that a crash has interrupted after the new key had taken the current one's place.
fn complete_rotation(folder: &Path) -> Result<(), CaError> {
    let ((next_key, next), (_, current)) = (files(folder, NEXT), files(folder, CURRENT));
    match next.exists() && !next_key.exists() {
        true => move_file(&next, &current),
        false => Ok(()),
    }
}

impl CertificateAuthority {
    /// Opens the authority in this folder, with the files `authority.key` and `authority.crt`, and creates it if there is none.
    ///
    /// # Errors
    /// A file cannot be read, written or parsed. A certificate whose key is missing is never replaced.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        Ok(CertificateAuthority {
            folder: folder.to_owned(),
            keys: RwLock::new(Arc::new(AuthorityKeys::read(folder)?)),
        })
    }

    /// Reads the files again, e.g. after a [rotation](Self::rotate). Returns whether anything has changed.
    ///
    /// # Errors
    /// A file cannot be read or parsed; what was read before stays in force.
    pub fn reload(&self) -> Result<bool, CaError> {
        let read = AuthorityKeys::read(&self.folder)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let certificates = |keys: &AuthorityKeys| {
            let retiring = keys.retiring.as_ref();
            let retiring = retiring.map(|old| old.authority.certificate.clone());
            (keys.current.certificate.clone(), retiring)
        };
        let has_changed = certificates(&read) != certificates(&keys);
        if has_changed {
            *keys = Arc::new(read);
        }
        Ok(has_changed)
    }

    /// Creates a new authority in this folder, and keeps the present one as the retiring one. A controller that runs has to
    /// reload.
    ///
    /// # Errors
    /// A rotation is under way, there is no authority, or a file cannot be read or written.
    pub fn rotate(folder: &Path) -> Result<(), CaError> {
        complete_rotation(folder)?;
        if KeyAndCertificate::read(folder, RETIRING)?.is_some() {
            return Err(CaError::Request(
                "the authority is being replaced already\nhint: finish that first, with `--finish`"
                    .into(),
            ));
        }
        let ((key, certificate), (old_key, old)) =
            (files(folder, CURRENT), files(folder, RETIRING));
        let (next_key, next) = files(folder, NEXT);
        let missing = || CaError::Request(format!("there is no authority in {}", folder.display()));
        let present = read(&key)?.zip(read(&certificate)?).ok_or_else(missing)?;
        // An attempt that was interrupted may have left these.
        for left in [&next, &next_key] {
            remove(left)?;
        }
        KeyAndCertificate::create(folder, NEXT)?;
        write_privately(folder, &old_key, present.0.as_bytes())?;
        write_privately(folder, &old, present.1.as_bytes())?;
        move_file(&next_key, &key)?;
        move_file(&next, &certificate)
    }

    /// Refuses if the authority in this folder is not being replaced.
    ///
    /// # Errors
    /// No rotation is under way, or a file cannot be read.
    pub fn require_rotation(folder: &Path) -> Result<(), CaError> {
        match KeyAndCertificate::read(folder, RETIRING)? {
            Some(_) => Ok(()),
            None => Err(CaError::Request(
                "the authority is not being replaced\nhint: `backburn controller rotate-authority` begins that".into(),
            )),
        }
    }

    /// Removes the retiring authority from this folder: whatever it has signed, and every token that pins it, is refused once a
    /// controller that runs has reloaded.
    ///
    /// # Errors
    /// No rotation is under way, or a file cannot be removed.
    pub fn finish_rotation(folder: &Path) -> Result<(), CaError> {
        Self::require_rotation(folder)?;
        let (key, certificate) = files(folder, RETIRING);
        remove(&certificate)?;
        remove(&key)
    }

    pub(crate) fn keys(&self) -> Arc<AuthorityKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the current authority's certificate expires.
    pub fn expires(&self) -> Option<Timestamp> {
        expiry(&self.keys().current.certificate)
    }

    /// Writes one of [`AUTHORITY_FILES`] back to its folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn restore_file(folder: &Path, name: &str, content: &str) -> Result<(), CaError> {
        write_privately(folder, &folder.join(name), content.as_bytes())
    }

    /// The SHA-256 hash of the current certificate in DER, in lower-case hexadecimal digits. Tokens pin it.
    pub fn fingerprint(&self) -> String {
        fingerprint_of(&self.keys().current.certificate)
    }

    /// A key for this purpose, derived from the key of the current authority. It says nothing about that one.
    pub fn derived_key(&self, purpose: &str) -> ring::hmac::Key {
        let secret = self.keys().current.issuer.key().serialize_der();
        let own = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let derived = ring::hmac::sign(&own, purpose.as_bytes());
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, derived.as_ref())
    }

    /// The current authority's certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.keys().current.pem.clone()
    }

    /// What agents are to trust, in PEM: the certificate of the retiring authority, if there is one, and that of the current.
    pub fn trusted_certificates(&self) -> String {
        let keys = self.keys();
        let retiring = keys.retiring.as_ref().map(|old| old.authority.pem.as_str());
        let parts = retiring.into_iter().chain([keys.current.pem.as_str()]);
        let parts: Vec<&str> = parts.map(str::trim_end).collect();
        parts.join("\n") + "\n"
    }

    /// Whether the retiring authority has signed this certificate. TLS has verified it before.
    pub fn is_of_retiring(&self, certificate: &CertificateDer<'_>) -> bool {
        let keys = self.keys();
        let Some(retiring) = &keys.retiring else {
            return false;
        };
        let parse = |der| x509_parser::parse_x509_certificate(der).ok();
        match (parse(certificate), parse(&retiring.authority.certificate)) {
            (Some((_, shown)), Some((_, of))) => shown.issuer() == of.subject(),
            _ => false,
        }
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
        let keys = self.keys();
        let certificate = params
            .signed_by(&request.public_key, &keys.current.issuer)
            .map_err(wrong)?;
        Ok(Signed {
            certificate: certificate.pem(),
            issuer: fingerprint_of(&keys.current.certificate),
            serial: hexadecimal(serial),
        })
    }
}

/// The SHA-256 hash of a certificate in DER, in lower-case hexadecimal digits.
pub(super) fn fingerprint_of(certificate: &CertificateDer<'_>) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
    hexadecimal(hash.as_ref())
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
    let name = format!("backburn authority {}", hexadecimal(id));
    let mut params = common(&name, CA_CERTIFICATE_LIFETIME)?;
    // One authority may be below it: the one that it replaces, for as long as both are trusted.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
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

pub(super) fn random(bytes: &mut [u8]) -> Result<(), CaError> {
    ring::rand::SystemRandom::new()
        .fill(bytes)
        .map_err(|_| CaError::Request("the system has no random numbers".into()))
}
