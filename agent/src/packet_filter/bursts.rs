//! Losses in bursts, after Gilbert and Elliott, drawn in advance: the kernel's rules can count packets and look numbers up, but
//! keep no state of a path. So the same seed loses the same packets.

use super::packet_effect::BurstLoss;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

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
