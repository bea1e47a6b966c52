//! The transport of DNS: the system's resolver, as every program of this host uses it.

use backburn_experiments::probes::{DnsProvider, ProbeResult, not_resolved};
use std::net::ToSocketAddrs as _;

/// Resolves the name to addresses. Agents refuse any other question before.
pub(super) fn measure(provider: &DnsProvider) -> ProbeResult {
    let name = &provider.name;
    let found = (name.as_str(), 0)
        .to_socket_addrs()
        .map_err(|error| not_resolved(name, &error))?;
    Ok(provider.system_value(found.map(|address| address.ip())))
}
