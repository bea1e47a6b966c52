//! Which certificates probes accept, and what a failed handshake is worth. Controller and agents use the same configurations.

use super::ProbeError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
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
    config(Arc::new(TrustVerifier { by_issuer, trusted }))
}

/// A client's configuration that accepts every certificate.
///
/// # Errors
/// The cryptography has no version of TLS; the text is for people.
pub fn not_verifying() -> Result<Arc<ClientConfig>, String> {
    config(Arc::new(NoVerifier(Arc::new(ring::default_provider()))))
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
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
struct TrustVerifier {
    by_issuer: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.by_issuer
                .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // A server's certificate that may issue others is such an error (webpki's `CaUsedAsEndEntity`). webpki reports it after
            // it has checked the time of validity and before it checks the name.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trusted.iter().any(|trusted| trusted == certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuer
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuer
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_issuer.supported_verify_schemes()
    }
}

/// Accepts every certificate, because the document says `"verify_tls": false`. Signatures are still checked: the peer must hold the key of
/// the certificate that it shows.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
