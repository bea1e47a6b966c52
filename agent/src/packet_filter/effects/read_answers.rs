//! Packets that come back from the flows' end are read as they arrive; the helper that alters answers of name servers does the rest,
//! see [`crate::dns::AnswerFilter`].

use super::super::hooks::{AFTER_NAT, HookedChain, HookedChains};
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Stage, to_queue};
use crate::netlink::Hook;
use serde::{Deserialize, Serialize};

/// Hands arriving answers to a packet queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReadAnswers {
    /// Whether those that are altered are lost.
    pub lost: bool,
}

impl ActOnPackets for ReadAnswers {
    fn describe(&self) -> String {
        "read what comes back from".into()
    }

    fn done(&self) -> &'static str {
        "altered"
    }

    fn leaves_at_devices(&self) -> bool {
        false
    }

    fn stages(&self, _: &PacketFilter) -> (Stage, Stage) {
        ((2, AFTER_NAT), (5, 0))
    }

    fn chains(&self, _: &PacketFilter) -> HookedChains {
        HookedChains {
            inet: vec![HookedChain::new("arriving", Hook::Input, AFTER_NAT)],
            netdev: Vec::new(),
        }
    }

    fn uses_queue(&self) -> bool {
        true
    }

    fn only_answers(&self) -> bool {
        true
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        _: &PacketFilter,
        capabilities: Capabilities,
    ) {
        ruleset.rule(chain, &[to_queue(capabilities)], "");
    }

    fn finish(&self, ruleset: &mut RulesetBuilder<'_>, filter: &PacketFilter, hooked: bool) {
        ruleset.signed_chain(filter.mark_sign(), self.lost, hooked);
    }
}
