//! How delays vary: tables of what to add to the mean, in units of the jitter, as netem wants them
//! (`man tc-netem`). The packet queue draws from the same ones, so that both backends vary alike.

use super::delay::{Delay, Distribution};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// How many values a table has; netem takes up to 16,384.
const LENGTH: usize = 4096;
/// What stands for one jitter (`NETEM_DIST_SCALE`). So no delay is more than four jitters above the mean.
const SCALE: f64 = 8192.0;

impl Distribution {
    /// The values at evenly spaced chances, from the lowest to the highest.
    pub fn table(self) -> Vec<i16> {
        let chance = |number: usize| (number as f64 + 0.5) / LENGTH as f64;
        let mut values: Vec<f64> = (0..LENGTH)
            .map(|number| match self {
                Distribution::Uniform => 2.0 * chance(number) - 1.0,
                Distribution::Normal => normal(chance(number)),
                Distribution::Pareto => pareto(chance(number)),
                Distribution::Paretonormal => {
                    // Steps of the golden ratio are spread evenly, and independently of the first chance.
                    let other = (number as f64 + 0.5) * 0.618_033_988_749_894_9;
                    let sum = 0.25 * normal(chance(number)) + 0.75 * pareto(other.fract());
                    sum / (0.25f64.powi(2) + 0.75f64.powi(2)).sqrt()
                }
            })
            .collect();
        values.sort_by(f64::total_cmp);
        values
            .into_iter()
            .map(|value| (value * SCALE).round() as i16)
            .collect()
    }
}

/// What of the standard normal distribution lies below this.
fn below(value: f64) -> f64 {
    // Abramowitz and Stegun, 7.1.26: wrong by 1.5e-7 at the most.
    let x = value.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let tail = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))))
        * (-x * x).exp();
    if value < 0.0 {
        tail / 2.0
    } else {
        1.0 - tail / 2.0
    }
}

/// The value that so much of the standard normal distribution lies below.
fn normal(chance: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    // To a millionth.
    for _ in 0..24 {
        let middle = (low + high) / 2.0;
        if below(middle) < chance {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The value that so much of the Pareto distribution of shape 3 lies below, with its mean moved to 0 and its standard deviation made 1.
fn pareto(chance: f64) -> f64 {
    const SHAPE: f64 = 3.0;
    const MEAN: f64 = SHAPE / (SHAPE - 1.0);
    ((1.0 - chance).powf(-1.0 / SHAPE) - MEAN) / 0.75f64.sqrt()
}

/// Draws delays, one like the one before as far as the correlation says.
pub struct Delays {
    delay: Delay,
    table: Vec<i16>,
    random: ChaCha8Rng,
    last: f64,
    last_overtaking: f64,
    since_overtaken: u32,
}

impl Delays {
    /// The same ones for the same seed.
    pub fn new(delay: Delay, seed: u64) -> Self {
        Delays {
            delay,
            table: delay.distribution.table(),
            random: ChaCha8Rng::seed_from_u64(seed),
            last: 0.0,
            last_overtaking: 0.0,
            since_overtaken: 0,
        }
    }

    /// How long the next packet is held; none where it overtakes those before it.
    pub fn draw(&mut self) -> Option<Duration> {
        if self.overtakes() {
            return None;
        }
        if self.delay.jitter.0.is_zero() {
            return Some(self.delay.by.0);
        }
        self.last = self.like(self.last, self.delay.correlation);
        let place = (below(self.last) * LENGTH as f64) as usize;
        let value = f64::from(self.table[place.min(LENGTH - 1)]) / SCALE;
        let seconds = self.delay.by.0.as_secs_f64() + value * self.delay.jitter.0.as_secs_f64();
        Some(Duration::from_secs_f64(seconds.max(0.0)))
    }

    fn overtakes(&mut self) -> bool {
        let Some(overtake) = self.delay.overtake else {
            return false;
        };
        self.since_overtaken = self.since_overtaken.saturating_add(1);
        if self.since_overtaken < overtake.gap {
            return false;
        }
        self.last_overtaking = self.like(self.last_overtaking, overtake.correlation);
        let does = below(self.last_overtaking) < overtake.percent / 100.0;
        if does {
            self.since_overtaken = 0;
        }
        does
    }

    /// A value of the standard normal distribution that is like the last one, in percent. What has it as its place in a
    /// distribution keeps that distribution, however much one is like another.
    fn like(&mut self, last: f64, percent: f64) -> f64 {
        let like = percent / 100.0;
        like * last + (1.0 - like * like).sqrt() * self.standard()
    }

    /// Of the standard normal distribution, after Box and Muller.
    fn standard(&mut self) -> f64 {
        let mut chance = || (self.random.next_u32() as f64 + 0.5) / (f64::from(u32::MAX) + 1.0);
        (-2.0 * chance().ln()).sqrt() * (std::f64::consts::TAU * chance()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backburn_experiments::HumanDuration;

    const ALL: [Distribution; 4] = [
        Distribution::Uniform,
        Distribution::Normal,
        Distribution::Pareto,
        Distribution::Paretonormal,
    ];

    fn moments(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn distribution_tables_have_the_requested_mean_and_spread() {
        for distribution in ALL {
            let table = distribution.table();
            assert!(table.is_sorted());
            let values: Vec<f64> = table
                .iter()
                .map(|value| f64::from(*value) / SCALE)
                .collect();
            let (mean, deviation) = moments(&values);
            // What is more than four deviations above is cut off, which the long tails feel.
            let (low, high) = match distribution {
                Distribution::Uniform => (0.576, 0.579),
                Distribution::Normal => (0.99, 1.01),
                _ => (0.7, 1.0),
            };
            assert!(mean.abs() < 0.05, "{distribution:?}: {mean}");
            assert!(
                (low..high).contains(&deviation),
                "{distribution:?}: {deviation}"
            );
        }
        // Quartiles of the normal distribution, and the median of Pareto's: 2^(1/3).
        let normal = Distribution::Normal.table();
        assert!((f64::from(normal[3 * LENGTH / 4]) / SCALE - 0.6745).abs() < 0.002);
        let median = (2f64.powf(1.0 / 3.0) - 1.5) / 0.75f64.sqrt();
        let pareto = Distribution::Pareto.table();
        assert!((f64::from(pareto[LENGTH / 2]) / SCALE - median).abs() < 0.002);
    }

    fn delay(correlation: f64, distribution: Distribution) -> Delay {
        Delay {
            by: HumanDuration::millis(100),
            jitter: HumanDuration::millis(10),
            correlation,
            distribution,
            keep_order: true,
            overtake: None,
        }
    }

    fn drawn(delay: Delay, seed: u64) -> Vec<f64> {
        let mut delays = Delays::new(delay, seed);
        (0..20_000)
            .map(|_| delays.draw().expect("none overtakes").as_secs_f64() * 1000.0)
            .collect()
    }

    #[test]
    fn distribution_correlated_delays_keep_their_distribution() {
        for distribution in ALL {
            let (_, wanted) = moments(&drawn(delay(0.0, distribution), 1));
            for correlation in [0.0, 25.0, 75.0] {
                let values = drawn(delay(correlation, distribution), 7);
                let (mean, deviation) = moments(&values);
                assert!((mean - 100.0).abs() < 1.0, "{distribution:?}: {mean}");
                assert!(
                    (deviation / wanted - 1.0).abs() < 0.1,
                    "{distribution:?}: {deviation}"
                );
                let pairs = values.windows(2);
                let like = pairs
                    .map(|two| (two[0] - mean) * (two[1] - mean))
                    .sum::<f64>()
                    / (values.len() as f64 * deviation * deviation);
                let wanted = correlation / 100.0;
                assert!(
                    (like - wanted).abs() < 0.12,
                    "{distribution:?} {wanted}: {like}"
                );
            }
            assert_eq!(
                drawn(delay(50.0, distribution), 3),
                drawn(delay(50.0, distribution), 3)
            );
            assert_ne!(
                drawn(delay(50.0, distribution), 3),
                drawn(delay(50.0, distribution), 4)
            );
        }
    }

    #[test]
    fn distribution_reordered_share_matches_the_request() {
        let overtaking = |percent, gap| {
            let overtake = super::super::delay::Overtake {
                percent,
                correlation: 0.0,
                gap,
            };
            let delay = Delay {
                overtake: Some(overtake),
                ..delay(0.0, Distribution::Uniform)
            };
            let mut delays = Delays::new(delay, 5);
            (0..10_000).filter(|_| delays.draw().is_none()).count()
        };
        assert!((2_350..2_650).contains(&overtaking(25.0, 1)));
        assert_eq!(overtaking(100.0, 5), 2_000);
    }
}
