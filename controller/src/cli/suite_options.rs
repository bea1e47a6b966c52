//! The options of `run` that select the experiments of a suite, and say how many of them run at a time.

use clap::Args;
use std::fmt;
use std::str::FromStr;

/// Which experiments to run, and how many at a time.
#[derive(Debug, Args)]
pub(super) struct SuiteOptions {
    /// Run all experiments of a directory (`*.json`, also in the directories below) or of a pattern such as `'experiments/**/web-*.json'`, in the
    /// order of their paths; ends at the first that is not clean. Can be repeated
    #[arg(
        long,
        value_name = "DIR|PATTERN",
        conflicts_with_all = ["file", "journal"],
        help_heading = "Suite"
    )]
    pub(super) suite: Vec<String>,
    /// Run only one part of the suite, for several jobs that share it: `2/5` is the second of five
    #[arg(long, value_name = "PART/COUNT", help_heading = "Suite")]
    pub(super) shard: Option<Shard>,
    /// Run only experiments whose files differ from the last commit in common with BASE, e.g. `origin/main`; uncommitted changes count
    #[arg(long, value_name = "BASE", requires = "suite", help_heading = "Suite")]
    pub(super) only_changed: Option<String>,
    /// Run up to N experiments at a time, if their blast radii do not meet: other agents, or other processes of the same host [default: 1]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(1..=64),
        help_heading = "Suite"
    )]
    parallel: Option<u8>,
}

impl SuiteOptions {
    /// How many experiments may run at a time.
    pub(super) fn parallel(&self) -> u8 {
        self.parallel.unwrap_or(1)
    }

    /// A flag that was given and that requires a suite. clap does not refuse it beside a file, since a file excludes a suite.
    pub(super) fn flag_without_suite(&self) -> Option<&'static str> {
        let flags = [
            (self.shard.is_some(), "--shard"),
            (self.only_changed.is_some(), "--only-changed"),
            (self.parallel.is_some(), "--parallel"),
        ];
        let given = flags.into_iter().find(|(is_given, _)| *is_given);
        given
            .map(|(_, flag)| flag)
            .filter(|_| self.suite.is_empty())
    }
}

/// A part of a suite, for one of several jobs that share it: `2/5` is every fifth experiment, from the second on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Shard {
    /// Which part, from 1.
    part: usize,
    /// How many parts there are.
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Shard { part, of }),
            Some((part, of)) => Err(format!(
                "part {part} of {of} does not exist; the first is 1/{of}"
            )),
            None => Err("expected PART/COUNT, for example `2/5`".into()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl Shard {
    /// The items of this part. All parts together have each item once.
    pub(super) fn of<T>(self, items: Vec<T>) -> Vec<T> {
        let is_own = |place: usize| place % self.of == self.part - 1;
        let numbered = items.into_iter().enumerate();
        numbered
            .filter(|(place, _)| is_own(*place))
            .map(|(_, item)| item)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn shard_parts_together_have_each_item_once() {
        let items: Vec<u32> = (0..23).collect();
        for of in 1..=30 {
            let mut all = Vec::new();
            for part in 1..=of {
                let own = Shard { part, of }.of(items.clone());
                assert!(own.len() <= items.len().div_ceil(of), "{part}/{of}");
                all.extend(own);
            }
            all.sort_unstable();
            assert_eq!(all, items, "{of}");
        }
    }

    #[test]
    fn shard_that_does_not_exist_is_refused() {
        for wrong in [
            "", "2", "0/5", "6/5", "1/0", "a/b", "-1/5", "1/5/5", "1.0/5", "1 / 5",
        ] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!("2/5".parse::<Shard>().unwrap().to_string(), "2/5");
    }
}
