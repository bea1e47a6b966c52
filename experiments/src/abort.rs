//! When an abort rule triggers: after a number of failures in a row.

use crate::journal::Judgement;

/// Counts the failures in a row of one abort rule.
///
/// An unknown sample, of a broken check, changes nothing: it is no failure, since a broken check must not pass for a broken system, and it
/// does not reset the count, since it does not show that the system is fine. `outside, unknown, outside` is two failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureStreak {
    wanted: u32,
    in_a_row: u32,
}

impl FailureStreak {
    /// A streak that triggers at this many failures in a row, at least one.
    pub fn trigger_at(wanted: u32) -> Self {
        FailureStreak {
            wanted: wanted.max(1),
            in_a_row: 0,
        }
    }

    /// Takes in a sample and returns whether the rule triggers now. It triggers once; then the count starts again after the next sample
    /// that is within tolerance.
    pub fn sample(&mut self, judgement: Judgement) -> bool {
        match judgement {
            Judgement::Within => self.in_a_row = 0,
            Judgement::Outside => self.in_a_row = self.in_a_row.saturating_add(1),
            Judgement::Unknown => return false,
        }
        self.in_a_row == self.wanted
    }

    /// The number of failures in a row so far.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

/// Whether these samples, in their order, trigger a rule that needs this many failures in a row.
pub fn breached(wanted: u32, samples: impl IntoIterator<Item = Judgement>) -> bool {
    let mut failures = FailureStreak::trigger_at(wanted);
    samples
        .into_iter()
        .any(|judgement| failures.sample(judgement))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Judgement::{Outside, Unknown, Within};
    use proptest::prelude::*;

    #[test]
    fn only_failures_in_a_row_strike() {
        assert!(breached(2, [Within, Outside, Outside]));
        assert!(!breached(2, [Outside, Within, Outside]));
        assert!(breached(2, [Outside, Unknown, Outside]));
        assert!(!breached(1, [Unknown, Unknown, Unknown]));
        assert!(breached(0, [Outside]));
        assert!(!breached(3, []));
    }

    #[test]
    fn it_strikes_once() {
        let mut failures = FailureStreak::trigger_at(2);
        let struck: Vec<bool> = [Outside, Outside, Outside, Unknown, Within, Outside, Outside]
            .map(|j| failures.sample(j))
            .into();
        assert_eq!(struck, [false, true, false, false, false, false, true]);
    }

    #[test]
    fn in_a_row_counts_the_failures_since_the_last_sample_within() {
        let mut failures = FailureStreak::trigger_at(5);
        let counted = [Outside, Unknown, Outside, Outside, Within, Outside].map(|judgement| {
            failures.sample(judgement);
            failures.in_a_row()
        });
        assert_eq!(counted, [1, 1, 2, 3, 0, 1]);
    }

    proptest! {
        #[test]
        fn it_strikes_where_the_known_samples_hold_a_long_enough_row(
            samples in prop::collection::vec(prop_oneof![Just(Within), Just(Outside), Just(Unknown)], 0..40),
            wanted in 1u32..5,
        ) {
            let known: Vec<Judgement> = samples.iter().copied().filter(|j| *j != Unknown).collect();
            let row = known.windows(wanted as usize).any(|window| window.iter().all(|j| *j == Outside));
            prop_assert_eq!(breached(wanted, samples), row);
        }
    }
}
