//! Packets are sent twice as they leave, by the kernel's packet rules.

use super::super::display::short_hash;
use super::super::expressions::{accept, equal};
use super::super::hooks::{HookedChains, at_devices};
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Share, Stage};
use crate::netlink::{Expression, Hook, Meta};
use serde::{Deserialize, Serialize};

/// Sends a share of the packets twice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Duplicate {
    /// Which of the packets.
    pub share: Share,
}

impl ActOnPackets for Duplicate {
    fn describe(&self) -> String {
        self.share.describe("send twice")
    }

    fn done(&self) -> &'static str {
        "duplicated"
    }

    fn leaves_at_devices(&self) -> bool {
        true
    }

    fn stages(&self, filter: &PacketFilter) -> (Stage, Stage) {
        ((1, filter.early_priority()), (5, 0))
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        HookedChains {
            inet: Vec::new(),
            netdev: at_devices("leaving", &filter.devices, Hook::Egress, 0),
        }
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        filter: &PacketFilter,
        _: Capabilities,
    ) {
        let mark = copy_mark(filter);
        ruleset.some(chain, self.share, Expression::Copy { mark });
    }

    /// Copies come by again and are not copied once more.
    fn spare_own(&self, ruleset: &mut RulesetBuilder<'_>, chain: &str, filter: &PacketFilter) {
        let steps = [
            Expression::Meta(Meta::Mark),
            equal(&copy_mark(filter).to_ne_bytes()),
            Expression::Mark(0),
            accept(),
        ];
        ruleset.rule(chain, &steps, "copies");
    }
}

/// The mark of a filter's copies: one that hardly anybody else uses.
fn copy_mark(filter: &PacketFilter) -> u32 {
    short_hash(&filter.table) | 1
}
