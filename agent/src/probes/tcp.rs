//! The transport of TCP: connecting.

use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::{
    ProbeError, ProbeResult, TcpProvider, no_address, not_resolved,
};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Instant;

/// Connects to the first address of the host that accepts.
pub(super) fn measure(provider: &TcpProvider, destinations: &DestinationRules) -> ProbeResult {
    let began = Instant::now();
    let host = provider.host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, provider.port)
        .to_socket_addrs()
        .map_err(|error| not_resolved(host, &error))?;
    let mut last = no_address(host);
    for address in addresses {
        if let Err(why) = destinations.check(host, address) {
            last = ProbeError::Broken(why);
            continue;
        }
        match TcpStream::connect(address) {
            Ok(_) => return Ok(TcpProvider::connected(began.elapsed())),
            Err(error) => {
                last = ProbeError::from_network(&error, &format!("connecting to {address}"));
            }
        }
    }
    Err(last)
}
