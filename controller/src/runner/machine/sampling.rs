//! When each probe is measured, and when its failures trigger an abort rule. A slow probe never delays another, and every
//! probe is measured for the first time at once.

use backburn_experiments::abort::FailureStreak;
use backburn_experiments::check::{self, Experiment};
use backburn_experiments::document::Activity;
use backburn_experiments::journal::Judgement;
use std::time::Duration;

/// The shortest interval between two samples of a probe.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The probes that are sampled: the hypothesis' own, then those of abort rules. Samples name a probe by its place in this list.
pub(in crate::runner) fn sampled_probes(experiment: &Experiment) -> Vec<&Activity> {
    let of_rules = experiment
        .abort
        .iter()
        .filter_map(|rule| match &rule.watch {
            check::AbortCondition::Probe(activity) => Some(activity.as_ref()),
            check::AbortCondition::Hypothesis(_) | check::AbortCondition::Host(_) => None,
        });
    experiment.hypothesis.iter().chain(of_rules).collect()
}

/// All probes, their schedules, and the abort rules over them.
pub(super) struct Sampling {
    probes: Vec<SampledProbe>,
    rules: Vec<ProbeRule>,
    /// Counts the starts, so that a late sample of an earlier phase is recognized.
    epoch: u64,
}

/// A probe and when it is measured.
struct SampledProbe {
    name: String,
    is_hypothesis: bool,
    /// The interval while the method runs; none where the probe is not sampled then.
    interval: Option<Duration>,
    /// The last judgement in the current phase.
    last: Option<Judgement>,
    /// When the next sample is due; none where no more is wanted.
    next: Option<Duration>,
    /// The interval of the current phase; zero for a single sample.
    current_interval: Duration,
    /// When the sample that is under way was started.
    under_way: Option<Duration>,
}

/// An abort rule over a probe.
struct ProbeRule {
    name: String,
    probe: usize,
    interval: Duration,
    failures: FailureStreak,
    last: Option<Duration>,
}

/// An abort rule that was triggered.
pub(super) struct TriggeredRule {
    /// The rule's name.
    pub(super) name: String,
    /// How many samples in a row were outside.
    pub(super) in_a_row: u32,
}

impl Sampling {
    /// No probe is sampled yet. `frequency` is the hypothesis' interval while the method runs.
    pub(super) fn new(experiment: &Experiment, frequency: Duration) -> Self {
        let during = experiment.hypothesis_timing.during.then_some(frequency);
        let hypothesis = experiment.hypothesis.len();
        let mut probes: Vec<SampledProbe> = sampled_probes(experiment)
            .into_iter()
            .enumerate()
            .map(|(index, activity)| SampledProbe {
                name: activity.name.clone(),
                is_hypothesis: index < hypothesis,
                interval: during.filter(|_| index < hypothesis),
                last: None,
                next: None,
                current_interval: Duration::ZERO,
                under_way: None,
            })
            .collect();
        let mut own = hypothesis..probes.len();
        let mut rules = Vec::new();
        for rule in &experiment.abort {
            let index = match &rule.watch {
                check::AbortCondition::Hypothesis(index) => Some(*index),
                check::AbortCondition::Probe(_) => own.next(),
                // The agent watches that by itself.
                check::AbortCondition::Host(_) => None,
            };
            let Some((index, probe)) =
                index.and_then(|index| Some((index, probes.get_mut(index)?)))
            else {
                continue;
            };
            let interval = rule.every.0.max(MIN_INTERVAL);
            probe.interval = Some(probe.interval.map_or(interval, |own| own.min(interval)));
            rules.push(ProbeRule {
                name: rule.name.clone(),
                probe: index,
                interval,
                failures: FailureStreak::trigger_at(rule.failures),
                last: None,
            });
        }
        Sampling {
            probes,
            rules,
            epoch: 0,
        }
    }

    /// Samples every probe at its interval for the method, from now on.
    pub(super) fn start_method(&mut self, now: Duration) {
        self.start(now, |probe| probe.interval);
    }

    /// Samples the hypothesis at this interval from now on; once where it is zero.
    pub(super) fn start_hypothesis(&mut self, now: Duration, interval: Duration) {
        self.start(now, |probe| probe.is_hypothesis.then_some(interval));
    }

    fn start(&mut self, now: Duration, interval: impl Fn(&SampledProbe) -> Option<Duration>) {
        self.cancel();
        for probe in &mut self.probes {
            probe.last = None;
            let interval = interval(probe);
            probe.next = interval.map(|_| now);
            probe.current_interval = interval.unwrap_or_default();
        }
    }

    /// Starts no more samples. Those under way go on.
    pub(super) fn stop(&mut self) {
        self.probes.iter_mut().for_each(|probe| probe.next = None);
    }

    /// Starts no more samples and forgets those under way.
    pub(super) fn cancel(&mut self) {
        self.stop();
        self.epoch += 1;
        (self.probes.iter_mut()).for_each(|probe| probe.under_way = None);
    }

    /// When the next sample is to be started.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let waiting = self.probes.iter().filter(|probe| probe.under_way.is_none());
        waiting.filter_map(|probe| probe.next).min()
    }

    /// The samples that are to be started now, each as its probe's place; they count as under way.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<usize> {
        let mut due = Vec::new();
        for (index, probe) in self.probes.iter_mut().enumerate() {
            let Some(at) = probe.next.filter(|at| *at <= now) else {
                continue;
            };
            if probe.under_way.is_some() {
                continue;
            }
            probe.under_way = Some(now);
            // A sample that took long is followed by the next tick, not by all those it missed.
            probe.next = next_tick(at, probe.current_interval, now);
            due.push(index);
        }
        due
    }

    /// The current period, which samples have to name.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes in a probe's judgement. When its measurement was started; none for a sample of an earlier period.
    pub(super) fn finish(
        &mut self,
        epoch: u64,
        probe: usize,
        judgement: Judgement,
    ) -> Option<Duration> {
        let found = self.probes.get_mut(probe).filter(|_| epoch == self.epoch)?;
        let began = found.under_way.take()?;
        found.last = Some(judgement);
        Some(began)
    }

    /// The probe's name, and whether it belongs to the hypothesis.
    pub(super) fn probe(&self, index: usize) -> Option<(&str, bool)> {
        let probe = self.probes.get(index)?;
        Some((&probe.name, probe.is_hypothesis))
    }

    /// Counts a sample for the rules over its probe. The first rule that it triggers.
    pub(super) fn triggered(
        &mut self,
        probe: usize,
        judgement: Judgement,
        began: Duration,
    ) -> Option<TriggeredRule> {
        let mut triggered = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.probe == probe) {
            // The probe may be sampled more often than this rule asks for. Samples start at ticks, which come a little late.
            let is_due = rule
                .last
                .is_none_or(|last| began.saturating_sub(last) >= rule.interval.mul_f64(0.9));
            if !is_due {
                continue;
            }
            rule.last = Some(began);
            if rule.failures.sample(judgement) {
                triggered.get_or_insert_with(|| TriggeredRule {
                    name: rule.name.clone(),
                    in_a_row: rule.failures.in_a_row(),
                });
            }
        }
        triggered
    }

    /// Whether a sample is under way or due later.
    pub(super) fn goes_on(&self) -> bool {
        let mut probes = self.probes.iter();
        probes.any(|probe| probe.under_way.is_some() || probe.next.is_some())
    }

    /// The probes whose samples are under way: name, and whether it belongs to the hypothesis.
    pub(super) fn under_way(&self) -> Vec<(String, bool)> {
        let probes = self.probes.iter();
        probes
            .filter(|probe| probe.under_way.is_some())
            .map(|probe| (probe.name.clone(), probe.is_hypothesis))
            .collect()
    }

    /// Whether every probe of the hypothesis was within tolerance when it was last sampled in this phase.
    pub(super) fn hypothesis_holds(&self) -> bool {
        (self.hypothesis()).all(|probe| probe.last == Some(Judgement::Within))
    }

    /// Whether the last sample of a probe of the hypothesis could not be judged.
    pub(super) fn hypothesis_is_unknown(&self) -> bool {
        (self.hypothesis()).any(|probe| probe.last == Some(Judgement::Unknown))
    }

    fn hypothesis(&self) -> impl Iterator<Item = &SampledProbe> {
        self.probes.iter().filter(|probe| probe.is_hypothesis)
    }
}

/// The tick after this one that is not over yet; none without an interval.
fn next_tick(tick: Duration, interval: Duration, now: Duration) -> Option<Duration> {
    let late = now.saturating_sub(tick).as_nanos();
    let into = u64::try_from(late.checked_rem(interval.as_nanos())?).ok()?;
    let last = now - Duration::from_nanos(into);
    last.checked_add(interval)
}
