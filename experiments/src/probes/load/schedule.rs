//! When requests are due.

use crate::HumanDuration;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// When each request of a load is due, from the beginning of the load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadSchedule {
    /// Requests per second, on average once the ramp is over. More than 0.
    pub rate: f64,
    /// How many requests are due at the same moment. At least 1; the rate stays the same.
    pub burst: u32,
    /// The time over which the rate rises evenly from 0.
    pub ramp: HumanDuration,
    /// How long requests are due. None: for ever.
    pub duration: Option<HumanDuration>,
}

impl LoadSchedule {
    /// When a request is due, counted from 0. None after the last.
    pub fn due(&self, number: u64) -> Option<Duration> {
        let first_of_burst = (number - number % u64::from(self.burst.max(1))) as f64;
        let ramp = self.ramp.0.as_secs_f64();
        let during_ramp = self.rate * ramp / 2.0;
        let seconds = match first_of_burst < during_ramp {
            true => (2.0 * first_of_burst * ramp / self.rate).sqrt(),
            false => ramp / 2.0 + first_of_burst / self.rate,
        };
        let due = Duration::try_from_secs_f64(seconds).ok()?;
        (self.duration).is_none_or(|end| due < end.0).then_some(due)
    }

    /// How many requests are due within this time, about.
    pub fn expected(&self, elapsed: Duration) -> f64 {
        let end = self.duration.map_or(elapsed, |end| end.0.min(elapsed));
        let (seconds, ramp) = (end.as_secs_f64(), self.ramp.0.as_secs_f64());
        match seconds < ramp {
            true => self.rate * seconds * seconds / (2.0 * ramp),
            false => self.rate * (seconds - ramp / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: LoadSchedule = LoadSchedule {
        rate: 100.0,
        burst: 1,
        ramp: HumanDuration::seconds(0),
        duration: Some(HumanDuration::seconds(2)),
    };

    fn all(schedule: LoadSchedule) -> Vec<f64> {
        let due = (0..).map_while(|number| schedule.due(number));
        due.map(|due| due.as_secs_f64()).collect()
    }

    #[test]
    fn schedule_steady_rate_is_even_and_ends() {
        let due = all(STEADY);
        assert_eq!(due.len(), 200);
        assert!((due[150] - 1.5).abs() < 1e-9);
    }

    #[test]
    fn schedule_burst_keeps_the_rate() {
        let due = all(LoadSchedule {
            burst: 50,
            ..STEADY
        });
        assert_eq!(due.len(), 200);
        assert_eq!((due[49], due[50], due[99]), (0.0, 0.5, 0.5));
    }

    #[test]
    fn schedule_ramp_rises_evenly_and_is_expected_so() {
        let ramped = LoadSchedule {
            ramp: HumanDuration::seconds(1),
            ..STEADY
        };
        let due = all(ramped);
        assert_eq!(due.len(), 150, "half of the first second's requests");
        assert!(due.is_sorted());
        for second in [0.5, 1.0, 1.5, 2.0] {
            let counted = due.iter().filter(|due| **due < second).count() as f64;
            let expected = ramped.expected(Duration::from_secs_f64(second));
            assert!(
                (counted - expected).abs() <= 1.0,
                "{second}: {counted}, {expected}"
            );
        }
    }
}
