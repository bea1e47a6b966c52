//! A certificate of the owner's for browsers and programs, which trust neither the controller's authority nor a token's fingerprint.
//! Agents and the command line never see it: they choose their protocol by name, and are shown what the authority has signed.

use super::ca::fingerprint_of;
use crate::files::read_text;
use backburn_experiments::join::HTTP_PROTOCOL;
use jiff::Timestamp;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate};
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig, version::TLS13};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, X509Certificate};

/// The bits of a file's mode that let users read it who are neither its owner nor in its group.
const OTHERS_MODE: u32 = 0o007;

/// Why a certificate of the owner's cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}\nhint: {hint}", path.display())]
pub struct OwnerCertificateError {
    path: PathBuf,
    what: String,
    hint: String,
}

/// The certificate and the key in two files, which can be read again.
#[derive(Debug)]
pub struct OwnerCertificate {
    certificate: PathBuf,
    key: PathBuf,
    /// The versions of the files before they were read for the first time.
    pub first_versions: FileVersions,
    loaded: RwLock<Arc<LoadedPair>>,
}

/// A certificate and its key as they were read together, ready for TLS.
#[derive(Debug)]
pub struct LoadedPair {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    /// The host names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// When the certificate expires.
    pub expires: Timestamp,
    /// The SHA-256 hash of the certificate in DER, in lower-case hexadecimal digits.
    pub fingerprint: String,
}

/// What tells one version of the two files from another: device, inode, length and time of the last change of each. None where one is
/// not there.
pub type FileVersions = [Option<(u64, u64, u64, i64, i64)>; 2];

impl OwnerCertificate {
    /// Reads the certificate, followed by those between it and its authority, and its key, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read or used, others may read the key, the two do not belong together, or the certificate is not valid now.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, OwnerCertificateError> {
        // Before they are read: a change in between is seen as one.
        let first_versions = file_versions(certificate, key);
        let loaded = read_pair(certificate, key, Timestamp::now())?;
        Ok(OwnerCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            first_versions,
            loaded: RwLock::new(Arc::new(loaded)),
        })
    }

    /// Reads the files again, and changes nothing yet.
    ///
    /// # Errors
    /// As for [`OwnerCertificate::load`].
    pub fn read_again(&self) -> Result<LoadedPair, OwnerCertificateError> {
        read_pair(&self.certificate, &self.key, Timestamp::now())
    }

    /// Whether this pair has the certificates that are shown now.
    pub fn is_current(&self, pair: &LoadedPair) -> bool {
        self.current().chain == pair.chain
    }

    /// Shows this certificate from the next connection on.
    pub fn replace(&self, with: LoadedPair) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(with);
    }

    /// The certificate that is shown.
    pub fn current(&self) -> Arc<LoadedPair> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The path of the certificate.
    pub fn path(&self) -> &Path {
        &self.certificate
    }

    /// Which versions of the files are there now.
    pub fn file_versions(&self) -> FileVersions {
        file_versions(&self.certificate, &self.key)
    }

    /// How to serve a client that asks for this host, or that named none and connected to this address. None if the certificate is not
    /// for it.
    pub fn config_for(&self, host: Option<&str>, address: IpAddr) -> Option<Arc<ServerConfig>> {
        let wanted = match host {
            Some(host) => ServerName::try_from(host).ok()?,
            None => ServerName::from(address.to_canonical()),
        };
        let current = self.current();
        let parsed = ParsedCertificate::try_from(current.chain.first()?).ok()?;
        verify_server_name(&parsed, &wanted).ok()?;
        Some(Arc::clone(&current.config))
    }
}

fn file_versions(certificate: &Path, key: &Path) -> FileVersions {
    [certificate, key].map(|path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
    })
}

fn read_pair(
    certificate: &Path,
    key: &Path,
    now: Timestamp,
) -> Result<LoadedPair, OwnerCertificateError> {
    let wrong = |path: &Path, what: String, hint: &str| OwnerCertificateError {
        path: path.to_owned(),
        what,
        hint: hint.to_owned(),
    };
    let of_certificate = |what: &str, hint: &str| wrong(certificate, what.to_owned(), hint);
    let of_key = |what: &str, hint: &str| wrong(key, what.to_owned(), hint);
    let text = read_text(certificate).map_err(|error| {
        let hint = "`--tls-certificate` is the certificate in PEM, followed by those between it and its authority; `openssl x509 -inform der` converts one in DER";
        wrong(certificate, error.to_string(), hint)
    })?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| {
            wrong(
                certificate,
                format!("it is not valid PEM: {error}"),
                "a certificate begins with the line `-----BEGIN CERTIFICATE-----`",
            )
        })?;
    let Some(leaf) = chain.first() else {
        return Err(match text.contains("PRIVATE KEY-----") {
            true => of_certificate(
                "it has a private key and no certificate",
                "are `--tls-certificate` and `--tls-key` swapped?",
            ),
            false => of_certificate(
                "it has no certificate in PEM",
                "a certificate begins with the line `-----BEGIN CERTIFICATE-----`",
            ),
        });
    };
    let (names, expires) =
        describe(leaf, now).map_err(|(what, hint)| wrong(certificate, what, hint))?;
    let key_hint = "`--tls-key` is the private key of the certificate in PEM, which the controller's user can read";
    let mode = std::fs::metadata(key)
        .map_err(|error| wrong(key, error.to_string(), key_hint))?
        .mode();
    if mode & OTHERS_MODE != 0 {
        let what = format!(
            "every user of this host can use this private key (mode {:04o})",
            mode & 0o7777
        );
        return Err(of_key(
            &what,
            "`chmod o-rwx FILE`; if others may have read the key, make a new one and have it certified",
        ));
    }
    let key_text = read_text(key).map_err(|error| wrong(key, error.to_string(), key_hint))?;
    let private = PrivateKeyDer::from_pem_slice(key_text.as_bytes()).map_err(|error| {
        if key_text.contains("ENCRYPTED") {
            of_key("the private key is encrypted", "`openssl pkey -in FILE -out NEW` decrypts it; let only the controller's user read it")
        } else if key_text.contains("BEGIN CERTIFICATE-----") {
            of_key("it has a certificate and no private key", "are `--tls-certificate` and `--tls-key` swapped?")
        } else {
            wrong(key, format!("it has no private key in PEM: {error}"), key_hint)
        }
    })?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain.clone(), private)
        });
    let mut config = config.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => of_key(
            &format!("this is not the key of the first certificate in {}", certificate.display()),
            "the certificate of the server comes first, those between it and its authority follow; renew both files together",
        ),
        error => wrong(key, format!("the key cannot be used: {error}"), "ECDSA (P-256, P-384), Ed25519 and RSA keys of at least 2048 bits can be used"),
    })?;
    config.alpn_protocols = vec![HTTP_PROTOCOL.as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(LoadedPair {
        config: Arc::new(config),
        fingerprint: fingerprint_of(leaf),
        chain,
        names,
        expires,
    })
}

/// What a certificate is for and until when, or why no browser would accept it, with what to do.
fn describe(
    leaf: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<(Vec<String>, Timestamp), (String, &'static str)> {
    let replace = "put the renewed certificate there, with its key";
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| (format!("its certificate cannot be read: {error}"), replace))?;
    let time = |at: ASN1Time| Timestamp::from_second(at.timestamp()).unwrap_or(Timestamp::MAX);
    let validity = parsed.validity();
    let (begins, expires) = (time(validity.not_before), time(validity.not_after));
    if now > expires {
        return Err((format!("the certificate has expired at {expires}"), replace));
    }
    if now < begins {
        let what = format!(
            "the certificate is not valid before {begins}, and this host's clock says {now}"
        );
        return Err((what, "set this host's clock, or wait"));
    }
    let names = names_of(&parsed);
    if names.is_empty() {
        let what = "the certificate names no host (subjectAltName)".to_owned();
        return Err((
            what,
            "browsers ignore the common name: have a certificate made with a subject alternative name",
        ));
    }
    let usage = parsed.extended_key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        let what = "the certificate is not for servers (extendedKeyUsage)".to_owned();
        return Err((what, "have one made for `serverAuth`"));
    }
    Ok((names, expires))
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}
