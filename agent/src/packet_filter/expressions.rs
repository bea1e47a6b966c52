//! Where a filter's chains sit, and the small steps that its rules are made of.

use super::nat::MARKING;
use super::rules::{AFTER_FILTERS, AFTER_NAT, BEFORE_FILTERS, EFFECT, EFFECT_LEAVING, LAST, TCP};
use super::{PacketFilter, PacketEffect, Protocol};
use crate::netlink::{Base, Compare, Expression, Hook, Key, TableFamily, Meta, RuleVerdict};

/// Numbers of transport protocols.
pub(super) const ICMP: u8 = 1;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
/// How many devices one chain takes (`NFT_NETDEVICE_MAX` is 256).
const MAX_CHAIN_DEVICES: usize = 200;

/// A chain that packets come to.
#[derive(Debug)]
pub(super) struct HookedChain {
    /// Its name.
    pub name: String,
    /// Where it sits.
    pub hook: Hook,
    /// Lower ones come first.
    pub priority: i32,
    /// The chain that the chosen packets are sent to,
    pub harm: &'static str,
    /// and the one that answers to them are sent to.
    pub harm_of_answers: &'static str,
    /// By what they are chosen.
    pub by: MatchBy,
}

/// By what packets are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchBy {
    /// By what they are.
    Packet,
    /// By what they are, and by what their connection was before addresses were translated.
    Both,
    /// By what their connection was before addresses were translated. They are only marked, for a chain at a device.
    Original,
}

impl HookedChain {
    fn new(name: impl Into<String>, hook: Hook, priority: i32) -> Self {
        HookedChain {
            name: name.into(),
            hook,
            priority,
            harm: EFFECT,
            harm_of_answers: EFFECT,
            by: MatchBy::Packet,
        }
    }

    /// The same, where connections are known and addresses are translated.
    fn where_translated(self, filter: &PacketFilter) -> Self {
        let by = if filter.translated { MatchBy::Both } else { self.by };
        HookedChain { by, ..self }
    }
}

/// The name that the kernel gives to each namespace's loopback.
const LOOPBACK_NAME: &str = "lo";

/// The chains of a filter that packets come to, in the IP layers and at devices; only of layers that have some.
pub(super) fn hooked_chains(filter: &PacketFilter) -> Vec<(TableFamily, Vec<HookedChain>)> {
    let flows = &filter.flows;
    let (arrives, leaves) = (flows.direction.arrives(), flows.direction.leaves());
    let arriving = |hook, priority| HookedChain::new("arriving", hook, priority);
    let leaving = |hook, priority| HookedChain::new("leaving", hook, priority);
    let mut inet = Vec::new();
    let mut netdev = Vec::new();
    let early_priority = filter.early_priority();
    match filter.harm {
        PacketEffect::Lose { .. } | PacketEffect::LoseInBursts { .. } => {
            if arrives {
                inet.push(arriving(Hook::Prerouting, early_priority));
            }
            if leaves && filter.drops_in_queue() {
                inet.push(leaving(Hook::Output, AFTER_FILTERS));
            } else if leaves {
                netdev.extend(at_devices("leaving", &filter.devices, Hook::Egress, 0));
            }
        }
        PacketEffect::Delay { .. } | PacketEffect::Corrupt { .. } => inet.push(arriving(Hook::Prerouting, early_priority)),
        PacketEffect::Answer { .. } => inet.push(arriving(Hook::Input, AFTER_NAT)),
        PacketEffect::Duplicate { .. } => {
            netdev.extend(at_devices("leaving", &filter.devices, Hook::Egress, 0));
        }
        PacketEffect::Shape { .. } => {
            if leaves {
                let out = at_devices("leaving", &filter.devices, Hook::Egress, LAST);
                netdev.extend(out.into_iter().map(|place| HookedChain {
                    harm: EFFECT_LEAVING,
                    harm_of_answers: EFFECT_LEAVING,
                    ..place
                }));
            }
            if arrives {
                let (looping, others): (Vec<String>, Vec<String>) = filter
                    .inlets
                    .iter()
                    .cloned()
                    .partition(|name| *name == LOOPBACK_NAME);
                netdev.extend(at_devices("arriving", &others, Hook::Ingress, LAST));
                let looping = at_devices("looping", &looping, Hook::Ingress, LAST);
                netdev.extend(looping.into_iter().map(|place| HookedChain {
                    // Both directions arrive there. Each is to have what it is given by itself: acknowledgements that wait
                    // behind the data of the other direction would slow that down.
                    harm_of_answers: if leaves { EFFECT_LEAVING } else { EFFECT },
                    ..place
                }));
            }
        }
        PacketEffect::Reject { .. } => {
            if arrives {
                inet.push(arriving(Hook::Input, BEFORE_FILTERS));
            }
            if leaves {
                inet.push(leaving(Hook::Output, BEFORE_FILTERS));
            }
            // What passes through is of no socket here.
            if flows.cgroups.is_empty() {
                inet.push(HookedChain::new("passing", Hook::Forward, BEFORE_FILTERS));
            }
        }
    }
    let mut inet: Vec<HookedChain> = inet
        .into_iter()
        .map(|place| match place.hook {
            // It comes where addresses are what whoever asked knows.
            Hook::Input if matches!(filter.harm, PacketEffect::Answer { .. }) => place,
            _ => place.where_translated(filter),
        })
        .collect();
    if filter.nat_marks().is_some() {
        inet.push(HookedChain {
            harm: MARKING,
            harm_of_answers: MARKING,
            by: MatchBy::Original,
            ..HookedChain::new("translated", Hook::Postrouting, AFTER_FILTERS)
        });
    }
    let mut hooked_chains = vec![(TableFamily::Inet, inet), (TableFamily::Netdev, netdev)];
    hooked_chains.retain(|(_, chains)| !chains.is_empty());
    hooked_chains
}

/// As many chains as so many devices want.
fn at_devices(
    name: &str,
    devices: &[String],
    hook: fn(Vec<String>) -> Hook,
    priority: i32,
) -> Vec<HookedChain> {
    let chunks = devices.chunks(MAX_CHAIN_DEVICES).enumerate();
    chunks
        .map(|(number, devices)| {
            let name = format!("{name}-{number}");
            HookedChain::new(name, hook(devices.to_vec()), priority)
        })
        .collect()
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

pub(super) fn kind_of(key: Key) -> &'static str {
    match key {
        Key::V4 => "addresses",
        Key::V6 => "addresses6",
        Key::Protocol => "protocols",
        Key::Port => "ports",
        Key::Mark => "marks",
        Key::Number => "numbers",
    }
}

/// The transport protocols to look for, where any must be looked for: only TCP and UDP have ports.
pub(super) fn ported(has_port: bool, protocol: Protocol) -> Vec<Option<u8>> {
    match protocol {
        Protocol::Tcp => vec![Some(TCP)],
        Protocol::Udp => vec![Some(UDP)],
        Protocol::Icmp => vec![Some(ICMP), Some(ICMPV6)],
        Protocol::Any if has_port => vec![Some(TCP), Some(UDP)],
        Protocol::Any => vec![None],
    }
}

pub(super) fn accept() -> Expression {
    Expression::Verdict(RuleVerdict::Accept)
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

pub(super) fn between(field: Expression, first: &[u8], last: &[u8]) -> Vec<Expression> {
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

pub(super) fn one_of(modulus: u32, random: bool, how: Compare, limit: u32) -> Vec<Expression> {
    vec![
        Expression::Number { modulus, random },
        Expression::Compare(how, limit.to_be_bytes().to_vec()),
    ]
}
