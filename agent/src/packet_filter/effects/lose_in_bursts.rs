//! Losses in bursts, after Gilbert and Elliott, drawn in advance: the kernel's rules can count packets and look numbers up, but
//! keep no state of a path. So the same seed loses the same packets.

use super::super::AFFECTED;
use super::super::hooks::HookedChains;
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Stage, lose, lose_silently};
use crate::netlink::{Expression, Key};
use backburn_experiments::percent::{self, Percent};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Loses packets in bursts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoseInBursts {
    /// How often bursts begin, and how long they last.
    pub bursts: BurstLoss,
    /// Seed for random selection.
    pub seed: u64,
}

/// Losses in bursts, after Gilbert and Elliott: a path is good or bad, and changes from one to the other by chance. All in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BurstLoss {
    /// The chance, at each packet, that a good path becomes bad: `p`. Above 0.
    #[serde(deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    pub p: f64,
    /// The chance, at each packet, that a bad path becomes good again: `r`. Bursts are `100 / r` packets long on average. Above 0.
    #[serde(deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    pub r: f64,
    /// The chance of a packet to be lost on a bad path: `1-h`. 100 where left out.
    #[serde(default = "all", deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    pub loss_when_bad: f64,
    /// The chance of a packet to be lost on a good path: `1-k`. 0 where left out.
    #[serde(default, deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    pub loss_when_good: f64,
}

fn all() -> f64 {
    100.0
}

/// How many ranges are drawn: they go to the kernel in one piece, which has 200 KiB.
const MAX_RANGES: usize = 1000;
/// How many packets are drawn where losses are rare.
const MIN_PACKETS: u32 = 1 << 20;

/// Which of so many packets are lost, from one to another.
pub(super) struct BurstPattern {
    /// How many they are; then it begins anew.
    pub length: u32,
    /// Those that are lost, first and last of each range, sorted and apart.
    pub lost: Vec<(u32, u32)>,
}

impl BurstLoss {
    /// Draws which are lost, as netem does it: at each packet the path may change, and the packet may be lost as on the path before.
    pub(super) fn pattern(&self, seed: u64) -> BurstPattern {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut chance =
            |percent: f64| f64::from(random.next_u32()) < percent / 100.0 * 4_294_967_296.0;
        let mut lost: Vec<(u32, u32)> = Vec::new();
        let mut bad = false;
        let mut length = 0;
        while lost.len() < MAX_RANGES && (length < MIN_PACKETS || lost.is_empty()) {
            let (change, loss) = match bad {
                true => (self.r, self.loss_when_bad),
                false => (self.p, self.loss_when_good),
            };
            bad ^= chance(change);
            if chance(loss) {
                match lost.last_mut() {
                    Some((_, last)) if *last + 1 == length => *last = length,
                    _ => lost.push((length, length)),
                }
            }
            length += 1;
        }
        BurstPattern { length, lost }
    }
}

impl ActOnPackets for LoseInBursts {
    fn describe(&self) -> String {
        let bursts = &self.bursts;
        format!(
            "lose in bursts (p {} %, r {} %, 1-h {} %, 1-k {} %) packets of",
            bursts.p, bursts.r, bursts.loss_when_bad, bursts.loss_when_good
        )
    }

    fn done(&self) -> &'static str {
        "lost"
    }

    fn leaves_at_devices(&self) -> bool {
        true
    }

    fn stages(&self, filter: &PacketFilter) -> (Stage, Stage) {
        lose::stages(filter)
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        lose::chains(filter)
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
        // Each direction has its own pattern.
        let seed = self.seed.wrapping_add(ruleset.table.layer as u64);
        ruleset.lose_in_bursts(chain, &self.bursts.pattern(seed), lose);
    }
}

impl RulesetBuilder<'_> {
    /// The packets are counted, and those lost whose number is in the pattern.
    pub(super) fn lose_in_bursts(&mut self, chain: &str, pattern: &BurstPattern, lose: Expression) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bursts(p: f64, r: f64, loss_when_bad: f64, loss_when_good: f64) -> BurstLoss {
        BurstLoss {
            p,
            r,
            loss_when_bad,
            loss_when_good,
        }
    }

    #[test]
    fn bursts_loss_and_length_match_the_model() {
        for (model, share, long) in [
            (bursts(5.0, 25.0, 100.0, 0.0), 1.0 / 6.0, 4.0),
            (bursts(1.0, 10.0, 100.0, 0.0), 1.0 / 11.0, 10.0),
            (bursts(50.0, 50.0, 100.0, 0.0), 0.5, 2.0),
        ] {
            let BurstPattern { length, lost } = model.pattern(1);
            let number: u32 = lost.iter().map(|(first, last)| last - first + 1).sum();
            let found = f64::from(number) / f64::from(length);
            let mean = f64::from(number) / lost.len() as f64;
            assert!((found / share - 1.0).abs() < 0.15, "{model:?}: {found}");
            assert!((mean / long - 1.0).abs() < 0.15, "{model:?}: {mean}");
            assert!(lost.windows(2).all(|two| two[0].1 + 1 < two[1].0));
        }
        // Good ten times as long as bad, and a tenth lost there against a half.
        let BurstPattern { length, lost } = bursts(1.0, 10.0, 50.0, 10.0).pattern(2);
        let number: u32 = lost.iter().map(|(first, last)| last - first + 1).sum();
        let share = (10.0 * 0.1 + 0.5) / 11.0;
        assert!((f64::from(number) / f64::from(length) / share - 1.0).abs() < 0.2);
    }

    #[test]
    fn bursts_same_seed_loses_the_same_and_rare_bursts_occur() {
        let model = bursts(5.0, 25.0, 100.0, 0.0);
        assert_eq!(model.pattern(7).lost, model.pattern(7).lost);
        assert_ne!(model.pattern(7).lost, model.pattern(8).lost);
        let rare = bursts(0.001, 50.0, 100.0, 0.0).pattern(1);
        assert!(
            !rare.lost.is_empty() && rare.length >= MIN_PACKETS,
            "{}",
            rare.length
        );
    }
}
