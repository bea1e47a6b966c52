//! The messages for one nf_tables table, as they are collected, and what rules match by.

use super::expressions::{
    HeaderOf, IPV4, Side, between, equal, field, kind_of, original_address, original_port,
};
use super::{Endpoint, PortRange};
use crate::netlink::{Base, Expression, Key, Message, Meta, Table, TableFamily};
use crate::units::merged;

/// The messages for one table, as they come together.
pub(super) struct RulesetBuilder<'a> {
    pub(super) table: Table<'a>,
    pub(super) messages: Vec<Message>,
    /// Sets come before the rules that look into them, each with a number of its own.
    pub(super) sets: u32,
}

impl RulesetBuilder<'_> {
    pub(super) fn rule(&mut self, chain: &str, steps: &[Expression], comment: &str) {
        let message = self.table.rule(chain, steps, comment);
        // The two ways of flows that are alike both ways are one rule.
        if !self.messages.contains(&message) {
            self.messages.push(message);
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

    pub(super) fn ports(
        &mut self,
        side: Side,
        ports: &[PortRange],
        of: HeaderOf,
    ) -> Vec<Expression> {
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
