//! The transport of loads: this host's own clock and connections. When requests are due and what their ends are worth stands in
//! `backburn_experiments::probes::load`.

use crate::client_tls::client_config;
use crate::load_io::HostLoadIo;
use crate::plan::RequestLimits;
use crate::precise_timer::use_precise_timers;
use backburn_experiments::HumanDuration;
use backburn_experiments::probes::load::{LoadGenerator, LoadPlan};
use backburn_experiments::probes::{
    LoadProvider, ProbeError, ProbeResult, no_address, not_resolved,
};
use std::net::ToSocketAddrs as _;

/// Sends the load, and waits until all of it has ended.
pub(super) fn measure(
    provider: &LoadProvider,
    timeout: Option<HumanDuration>,
    limits: &RequestLimits,
) -> ProbeResult {
    let plan = LoadPlan::new(provider, timeout).map_err(ProbeError::Broken)?;
    limits
        .check_rate(provider.rate)
        .map_err(ProbeError::Broken)?;
    let host = plan.host.trim_matches(['[', ']']);
    let found: Vec<_> = (host, plan.port)
        .to_socket_addrs()
        .map_err(|error| not_resolved(host, &error))?
        .collect();
    if found.is_empty() {
        return Err(no_address(host));
    }
    let addresses = limits
        .destinations
        .permitted(host, &found)
        .map_err(ProbeError::Broken)?;
    let tls = plan
        .is_tls
        .then(|| client_config(provider.verify_tls.unwrap_or(true)));
    let tls = tls.transpose().map_err(ProbeError::Broken)?;
    if let Err(error) = use_precise_timers() {
        tracing::debug!(%error, "requests may be sent up to 50 µs late");
    }
    let generator = LoadGenerator::new(HostLoadIo::new(), addresses, plan, tls);
    generator.run();
    generator.value()
}
