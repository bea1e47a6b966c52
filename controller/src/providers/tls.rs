//! TLS over a TCP connection. Which certificates are accepted stands in `backburn_experiments::probes::tls`.

use super::ProbeError;
use backburn_experiments::probes::tls;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A configuration, or why there can be none: made once, since it stays the same.
type ConfigResult = Result<Arc<ClientConfig>, String>;

/// Makes a TLS connection over this one.
pub(super) async fn connect(
    stream: TcpStream,
    host: &str,
    verify: bool,
) -> Result<TlsStream<TcpStream>, ProbeError> {
    connect_with(stream, host, config(verify).await?).await
}

async fn connect_with(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ProbeError> {
    let name = tls::server_name(host).ok_or_else(|| {
        ProbeError::Broken(format!(
            "`{host}` is not a name that a certificate can have"
        ))
    })?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| tls::connection_error(&error, &format!("TLS with `{host}`")))
}

/// Makes a TLS connection over this one, to a server whose certificate one of these authorities has signed, or else one of this host's.
pub(crate) async fn connect_trusting(
    stream: TcpStream,
    host: &str,
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<TlsStream<TcpStream>, ProbeError> {
    let Some(authorities) = authorities else {
        return connect(stream, host, true).await;
    };
    let trusted = tls::verifying(authorities.to_vec(), None).map_err(ProbeError::Broken)?;
    connect_with(stream, host, trusted).await
}

pub(super) async fn config(verify: bool) -> Result<Arc<ClientConfig>, ProbeError> {
    static VERIFYING: OnceLock<ConfigResult> = OnceLock::new();
    static NOT_VERIFYING: OnceLock<ConfigResult> = OnceLock::new();
    let (config, make): (_, fn() -> ConfigResult) = match verify {
        true => (&VERIFYING, verifying),
        false => (&NOT_VERIFYING, tls::not_verifying),
    };
    if config.get().is_none() {
        // Reading some hundred certificates takes tens of milliseconds, which most runs never need: only where the first `https` is met,
        // and not on the runner's thread.
        let made = tokio::task::spawn_blocking(make)
            .await
            .map_err(|error| ProbeError::Broken(error.to_string()))?;
        return config
            .get_or_init(|| made)
            .clone()
            .map_err(ProbeError::Broken);
    }
    config
        .get()
        .cloned()
        .unwrap_or_else(make)
        .map_err(ProbeError::Broken)
}

fn verifying() -> ConfigResult {
    let found = rustls_native_certs::load_native_certs();
    tls::verifying(found.certs, found.errors.first().map(ToString::to_string))
}
