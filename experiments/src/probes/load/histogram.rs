//! Latencies in buckets whose width grows with them, as in an HDR histogram: exact to 0.4 %, in memory that does not grow.

use core::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 128;
/// The longest latency that is told apart, in microseconds: an hour.
const MAX_MICROSECONDS: u64 = 3_600_000_000;

/// How many latencies were how long.
#[derive(Debug, Clone, Default)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
    total: u64,
    sum_microseconds: u64,
    longest: u64,
}

/// The bucket of so many microseconds: one for each up to 256, then 128 for each doubling.
fn bucket(microseconds: u64) -> usize {
    let bits = u64::from(u64::BITS - microseconds.leading_zeros());
    let shift = bits.saturating_sub(8);
    (shift * STEPS + (microseconds >> shift)) as usize
}

/// The middle of a bucket, in microseconds.
fn middle(bucket: u64) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let lowest = (bucket - shift * STEPS) << shift;
    lowest + ((1 << shift) >> 1)
}

impl LatencyHistogram {
    /// Counts a latency, in whole microseconds.
    pub fn record(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROSECONDS);
        let microseconds = microseconds.min(MAX_MICROSECONDS);
        let bucket = bucket(microseconds);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.sum_microseconds += microseconds;
        self.longest = self.longest.max(microseconds);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that this share of all does not exceed, from 0 to 1. None where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_micros(
            middle(found as u64).min(self.longest),
        ))
    }

    /// The longest latency. None where nothing was counted.
    pub fn longest(&self) -> Option<Duration> {
        (self.total > 0).then(|| Duration::from_micros(self.longest))
    }

    /// The mean. None where nothing was counted.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum_microseconds.checked_div(self.total)?;
        Some(Duration::from_micros(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_every_latency_is_exact_to_half_a_percent() {
        let mut last = 0;
        for microseconds in (0..200).map(|power| 1.12_f64.powi(power) as u64) {
            if microseconds > MAX_MICROSECONDS {
                break;
            }
            let bucket = bucket(microseconds) as u64;
            assert!(bucket >= last, "{microseconds}");
            last = bucket;
            let error = middle(bucket).abs_diff(microseconds) as f64;
            assert!(
                error <= 0.005 * microseconds as f64,
                "{microseconds}: {error}"
            );
        }
    }

    #[test]
    fn histogram_quantiles_are_those_of_the_sorted_values() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for millisecond in (1..=1000).rev() {
            histogram.record(Duration::from_millis(millisecond));
        }
        for share in [0.001, 0.5, 0.9, 0.99, 1.0] {
            let found = histogram.quantile(share).unwrap().as_secs_f64();
            assert!((found / share - 1.0).abs() < 0.005, "{share}: {found}");
        }
        assert_eq!(histogram.longest(), Some(Duration::from_secs(1)));
        assert_eq!(histogram.mean(), Some(Duration::from_micros(500_500)));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.longest(), Some(Duration::from_secs(3600)));
    }
}
