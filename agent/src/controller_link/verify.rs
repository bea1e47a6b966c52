//! Which controller an agent trusts: one with a certificate of the certificate authority that the join token or the credentials name. Also
//! explains the errors of TLS.

use super::credentials::{Credentials, fingerprint};
use backburn_experiments::server_verifier::{AcceptServer, ServerVerifier};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use std::sync::Arc;

/// The TLS configuration of an agent or a command that has only a token, which names the authority by its fingerprint. It offers these
/// protocols, the best one first.
///
/// # Errors
/// TLS rejected the configuration.
pub fn config_from_token(authority: &str, protocols: &[&str]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let pinned = PinnedAuthority {
        authority: authority.to_owned(),
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(pinned)))
        .with_no_client_auth();
    Ok(finish_config(config, protocols))
}

/// The TLS configuration of an agent that has joined: it trusts the authority, and presents its own certificate.
///
/// # Errors
/// The key or the certificates in the credentials cannot be used.
pub fn config_from_credentials(
    credentials: &Credentials,
    protocol: &str,
) -> Result<Arc<ClientConfig>, Error> {
    let wrong = |what: &str| Error::General(format!("{what} in the state folder cannot be read"));
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(credentials.authority.as_bytes()) {
        roots.add(authority.map_err(|_| wrong("the authority's certificate"))?)?;
    }
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("the agent's certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
        .map_err(|_| wrong("the agent's key"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(finish_config(config, &[protocol]))
}

fn finish_config(mut config: ClientConfig, protocols: &[&str]) -> Arc<ClientConfig> {
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    // Small fragments: a controller buffers one of each agent while it is incomplete.
    config.max_fragment_size = Some(4096);
    // A controller resumes no session, since it checks certificates each time.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Trusts a server that presents an authority with this fingerprint and is signed by it.
#[derive(Debug)]
struct PinnedAuthority {
    authority: String,
    provider: Arc<CryptoProvider>,
}

impl AcceptServer for PinnedAuthority {
    fn accept(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(authority) = between
            .iter()
            .find(|shown| fingerprint(shown) == self.authority)
        else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(certificate, between, name, ocsp, now)
            .map(|_| ())
    }
}

/// Explains a TLS error: what is wrong, and what to do about it.
pub fn explain(error: &Error) -> (String, &'static str) {
    use AlertDescription as Alert;
    use CertificateError as Wrong;
    let again = "ask an operator of the controller for a token, and join again with it";
    let (what, hint) = match error {
        Error::InvalidCertificate(wrong) => match wrong {
            Wrong::UnknownIssuer | Wrong::BadSignature => (
                "its certificate is not signed by the authority that the join token, or the agent's credentials, name",
                "check that this is the right controller; if it has a new authority, join again with a new token",
            ),
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => (
                "its certificate is not valid yet by this host's clock",
                "set this host's clock: it is more than a day behind the controller's",
            ),
            Wrong::Expired | Wrong::ExpiredContext { .. } => (
                "its certificate has expired by this host's clock",
                "set this host's clock, which may be ahead; a controller renews its certificate by itself",
            ),
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => (
                "its certificate is not for this name",
                "use a name or address that the controller's certificate covers",
            ),
            _ => return (format!("its certificate: {error}"), again),
        },
        Error::AlertReceived(Alert::CertificateRevoked) => {
            ("the controller has revoked this agent's certificate", again)
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            ("this agent's certificate has expired", again)
        }
        Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::AccessDenied) => (
            "the controller does not know this agent's certificate",
            again,
        ),
        Error::AlertReceived(Alert::NoApplicationProtocol) | Error::NoApplicationProtocol => (
            "it does not speak Backburn's protocol",
            "check that this is the controller's port, and that its version matches this agent's",
        ),
        Error::InvalidMessage(_) => (
            "the server there does not speak TLS",
            "check that this is the controller's port",
        ),
        _ => {
            return (
                error.to_string(),
                "check that this is the controller's port",
            );
        }
    };
    (what.into(), hint)
}
