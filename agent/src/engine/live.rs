//! An injection that acts: when it ends, when it is looked at, and what was seen.

use crate::changes::Alter as _;
use crate::faults::{Expectation, Plan};
use crate::host::Host;
use crate::ledger::LedgerEntry;
use crate::processes::ProcessId;
use backburn_experiments::Span;
use backburn_experiments::wire::{Effect, InjectionRequest, Refusal};
use std::time::{Duration, Instant};

/// How often an effect is looked at while it acts as it should.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// How often, while something is awaited: a victim's death, a supervisor's answer.
const AWAIT_EACH: Duration = Duration::from_millis(20);
/// How long a killed process may take to leave.
const DEATH: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Live {
    request: InjectionRequest,
    pub(super) entry: LedgerEntry,
    /// When it is over whatever happens; a one-shot fault ends when it is done.
    ends: Option<Instant>,
    next_look: Instant,
    next_round: Option<Instant>,
    rounds: u64,
    /// When the last round began.
    since: Instant,
    wait: Option<Wait>,
    /// What earlier rounds came to.
    before: Effect,
    last: Effect,
}

/// A supervisor is awaited.
#[derive(Debug)]
struct Wait {
    expectation: Expectation,
    until: Instant,
    back: Option<(Duration, Vec<ProcessId>)>,
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

impl Live {
    pub(super) fn new(
        request: &InjectionRequest,
        entry: LedgerEntry,
        plan: Plan,
        started: Instant,
    ) -> Self {
        Live {
            entry,
            ends: request.duration.map(|duration| started + duration.0),
            next_look: started,
            next_round: request.every.map(|every| started + every.0),
            rounds: 1,
            since: started,
            wait: Wait::for_plan(plan, started),
            before: Effect::default(),
            last: Effect::default(),
            request: request.clone(),
        }
    }

    pub(super) fn next_due(&self) -> Instant {
        [self.ends, self.next_round]
            .into_iter()
            .flatten()
            .fold(self.next_look, Instant::min)
    }

    pub(super) fn look_at(&mut self, now: Instant) {
        self.next_look = now;
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

    /// Looks at what it does and says how it goes on; with the effect where that is news.
    pub(super) fn sample(&mut self, host: &Host, now: Instant) -> (Option<Effect>, Next) {
        if let Some(wait) = &mut self.wait {
            wait.look(host, self.since);
        }
        let effect = self.effect(host);
        let done = self.entry.changes.iter().all(|change| change.is_done(host));
        let awaited = self
            .wait
            .as_ref()
            .is_some_and(|wait| wait.back.is_none() && now < wait.until);
        let next = if !self.is_one_shot() {
            // What goes by itself before its time: an OOM-killed helper, victims that all died.
            if done { Next::Gone } else { Next::GoOn }
        } else if self.next_round.is_some()
            || awaited
            || (!done && now < self.since + DEATH + self.grace())
        {
            Next::GoOn
        } else {
            Next::Done
        };
        let hurry = self.is_one_shot() && (awaited || !done);
        self.next_look = now + if hurry { AWAIT_EACH } else { LOOK_EACH };
        let news = effect != self.last;
        self.last.clone_from(&effect);
        (news.then_some(effect), next)
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

    /// What it is seen to do, all its changes and rounds together.
    pub(super) fn effect(&self, host: &Host) -> Effect {
        let mut effect = self.before.clone();
        for change in &self.entry.changes {
            add(&mut effect, change.effect(host));
        }
        if let Some(wait) = &self.wait {
            wait.tell(&mut effect);
        }
        effect
    }

    /// The request of the next round; what this one came to is kept.
    pub(super) fn next_round(&mut self, host: &Host, now: Instant) -> InjectionRequest {
        if let Some(wait) = &mut self.wait {
            wait.look(host, self.since);
        }
        let mut so_far = self.effect(host);
        so_far.seen = String::new();
        self.before = so_far;
        self.wait = None;
        self.rounds += 1;
        let every = self.request.every.map_or(LOOK_EACH, |every| every.0);
        self.next_round = Some(self.next_round.map_or(now, |round| round) + every);
        // A machine that slept does not catch up on its rounds.
        if self.next_round.is_some_and(|round| round <= now) {
            self.next_round = Some(now + every);
        }
        InjectionRequest {
            seed: self.request.seed.wrapping_add(self.rounds),
            ..self.request.clone()
        }
    }

    pub(super) fn goes_on(
        &mut self,
        entry: LedgerEntry,
        plan: Plan,
        now: Instant,
        host: &Host,
    ) -> Effect {
        self.entry = entry;
        self.since = now;
        self.wait = Wait::for_plan(plan, now);
        self.next_look = now + AWAIT_EACH;
        let mut effect = self.effect(host);
        effect.figures.insert("rounds".into(), self.rounds as f64);
        effect
    }

    pub(super) fn skips(&mut self, refusal: &Refusal) -> Effect {
        self.entry.changes.clear();
        self.fails(refusal)
    }

    pub(super) fn fails(&self, refusal: &Refusal) -> Effect {
        Effect {
            seen: format!("round {}: {}", self.rounds, refusal.what),
            ..self.before.clone()
        }
    }
}

impl Wait {
    fn for_plan(plan: Plan, now: Instant) -> Option<Self> {
        let expectation = plan.expect?;
        Some(Wait {
            until: now + expectation.within.0,
            expectation,
            back: None,
        })
    }

    fn look(&mut self, host: &Host, since: Instant) {
        if self.back.is_some() {
            return;
        }
        let Expectation {
            number,
            selector,
            known,
            ..
        } = &self.expectation;
        // Nobody there yet is what one waits through.
        let Ok(found) = selector.find(
            "$.process",
            &host.table,
            &crate::processes::Protection::default(),
            0,
        ) else {
            return;
        };
        let new: Vec<ProcessId> = found
            .victims
            .iter()
            .map(|process| process.id)
            .filter(|id| !known.contains(id))
            .collect();
        if new.len() >= *number {
            self.back = Some((since.elapsed(), new));
        }
    }

    fn tell(&self, effect: &mut Effect) {
        match &self.back {
            Some((after, new)) => {
                let said = format!(
                    "back after {} as {}",
                    Span::from(*after),
                    crate::changes::listed(new)
                );
                effect.seen = join(&effect.seen, &said);
                let longest = effect
                    .figures
                    .entry("back-after-seconds".into())
                    .or_insert(0.0);
                *longest = longest.max(after.as_secs_f64());
            }
            None if Instant::now() < self.until => effect.seen = join(&effect.seen, "not back yet"),
            None => {
                let said = format!("not back within {}", self.expectation.within);
                effect.seen = join(&effect.seen, &said);
                effect.unmet = Some(format!("what was killed was {said}"));
            }
        }
    }
}

fn join(one: &str, other: &str) -> String {
    if one.is_empty() {
        other.to_owned()
    } else {
        format!("{one}; {other}")
    }
}

/// Adds what one change does to what others do.
fn add(effect: &mut Effect, more: Effect) {
    effect.acts |= more.acts;
    effect.seen = join(&effect.seen, &more.seen);
    for (name, figure) in more.figures {
        *effect.figures.entry(name).or_insert(0.0) += figure;
    }
    effect.unmet = effect.unmet.take().or(more.unmet);
}
