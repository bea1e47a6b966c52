//! The state of an active injection: when it ends, when it is observed, and what was observed. Does no observing itself.

use super::effect_sum::add;
use super::supervisor_return::{AwaitedReturn, Expectation, SupervisorReturn};
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{Effect, InjectionRequest, Refusal};
use std::time::{Duration, Instant};

/// How often an effect is observed while it acts as it should.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often an effect is observed while a victim's death or a supervisor's restart is awaited.
const FAST_OBSERVE_INTERVAL: Duration = Duration::from_millis(20);
/// How long an effect must be missing until the injection counts as failed. Whoever reverts an injection by hand ends its helper first
/// and removes it from the ledger after that, so a shorter time would call that a failure.
const VANISHED_AFTER: Duration = Duration::from_millis(250);
/// How long a killed process may take to exit.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an observation may take until it is reported as hanging.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct ActiveInjection {
    request: InjectionRequest,
    pub(super) entry: LedgerEntry,
    /// When the injection ends at the latest; none for a one-shot fault, which ends when it is done.
    ends: Option<Instant>,
    observation: ObservationState,
    /// Since when the effect has been missing although nobody reverted it.
    gone_since: Option<Instant>,
    next_round: Option<Instant>,
    rounds: u64,
    /// When the current round began.
    since: Instant,
    supervisor_return: Option<AwaitedReturn>,
    /// The effect of all earlier rounds.
    before: Effect,
    last: Effect,
}

/// When the effect is observed next.
#[derive(Debug, Clone, Copy)]
enum ObservationState {
    /// The observation is due at this time.
    Due(Instant),
    /// The observation was requested at this time; the flag says whether another one is to follow at once.
    Requested(Instant, bool),
}

/// How an injection continues after an observation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EffectProgress {
    Continue,
    /// A one-shot fault has nothing left to do.
    Finished,
    /// The effect has disappeared although nobody reverted it.
    Vanished,
}

impl ActiveInjection {
    pub(super) fn new(
        request: &InjectionRequest,
        entry: LedgerEntry,
        expected: Option<&Expectation>,
        started: Instant,
    ) -> Self {
        ActiveInjection {
            entry,
            ends: request
                .duration
                .and_then(|duration| started.checked_add(duration.0)),
            observation: ObservationState::Due(started),
            gone_since: None,
            next_round: request.every.and_then(|every| started.checked_add(every.0)),
            rounds: 1,
            since: started,
            supervisor_return: expected.map(|expected| AwaitedReturn::new(expected, started)),
            before: Effect::default(),
            last: Effect::default(),
            request: request.clone(),
        }
    }

    /// When this injection needs attention next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // A round that is due waits for a last observation of the round before.
        let (look, round) = match self.observation {
            ObservationState::Due(due) => (due, self.next_round),
            ObservationState::Requested(asked, _) => (asked + OBSERVE_TIMEOUT, None),
        };
        [self.ends, round, Some(look)].into_iter().flatten().min()
    }

    /// Makes an observation due now, or right after the one that is under way.
    pub(super) fn observe_at(&mut self, now: Instant) {
        self.observation = match self.observation {
            ObservationState::Due(_) => ObservationState::Due(now),
            ObservationState::Requested(asked, _) => ObservationState::Requested(asked, true),
        };
    }

    /// Whether an observation is due. If so, it counts as requested from now on.
    pub(super) fn take_due_observation(&mut self, now: Instant) -> bool {
        match self.observation {
            ObservationState::Due(due) if due <= now => {
                self.observation = ObservationState::Requested(now, false);
                true
            }
            _ => false,
        }
    }

    /// The effect to report if an observation takes too long. Reported once until an observation succeeds.
    pub(super) fn observation_overdue(&mut self, now: Instant) -> Option<Effect> {
        match self.observation {
            ObservationState::Requested(asked, _) if now >= asked + OBSERVE_TIMEOUT => {
                // The time is reset, and the same observation is still under way.
                self.observation = ObservationState::Requested(now, false);
                let effect = Effect {
                    acts: false,
                    seen: "the effect could not be observed: the observation hangs".into(),
                    ..self.before.clone()
                };
                self.news(effect)
            }
            _ => None,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    pub(super) fn repeats(&self, now: Instant) -> bool {
        self.next_round.is_some_and(|round| round <= now)
    }

    fn is_one_shot(&self) -> bool {
        crate::faults::find(&self.request.fault).is_some_and(|fault| fault.one_shot)
    }

    /// Records what was observed. Returns the effect if it has changed, and how the injection continues.
    pub(super) fn record_observation(
        &mut self,
        seen: &Effect,
        is_done: bool,
        now: Instant,
    ) -> (Option<Effect>, EffectProgress) {
        let effect = self.total_effect(seen);
        let awaits = self
            .supervisor_return
            .as_ref()
            .is_some_and(AwaitedReturn::is_open);
        let is_one_shot = self.is_one_shot();
        let next = if !is_one_shot {
            // An effect may disappear early, e.g. when its helper is killed by the OOM killer.
            let is_gone = is_done && now >= *self.gone_since.get_or_insert(now) + VANISHED_AFTER;
            if is_gone {
                EffectProgress::Vanished
            } else {
                EffectProgress::Continue
            }
        } else if self.next_round.is_some()
            || awaits
            || (!is_done && now < self.since + DEATH_TIMEOUT + self.grace())
        {
            EffectProgress::Continue
        } else {
            EffectProgress::Finished
        };
        let hurry = if is_one_shot {
            awaits || !is_done
        } else {
            is_done
        };
        self.observation = match self.observation {
            ObservationState::Requested(_, true) => ObservationState::Due(now),
            _ => ObservationState::Due(
                now + if hurry {
                    FAST_OBSERVE_INTERVAL
                } else {
                    OBSERVE_INTERVAL
                },
            ),
        };
        (self.news(effect), next)
    }

    fn news(&mut self, effect: Effect) -> Option<Effect> {
        let is_news = effect != self.last;
        self.last.clone_from(&effect);
        is_news.then_some(effect)
    }

    /// The longest grace that a helper gives its victims before it kills them.
    fn grace(&self) -> Duration {
        self.entry
            .changes
            .iter()
            .map(|change| match change {
                crate::changes::Change::Helper(helper) => helper.deadline.0,
                _ => Duration::ZERO,
            })
            .max()
            .unwrap_or_default()
    }

    /// The effect of all changes and rounds together; `seen` is the observed effect of the current round.
    pub(super) fn total_effect(&self, seen: &Effect) -> Effect {
        let mut effect = self.before.clone();
        add(&mut effect, seen.clone());
        if let Some(supervisor_return) = &self.supervisor_return {
            supervisor_return.add_to(&mut effect);
        }
        effect
    }

    /// The effect that was reported last.
    pub(super) fn last(&self) -> &Effect {
        &self.last
    }

    /// Records whether a supervisor restarted the victims. An answer about an earlier round is ignored.
    pub(super) fn record_supervisor_return(
        &mut self,
        round: u64,
        answer: Result<SupervisorReturn, String>,
        now: Instant,
    ) {
        if round == self.rounds
            && let Some(supervisor_return) = &mut self.supervisor_return
        {
            supervisor_return.take(answer);
            self.observe_at(now);
        }
    }

    /// The number of the current round, from 1.
    pub(super) fn round(&self) -> u64 {
        self.rounds
    }

    /// Prepares the next round and returns its request. The effect of the current round is kept.
    pub(super) fn next_round(&mut self, now: Instant) -> InjectionRequest {
        let mut so_far = self.last.clone();
        so_far.seen = String::new();
        self.before = so_far;
        self.supervisor_return = None;
        self.rounds += 1;
        let every = self.request.every.map_or(OBSERVE_INTERVAL, |every| every.0);
        // Rounds that were missed while the machine slept are not made up for.
        self.next_round = self
            .next_round
            .and_then(|round| round.checked_add(every))
            .filter(|round| *round > now)
            .or_else(|| now.checked_add(every));
        InjectionRequest {
            seed: self.request.seed.wrapping_add(self.rounds),
            ..self.request.clone()
        }
    }

    /// Continues with the entry that the next round has applied.
    pub(super) fn begin_round(
        &mut self,
        entry: LedgerEntry,
        expected: Option<&Expectation>,
        started: Instant,
    ) {
        self.entry = entry;
        self.since = started;
        self.supervisor_return = expected.map(|expected| AwaitedReturn::new(expected, started));
        self.before
            .figures
            .insert("rounds".into(), self.rounds as f64);
        self.observe_at(started + FAST_OBSERVE_INTERVAL);
    }

    /// The effect to report for a round that failed or was skipped.
    pub(super) fn failed_round(&self, refusal: &Refusal) -> Effect {
        Effect {
            seen: format!("round {}: {}", self.rounds, refusal.what),
            ..self.before.clone()
        }
    }
}
