//! What a filter does to packets: one file for each effect, and the list of them. Each effect tells where it acts, by which rules,
//! and in which words.

mod corrupt;
mod delay_in_queue;
mod duplicate;
mod lose;
mod lose_in_bursts;
mod read_answers;
mod reject;
mod shape;

pub use corrupt::Corrupt;
pub use delay_in_queue::DelayInQueue;
pub use duplicate::Duplicate;
pub use lose::Lose;
pub use lose_in_bursts::{BurstLoss, LoseInBursts};
pub use read_answers::ReadAnswers;
pub use reject::{Reject, RejectWith};
pub use shape::Shape;

use super::expressions::one_of;
use super::hooks::{HookedChain, HookedChains};
use super::ruleset::RulesetBuilder;
use super::{AFFECTED, Capabilities, PacketFilter, Shaping};
use crate::netlink::{Compare, Expression, Hook, PacketQueue, RuleVerdict, TableFamily};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Chances are in millionths.
const MILLION: u32 = 1_000_000;

/// A place on a packet's way: the stage, and the priority among those of the same stage; see [`PacketFilter::stages`].
pub(super) type Stage = (u8, i32);

/// An effect on packets.
pub(super) trait ActOnPackets {
    /// What it does, for people, up to the flows: `lose all packets of`.
    fn describe(&self) -> String;

    /// What was done to a packet that it affected: `lost`.
    fn done(&self) -> &'static str;

    /// Whether packets that leave are handled at the devices that they leave by. Else that is done in the IP layers, or not at all.
    fn leaves_at_devices(&self) -> bool;

    /// Where packets that arrive and packets that leave are handled.
    fn stages(&self, filter: &PacketFilter) -> (Stage, Stage);

    /// The chains that packets come to.
    fn chains(&self, filter: &PacketFilter) -> HookedChains;

    /// Writes the rules that do to the packets of a chain what is to be done to them. All that come there are counted already.
    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        filter: &PacketFilter,
        capabilities: Capabilities,
    );

    /// Writes the rules by which a chain lets through what the effect itself sends.
    fn spare_own(&self, _: &mut RulesetBuilder<'_>, _: &str, _: &PacketFilter) {}

    /// Writes what a table needs besides; without its hook if it is only tried.
    fn finish(&self, _: &mut RulesetBuilder<'_>, _: &PacketFilter, _hooked: bool) {}

    /// Whether packets are lost, silently.
    fn loses(&self) -> bool {
        false
    }

    /// Whether packets go through a packet queue.
    fn uses_queue(&self) -> bool {
        self.queue_work().is_some()
    }

    /// What is done in user space to the packets of the queue.
    fn queue_work(&self) -> Option<QueueWork> {
        None
    }

    /// What its devices do, if it needs devices.
    fn shaping(&self) -> Option<&Shaping> {
        None
    }

    /// Whether live TCP connections are closed first, for good.
    fn closes_established(&self) -> bool {
        false
    }

    /// Whether only packets that come back from the flows' end are meant, as the asker sees them.
    fn only_answers(&self) -> bool {
        false
    }
}

/// How the packets of a queue are handled.
pub struct QueueWork {
    /// Takes the queue of this number.
    pub open: fn(u16) -> io::Result<PacketQueue>,
    /// Handles packets until this process is killed; returns only if that cannot go on.
    pub work: Box<dyn FnOnce(&PacketQueue) -> io::Error>,
}

/// Makes the list: the enum with one variant for each effect, and what goes from a variant to the effect's own code.
macro_rules! effects {
    ($($(#[doc = $doc:literal])+ $effect:ident = $tag:tt,)+) => {
        /// What is done to packets, as data.
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "harm")]
        pub enum PacketEffect {
            $($(#[doc = $doc])+ #[serde(rename = $tag)] $effect($effect),)+
        }

        impl PacketEffect {
            /// The effect's own code.
            pub(super) fn action(&self) -> &dyn ActOnPackets {
                match self {
                    $(PacketEffect::$effect(effect) => effect,)+
                }
            }
        }

        $(impl From<$effect> for PacketEffect {
            fn from(effect: $effect) -> Self {
                PacketEffect::$effect(effect)
            }
        })+
    };
}

effects! {
    /// Packets are lost silently.
    Lose = "lose",
    /// Packets are lost silently, in bursts.
    LoseInBursts = "lose-in-bursts",
    /// Packets are rejected, and the sender is informed.
    Reject = "reject",
    /// Packets that come back from the flows' end are read as they arrive.
    ReadAnswers = "answer",
    /// Packets are sent twice as they leave.
    Duplicate = "duplicate",
    /// A bit of packets is flipped as they arrive, by a packet queue.
    Corrupt = "corrupt",
    /// Packets are held back as they arrive, by a packet queue.
    DelayInQueue = "delay",
    /// Packets are sent through a device of the agent's, whose queueing discipline shapes them.
    Shape = "shape",
}

impl PacketEffect {
    /// What was done to a packet that it affected: `lost`.
    pub fn done(&self) -> &'static str {
        self.action().done()
    }

    /// What its devices do, if it needs devices.
    pub fn shaping(&self) -> Option<&Shaping> {
        self.action().shaping()
    }

    /// Whether packets that leave are handled at the devices that they leave by.
    pub fn leaves_at_devices(&self) -> bool {
        self.action().leaves_at_devices()
    }

    /// Whether the sockets of packets are known where it acts, or it can act elsewhere, where they are.
    pub fn can_see_sockets(&self) -> bool {
        !self.leaves_at_devices() || self.action().loses()
    }

    /// Whether only packets that come back from the flows' end are meant.
    pub fn only_answers(&self) -> bool {
        self.action().only_answers()
    }

    /// What is done in user space to the packets of the queue.
    pub fn queue_work(&self) -> Option<QueueWork> {
        self.action().queue_work()
    }
}

impl fmt::Display for PacketEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action().describe())
    }
}

/// Which of the chosen packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// Every packet of the selected flows.
    All,
    /// Each with this chance, in percent.
    Percent(f64),
    /// Exactly each n-th of each direction.
    EveryNth(u32),
}

impl Share {
    /// A share in percent.
    pub fn percent(percent: f64) -> Self {
        if percent >= 100.0 {
            Share::All
        } else {
            Share::Percent(percent)
        }
    }

    /// The packets, for people: `lose all packets of`.
    fn describe(self, verb: &str) -> String {
        match self {
            Share::All => format!("{verb} all packets of"),
            Share::Percent(percent) => format!("{verb} {percent} % of the packets of"),
            Share::EveryNth(nth) => format!("{verb} each {nth}th packet of"),
        }
    }
}

impl RulesetBuilder<'_> {
    /// Does something to some of the packets that come to a chain, and counts them.
    pub(super) fn some(&mut self, chain: &str, share: Share, action: Expression) {
        let mut steps = match share {
            Share::All => Vec::new(),
            Share::Percent(percent) => by_chance(percent),
            // They count from 0.
            Share::EveryNth(nth) => one_of(nth, false, Compare::Equal, nth.saturating_sub(1)),
        };
        steps.extend([Expression::Counter, action]);
        self.rule(chain, &steps, AFFECTED);
    }
}

/// The chain that arriving packets come to first, whoever they are for.
fn arriving_early(filter: &PacketFilter) -> HookedChain {
    HookedChain::new("arriving", Hook::Prerouting, filter.early_priority())
}

/// What sends packets to the packet queue.
fn to_queue(capabilities: Capabilities) -> Expression {
    Expression::Queue {
        number: capabilities.queue,
        by_target: capabilities.by_target,
    }
}

/// What loses packets silently.
fn lose_silently(
    ruleset: &RulesetBuilder<'_>,
    filter: &PacketFilter,
    capabilities: Capabilities,
) -> Expression {
    match ruleset.table.layer {
        _ if filter.drops_in_queue() => to_queue(capabilities),
        TableFamily::Inet => Expression::Verdict(RuleVerdict::Drop),
        TableFamily::Netdev => Expression::Vanish,
    }
}

/// That chance, in percent, would have it.
fn by_chance(percent: f64) -> Vec<Expression> {
    if percent >= 100.0 {
        return Vec::new();
    }
    let limit = (percent / 100.0 * f64::from(MILLION)).round() as u32;
    one_of(MILLION, true, Compare::Less, limit)
}
