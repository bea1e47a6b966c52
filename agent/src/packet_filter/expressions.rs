//! The small expressions that rules are made of.

use super::Protocol;
use crate::netlink::{Base, Compare, Expression, Key, Meta, Original, RuleVerdict};

/// The protocols IPv4 and IPv6 in a frame: `ETH_P_IP` and `ETH_P_IPV6`.
pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
/// Numbers of transport protocols.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// Where a field is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderOf {
    /// As the packet itself says.
    Packet,
    /// In its connection, as that was before translation.
    Original,
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

/// The connection's own address, of one end.
pub(super) fn original_address(side: Side, v4: bool) -> Expression {
    Expression::Original(match (side, v4) {
        (Side::Source, true) => Original::SourceV4,
        (Side::Destination, true) => Original::DestinationV4,
        (Side::Source, false) => Original::SourceV6,
        (Side::Destination, false) => Original::DestinationV6,
    })
}

/// The connection's own port, of one end.
pub(super) fn original_port(side: Side) -> Expression {
    Expression::Original(match side {
        Side::Source => Original::SourcePort,
        Side::Destination => Original::DestinationPort,
    })
}
