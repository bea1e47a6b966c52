//! Whether a TCP connection can be made.

use super::{NoValue, limit, plain, within};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::TcpProvider;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::net::TcpStream;

/// `{connected: true, took}`, with the seconds that it took.
pub(super) async fn measure(
    provider: &TcpProvider,
    longest: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    let began = Instant::now();
    let limit = limit(provider.timeout, longest);
    within(Some(limit), connect(&provider.host, provider.port)).await??;
    Ok(json!({"connected": true, "took": began.elapsed().as_secs_f64()}))
}

/// A connection to the first address of this host that takes one.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, NoValue> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A name that does not resolve is somebody not answering too: its users see an outage.
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| {
            NoValue::NoAnswer(format!("`{host}` could not be resolved: {}", plain(&error)))
        })?;
    let mut last = NoValue::NoAnswer(format!("`{host}` has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    return Err(NoValue::Broken(plain(&error)));
                }
                return Ok(stream);
            }
            Err(error) => last = NoValue::from_network(&error, &format!("connecting to {address}")),
        }
    }
    Err(last)
}
