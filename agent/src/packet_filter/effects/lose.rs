//! Packets are lost silently: arriving ones before it is known for whom they are, leaving ones at their device.

use super::super::hooks::{AFTER_FILTERS, HookedChain, HookedChains, at_devices};
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Share, Stage, arriving_early, lose_silently};
use crate::netlink::Hook;
use serde::{Deserialize, Serialize};

/// Drops a share of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lose {
    /// Which of the packets.
    pub share: Share,
}

impl ActOnPackets for Lose {
    fn describe(&self) -> String {
        self.share.describe("lose")
    }

    fn done(&self) -> &'static str {
        "lost"
    }

    fn leaves_at_devices(&self) -> bool {
        true
    }

    fn stages(&self, filter: &PacketFilter) -> (Stage, Stage) {
        stages(filter)
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        chains(filter)
    }

    fn loses(&self) -> bool {
        true
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        filter: &PacketFilter,
        capabilities: Capabilities,
    ) {
        let lose = lose_silently(ruleset, filter, capabilities);
        ruleset.some(chain, self.share, lose);
    }
}

/// Where packets are lost.
pub(super) fn stages(filter: &PacketFilter) -> (Stage, Stage) {
    let leaving = match filter.drops_in_queue() {
        true => (3, AFTER_FILTERS),
        false => (5, 0),
    };
    ((1, filter.early_priority()), leaving)
}

/// The chains in which packets are lost.
pub(super) fn chains(filter: &PacketFilter) -> HookedChains {
    let mut chains = HookedChains::default();
    if filter.flows.direction.arrives() {
        chains.inet.push(arriving_early(filter));
    }
    if filter.flows.direction.leaves() {
        if filter.drops_in_queue() {
            chains
                .inet
                .push(HookedChain::new("leaving", Hook::Output, AFTER_FILTERS));
        } else {
            chains.netdev = at_devices("leaving", &filter.devices, Hook::Egress, 0);
        }
    }
    chains
}
