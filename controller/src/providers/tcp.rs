//! The transport of TCP: connecting.

use super::{ProbeError, ProbeResult, io_error_text};
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::{TcpProvider, no_address, not_resolved};
use std::time::Instant;
use tokio::net::TcpStream;

/// Connects to the host.
pub(super) async fn measure(
    provider: &TcpProvider,
    destinations: &DestinationRules,
) -> ProbeResult {
    let began = Instant::now();
    connect(&provider.host, provider.port, destinations).await?;
    Ok(TcpProvider::connected(began.elapsed()))
}

/// A connection to the first address of the host that accepts. Each address is checked, and connected to as it is: a name that stands
/// for another address a moment later does not matter.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    destinations: &DestinationRules,
) -> Result<TcpStream, ProbeError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| not_resolved(host, &error))?;
    let mut last = no_address(host);
    for address in addresses {
        if let Err(why) = destinations.check(host, address) {
            last = ProbeError::Broken(why);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    return Err(ProbeError::Broken(io_error_text(&error)));
                }
                return Ok(stream);
            }
            Err(error) => {
                last = ProbeError::from_network(&error, &format!("connecting to {address}"))
            }
        }
    }
    Err(last)
}
