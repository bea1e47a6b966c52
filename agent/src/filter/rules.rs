//! From flows and harm to nf_tables: one table of our own for the IP layers, one for devices.
//!
//! Every chain begins with what is spared: everything once the lease has run out (a set whose
//! elements the kernel removes by itself), the loopback, the finding of neighbours, the policy's
//! ports, what is excepted. Then come the flows, which go to the chain `harm`.
//!
//! Arriving packets are lost before it is known for whom they are; leaving ones at their device,
//! where nobody is told: a drop in the IP layers would give a UDP sender an error that no real
//! loss gives.

use super::deeds::copies;
use super::network::merged;
use super::{End, Filter, Flows, Harm, Means, PortRange, Protocol};
use crate::netlink::{
    Base, Compare, Expression, Hook, Key, LOOPBACK, Layer, Message, Meta, Table, Verdict,
};
use std::time::Duration;

/// The chain that does what is to be done.
pub(super) const HARM: &str = "harm";
/// The chain for what leaves, where that is done in another way than for what arrives.
const HARM_LEAVING: &str = "harm-leaving";
/// The set that runs out.
const LEASE: &str = "lease";
/// `ETH_P_IP` and `ETH_P_IPV6`.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Numbers of transport protocols.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
/// Before connections are tracked (-200), so that what is lost is not tracked; after fragments are put together (-400).
const EARLY: i32 = -350;
/// After all that others do at a device, as what is forwarded comes back behind it.
const LAST: i32 = i32::MAX;
/// Just before where a host's own rules usually are.
const BEFORE_FILTERS: i32 = -10;
/// How many devices one chain takes (`NFT_NETDEVICE_MAX` is 256).
const DEVICES: usize = 200;

/// The messages for one table, as they come together.
pub(super) struct Draft<'a> {
    pub(super) table: Table<'a>,
    pub(super) messages: Vec<Message>,
    /// Sets come before the rules that look into them, each with a number of its own.
    pub(super) sets: u32,
}

/// A chain that packets come to at a hook, with its priority, and the chain that its flows are sent to.
type At = (String, Hook, i32, &'static str);

/// Where packets are looked at: in the IP layers, and at devices.
fn places(filter: &Filter) -> (Vec<At>, Vec<At>) {
    let direction = filter.flows.direction;
    let (arrives, leaves) = (direction.arrives(), direction.leaves());
    let arriving = |hook, priority| ("arriving".to_owned(), hook, priority, HARM);
    let at = |name: &'static str, devices: &[String], hook: fn(Vec<String>) -> Hook, harm| {
        let chunks = devices.chunks(DEVICES).enumerate();
        chunks
            .map(|(number, devices)| {
                let priority = if matches!(filter.harm, Harm::Shape { .. }) {
                    LAST
                } else {
                    0
                };
                (
                    format!("{name}-{number}"),
                    hook(devices.to_vec()),
                    priority,
                    harm,
                )
            })
            .collect::<Vec<At>>()
    };
    let leaving = |harm| match leaves {
        true => at("leaving", &filter.devices, Hook::Egress, harm),
        false => Vec::new(),
    };
    match filter.harm {
        Harm::Lose { .. } | Harm::LoseInBursts { .. } => (
            arrives
                .then(|| arriving(Hook::Prerouting, EARLY))
                .into_iter()
                .collect(),
            leaving(HARM),
        ),
        Harm::Delay { .. } | Harm::Corrupt { .. } => {
            (vec![arriving(Hook::Prerouting, EARLY)], Vec::new())
        }
        Harm::Duplicate { .. } => (Vec::new(), leaving(HARM)),
        Harm::Shape { .. } => {
            let mut netdev = leaving(HARM_LEAVING);
            if arrives {
                netdev.extend(at("arriving", &filter.inlets, Hook::Ingress, HARM));
            }
            (Vec::new(), netdev)
        }
        Harm::Reject { .. } => {
            let mut inet = Vec::new();
            if arrives {
                inet.push(arriving(Hook::Input, BEFORE_FILTERS));
            }
            if leaves {
                inet.push(("leaving".to_owned(), Hook::Output, BEFORE_FILTERS, HARM));
            }
            inet.push(("passing".to_owned(), Hook::Forward, BEFORE_FILTERS, HARM));
            (inet, Vec::new())
        }
    }
}

pub(super) fn messages(filter: &Filter, deadline: Duration, means: Means) -> Vec<Message> {
    let (inet, netdev) = places(filter);
    let mut messages = Vec::new();
    for (layer, chains) in [(Layer::Inet, inet), (Layer::Netdev, netdev)] {
        if chains.is_empty() {
            continue;
        }
        let table = Table {
            layer,
            name: &filter.table,
        };
        let mut draft = Draft {
            table,
            messages: vec![table.make()],
            sets: 0,
        };
        draft.lease(deadline);
        for harm in [HARM, HARM_LEAVING] {
            if chains.iter().any(|(_, _, _, chain)| *chain == harm) {
                draft.messages.push(table.chain(harm));
                draft.harm(harm, filter, means);
            }
        }
        for (name, hook, priority, harm) in chains {
            draft
                .messages
                .push(table.base_chain(&name, &hook, priority));
            draft.spare(&name, &hook, filter);
            draft.choose(&name, harm, &filter.flows);
        }
        messages.extend(draft.messages);
    }
    messages
}

impl Draft<'_> {
    pub(super) fn rule(&mut self, chain: &str, steps: &[Expression], comment: &str) {
        let message = self.table.rule(chain, steps, comment);
        // The two ways of flows that are alike both ways are one rule.
        if !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }

    fn lease(&mut self, deadline: Duration) {
        self.sets += 1;
        let protocols = [IPV4.to_vec(), IPV6.to_vec()];
        let set = self
            .table
            .lease(LEASE, self.sets, Key::Protocol, &protocols, deadline);
        self.messages.extend(set);
    }

    /// The rules that let through what is never touched.
    fn spare(&mut self, chain: &str, hook: &Hook, filter: &Filter) {
        let flows = &filter.flows;
        if let Harm::Duplicate { .. } = filter.harm {
            let is_copy = equal(&copies(filter).to_ne_bytes());
            let steps = [
                Expression::Meta(Meta::Mark),
                is_copy,
                Expression::Mark(0),
                accept(),
            ];
            self.rule(chain, &steps, "copies");
        }
        let over = Expression::Lookup {
            set: LEASE.into(),
            missing: true,
        };
        self.rule(
            chain,
            &[Expression::Meta(Meta::Protocol), over, accept()],
            "the lease has run out",
        );
        let (name, kind) = match hook {
            Hook::Output => (vec![Meta::OutputName], Some(Meta::OutputType)),
            Hook::Forward => (vec![Meta::InputName, Meta::OutputName], None),
            Hook::Prerouting | Hook::Input => (vec![Meta::InputName], Some(Meta::InputType)),
            // The chain is at the wanted devices only.
            Hook::Ingress(_) | Hook::Egress(_) => (Vec::new(), None),
        };
        if let (Some(kind), false) = (kind, flows.loopback) {
            let steps = [
                Expression::Meta(kind),
                equal(&LOOPBACK.to_ne_bytes()),
                accept(),
            ];
            self.rule(chain, &steps, "loopback");
        }
        if let (Some(interface), false) = (&flows.interface, name.is_empty()) {
            let mut steps = Vec::new();
            for name in name {
                let mut wanted = interface.as_bytes().to_vec();
                wanted.resize(16, 0);
                steps.push(Expression::Meta(name));
                steps.push(Expression::Compare(Compare::Unequal, wanted));
            }
            steps.push(accept());
            self.rule(chain, &steps, "other interfaces");
        }
        // Multicast listeners and neighbours: 130 to 137, and 143. ARP is no IP and never comes this far.
        for (first, last) in [(130, 137), (143, 143)] {
            let kinds = between(field(Base::Transport, 0, 1), &[first], &[last]);
            let steps = [transport(ICMPV6), kinds, vec![accept()]];
            self.rule(chain, &steps.concat(), "neighbours");
        }
        for end in [Side::Source, Side::Destination] {
            for protocol in [TCP, UDP] {
                if flows.spare_ports.is_empty() {
                    continue;
                }
                let ports = self.ports(end, &flows.spare_ports);
                let steps = [transport(protocol), ports, vec![accept()]];
                self.rule(chain, &steps.concat(), "spared port");
            }
            for except in &flows.except {
                for (family, v4) in [(IPV4, true), (IPV6, false)] {
                    let Some(address) = self.address(end, except, v4) else {
                        continue;
                    };
                    for protocol in ported(except.port.is_some(), Protocol::Any) {
                        let mut steps = self.ip(family);
                        steps.extend(protocol.map(transport).unwrap_or_default());
                        steps.extend(address.clone());
                        if let Some(port) = except.port {
                            steps.extend(self.ports(end, &[port]));
                        }
                        steps.push(accept());
                        self.rule(chain, &steps, "excepted");
                    }
                }
            }
        }
    }

    /// The rules that send the chosen flows to their harm: as they go there, and as the answers come back.
    fn choose(&mut self, chain: &str, harm: &str, flows: &Flows) {
        fn any(ends: &[End]) -> Vec<Option<&End>> {
            match ends {
                [] => vec![None],
                ends => ends.iter().map(Some).collect(),
            }
        }
        for (source, destination) in [
            (Side::Source, Side::Destination),
            (Side::Destination, Side::Source),
        ] {
            for from in any(&flows.from) {
                for to in any(&flows.to) {
                    self.pair((chain, harm), flows, (source, from), (destination, to));
                }
            }
        }
    }

    fn pair(
        &mut self,
        (chain, harm): (&str, &str),
        flows: &Flows,
        (source, from): (Side, Option<&End>),
        (destination, to): (Side, Option<&End>),
    ) {
        let has_address = from.is_some() || to.is_some();
        let families: &[Option<([u8; 2], bool)>] = match has_address {
            true => &[Some((IPV4, true)), Some((IPV6, false))],
            false => &[None],
        };
        let has_port = !flows.ports.is_empty()
            || from.is_some_and(|end| end.port.is_some())
            || to.is_some_and(|end| end.port.is_some());
        for family in families {
            let mut addresses = Vec::new();
            if let Some((family, v4)) = family {
                addresses.extend(self.ip(*family));
                let mut missing = false;
                for (side, end) in [(source, from), (destination, to)] {
                    let Some(end) = end else { continue };
                    match self.address(side, end, *v4) {
                        Some(address) => addresses.extend(address),
                        None => missing = true,
                    }
                }
                if missing {
                    continue;
                }
            }
            for protocol in ported(has_port, flows.protocol) {
                let mut steps = addresses.clone();
                steps.extend(protocol.map(transport).unwrap_or_default());
                for (side, end) in [(source, from), (destination, to)] {
                    if let Some(port) = end.and_then(|end| end.port) {
                        steps.extend(self.ports(side, &[port]));
                    }
                }
                if !flows.ports.is_empty() {
                    steps.extend(self.ports(destination, &flows.ports));
                }
                steps.push(Expression::Verdict(Verdict::Goto(harm.into())));
                self.rule(chain, &steps, "");
            }
        }
    }

    /// That a packet is of IPv4, or of IPv6.
    fn ip(&self, family: [u8; 2]) -> Vec<Expression> {
        match (self.table.layer, family) {
            (Layer::Netdev, family) => vec![Expression::Meta(Meta::Protocol), equal(&family)],
            // `NFPROTO_IPV4` and `NFPROTO_IPV6`.
            (Layer::Inet, IPV4) => vec![Expression::Meta(Meta::Family), equal(&[2])],
            (Layer::Inet, _) => vec![Expression::Meta(Meta::Family), equal(&[10])],
        }
    }

    /// That an address is one of an end's; nothing where that has none of the family.
    fn address(&mut self, side: Side, end: &End, v4: bool) -> Option<Vec<Expression>> {
        let networks = end.networks.iter().filter(|network| network.is_v4() == v4);
        let ranges = merged(networks.map(|network| network.range()).collect());
        let (offset, length, key) = match (v4, side) {
            (true, Side::Source) => (12, 4, Key::V4),
            (true, Side::Destination) => (16, 4, Key::V4),
            (false, Side::Source) => (8, 16, Key::V6),
            (false, Side::Destination) => (24, 16, Key::V6),
        };
        (!ranges.is_empty()).then(|| self.among(field(Base::Network, offset, length), key, &ranges))
    }

    fn ports(&mut self, side: Side, ports: &[PortRange]) -> Vec<Expression> {
        let offset = if side == Side::Source { 0 } else { 2 };
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        let ranges = ports
            .iter()
            .map(|port| (bytes(port.first), bytes(port.last)));
        self.among(
            field(Base::Transport, offset, 2),
            Key::Port,
            &merged(ranges.collect()),
        )
    }

    /// That a field is within one of these ranges.
    pub(super) fn among(
        &mut self,
        field: Expression,
        key: Key,
        ranges: &[(Vec<u8>, Vec<u8>)],
    ) -> Vec<Expression> {
        if let [(first, last)] = ranges {
            return between(field, first, last);
        }
        let number = self.sets + 1;
        // One set for all who ask for the same.
        let wanted = |number: u32| {
            let name = format!("{}-{number}", kind_of(key));
            (self.table.ranges(&name, number, key, ranges), name)
        };
        let known = (1..number).find(|number| {
            let (messages, _) = wanted(*number);
            messages
                .iter()
                .all(|message| self.messages.contains(message))
        });
        let (messages, set) = wanted(known.unwrap_or(number));
        if known.is_none() {
            self.sets = number;
            self.messages.extend(messages);
        }
        vec![
            field,
            Expression::Lookup {
                set,
                missing: false,
            },
        ]
    }
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

fn kind_of(key: Key) -> &'static str {
    match key {
        Key::V4 => "addresses",
        Key::V6 => "addresses6",
        Key::Protocol => "protocols",
        Key::Port => "ports",
        Key::Number => "numbers",
    }
}

/// The transport protocols to look for, where any must be looked for: only TCP and UDP have ports.
fn ported(has_port: bool, protocol: Protocol) -> Vec<Option<u8>> {
    match protocol {
        Protocol::Tcp => vec![Some(TCP)],
        Protocol::Udp => vec![Some(UDP)],
        Protocol::Icmp => vec![Some(ICMP), Some(ICMPV6)],
        Protocol::Any if has_port => vec![Some(TCP), Some(UDP)],
        Protocol::Any => vec![None],
    }
}

pub(super) fn accept() -> Expression {
    Expression::Verdict(Verdict::Accept)
}

pub(super) fn field(base: Base, offset: u32, length: u32) -> Expression {
    Expression::Payload {
        base,
        offset,
        length,
    }
}

pub(super) fn equal(bytes: &[u8]) -> Expression {
    Expression::Compare(Compare::Equal, bytes.to_vec())
}

fn between(field: Expression, first: &[u8], last: &[u8]) -> Vec<Expression> {
    if first == last {
        return vec![field, equal(first)];
    }
    vec![
        field,
        Expression::Compare(Compare::AtLeast, first.to_vec()),
        Expression::Compare(Compare::AtMost, last.to_vec()),
    ]
}

pub(super) fn transport(protocol: u8) -> Vec<Expression> {
    vec![Expression::Meta(Meta::Transport), equal(&[protocol])]
}
