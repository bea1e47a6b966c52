//! From flows and effects to nf_tables: one table of the filter's own for the IP layers, one for devices.
//!
//! Every chain begins with what is spared: everything once the lease has run out (a set whose
//! elements the kernel removes by itself), the loopback, the finding of neighbours, the policy's
//! ports, what is excepted. Then come the flows, which go to the chain `harm`.
//!
//! Arriving packets are lost before it is known for whom they are; leaving ones at their device,
//! where nobody is told: a drop in the IP layers would give a UDP sender an error that no real
//! loss gives.

use super::expressions::{
    HeaderOf, ICMPV6, IPV4, IPV6, Side, TCP, UDP, accept, between, equal, field, ported, transport,
};
use super::hooks::{EFFECT, EFFECT_LEAVING, HookedChain, MARKING, MatchBy, hooked_chains};
use super::ruleset::RulesetBuilder;
use super::{CHOSEN, Capabilities, Endpoint, FlowMatch, PacketFilter, Protocol};
use crate::netlink::{
    Base, Compare, Expression, Hook, Key, LOOPBACK, Message, Meta, RuleVerdict, Table,
};
use std::time::Duration;

/// The set that runs out.
pub(super) const LEASE: &str = "lease";
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
            let leads_there =
                |place: &HookedChain| place.harm == harm || place.harm_of_answers == harm;
            if chains.iter().any(leads_there) {
                draft.messages.push(table.chain(harm));
                draft.rule(harm, &[Expression::Counter], CHOSEN);
                filter
                    .effect
                    .action()
                    .write_rules(&mut draft, harm, filter, means);
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
        filter.effect.action().finish(&mut draft, filter, hooked);
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
        filter.effect.action().spare_own(self, chain, filter);
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
        let only_back = filter.effect.only_answers();
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
}
