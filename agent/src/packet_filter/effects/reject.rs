//! Packets are rejected in the IP layers, and the sender is informed.

use super::super::AFFECTED;
use super::super::expressions::{ICMP, ICMPV6, TCP, accept, equal, field, transport};
use super::super::hooks::{BEFORE_FILTERS, HookedChain, HookedChains};
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Stage};
use crate::netlink::{Base, Compare, Expression, Hook, RejectReply};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rejects packets with an answer to their sender.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reject {
    /// How the sender is informed.
    pub with: RejectWith,
    /// Whether live TCP connections are closed first, for good.
    #[serde(default)]
    pub close_established: bool,
}

/// How somebody is told that a packet was not let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectWith {
    /// A TCP reset; to what is not TCP, that the port is unreachable.
    #[default]
    Reset,
    /// The port is unreachable, by ICMP.
    PortUnreachable,
    /// The host is unreachable, by ICMP.
    HostUnreachable,
    /// It is prohibited by an administrator, by ICMP.
    Prohibited,
}

impl ActOnPackets for Reject {
    fn describe(&self) -> String {
        match self.with {
            RejectWith::Reset => "reject with a reset, or with `port unreachable`,",
            RejectWith::PortUnreachable => "reject with `port unreachable`",
            RejectWith::HostUnreachable => "reject with `host unreachable`",
            RejectWith::Prohibited => "reject with `prohibited`",
        }
        .into()
    }

    fn done(&self) -> &'static str {
        "rejected"
    }

    fn leaves_at_devices(&self) -> bool {
        false
    }

    fn stages(&self, _: &PacketFilter) -> (Stage, Stage) {
        ((2, BEFORE_FILTERS), (3, BEFORE_FILTERS))
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        let mut chains = HookedChains::default();
        let mut add = |name, hook| {
            let chain = HookedChain::new(name, hook, BEFORE_FILTERS);
            chains.inet.push(chain);
        };
        if filter.flows.direction.arrives() {
            add("arriving", Hook::Input);
        }
        if filter.flows.direction.leaves() {
            add("leaving", Hook::Output);
        }
        // What passes through belongs to no socket here.
        if filter.flows.cgroups.is_empty() {
            add("passing", Hook::Forward);
        }
        chains
    }

    fn closes_established(&self) -> bool {
        self.close_established
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        _: &PacketFilter,
        _: Capabilities,
    ) {
        // What rejecting itself sends comes by here too, and must get out.
        let reset = [
            transport(TCP),
            vec![
                field(Base::Transport, 13, 1),
                Expression::Mask(vec![0x04]),
                Expression::Compare(Compare::Unequal, vec![0]),
                accept(),
            ],
        ];
        ruleset.rule(chain, &reset.concat(), "");
        for (protocol, unreachable) in [(ICMP, 3), (ICMPV6, 1)] {
            let told = [
                transport(protocol),
                vec![
                    field(Base::Transport, 0, 1),
                    equal(&[unreachable]),
                    accept(),
                ],
            ];
            ruleset.rule(chain, &told.concat(), "");
        }
        let code = match self.with {
            RejectWith::Reset => {
                let steps = [
                    transport(TCP),
                    vec![Expression::Counter, Expression::Reject(RejectReply::Reset)],
                ];
                ruleset.rule(chain, &steps.concat(), AFFECTED);
                1
            }
            RejectWith::PortUnreachable => 1,
            RejectWith::HostUnreachable => 2,
            RejectWith::Prohibited => 3,
        };
        ruleset.rule(
            chain,
            &[
                Expression::Counter,
                Expression::Reject(RejectReply::Unreachable(code)),
            ],
            AFFECTED,
        );
    }
}
