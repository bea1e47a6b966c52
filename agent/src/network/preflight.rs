//! What people should know before packets are harmed: what on this host would keep the fault from being seen,
//! or make it look like something else. Looks only; nothing is sent.

use crate::changes::count;
use crate::netlink::{self, ForeignChain, ListeningSocket};
use crate::packet_filter::{FlowMatch, IpNetwork, PacketFilter, Protocol};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// How many of one kind are named.
const MAX_LISTED_NAMES: usize = 4;

/// What is to be known of the namespace that the thread is in.
pub(crate) fn notes(filter: &PacketFilter) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    if filter.closes_established() {
        netlink::closes_connections()?;
        let live = filter.established()?.len();
        notes.push(format!(
            "{} now, and others that come until then, are closed for good: that is not undone",
            count(live, "live connection", "live connections")
        ));
    }
    // What can't be looked at is no reason to refuse.
    notes.extend(down(filter).unwrap_or_default());
    notes.extend(others(filter).unwrap_or_default());
    notes.extend(families(&filter.flows));
    notes.extend(unreachable(&filter.flows));
    notes.extend(silent(&filter.flows).unwrap_or_default());
    Ok(notes)
}

/// What the namespace that the thread is in makes of the fault that is not what was asked for: packets that would not be chosen because
/// their addresses are translated.
pub(crate) fn warnings(filter: &PacketFilter) -> Vec<String> {
    let flows = &filter.flows;
    if flows.to.is_empty() && flows.from.is_empty() && flows.ports.is_empty() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if filter.translated && !filter.inlets.is_empty() {
        warnings.push(
            "addresses are translated here (nat), and arriving packets are shaped as they come in, before it is known what they were: answers from behind a translated address or port are not shaped. Name the addresses that stand behind it as well, or shape at the other side".into(),
        );
    }
    // A table of services after three lines of headings; it is the thread's namespace's.
    let services = std::fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
    if services.lines().count() > 3 {
        warnings.push(
            "IPVS forwards to other addresses here: what goes to its services is chosen only where it is not yet, or no longer, forwarded. Name the addresses of the servers as well".into(),
        );
    }
    warnings
}

/// A named interface that carries nothing.
fn down(filter: &PacketFilter) -> io::Result<Option<String>> {
    let Some(wanted) = &filter.flows.interface else {
        return Ok(None);
    };
    let links = netlink::interfaces()?;
    let is_down = links.iter().any(|link| link.name == *wanted && !link.up);
    Ok(is_down.then(|| format!("interface `{wanted}` is down: no packet goes over it")))
}

/// Rules of others that packets come to before ours.
fn others(filter: &PacketFilter) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    for (file, kind) in [
        ("ip_tables_names", "iptables"),
        ("ip6_tables_names", "ip6tables"),
    ] {
        // `/proc/net` is the first thread's.
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let names: Vec<String> = names
            .unwrap_or_default()
            .split_whitespace()
            .map(|name| format!("`{name}`"))
            .collect();
        if !names.is_empty() {
            notes.push(format!(
                "there are rules of legacy {kind} (tables {}): what they drop is not seen by ours, and may look like this fault",
                names.join(", ")
            ));
        }
    }
    let ours = filter.stages();
    let before = |chain: &ForeignChain| {
        // The way of a packet: into a device, then up or through or down, then out of a device.
        let (arrives, stage) = match (chain.family, chain.hook) {
            (5, 0) => (true, 0),
            (5, _) => (false, 5),
            (7 | 3, _) => return false,
            (_, 0) => (true, 1),
            (_, 1) => (true, 2),
            (_, 2) => (true, 2),
            (_, 3) => (false, 3),
            _ => (false, 4),
        };
        ours.iter().any(|(ours_arrives, place)| {
            arrives == *ours_arrives && (stage, chain.priority) < *place
        })
    };
    let chains: BTreeSet<String> = netlink::refusing_chains()?
        .into_iter()
        .filter(before)
        .map(|chain| format!("`{}`", chain.name))
        .collect();
    if !chains.is_empty() {
        notes.push(format!(
            "packets come to rules of others first, which drop or reject some: {}",
            listed(chains.into_iter())
        ));
    }
    Ok(notes)
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let number = names.len();
    let mut text = names.take(MAX_LISTED_NAMES).collect::<Vec<_>>().join(", ");
    if number > MAX_LISTED_NAMES {
        text += &format!(" and {} more", number - MAX_LISTED_NAMES);
    }
    text
}

/// Addresses of IPv6 where that is off.
fn families(flows: &FlowMatch) -> Option<String> {
    let mut named = flows.to.iter().chain(&flows.from);
    let wants = named.any(|end| end.networks.iter().any(|network| !network.is_v4()));
    let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let off = addresses.lines().all(|line| line.ends_with(" lo"));
    (wants && off && !flows.loopback).then(|| {
        "addresses of IPv6 are named, and no interface has one: IPv6 is off here".to_owned()
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

/// Where no route leads. The kernel looks for it when a UDP socket is connected, and sends nothing.
fn unreachable(flows: &FlowMatch) -> Option<String> {
    let lost: Vec<String> = destinations(flows)
        .into_iter()
        .filter(|(address, _)| {
            let any = match address {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            UdpSocket::bind(SocketAddr::new(any, 0))
                .and_then(|socket| socket.connect(SocketAddr::new(*address, 9)))
                .is_err_and(|error| {
                    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
                    matches!(
                        error.kind(),
                        AddrNotAvailable | HostUnreachable | NetworkUnreachable
                    )
                })
        })
        .map(|(address, _)| address.to_string())
        .collect();
    (!lost.is_empty()).then(|| format!("no route leads to {}", listed(lost.into_iter())))
}

/// Where nobody listens, of what is of this host itself.
fn silent(flows: &FlowMatch) -> io::Result<Option<String>> {
    let ours: Vec<(IpAddr, Vec<u16>)> = destinations(flows)
        .into_iter()
        .filter(|(address, ports)| !ports.is_empty() && netlink::is_own_address(*address))
        .collect();
    if ours.is_empty() {
        return Ok(None);
    }
    let wanted = |tcp: bool| match flows.protocol {
        Protocol::Tcp => tcp,
        Protocol::Udp => !tcp,
        Protocol::Icmp => false,
        Protocol::Any => true,
    };
    let listening: Vec<ListeningSocket> = netlink::listening()?
        .into_iter()
        .filter(|socket| wanted(socket.tcp))
        .collect();
    let heard = |address: IpAddr, port: u16| {
        listening.iter().any(|socket| {
            let at = socket.at.ip();
            // One for every address of IPv6 mostly takes those of IPv4 too.
            socket.at.port() == port && (at == address || at.is_unspecified())
        })
    };
    let silent: Vec<String> = ours
        .into_iter()
        .flat_map(|(address, ports)| ports.into_iter().map(move |port| (address, port)))
        .filter(|(address, port)| !heard(*address, *port))
        .map(|(address, port)| SocketAddr::new(address, port).to_string())
        .collect();
    Ok((!silent.is_empty())
        .then(|| format!("nobody listens at {} now", listed(silent.into_iter()))))
}
