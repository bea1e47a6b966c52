//! What is done to the packets of chosen flows, as rules.

use super::bursts::BurstPattern;
use super::rules::{RulesetBuilder, EFFECT, TCP};
use super::expressions::{ICMP, ICMPV6, accept, equal, field, one_of, transport};
use super::{CHOSEN, PacketFilter, AFFECTED, PacketEffect, Capabilities, Share, RejectWith};
use crate::netlink::{Base, Compare, Expression, Key, TableFamily, Rejection, RuleVerdict};

/// Chances are in millionths.
const MILLION: u32 = 1_000_000;

impl RulesetBuilder<'_> {
    /// The rules that do what is to be done to whatever comes to a chain.
    pub(super) fn harm(&mut self, chain: &str, filter: &PacketFilter, means: Capabilities) {
        use Expression::{Counter, Reject};
        self.rule(chain, &[Counter], CHOSEN);
        let queue = Expression::Queue {
            number: means.queue,
            by_target: means.by_target,
        };
        let lose = match self.table.layer {
            _ if filter.drops_in_queue() => queue.clone(),
            TableFamily::Inet => Expression::Verdict(RuleVerdict::Drop),
            TableFamily::Netdev => Expression::Vanish,
        };
        match filter.harm {
            PacketEffect::Lose { share } => self.some(chain, share, lose),
            PacketEffect::LoseInBursts { bursts, seed } => {
                // Each direction has its own.
                let pattern = bursts.pattern(seed.wrapping_add(self.table.layer as u64));
                self.lose_in_bursts(chain, &pattern, lose);
            }
            PacketEffect::Delay { .. } => self.some(chain, Share::All, queue),
            PacketEffect::Corrupt { share, .. } => self.some(chain, share, queue),
            PacketEffect::Duplicate { share } => {
                let mark = copies(filter);
                self.some(chain, share, Expression::Copy { mark });
            }
            PacketEffect::Shape { .. } => {
                let device = match chain == EFFECT {
                    true => means.shapers.arriving,
                    false => means.shapers.leaving,
                };
                self.some(chain, Share::All, Expression::Forward(device));
            }
            PacketEffect::Answer { .. } => self.rule(chain, &[queue], ""),
            PacketEffect::Reject { with, .. } => {
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
                self.rule(chain, &reset.concat(), "");
                for (protocol, unreachable) in [(ICMP, 3), (ICMPV6, 1)] {
                    let told = [
                        transport(protocol),
                        vec![
                            field(Base::Transport, 0, 1),
                            equal(&[unreachable]),
                            accept(),
                        ],
                    ];
                    self.rule(chain, &told.concat(), "");
                }
                let code = match with {
                    RejectWith::Reset => {
                        let steps = [transport(TCP), vec![Counter, Reject(Rejection::Reset)]];
                        self.rule(chain, &steps.concat(), AFFECTED);
                        1
                    }
                    RejectWith::PortUnreachable => 1,
                    RejectWith::HostUnreachable => 2,
                    RejectWith::Prohibited => 3,
                };
                self.rule(
                    chain,
                    &[Counter, Reject(Rejection::Unreachable(code))],
                    AFFECTED,
                );
            }
        }
    }

    /// Does something to some of the packets that come to a chain, and counts them.
    fn some(&mut self, chain: &str, share: Share, deed: Expression) {
        let mut steps = match share {
            Share::All => Vec::new(),
            Share::Percent(percent) => by_chance(percent),
            // They count from 0.
            Share::EveryNth(nth) => one_of(nth, false, Compare::Equal, nth.saturating_sub(1)),
        };
        steps.extend([Expression::Counter, deed]);
        self.rule(chain, &steps, AFFECTED);
    }

    /// The packets are counted, and those lost whose number is in the pattern.
    fn lose_in_bursts(&mut self, chain: &str, pattern: &BurstPattern, lose: Expression) {
        let bytes = |number: u32| number.to_be_bytes().to_vec();
        let lost = pattern.lost.iter();
        let ranges: Vec<_> = lost
            .map(|(first, last)| (bytes(*first), bytes(*last)))
            .collect();
        let number = Expression::Number {
            modulus: pattern.length,
            random: false,
        };
        let mut steps = self.among(number, Key::Number, &ranges);
        steps.extend([Expression::Counter, lose]);
        self.rule(chain, &steps, AFFECTED);
    }
}

/// The mark of a filter's copies: one that hardly anybody else uses.
pub(super) fn copies(filter: &PacketFilter) -> u32 {
    super::display::short_hash(&filter.table) | 1
}

/// That chance, in percent, would have it.
fn by_chance(percent: f64) -> Vec<Expression> {
    if percent >= 100.0 {
        return Vec::new();
    }
    let limit = (percent / 100.0 * f64::from(MILLION)).round() as u32;
    one_of(MILLION, true, Compare::Less, limit)
}
