//! Looks at the hypothesis and at the abort rules' own probes. Each probe has a task of its own,
//! so that a slow one never delays another, and its first look is at once.

use super::evaluation::{Evaluator, brief};
use super::{Runner, RunnerEvent};
use crate::providers::ProbeContext;
use backburn_experiments::wire::ProbeOutcome;
use backburn_experiments::HumanDuration;
use backburn_experiments::abort::Failures;
use backburn_experiments::check::{self, Experiment};
use backburn_experiments::document::Activity;
use backburn_experiments::journal::{AbortBy, Event, Judgement, Phase};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// How often it is looked at, at the least, while we wait for the hypothesis to hold again.
const RECOVERY_SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// How long we wait, once all is reverted, for looks that are still under way.
const LAST_SAMPLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is looked at, and by which rules.
pub(super) struct Sampling {
    probes: Vec<SampledProbe>,
    rules: Vec<ProbeRule>,
    tasks: JoinSet<()>,
    /// Counts the starts, so that what old samplers still had to tell is not taken for new.
    epoch: usize,
    /// When dropped, samplers end after the look that is under way.
    go_on: Option<watch::Sender<()>>,
}

struct SampledProbe {
    judged: Arc<Evaluator>,
    hypothesis: bool,
    /// While the method goes on; none where it is not looked at then.
    every: Option<Duration>,
    /// Its last judgement in the phase that is looked at.
    last: Option<Judgement>,
    /// Whether its sampler goes on.
    under_way: bool,
}

struct ProbeRule {
    name: String,
    probe: usize,
    every: Duration,
    failures: Failures,
    last: Option<Instant>,
}

/// One look.
pub(super) struct Sample {
    epoch: usize,
    probe: usize,
    phase: Phase,
    judgement: Judgement,
    output: Value,
    why: Option<String>,
    began: Instant,
    took: Duration,
}

impl Sampling {
    pub(super) fn new(experiment: &Experiment, frequency: Duration) -> Self {
        let during = experiment.hypothesis_timing.during.then_some(frequency);
        let probe = |activity: &Activity, hypothesis, every| SampledProbe {
            judged: Arc::new(Evaluator::new(activity.clone())),
            hypothesis,
            every,
            last: None,
            under_way: false,
        };
        let mut probes: Vec<SampledProbe> = experiment
            .hypothesis
            .iter()
            .map(|activity| probe(activity, true, during))
            .collect();
        let mut rules = Vec::new();
        for rule in &experiment.abort {
            let index = match &rule.watch {
                check::Watch::Hypothesis(index) => *index,
                check::Watch::Probe(activity) => {
                    probes.push(probe(activity, false, None));
                    probes.len() - 1
                }
                // The agent watches that by itself.
                check::Watch::Host(_) => continue,
            };
            let every = rule.every.0.max(Duration::from_millis(1));
            let own = &mut probes[index].every;
            *own = Some(own.map_or(every, |own| own.min(every)));
            let failures = Failures::strike_at(rule.failures);
            rules.push(ProbeRule {
                name: rule.name.clone(),
                probe: index,
                every,
                failures,
                last: None,
            });
        }
        Sampling {
            probes,
            rules,
            tasks: JoinSet::new(),
            epoch: 0,
            go_on: None,
        }
    }

    /// A sampler has ended.
    pub(super) fn rested(&mut self, epoch: usize, probe: usize) {
        if let Some(probe) = self.probes.get_mut(probe).filter(|_| epoch == self.epoch) {
            probe.under_way = false;
        }
    }

    fn goes_on(&self) -> bool {
        self.probes.iter().any(|probe| probe.under_way)
    }

    /// Whether every probe of the hypothesis was within when it was last looked at.
    fn holds(&self) -> bool {
        self.hypothesis()
            .all(|probe| probe.last == Some(Judgement::Within))
    }

    fn hypothesis(&self) -> impl Iterator<Item = &SampledProbe> {
        self.probes.iter().filter(|probe| probe.hypothesis)
    }

    /// Starts a sampler for each probe that `every` gives a period; one look only where that is zero.
    fn start(
        &mut self,
        phase: Phase,
        context: &Arc<ProbeContext>,
        tell: &mpsc::UnboundedSender<RunnerEvent>,
        every: impl Fn(&SampledProbe) -> Option<Duration>,
    ) {
        let (go_on, watching) = watch::channel(());
        self.go_on = Some(go_on);
        self.epoch += 1;
        for (index, probe) in self.probes.iter_mut().enumerate() {
            probe.last = None;
            let Some(every) = every(probe) else { continue };
            probe.under_way = true;
            let sampler = Sampler {
                epoch: self.epoch,
                probe: index,
                phase,
                judged: Arc::clone(&probe.judged),
                context: Arc::clone(context),
                tell: tell.clone(),
            };
            self.tasks.spawn(sampler.go(every, watching.clone()));
        }
    }

    fn stop(&mut self) {
        self.go_on = None;
    }

    /// Ends what is under way, too.
    fn drop_all(&mut self) {
        self.stop();
        self.tasks = JoinSet::new();
        self.epoch += 1;
        self.probes
            .iter_mut()
            .for_each(|probe| probe.under_way = false);
    }
}

struct Sampler {
    epoch: usize,
    probe: usize,
    phase: Phase,
    judged: Arc<Evaluator>,
    context: Arc<ProbeContext>,
    tell: mpsc::UnboundedSender<RunnerEvent>,
}

impl Sampler {
    async fn go(self, every: Duration, mut watching: watch::Receiver<()>) {
        if every.is_zero() {
            self.look().await;
        } else {
            let mut ticks = tokio::time::interval(every);
            // A look that took long is followed by the next tick, not by all those it missed.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    biased;
                    _ = watching.changed() => break,
                    _ = ticks.tick() => self.look().await,
                }
            }
        }
        // The runner may be gone; then nobody waits for this.
        self.tell
            .send(RunnerEvent::Rested {
                epoch: self.epoch,
                probe: self.probe,
            })
            .ok();
    }

    async fn look(&self) {
        let began = Instant::now();
        let (measured, judged) = self.judged.look(&self.context).await;
        let (judgement, why) =
            judged.unwrap_or((Judgement::Unknown, Some("it has no tolerance".into())));
        let output = match measured {
            ProbeOutcome::Output(output) => output,
            ProbeOutcome::NoAnswer(_) | ProbeOutcome::Broken(_) => Value::Null,
        };
        let (epoch, probe, phase, took) = (self.epoch, self.probe, self.phase, began.elapsed());
        self.tell
            .send(RunnerEvent::Sampled(Sample {
                epoch,
                probe,
                phase,
                judgement,
                output,
                why,
                began,
                took,
            }))
            .ok();
    }
}

impl Runner {
    /// The hypothesis before anything is done: all of it must hold.
    pub(super) async fn gate(&mut self) {
        if self.over() || !self.experiment.hypothesis_timing.before || self.experiment.hypothesis.is_empty() {
            return;
        }
        self.record(Event::PhaseStarted { phase: Phase::Gate });
        self.update_context();
        self.sampling
            .start(Phase::Gate, &self.context, &self.tell, |probe| {
                probe.hypothesis.then_some(Duration::ZERO)
            });
        while !self.over() && self.sampling.goes_on() {
            self.step().await;
        }
        self.sampling.drop_all();
        if self.over() {
            return;
        }
        let failed: Vec<String> = (self.log.run.probes.iter())
            .filter(|(_, probe)| probe.last.is_some_and(|last| last != Judgement::Within))
            .map(|(name, probe)| match (probe.last, &probe.why) {
                (Some(Judgement::Unknown), Some(why)) => {
                    format!("probe `{name}` could not be measured: {why}")
                }
                (_, Some(why)) => format!("probe `{name}`: {why}"),
                (_, None) => format!("probe `{name}` is out of tolerance"),
            })
            .collect();
        if !failed.is_empty() {
            let reason = format!(
                "the hypothesis does not hold before anything is done: {}",
                failed.join("; ")
            );
            self.not_started("gate", reason, None);
        }
    }

    pub(super) fn start_looking(&mut self, phase: Phase) {
        self.update_context();
        self.sampling
            .start(phase, &self.context, &self.tell, |probe| probe.every);
    }

    pub(super) fn stop_looking(&mut self) {
        self.sampling.stop();
    }

    /// Waits for the looks that began while a fault acted: what they find belongs to the method.
    pub(super) async fn last_looks(&mut self) {
        let deadline = tokio::time::Instant::now() + LAST_SAMPLE_TIMEOUT;
        while self.sampling.goes_on() && self.asked_to_stop == 0 {
            if tokio::time::timeout_at(deadline, self.step())
                .await
                .is_err()
            {
                self.give_up_looking();
            }
        }
        self.sampling.drop_all();
    }

    /// A probe without a time-out of its own that does not come back: it did not answer.
    fn give_up_looking(&mut self) {
        let hung: Vec<(String, bool)> = (self.sampling.probes.iter())
            .filter(|probe| probe.under_way)
            .map(|probe| (probe.judged.activity.name.clone(), probe.hypothesis))
            .collect();
        self.sampling.drop_all();
        for (probe, hypothesis) in hung {
            self.record(Event::Sampled {
                phase: Phase::Method,
                probe,
                hypothesis,
                judgement: Judgement::Outside,
                output: Value::Null,
                why: Some(format!(
                    "no answer within {} after everything was reverted",
                    HumanDuration(LAST_SAMPLE_TIMEOUT)
                )),
                took: HumanDuration(LAST_SAMPLE_TIMEOUT),
            });
        }
    }

    pub(super) fn sampled(&mut self, sample: Sample) {
        let Sample {
            epoch,
            probe: index,
            phase,
            judgement,
            output,
            why,
            began,
            took,
        } = sample;
        let current = epoch == self.sampling.epoch;
        let Some(probe) = self.sampling.probes.get_mut(index).filter(|_| current) else {
            return;
        };
        probe.last = Some(judgement);
        let name = probe.judged.activity.name.clone();
        let seen = why.clone().unwrap_or_else(|| brief(&output));
        let hypothesis = probe.hypothesis;
        self.record(Event::Sampled {
            phase,
            probe: name.clone(),
            hypothesis,
            judgement,
            output,
            why,
            took: HumanDuration(took),
        });
        if phase != Phase::Method || self.log.run.phase != Some(Phase::Method) || self.over() {
            return;
        }
        let by = if hypothesis {
            AbortBy::Hypothesis
        } else {
            AbortBy::Probe
        };
        let mut struck = None;
        for rule in self
            .sampling
            .rules
            .iter_mut()
            .filter(|rule| rule.probe == index)
        {
            // The probe may be looked at more often than this rule asks. Looks begin at ticks, which come a little late.
            let due = rule
                .last
                .is_none_or(|last| began.duration_since(last) >= rule.every.mul_f64(0.9));
            if due {
                rule.last = Some(began);
                if rule.failures.sample(judgement) {
                    let times = rule.failures.in_a_row();
                    let often = if times == 1 {
                        String::new()
                    } else {
                        format!("{times} times in a row, ")
                    };
                    struck.get_or_insert((
                        rule.name.clone(),
                        format!("probe `{name}`: {often}{seen}"),
                    ));
                }
            }
        }
        if let Some((rule, reason)) = struck {
            self.abort(by, &rule, reason);
        }
    }

    /// The hypothesis after everything is reverted; until it holds again where it has a time for that.
    pub(super) async fn after(&mut self) {
        let looked_at = self.sampling.hypothesis().next().is_some();
        if !self.experiment.hypothesis_timing.after || !looked_at || self.asked_to_stop > 1 {
            return;
        }
        self.record(Event::PhaseStarted {
            phase: Phase::After,
        });
        let (from, within) = (
            self.reverted_at.unwrap_or_else(|| self.log.elapsed()),
            self.experiment.document.recovery,
        );
        match within {
            // Who wants to end a run wants to know how things are, not to wait until they are well.
            Some(recovery) if self.asked_to_stop == 0 => self.recovery(from, recovery.within).await,
            _ => {
                self.update_context();
                self.sampling
                    .start(Phase::After, &self.context, &self.tell, |probe| {
                        probe.hypothesis.then_some(Duration::ZERO)
                    });
                let already = self.asked_to_stop;
                while self.sampling.goes_on() && self.asked_to_stop == already {
                    self.step().await;
                }
            }
        }
        self.sampling.drop_all();
    }

    async fn recovery(&mut self, from: f64, within: HumanDuration) {
        let every = self.settings.frequency.min(RECOVERY_SAMPLE_INTERVAL);
        self.update_context();
        self.sampling
            .start(Phase::After, &self.context, &self.tell, |probe| {
                probe.hypothesis.then_some(every)
            });
        let left = within.0.saturating_sub(Duration::from_secs_f64(
            (self.log.elapsed() - from).max(0.0),
        ));
        let deadline = tokio::time::Instant::now() + left;
        while !self.sampling.holds() && self.asked_to_stop == 0 {
            if tokio::time::timeout_at(deadline, self.step())
                .await
                .is_err()
            {
                break;
            }
        }
        if self.sampling.holds() {
            let after = Duration::from_secs_f64((self.log.elapsed() - from).max(0.0));
            // To the millisecond: that is what looking each tenth of a second can tell.
            self.record(Event::Recovered {
                after: HumanDuration(Duration::from_millis(after.as_millis() as u64)),
            });
        } else if self.asked_to_stop == 0
            && !self
                .sampling
                .hypothesis()
                .any(|probe| probe.last == Some(Judgement::Unknown))
        {
            // A broken check says nothing about recovery; the verdict sees it as it is.
            self.record(Event::NotRecovered { within });
        }
    }
}
