//! Whether a TCP connection can be made.

use backburn_experiments::document::TcpProvider;
use backburn_experiments::probes::{NoValue, plain};
use serde_json::{Value, json};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Instant;

/// `{connected: true, took}`, with the seconds that it took.
pub(super) fn measure(provider: &TcpProvider) -> Result<Value, NoValue> {
    let began = Instant::now();
    let host = provider.host.trim_start_matches('[').trim_end_matches(']');
    // A name that does not resolve is somebody not answering too: its users see an outage.
    let addresses = (host, provider.port).to_socket_addrs().map_err(|error| {
        NoValue::NoAnswer(format!("`{host}` could not be resolved: {}", plain(&error)))
    })?;
    let mut last = NoValue::NoAnswer(format!("`{host}` has no address"));
    for address in addresses {
        match TcpStream::connect(address) {
            Ok(_) => {
                let took = began.elapsed().as_secs_f64();
                return Ok(json!({"connected": true, "took": took}));
            }
            Err(error) => last = NoValue::from_network(&error, &format!("connecting to {address}")),
        }
    }
    Err(last)
}
