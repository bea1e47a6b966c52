//! What a run measured, and what so many looks can show: counted from the journal alone.

use super::{Judgement, Run};
use crate::confidence::{percent, upper_bound};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The figure of a kill's effect that says how soon a supervisor brought the process back.
const BACK_AFTER: &str = "back-after-seconds";

/// How often a probe of the hypothesis was looked at, and what that can show. Looks at which the check itself was broken
/// are not counted: they say nothing about the system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeSamples {
    /// The probe's name.
    pub probe: String,
    /// When the looks were made that are counted.
    pub when: SamplePeriod,
    /// How many there were.
    #[serde(rename = "looks")]
    pub samples: usize,
    /// How many of them were out of tolerance.
    pub failures: usize,
    /// The highest rate of failures that these looks do not exclude, from 0 to 1: the exact one-sided 95 % upper bound (Clopper
    /// and Pearson), if checks are independent of each other. 1 where there was none.
    pub upper_bound: f64,
}

/// When looks were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplePeriod {
    /// While the method went on, until everything was put back.
    During,
    /// After that; counted where the hypothesis is not looked at meanwhile.
    After,
}

impl ProbeSamples {
    fn new(probe: &str, when: SamplePeriod, samples: usize, failures: usize) -> Self {
        ProbeSamples {
            probe: probe.to_owned(),
            when,
            samples,
            failures,
            upper_bound: upper_bound(samples as u64, failures as u64),
        }
    }
}

impl fmt::Display for ProbeSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = match self.samples {
            1 => "1 check".to_owned(),
            many => format!("{many} checks"),
        };
        let when = match self.when {
            SamplePeriod::During => "during the method",
            SamplePeriod::After => "after the method",
        };
        let (failures, bound) = (self.failures, percent(self.upper_bound));
        write!(
            f,
            "{samples} {when}, {failures} failed: at 95 % confidence the failure rate is at most {bound}, if checks are independent"
        )
    }
}

/// The looks at each probe of the hypothesis.
pub(super) fn probe_samples(run: &Run) -> Vec<ProbeSamples> {
    let during = run.hypothesis_timing.is_some_and(|timing| timing.during);
    let counted = run.probes.iter().map(|(name, probe)| {
        // Abort rules look at it as well, whatever the strategy says.
        let (when, tally) = match during || probe.during.judged() > 0 {
            true => (SamplePeriod::During, probe.during),
            false => (SamplePeriod::After, probe.after),
        };
        ProbeSamples::new(name, when, tally.judged(), tally.outside)
    });
    counted.collect()
}

/// Whether anything was measured by which the run can be judged: a sample of the hypothesis, an activity with a tolerance, or
/// whether a supervisor brought a killed process back.
pub(super) fn is_measured(run: &Run) -> bool {
    let sampled = run
        .probes
        .values()
        .any(|probe| probe.before.judged() + probe.during.judged() + probe.after.judged() > 0);
    let judged = run.activities.iter().any(|activity| {
        matches!(
            activity.judgement,
            Some(Judgement::Within | Judgement::Outside)
        )
    });
    let effects = run.injections.values().filter_map(|i| i.effect.as_ref());
    let mut expected =
        effects.map(|effect| effect.unmet.is_some() || effect.figures.contains_key(BACK_AFTER));
    sampled || judged || expected.any(|expected| expected)
}
