//! From flows and harm to nf_tables: one table of our own for the IP layers, one for devices.
//!
//! Every chain begins with what is spared: everything once the lease has run out (a set whose
//! elements the kernel removes by itself), the loopback, the finding of neighbours, the policy's
//! ports, what is excepted. Then come the flows, which go to the chain `harm`.
//!
//! Arriving packets are lost before it is known for whom they are; leaving ones at their device,
//! where nobody is told: a drop in the IP layers would give a UDP sender an error that no real
//! loss gives.

use super::effects::copies;
use super::address::merged;
use super::nat::{MARKING, HeaderOf, original_address, original_port};
use super::expressions::{
    MatchBy, ICMPV6, HookedChain, Side, UDP, accept, between, equal, field, kind_of, hooked_chains, ported, transport,
};
use super::{Endpoint, PacketFilter, FlowMatch, PacketEffect, Capabilities, PortRange, Protocol};
use crate::netlink::{
    Base, Compare, Expression, Hook, Key, LOOPBACK, TableFamily, Message, Meta, Table, RuleVerdict,
};
use std::time::Duration;

/// The chain that does what is to be done.
pub(super) const EFFECT: &str = "harm";
/// The chain for what leaves, where that is done in another way than for what arrives.
pub(super) const EFFECT_LEAVING: &str = "harm-leaving";
/// The set that runs out.
pub(super) const LEASE: &str = "lease";
/// `ETH_P_IP` and `ETH_P_IPV6`.
pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
/// Numbers of transport protocols.
pub(super) const TCP: u8 = 6;
/// Before connections are tracked (-200), so that what is lost is not tracked; after fragments are put together (-400).
pub(super) const EARLY: i32 = -350;
/// Where connections are known (-200), and before addresses are translated (-100).
pub(super) const TRACKED: i32 = -190;
/// Just before where a host's own rules usually are.
pub(super) const BEFORE_FILTERS: i32 = -10;
/// As whoever asked sees answers: after addresses are translated (100), and only those that are for this namespace.
pub(super) const AFTER_NAT: i32 = 110;
/// After all that may still change or refuse a packet (`NF_IP_PRI_LAST` is the highest number, and conntrack's own).
pub(super) const AFTER_FILTERS: i32 = 1000;
/// After all that others do at a device, as what is forwarded comes back behind it.
pub(super) const LAST: i32 = i32::MAX;

/// The messages for one table, as they come together.
pub(super) struct RulesetBuilder<'a> {
    pub(super) table: Table<'a>,
    pub(super) messages: Vec<Message>,
    /// Sets come before the rules that look into them, each with a number of its own.
    pub(super) sets: u32,
}

/// The messages for what is done in which way. Without its hooks, no packet would ever come to it.
pub(super) fn messages(
    filter: &PacketFilter,
    deadline: Duration,
    means: Capabilities,
    hooked: bool,
) -> Vec<Message> {
    let mut messages = Vec::new();
    for (layer, chains) in hooked_chains(filter) {
        let table = Table {
            layer,
            name: &filter.table,
        };
        let mut draft = RulesetBuilder {
            table,
            messages: vec![table.make()],
            sets: 0,
        };
        draft.lease(deadline);
        for harm in [EFFECT, EFFECT_LEAVING] {
            let leads_there = |place: &HookedChain| place.harm == harm || place.harm_of_answers == harm;
            if chains.iter().any(leads_there) {
                draft.messages.push(table.chain(harm));
                draft.harm(harm, filter, means);
            }
        }
        if chains.iter().any(|place| place.harm == MARKING) {
            draft.messages.push(table.chain(MARKING));
            draft.marking(filter);
        }
        for place in &chains {
            draft.messages.push(match hooked {
                true => table.base_chain(&place.name, &place.hook, place.priority),
                false => table.chain(&place.name),
            });
            draft.spare(place, filter);
            if matches!(place.hook, Hook::Egress(_)) {
                draft.by_marks(&place.name, place.harm, filter);
            }
            draft.choose(place, filter, &filter.flows);
        }
        if let PacketEffect::Answer { lost } = filter.harm {
            draft.signed_chain(filter.mark_sign(), lost, hooked);
        }
        messages.extend(draft.messages);
    }
    messages
}

/// The rules that choose these flows as well, after those that are there.
pub(super) fn more(filter: &PacketFilter, flows: &[FlowMatch], sets: u32) -> Vec<Message> {
    let mut messages = Vec::new();
    for (layer, chains) in hooked_chains(filter) {
        let name = &filter.table;
        let mut draft = RulesetBuilder {
            table: Table { layer, name },
            messages: Vec::new(),
            sets,
        };
        for place in &chains {
            for flows in flows {
                draft.choose(place, filter, flows);
            }
        }
        messages.extend(draft.messages);
    }
    messages
}

impl RulesetBuilder<'_> {
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
    fn spare(&mut self, place: &HookedChain, filter: &PacketFilter) {
        let (chain, hook) = (place.name.as_str(), &place.hook);
        let flows = &filter.flows;
        if let PacketEffect::Duplicate { .. } = filter.harm {
            let steps = [
                Expression::Meta(Meta::Mark),
                equal(&copies(filter).to_ne_bytes()),
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
            Hook::Output | Hook::Postrouting => (vec![Meta::OutputName], Some(Meta::OutputType)),
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
        self.spare_ends(chain, flows, HeaderOf::Packet, &[accept()]);
        if place.by != MatchBy::Packet {
            let spared = self.spared(filter, place.by == MatchBy::Original);
            self.spare_ends(chain, flows, HeaderOf::Original, &spared);
        }
    }

    /// The rules for what is spared because of an end that it has, or had.
    fn spare_ends(&mut self, chain: &str, flows: &FlowMatch, of: HeaderOf, spared: &[Expression]) {
        self.spare_control_link(chain, flows, of, spared);
        for end in [Side::Source, Side::Destination] {
            for protocol in [TCP, UDP] {
                if flows.spare_ports.is_empty() {
                    continue;
                }
                let ports = self.ports(end, &flows.spare_ports, of);
                let steps = [&transport(protocol)[..], &ports, spared];
                self.rule(chain, &steps.concat(), "spared port");
            }
            for except in &flows.except {
                for (family, v4) in [(IPV4, true), (IPV6, false)] {
                    let Some(address) = self.address(end, except, v4, of) else {
                        continue;
                    };
                    for protocol in ported(except.port.is_some(), Protocol::Any) {
                        let mut steps = self.ip(family);
                        steps.extend(protocol.map(transport).unwrap_or_default());
                        steps.extend(address.clone());
                        if let Some(port) = except.port {
                            steps.extend(self.ports(end, &[port], of));
                        }
                        steps.extend_from_slice(spared);
                        self.rule(chain, &steps, "excepted");
                    }
                }
            }
        }
    }

    /// The rules that send the chosen flows to their harm: as they go there, and as the answers come back.
    fn choose(&mut self, place: &HookedChain, filter: &PacketFilter, flows: &FlowMatch) {
        let only_back = matches!(filter.harm, PacketEffect::Answer { .. });
        fn any(ends: &[Endpoint]) -> Vec<Option<&Endpoint>> {
            match ends {
                [] => vec![None],
                ends => ends.iter().map(Some).collect(),
            }
        }
        for (source, destination, harm) in [
            (Side::Source, Side::Destination, place.harm),
            (Side::Destination, Side::Source, place.harm_of_answers),
        ] {
            let at = (place.name.as_str(), harm);
            if only_back && source == Side::Source {
                continue;
            }
            let looked_at: &[HeaderOf] = match place.by {
                MatchBy::Packet => &[HeaderOf::Packet],
                MatchBy::Both => &[HeaderOf::Packet, HeaderOf::Original],
                MatchBy::Original => &[HeaderOf::Original],
            };
            for of in looked_at {
                for from in any(&flows.from) {
                    for to in any(&flows.to) {
                        self.pair(at, flows, (source, from), (destination, to), *of);
                    }
                }
            }
        }
    }

    fn pair(
        &mut self,
        (chain, harm): (&str, &str),
        flows: &FlowMatch,
        (source, from): (Side, Option<&Endpoint>),
        (destination, to): (Side, Option<&Endpoint>),
        of: HeaderOf,
    ) {
        let has_address = from.is_some() || to.is_some();
        let families: &[Option<([u8; 2], bool)>] = match has_address {
            true => &[Some((IPV4, true)), Some((IPV6, false))],
            false => &[None],
        };
        let has_port = !flows.ports.is_empty()
            || from.is_some_and(|end| end.port.is_some())
            || to.is_some_and(|end| end.port.is_some());
        if of == HeaderOf::Original && !has_address && !has_port {
            // What is chosen by neither is chosen by what the packet is.
            return;
        }
        for family in families {
            let mut addresses = Vec::new();
            if let Some((family, v4)) = family {
                addresses.extend(self.ip(*family));
                let mut missing = false;
                for (side, end) in [(source, from), (destination, to)] {
                    let Some(end) = end else { continue };
                    match self.address(side, end, *v4, of) {
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
                        steps.extend(self.ports(side, &[port], of));
                    }
                }
                if !flows.ports.is_empty() {
                    steps.extend(self.ports(destination, &flows.ports, of));
                }
                let goto = Expression::Verdict(RuleVerdict::Goto(harm.into()));
                if flows.cgroups.is_empty() {
                    self.rule(chain, &[&steps[..], &[goto]].concat(), "");
                    continue;
                }
                for cgroup in &flows.cgroups {
                    let socket = Expression::SocketCgroup(cgroup.level);
                    let whose = [socket, equal(&cgroup.id.to_ne_bytes()), goto.clone()];
                    self.rule(chain, &[&steps[..], &whose].concat(), "");
                }
            }
        }
    }

    /// That a packet is of IPv4, or of IPv6.
    pub(super) fn ip(&self, family: [u8; 2]) -> Vec<Expression> {
        match (self.table.layer, family) {
            (TableFamily::Netdev, family) => vec![Expression::Meta(Meta::Protocol), equal(&family)],
            // `NFPROTO_IPV4` and `NFPROTO_IPV6`.
            (TableFamily::Inet, IPV4) => vec![Expression::Meta(Meta::Family), equal(&[2])],
            (TableFamily::Inet, _) => vec![Expression::Meta(Meta::Family), equal(&[10])],
        }
    }

    /// That an address is one of an end's; nothing where that has none of the family.
    pub(super) fn address(
        &mut self,
        side: Side,
        end: &Endpoint,
        v4: bool,
        of: HeaderOf,
    ) -> Option<Vec<Expression>> {
        let networks = end.networks.iter().filter(|network| network.is_v4() == v4);
        let ranges = merged(networks.map(|network| network.range()).collect());
        let (offset, length, key) = match (v4, side) {
            (true, Side::Source) => (12, 4, Key::V4),
            (true, Side::Destination) => (16, 4, Key::V4),
            (false, Side::Source) => (8, 16, Key::V6),
            (false, Side::Destination) => (24, 16, Key::V6),
        };
        let field = match of {
            HeaderOf::Packet => field(Base::Network, offset, length),
            HeaderOf::Original => original_address(side, v4),
        };
        (!ranges.is_empty()).then(|| self.among(field, key, &ranges))
    }

    pub(super) fn ports(&mut self, side: Side, ports: &[PortRange], of: HeaderOf) -> Vec<Expression> {
        let offset = if side == Side::Source { 0 } else { 2 };
        let field = match of {
            HeaderOf::Packet => field(Base::Transport, offset, 2),
            HeaderOf::Original => original_port(side),
        };
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        let ranges = ports
            .iter()
            .map(|port| (bytes(port.first), bytes(port.last)));
        self.among(field, Key::Port, &merged(ranges.collect()))
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
