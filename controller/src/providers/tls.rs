//! TLS for whoever speaks over TCP. The system's certificates are loaded when the first `https`
//! is met, not before: that costs milliseconds which most runs never need.

use super::NoValue;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// A configuration, or why there can be none: made once, since it stays the same.
type Made = Result<Arc<ClientConfig>, String>;

/// TLS over this connection.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    verify: bool,
) -> Result<TlsStream<TcpStream>, NoValue> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| {
        NoValue::Broken(format!("`{host}` is no name that a certificate could bear"))
    })?;
    let config = config(verify).await?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| no_value(&error, &format!("TLS with `{host}`")))
}

/// What an error of a connection that speaks TLS means for what is measured: a server whose certificate, or whose TLS, no client
/// takes is as good as none for its users. Only what may be wrong with this side is a broken check.
pub(super) fn no_value(error: &io::Error, doing: &str) -> NoValue {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        None => NoValue::from_network(error, doing),
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::Other(_),
        )) => NoValue::Broken(format!(
            "{doing}: {error}: nobody whom this host trusts has signed the certificate; SSL_CERT_FILE names a file of those it trusts"
        )),
        Some(
            Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::InvalidCertRevocationList(_),
        ) => NoValue::Broken(format!("{doing}: {error}")),
        Some(error) => NoValue::NoAnswer(format!("{doing}: {error}")),
    }
}

async fn config(verify: bool) -> Result<Arc<ClientConfig>, NoValue> {
    static CHECKED: OnceLock<Made> = OnceLock::new();
    static UNCHECKED: OnceLock<Made> = OnceLock::new();
    let (made, make): (_, fn() -> Made) = if verify {
        (&CHECKED, checked)
    } else {
        (&UNCHECKED, unchecked)
    };
    if made.get().is_none() {
        // Reading some hundred certificates takes tens of milliseconds: not on the runner's thread.
        let config = tokio::task::spawn_blocking(make)
            .await
            .map_err(|error| NoValue::Broken(error.to_string()))?;
        return made.get_or_init(|| config).clone().map_err(NoValue::Broken);
    }
    made.get()
        .cloned()
        .unwrap_or_else(make)
        .map_err(NoValue::Broken)
}

fn checked() -> Made {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let trusted = found.certs.clone();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        return Err(format!(
            "no certificate authorities were found on this system{why}"
        ));
    }
    let provider = Arc::new(ring::default_provider());
    let by_issuer =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = Trusted { by_issuer, trusted };
    Ok(Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
    ))
}

fn unchecked() -> Made {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth(),
    ))
}

/// Takes certificates that were issued by those whom this system trusts, and those that it trusts themselves: `openssl req -x509`
/// makes a certificate that may issue others, which webpki does not take for a server's even where it is named as trusted.
#[derive(Debug)]
struct Trusted {
    by_issuer: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusted {
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
            // That it may issue others (webpki's `CaUsedAsEndEntity`) comes as one of these, and is found after the time of
            // validity was looked at and before the name is.
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

/// Takes every certificate, because the document says `"verify_tls": false`. Signatures are
/// still checked: the peer must hold the key of the certificate it shows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
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
