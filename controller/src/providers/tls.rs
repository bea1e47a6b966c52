//! TLS for whoever speaks over TCP. The system's certificates are loaded when the first `https`
//! is met, not before: that costs milliseconds which most runs never need.

use super::{NoValue, plain};
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
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
        .map_err(|error| {
            // What TLS itself finds fault with arrives as invalid data: our set-up or theirs, but no outage.
            if error.kind() == io::ErrorKind::InvalidData {
                NoValue::Broken(format!("TLS with `{host}`: {}", plain(&error)))
            } else {
                NoValue::from_network(&error, &format!("TLS with `{host}`"))
            }
        })
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
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
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
