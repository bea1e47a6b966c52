//! The part of a TLS client that is the same whichever servers it accepts: a server must hold the key of the certificate that it shows.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::fmt;

/// Decides which certificates of servers are accepted.
pub trait AcceptServer: fmt::Debug + Send + Sync {
    /// Judges the certificate that a server shows, with those that the server sends along, for the name by which it was called.
    ///
    /// # Errors
    /// The certificate is not accepted.
    fn accept(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// Accepts the servers that a rule accepts, and checks the signatures of the handshake, which no rule can leave out.
#[derive(Debug)]
pub struct ServerVerifier<Rule> {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<Rule> ServerVerifier<Rule> {
    /// A verifier with the signature algorithms of ring.
    pub fn new(rule: Rule) -> Self {
        ServerVerifier {
            rule,
            algorithms: ring::default_provider().signature_verification_algorithms,
        }
    }
}

impl<Rule: AcceptServer> ServerCertVerifier for ServerVerifier<Rule> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.rule
            .accept(certificate, intermediates, name, ocsp, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
