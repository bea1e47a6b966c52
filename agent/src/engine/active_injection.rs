//! An injection that acts: when it ends, when it is looked at, and what was seen. Looks at nothing itself.

use super::supervisor_return::{AwaitedReturn, Expectation, SupervisorReturn};
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{Effect, InjectionRequest, Refusal};
use std::time::{Duration, Instant};

/// How often an effect is looked at while it acts as it should.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often, while something is awaited: a victim's death, a supervisor's answer.
const FAST_OBSERVE_INTERVAL: Duration = Duration::from_millis(20);
/// How long what should act must be gone until that is called a failure: whoever reverts it by hand ends its helper first, and
/// strikes it from the ledger after that.
const VANISHED_AFTER: Duration = Duration::from_millis(250);
/// How long a killed process may take to leave.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a look may take until it is said that nothing was seen.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct ActiveInjection {
    request: InjectionRequest,
    pub(super) entry: LedgerEntry,
    /// When it is over whatever happens; a one-shot fault ends when it is done.
    ends: Option<Instant>,
    observation: ObservationState,
    /// Since when it has been seen to be gone by itself.
    gone_since: Option<Instant>,
    next_round: Option<Instant>,
    rounds: u64,
    /// When the last round began.
    since: Instant,
    supervisor_return: Option<AwaitedReturn>,
    /// What earlier rounds came to.
    before: Effect,
    last: Effect,
}

/// When it is looked at.
#[derive(Debug, Clone, Copy)]
enum ObservationState {
    /// It is due then.
    Due(Instant),
    /// The observer was asked then; whether it is to look once more after that.
    Requested(Instant, bool),
}

/// What a look comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Continue,
    /// A one-shot fault has nothing more to do.
    Finished,
    /// What should act has gone by itself.
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

    /// When something is to be done.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // A round that is due waits for a last look at the one before.
        let (look, round) = match self.observation {
            ObservationState::Due(due) => (due, self.next_round),
            ObservationState::Requested(asked, _) => (asked + OBSERVE_TIMEOUT, None),
        };
        [self.ends, round, Some(look)].into_iter().flatten().min()
    }

    /// Has it looked at now; once more, where it is being looked at.
    pub(super) fn observe_at(&mut self, now: Instant) {
        self.observation = match self.observation {
            ObservationState::Due(_) => ObservationState::Due(now),
            ObservationState::Requested(asked, _) => ObservationState::Requested(asked, true),
        };
    }

    /// Whether it is to be looked at now; it counts as asked for then.
    pub(super) fn take_due_observation(&mut self, now: Instant) -> bool {
        match self.observation {
            ObservationState::Due(due) if due <= now => {
                self.observation = ObservationState::Requested(now, false);
                true
            }
            _ => false,
        }
    }

    /// What is to be said where a look takes too long: once, until it is done.
    pub(super) fn observation_overdue(&mut self, now: Instant) -> Option<Effect> {
        match self.observation {
            ObservationState::Requested(asked, _) if now >= asked + OBSERVE_TIMEOUT => {
                // Asked again, in effect: the same look is still under way.
                self.observation = ObservationState::Requested(now, false);
                let effect = Effect {
                    acts: false,
                    seen: "it could not be looked at: the look hangs".into(),
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

    /// Takes a look, and says how it goes on; with the effect where that is news.
    pub(super) fn record_observation(
        &mut self,
        seen: &Effect,
        is_done: bool,
        now: Instant,
    ) -> (Option<Effect>, Progress) {
        let effect = self.total_effect(seen);
        let awaits = self
            .supervisor_return
            .as_ref()
            .is_some_and(AwaitedReturn::is_open);
        let is_one_shot = self.is_one_shot();
        let next = if !is_one_shot {
            // What goes by itself before its time, as an OOM-killed helper.
            let is_gone = is_done && now >= *self.gone_since.get_or_insert(now) + VANISHED_AFTER;
            if is_gone {
                Progress::Vanished
            } else {
                Progress::Continue
            }
        } else if self.next_round.is_some()
            || awaits
            || (!is_done && now < self.since + DEATH_TIMEOUT + self.grace())
        {
            Progress::Continue
        } else {
            Progress::Finished
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

    /// A helper that asks first has its grace.
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

    /// What it does, all its changes and rounds together; `seen` is what the last round's changes are seen to do.
    pub(super) fn total_effect(&self, seen: &Effect) -> Effect {
        let mut effect = self.before.clone();
        add(&mut effect, seen.clone());
        if let Some(supervisor_return) = &self.supervisor_return {
            supervisor_return.add_to(&mut effect);
        }
        effect
    }

    /// What was last seen of it.
    pub(super) fn last(&self) -> &Effect {
        &self.last
    }

    /// Takes the answer about a supervisor; of an earlier round it tells nothing any more.
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

    /// The number of the round.
    pub(super) fn round(&self) -> u64 {
        self.rounds
    }

    /// The request of the next round; what this one came to is kept.
    pub(super) fn next_round(&mut self, now: Instant) -> InjectionRequest {
        let mut so_far = self.last.clone();
        so_far.seen = String::new();
        self.before = so_far;
        self.supervisor_return = None;
        self.rounds += 1;
        let every = self.request.every.map_or(OBSERVE_INTERVAL, |every| every.0);
        // A machine that slept does not catch up on its rounds.
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

    /// Goes on with what the next round has applied.
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

    /// What is said of a round that came to nothing.
    pub(super) fn failed_round(&self, refusal: &Refusal) -> Effect {
        Effect {
            seen: format!("round {}: {}", self.rounds, refusal.what),
            ..self.before.clone()
        }
    }
}

pub(super) fn join(one: &str, other: &str) -> String {
    if one.is_empty() || other.is_empty() {
        format!("{one}{other}")
    } else {
        format!("{one}; {other}")
    }
}

/// Adds what one change does to what others do.
pub(super) fn add(effect: &mut Effect, more: Effect) {
    effect.acts |= more.acts;
    effect.seen = join(&effect.seen, &more.seen);
    for (name, figure) in more.figures {
        *effect.figures.entry(name).or_insert(0.0) += figure;
    }
    effect.unmet = effect.unmet.take().or(more.unmet);
}
