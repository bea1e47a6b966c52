//! How much of something is to be taken, as people write it: so much, or so much that a level is reached.

use super::{Amount, Size};
use backburn_experiments::Problem;

/// How much to take: at most one of them is given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fill {
    /// This amount; a percentage is of the whole.
    pub size: Option<Amount>,
    /// This percentage of the whole.
    pub percent: Option<f64>,
    /// As much as is missing until this amount is in use.
    pub until: Option<Amount>,
}

impl Fill {
    /// The problems of what is given; with `or_none`, none of them need be.
    pub fn problems(self, or_none: bool) -> Vec<Problem> {
        let given = [
            self.size.is_some(),
            self.percent.is_some(),
            self.until.is_some(),
        ];
        let problem = match given.iter().filter(|given| **given).count() {
            0 if or_none => return Vec::new(),
            0 => Problem::new("$", "none of `size`, `percent` and `until` is given"),
            1 => return self.range_problem().into_iter().collect(),
            _ => Problem::new(
                "$",
                "more than one of `size`, `percent` and `until` is given",
            ),
        };
        vec![problem.hint("give one of them")]
    }

    fn range_problem(self) -> Option<Problem> {
        let nothing = |at: &str| {
            Problem::new(at, "nothing would be taken")
                .hint("give an amount above zero, such as `100MiB` or `10%`")
        };
        let wrong = |at: &str, amount: Amount| match amount {
            Amount::Percent(percent) if percent > 100.0 => {
                let problem = Problem::new(at, format!("{amount} is more than there is"));
                Some(problem.hint("give at most `100%`"))
            }
            _ if amount.is_out_of_range() => Some(nothing(at)),
            _ => None,
        };
        match self.percent {
            Some(percent) if percent <= 0.0 => Some(nothing("$.percent")),
            _ => None,
        }
        .or_else(|| wrong("$.size", self.size?))
        .or_else(|| wrong("$.until", self.until?))
    }

    /// The number of bytes to take where `used` of `whole` bytes are in use; `otherwise` where nothing is given.
    ///
    /// # Errors
    /// The level is reached already: how much is in use.
    pub fn bytes(self, used: u64, whole: u64, otherwise: u64) -> Result<u64, String> {
        if let Some(until) = self.until {
            let missing = until.of(whole).saturating_sub(used);
            let share = used as f64 * 100.0 / whole.max(1) as f64;
            return match missing {
                0 => Err(format!(
                    "{} of {} are in use ({share:.0} %), which is not below {until}",
                    Size(used),
                    Size(whole)
                )),
                missing => Ok(missing),
            };
        }
        let share = self.percent.map(Amount::Percent).or(self.size);
        Ok(share.map_or(otherwise, |share| share.of(whole)))
    }
}
