//! Which certificates probes accept, and what a failed handshake is worth. Controller and agents use the same configurations.

use super::ProbeError;
use crate::server_verifier::{AcceptServer, ServerVerifier};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use std::io;
use std::sync::Arc;

/// A client's configuration that accepts what these trusted certificates vouch for. `first_error` is why one of the system's certificates
/// could not be read, for the message where there are none.
///
/// # Errors
/// No certificate is trusted; the text is for people.
pub fn verifying(
    trusted: Vec<CertificateDer<'static>>,
    first_error: Option<String>,
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    if roots.is_empty() {
        let why = first_error
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        return Err(format!(
            "no certificate authorities were found on this system{why}"
        ));
    }
    let by_issuer = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(ring::default_provider()),
    )
    .build()
    .map_err(|error| error.to_string())?;
    config(TrustedServers { by_issuer, trusted })
}

/// A client's configuration that accepts every certificate.
///
/// # Errors
/// The cryptography has no version of TLS; the text is for people.
pub fn not_verifying() -> Result<Arc<ClientConfig>, String> {
    config(AnyServer)
}

fn config(rule: impl AcceptServer + 'static) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(rule)))
            .with_no_client_auth(),
    ))
}

/// The host of an address as a certificate names it. None where no certificate could name it.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
}

/// What an error of a connection that speaks TLS is worth. A server whose certificate or whose TLS no client accepts does not answer its
/// users. Only what may be wrong on this side makes the check broken. `doing` says in a message what failed.
pub fn connection_error(error: &io::Error, doing: &str) -> ProbeError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        None => ProbeError::from_network(error, doing),
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::Other(_),
        )) => ProbeError::Broken(format!(
            "{doing}: {error}: no authority that this host trusts has signed the certificate; SSL_CERT_FILE names a file of trusted certificates"
        )),
        Some(
            Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::InvalidCertRevocationList(_),
        ) => ProbeError::Broken(format!("{doing}: {error}")),
        Some(error) => ProbeError::NoAnswer(format!("{doing}: {error}")),
    }
}

/// Accepts certificates that a trusted authority issued, and trusted certificates themselves: `openssl req -x509` makes a certificate that
/// may issue others, which webpki does not accept for a server even where the certificate itself is trusted.
#[derive(Debug)]
struct TrustedServers {
    by_issuer: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl AcceptServer for TrustedServers {
    fn accept(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verified =
            self.by_issuer
                .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // A server's certificate that may issue others is such an error (webpki's `CaUsedAsEndEntity`). webpki reports it after
            // it has checked the time of validity and before it checks the name.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trusted.iter().any(|trusted| trusted == certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
            }
            verified => verified.map(|_| ()),
        }
    }
}

/// Accepts every certificate, because the document says `"verify_tls": false`.
#[derive(Debug)]
struct AnyServer;

impl AcceptServer for AnyServer {
    fn accept(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}
