//! When an abort rule strikes: so many failures in a row.

use crate::journal::Judgement;

/// Counts the failures of one rule, in a row.
///
/// A sample that is unknown (the check is broken) is neither: it does not count as a failure, since
/// a broken check must not pass for a broken system, and it does not start the count afresh, since it
/// shows nothing to be fine. `outside, unknown, outside` is two failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureStreak {
    wanted: u32,
    in_a_row: u32,
}

impl FailureStreak {
    /// Strikes at this many in a row; at least one.
    pub fn trigger_at(wanted: u32) -> Self {
        FailureStreak {
            wanted: wanted.max(1),
            in_a_row: 0,
        }
    }

    /// Takes in a sample and says whether the rule strikes now. It strikes once; then it
    /// counts afresh from the next sample that is within.
    pub fn sample(&mut self, judgement: Judgement) -> bool {
        match judgement {
            Judgement::Within => self.in_a_row = 0,
            Judgement::Outside => self.in_a_row = self.in_a_row.saturating_add(1),
            Judgement::Unknown => return false,
        }
        self.in_a_row == self.wanted
    }

    /// How many failures in a row there are now.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

/// Whether these samples, in their order, make a rule strike that wants so many failures in a row.
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
