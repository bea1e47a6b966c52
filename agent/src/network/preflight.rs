//! What people should know before packets are affected: what on this host would hide the fault, or make it look like something else.

use crate::changes::count;
use crate::packet_filter::{FlowMatch, IpNetwork, PacketFilter, Protocol};
use crate::plan::{HostView, NetworkSnapshot};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;
use std::io;

/// Most things of one kind that a note names.
const MAX_LISTED_NAMES: usize = 4;

/// What people should know of a packet filter, and what they should be warned of.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Preflight {
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Preflight {
    /// Looks at the namespace of a packet filter.
    ///
    /// # Errors
    /// The namespace cannot be entered; or connections are to be closed, and this kernel would not do it.
    pub(super) fn of(filter: &PacketFilter, host: &dyn HostView) -> io::Result<Self> {
        let destinations: Vec<IpAddr> = destinations(&filter.flows)
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        let seen = host.network_snapshot(filter, &destinations)?;
        Ok(Preflight {
            notes: notes(filter, &seen),
            warnings: warnings(filter, &seen),
        })
    }
}

fn notes(filter: &PacketFilter, seen: &NetworkSnapshot) -> Vec<String> {
    let mut notes = Vec::new();
    if filter.closes_established() {
        notes.push(format!(
            "{} now, and those opened until then, are closed for good: this is not reverted",
            count(seen.live_connections, "live connection", "live connections")
        ));
    }
    notes.extend(interface_down(filter, seen));
    notes.extend(legacy_tables(seen));
    notes.extend(earlier_chains(filter, seen));
    notes.extend(missing_ipv6(&filter.flows, seen));
    notes.extend(unreachable(seen));
    notes.extend(nobody_listens(&filter.flows, seen));
    notes
}

/// Where the fault would do something else than was asked for: packets that are not matched because their addresses are translated.
fn warnings(filter: &PacketFilter, seen: &NetworkSnapshot) -> Vec<String> {
    let flows = &filter.flows;
    if flows.to.is_empty() && flows.from.is_empty() && flows.ports.is_empty() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if filter.translated && !filter.inlets.is_empty() {
        warnings.push(
            "addresses are translated here (NAT), and arriving packets are shaped before their original addresses are known: answers from behind a translated address or port are not shaped. Name the addresses behind it as well, or shape at the other side".into(),
        );
    }
    if seen.has_ipvs {
        warnings.push(
            "IPVS forwards to other addresses here: packets to its services are affected only before or after they are forwarded. Name the addresses of the real servers as well".into(),
        );
    }
    warnings
}

/// The named interface carries nothing.
fn interface_down(filter: &PacketFilter, seen: &NetworkSnapshot) -> Option<String> {
    let wanted = filter.flows.interface.as_ref()?;
    let mut links = seen.interfaces.iter();
    links
        .any(|link| link.name == *wanted && !link.up)
        .then(|| format!("interface `{wanted}` is down: it carries no packets"))
}

/// Rules of legacy iptables, which netlink does not show.
fn legacy_tables(seen: &NetworkSnapshot) -> impl Iterator<Item = String> {
    let used = seen.legacy_tables.iter();
    used.filter(|(_, tables)| !tables.is_empty())
        .map(|(kind, tables)| {
            let tables: Vec<String> = tables.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "there are rules of legacy {kind} (tables {}): packets that they drop do not reach the rules of this fault, and may look like it",
                tables.join(", ")
            )
        })
}

/// Chains of others that packets come to before those of the fault.
fn earlier_chains(filter: &PacketFilter, seen: &NetworkSnapshot) -> Option<String> {
    let stages = filter.stages();
    let comes_before = |family: u8, hook: u32, priority: i32| {
        // The way of a packet: into a device, then up or through or down, then out of a device.
        let (arrives, stage) = match (family, hook) {
            (5, 0) => (true, 0),
            (5, _) => (false, 5),
            (7 | 3, _) => return false,
            (_, 0) => (true, 1),
            (_, 1) => (true, 2),
            (_, 2) => (true, 2),
            (_, 3) => (false, 3),
            _ => (false, 4),
        };
        stages
            .iter()
            .any(|(own_arrives, own)| arrives == *own_arrives && (stage, priority) < *own)
    };
    let chains: BTreeSet<String> = seen
        .refusing_chains
        .iter()
        .filter(|chain| comes_before(chain.family, chain.hook, chain.priority))
        .map(|chain| format!("`{}`", chain.name))
        .collect();
    (!chains.is_empty()).then(|| {
        format!(
            "other rules come first and drop or reject some packets: {}",
            listed(chains.into_iter())
        )
    })
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let number = names.len();
    let mut text = names.take(MAX_LISTED_NAMES).collect::<Vec<_>>().join(", ");
    if number > MAX_LISTED_NAMES {
        text += &format!(" and {} more", number - MAX_LISTED_NAMES);
    }
    text
}

/// Addresses of IPv6 are named, and this network has none.
fn missing_ipv6(flows: &FlowMatch, seen: &NetworkSnapshot) -> Option<String> {
    let mut named = flows.to.iter().chain(&flows.from);
    let wants = named.any(|end| end.networks.iter().any(|network| !network.is_v4()));
    (wants && !seen.has_ipv6 && !flows.loopback).then(|| {
        "addresses of IPv6 are named, but no interface has one: IPv6 is off here".to_owned()
    })
}

/// The single addresses that flows go to, with the ports there.
fn destinations(flows: &FlowMatch) -> Vec<(IpAddr, Vec<u16>)> {
    let mut found = Vec::new();
    for end in &flows.to {
        let ports = match end.port {
            Some(port) => vec![port],
            None => flows.ports.clone(),
        };
        let single = |network: &IpNetwork| network.single();
        for address in end.networks.iter().filter_map(single) {
            let ports = ports.iter().filter(|port| port.first == port.last);
            found.push((address, ports.map(|port| port.first).collect()));
        }
    }
    found
}

fn unreachable(seen: &NetworkSnapshot) -> Option<String> {
    let lost = seen.unreachable.iter().map(IpAddr::to_string);
    (lost.len() > 0).then(|| format!("no route leads to {}", listed(lost)))
}

/// Where nobody listens, of what is of this network itself.
fn nobody_listens(flows: &FlowMatch, seen: &NetworkSnapshot) -> Option<String> {
    let is_meant = |tcp: bool| match flows.protocol {
        Protocol::Tcp => tcp,
        Protocol::Udp => !tcp,
        Protocol::Icmp => false,
        Protocol::Any => true,
    };
    let somebody_listens = |address: IpAddr, port: u16| {
        seen.listening.iter().any(|socket| {
            let at = socket.at.ip();
            // One for every address of IPv6 mostly takes those of IPv4 too.
            is_meant(socket.tcp)
                && socket.at.port() == port
                && (at == address || at.is_unspecified())
        })
    };
    let silent: Vec<String> = destinations(flows)
        .into_iter()
        .filter(|(address, _)| seen.own_destinations.contains(address))
        .flat_map(|(address, ports)| ports.into_iter().map(move |port| (address, port)))
        .filter(|(address, port)| !somebody_listens(*address, *port))
        .map(|(address, port)| SocketAddr::new(address, port).to_string())
        .collect();
    (!silent.is_empty()).then(|| format!("nothing listens at {} now", listed(silent.into_iter())))
}
