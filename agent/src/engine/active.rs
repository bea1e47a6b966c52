//! An injection that acts: when it ends, when it is looked at, and what was seen. Looks at nothing itself.

use super::awaited::{Awaited, Expectation, Return};
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{Effect, InjectionRequest, Refusal};
use std::time::{Duration, Instant};

/// How often an effect is looked at while it acts as it should.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// How often, while something is awaited: a victim's death, a supervisor's answer.
const AWAIT_EACH: Duration = Duration::from_millis(20);
/// How long what should act must be gone until that is called a failure: whoever reverts it by hand ends its helper first, and
/// strikes it from the ledger after that.
const GONE_FOR: Duration = Duration::from_millis(250);
/// How long a killed process may take to leave.
const DEATH: Duration = Duration::from_secs(5);
/// How long a look may take until it is said that nothing was seen.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Active {
    request: InjectionRequest,
    pub(super) entry: LedgerEntry,
    /// When it is over whatever happens; a one-shot fault ends when it is done.
    ends: Option<Instant>,
    look: Look,
    /// Since when it has been seen to be gone by itself.
    gone_since: Option<Instant>,
    next_round: Option<Instant>,
    rounds: u64,
    /// When the last round began.
    since: Instant,
    awaited: Option<Awaited>,
    /// What earlier rounds came to.
    before: Effect,
    last: Effect,
}

/// When it is looked at.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// It is due then.
    Due(Instant),
    /// The observer was asked then; whether it is to look once more after that.
    Asked(Instant, bool),
}

/// What a look comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// A one-shot fault has nothing more to do.
    Done,
    /// What should act has gone by itself.
    Gone,
}

impl Active {
    pub(super) fn new(
        request: &InjectionRequest,
        entry: LedgerEntry,
        expected: Option<&Expectation>,
        started: Instant,
    ) -> Self {
        Active {
            entry,
            ends: request
                .duration
                .and_then(|duration| started.checked_add(duration.0)),
            look: Look::Due(started),
            gone_since: None,
            next_round: request.every.and_then(|every| started.checked_add(every.0)),
            rounds: 1,
            since: started,
            awaited: expected.map(|expected| Awaited::new(expected, started)),
            before: Effect::default(),
            last: Effect::default(),
            request: request.clone(),
        }
    }

    /// When something is to be done.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // A round that is due waits for a last look at the one before.
        let (look, round) = match self.look {
            Look::Due(due) => (due, self.next_round),
            Look::Asked(asked, _) => (asked + LOOK_TIMEOUT, None),
        };
        [self.ends, round, Some(look)].into_iter().flatten().min()
    }

    /// Has it looked at now; once more, where it is being looked at.
    pub(super) fn look_at(&mut self, now: Instant) {
        self.look = match self.look {
            Look::Due(_) => Look::Due(now),
            Look::Asked(asked, _) => Look::Asked(asked, true),
        };
    }

    /// Whether it is to be looked at now; it counts as asked for then.
    pub(super) fn is_to_be_looked_at(&mut self, now: Instant) -> bool {
        match self.look {
            Look::Due(due) if due <= now => {
                self.look = Look::Asked(now, false);
                true
            }
            _ => false,
        }
    }

    /// What is to be said where a look takes too long: once, until it is done.
    pub(super) fn look_is_late(&mut self, now: Instant) -> Option<Effect> {
        match self.look {
            Look::Asked(asked, _) if now >= asked + LOOK_TIMEOUT => {
                // Asked again, in effect: the same look is still under way.
                self.look = Look::Asked(now, false);
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
    pub(super) fn looked(
        &mut self,
        seen: &Effect,
        is_done: bool,
        now: Instant,
    ) -> (Option<Effect>, Next) {
        let effect = self.total(seen);
        let awaits = self.awaited.as_ref().is_some_and(Awaited::is_open);
        let is_one_shot = self.is_one_shot();
        let next = if !is_one_shot {
            // What goes by itself before its time, as an OOM-killed helper.
            let is_gone = is_done && now >= *self.gone_since.get_or_insert(now) + GONE_FOR;
            if is_gone { Next::Gone } else { Next::GoOn }
        } else if self.next_round.is_some()
            || awaits
            || (!is_done && now < self.since + DEATH + self.grace())
        {
            Next::GoOn
        } else {
            Next::Done
        };
        let hurry = if is_one_shot {
            awaits || !is_done
        } else {
            is_done
        };
        self.look = match self.look {
            Look::Asked(_, true) => Look::Due(now),
            _ => Look::Due(now + if hurry { AWAIT_EACH } else { LOOK_EACH }),
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
    pub(super) fn total(&self, seen: &Effect) -> Effect {
        let mut effect = self.before.clone();
        add(&mut effect, seen.clone());
        if let Some(awaited) = &self.awaited {
            awaited.tell(&mut effect);
        }
        effect
    }

    /// What was last seen of it.
    pub(super) fn last(&self) -> &Effect {
        &self.last
    }

    /// Takes the answer about a supervisor; of an earlier round it tells nothing any more.
    pub(super) fn returned(&mut self, round: u64, answer: Result<Return, String>, now: Instant) {
        if round == self.rounds
            && let Some(awaited) = &mut self.awaited
        {
            awaited.take(answer);
            self.look_at(now);
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
        self.awaited = None;
        self.rounds += 1;
        let every = self.request.every.map_or(LOOK_EACH, |every| every.0);
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
    pub(super) fn goes_on(
        &mut self,
        entry: LedgerEntry,
        expected: Option<&Expectation>,
        started: Instant,
    ) {
        self.entry = entry;
        self.since = started;
        self.awaited = expected.map(|expected| Awaited::new(expected, started));
        self.before
            .figures
            .insert("rounds".into(), self.rounds as f64);
        self.look_at(started + AWAIT_EACH);
    }

    /// What is said of a round that came to nothing.
    pub(super) fn fails(&self, refusal: &Refusal) -> Effect {
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
