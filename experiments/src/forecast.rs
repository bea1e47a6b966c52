//! What a run of an experiment could show, before it begins: how often it will look at each probe of its hypothesis, what so
//! many good looks exclude, and whether it measures anything at all.

use crate::HumanDuration;
use crate::check::{AbortCondition, Experiment};
use crate::confidence::{percent, samples_to_exclude, upper_bound};
use crate::document::{Activity, Provider};
use crate::journal::SamplePeriod;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The shortest time between two looks.
const MIN_SAMPLING_INTERVAL: Duration = Duration::from_millis(1);

/// How often a run will look at a probe of the hypothesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExpectedSamples {
    /// The probe's name.
    pub probe: String,
    /// When the looks will be made that count.
    pub when: SamplePeriod,
    /// How many there will be, where each is quicker than the time to the next.
    #[serde(rename = "looks")]
    pub samples: u64,
    /// How long it is from one look to the next; none for a single look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// Whether there may be more: steps of the method take a time that nobody knows before.
    #[serde(default)]
    pub at_least: bool,
    /// The highest rate of failures that so many good looks will not exclude, from 0 to 1: the exact one-sided 95 % upper
    /// bound, if looks are independent of each other.
    pub upper_bound: f64,
}

impl fmt::Display for ExpectedSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.at_least { "at least" } else { "about" };
        let samples = match self.samples {
            1 => "1 check".to_owned(),
            many => format!("{many} checks"),
        };
        let (when, every) = match (self.when, self.every) {
            (SamplePeriod::During, Some(every)) => {
                ("during the method", format!(", one every {every}"))
            }
            (SamplePeriod::During, None) => ("during the method", String::new()),
            (SamplePeriod::After, _) => ("after the method", String::new()),
        };
        write!(
            f,
            "{about} {samples} {when}{every}; if all are good, failure rates above {} are excluded at 95 % confidence, if checks are independent ({} checks would exclude those above 0.1 %)",
            percent(self.upper_bound),
            samples_to_exclude(0.001)
        )
    }
}

/// How often a run will look at each probe of the hypothesis, with this time between two looks.
pub fn expected_samples(experiment: &Experiment, frequency: HumanDuration) -> Vec<ExpectedSamples> {
    let (length, at_least) = method_length(experiment);
    let timing = experiment.hypothesis_timing;
    let of_probe = |(index, probe): (usize, &Activity)| {
        let rules = experiment.abort.iter().filter_map(|rule| match rule.watch {
            AbortCondition::Hypothesis(watched) if watched == index => Some(rule.every.0),
            _ => None,
        });
        let every = timing
            .during
            .then_some(frequency.0)
            .into_iter()
            .chain(rules)
            .min();
        let (when, count) = match every {
            Some(every) => {
                let every = every.max(MIN_SAMPLING_INTERVAL);
                let count = length.as_nanos().div_ceil(every.as_nanos()).max(1);
                (
                    SamplePeriod::During,
                    u64::try_from(count).unwrap_or(u64::MAX),
                )
            }
            None => (SamplePeriod::After, u64::from(timing.after)),
        };
        ExpectedSamples {
            probe: probe.name.clone(),
            when,
            samples: count,
            every: every.filter(|_| count > 1).map(HumanDuration),
            at_least: at_least && every.is_some(),
            upper_bound: upper_bound(count, 0),
        }
    };
    experiment
        .hypothesis
        .iter()
        .enumerate()
        .map(of_probe)
        .collect()
}

/// How long the method will take at the least, and whether it may take longer.
fn method_length(experiment: &Experiment) -> (Duration, bool) {
    let (mut now, mut end, mut longer) = (Duration::ZERO, Duration::ZERO, false);
    for activity in &experiment.method {
        let pauses = activity
            .pauses
            .filter(|_| experiment.pauses(activity))
            .unwrap_or_default();
        let pauses = pauses.before.unwrap_or_default().0 + pauses.after.unwrap_or_default().0;
        let own = match &activity.provider {
            _ if experiment.is_dry(activity) => Duration::ZERO,
            Provider::Fault(fault) => match fault.duration {
                Some(duration) => duration.0,
                None => {
                    longer = true;
                    Duration::ZERO
                }
            },
            _ => {
                longer = true;
                Duration::ZERO
            }
        };
        let over = now.saturating_add(pauses).saturating_add(own);
        end = end.max(over);
        if !activity.background {
            now = over;
        }
    }
    (end, longer)
}

/// What people should know of an experiment that is right as it stands, before it is run: that it measures nothing.
pub fn warnings(experiment: &Experiment) -> Vec<String> {
    if measures(experiment) {
        return Vec::new();
    }
    let real = |(_, activity, _): &(usize, &Activity, _)| !experiment.is_dry(activity);
    let verdict = match experiment.faults().any(|fault| real(&fault)) {
        true => "the verdict of a run will be inconclusive",
        false => "a run is held whatever it finds",
    };
    vec![format!(
        "nothing is measured: the hypothesis has no probes that are checked, and no activity has a tolerance; {verdict}. Add probes with a tolerance to `steady-state-hypothesis`"
    )]
}

/// Whether a run has anything to be judged by.
fn measures(experiment: &Experiment) -> bool {
    let timing = experiment.hypothesis_timing;
    let watched = experiment
        .abort
        .iter()
        .any(|rule| matches!(rule.watch, AbortCondition::Hypothesis(_)));
    let looked_at = timing.before || timing.during || timing.after || watched;
    let judged = |activity: &Activity| {
        let expects_restart = match &activity.provider {
            Provider::Fault(fault) => fault.arguments.contains_key("expect-restart"),
            _ => false,
        };
        !experiment.is_dry(activity) && (activity.tolerance.is_some() || expects_restart)
    };
    let mut activities = experiment.method.iter().chain(&experiment.rollbacks);
    (looked_at && !experiment.hypothesis.is_empty()) || activities.any(judged)
}
