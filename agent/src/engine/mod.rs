//! The only caller of `apply` and `undo`. Look, plan, policy, refuse overlap with what is owed,
//! write the ledger, apply, observe; and the way back: undo, observe, and only then strike the
//! entry out. Planned means owed; owed means reverted; nothing is ever re-injected.

mod live;
mod revert;

pub use revert::{revert_dead, revert_entry};

use crate::changes::{Alter as _, Observed};
use crate::faults::{self, Look, Plan};
use crate::filter::Connection;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, Owner};
use crate::policy::Policy;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::{Cause, Ended, InjectionRequest, Owed, PlanView, Refusal, Report};
use backburn_experiments::{Problem, Span};
use live::Live;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the ledger's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// One agent's injections on this host.
#[derive(Debug)]
pub struct Engine {
    /// The door to the machine.
    pub host: Host,
    /// What is owed.
    pub ledger: Ledger,
    policy: Policy,
    owner: Owner,
    live: BTreeMap<String, Live>,
    /// What no fault may cut.
    link: Option<Connection>,
}

/// An injection that was not made. What it had done is put back, or owed.
#[derive(Debug)]
pub struct NotInjected {
    /// Why.
    pub refusal: Refusal,
    /// What became of what it had done already, if anything was.
    pub ended: Option<Box<Ended>>,
}

impl From<Refusal> for NotInjected {
    fn from(refusal: Refusal) -> Self {
        NotInjected {
            refusal,
            ended: None,
        }
    }
}

impl Engine {
    /// An engine that answers for its entries as `owner`.
    pub fn new(host: Host, ledger: Ledger, policy: Policy, owner: Owner) -> Self {
        Engine {
            host,
            ledger,
            policy,
            owner,
            live: BTreeMap::new(),
            link: None,
        }
    }

    /// Never touches this connection: the one that the engine is told over what to do.
    #[must_use]
    pub fn sparing(mut self, link: Option<Connection>) -> Self {
        self.link = link;
        self
    }

    /// What would be done; nothing is touched.
    ///
    /// # Errors
    /// It can't or may not be done.
    pub fn plan(&self, request: &InjectionRequest) -> Result<PlanView, Refusal> {
        self.look(request).map(|plan| plan.view())
    }

    /// Looks, plans, and holds the plan against the policy and against what others hold.
    fn look(&self, request: &InjectionRequest) -> Result<Plan, Refusal> {
        let fault = faults::find(&request.fault).ok_or_else(|| unknown_fault(&request.fault))?;
        check_request(request, fault.one_shot)?;
        let held = self.held(request)?;
        let look = Look {
            table: &self.host.table,
            protection: &self.policy.protect,
            spare_ports: self.policy.spare_ports(),
            spare_link: self.link,
            injection: &request.id,
            held: &held,
            duration: request.duration,
            seed: request.seed,
        };
        let plan = fault.plan(&request.arguments, &look)?;
        self.policy
            .permits(request, &plan.view(), self.live.len())?;
        refuse_overlap(&held, &plan)?;
        Ok(plan)
    }

    /// Carries a plan out: afterwards it acts, or nothing is left of it, or it is owed.
    ///
    /// # Errors
    /// It was refused, or failed and was reverted at once.
    pub fn inject(&mut self, request: &InjectionRequest) -> Result<PlanView, NotInjected> {
        let ledger = self.ledger.clone();
        let _lock = ledger.lock(LOCK_PATIENCE).map_err(|error| {
            Refusal::new("ledger", format!("the ledger's lock in {} can't be had: {error}", ledger.folder().display()))
                .hint("another agent of this host injects or reverts right now; `status` shows what is owed")
        })?;
        if self.ledger.owes(&request.id) || self.live.contains_key(&request.id) {
            return Err(Refusal::new(
                "overlap",
                format!("injection `{}` is there already", request.id),
            )
            .hint("every injection has an id of its own")
            .into());
        }
        let plan = self.look(request)?;
        let view = plan.view();
        let started = Instant::now();
        let entry = self.carry_out(request, &plan)?;
        self.live
            .insert(request.id.clone(), Live::new(request, entry, plan, started));
        Ok(view)
    }

    /// Writes the entry, applies and observes. On any failure, reverts.
    fn carry_out(
        &self,
        request: &InjectionRequest,
        plan: &Plan,
    ) -> Result<LedgerEntry, NotInjected> {
        let entry = LedgerEntry {
            version: 1,
            injection: request.id.clone(),
            run: request.run.clone(),
            fault: request.fault.clone(),
            victims: plan.victims.clone(),
            changes: plan.changes.clone(),
            owner: self.owner.clone(),
            stuck: Vec::new(),
        };
        if let Err(error) = self.ledger.write(&self.host, &entry) {
            // The rename may have happened although its sync failed: then it is owed like any other.
            let ended = self
                .ledger
                .owes(&request.id)
                .then(|| self.revert_now(&entry, Cause::Failed).into());
            let refusal = Refusal::new("ledger", error.to_string())
                .hint("nothing is injected that can't be written down; make room, or name another folder with `--state`");
            return Err(NotInjected { refusal, ended });
        }
        for change in &entry.changes {
            if let Err(error) = change.apply(&self.host) {
                let ended = Some(self.revert_now(&entry, Cause::Failed).into());
                return Err(NotInjected {
                    refusal: Refusal::new("failed", error.to_string()),
                    ended,
                });
            }
        }
        if !self.ledger.owes(&request.id) {
            // Somebody reverted it by hand while it was being applied, without the lock.
            let ended = Some(self.revert_now(&entry, Cause::ByHand).into());
            return Err(NotInjected {
                refusal: Refusal::new("failed", "it was reverted by hand meanwhile"),
                ended,
            });
        }
        Ok(entry)
    }

    fn revert_now(&self, entry: &LedgerEntry, cause: Cause) -> Ended {
        revert_entry(&self.host, &self.ledger, entry, cause)
    }

    /// What the ledger says is held by others than this injection, whoever's it is.
    fn held(&self, request: &InjectionRequest) -> Result<Vec<(String, String)>, Refusal> {
        let (entries, _) = self.ledger.entries().map_err(|error| {
            Refusal::new(
                "ledger",
                format!("{} can't be read: {error}", self.ledger.folder().display()),
            )
        })?;
        let others = entries.iter().filter(|entry| entry.injection != request.id);
        let held = others.flat_map(|entry| {
            let things = entry.changes.iter().flat_map(|change| change.holds());
            things.map(|thing| (thing, entry.injection.clone()))
        });
        Ok(held.collect())
    }

    /// Puts one injection back. None where it is not one of ours that acts.
    pub fn revert(&mut self, injection: &str, cause: Cause) -> Option<Ended> {
        let live = self.live.remove(injection)?;
        let _lock = self.ledger.lock_or_go_on(LOCK_PATIENCE);
        let effect = live.effect(&self.host);
        let mut ended = self.revert_now(&live.entry, cause);
        ended.effect = Some(effect);
        Some(ended)
    }

    /// Puts everything of ours back; of one run, where one is named.
    pub fn revert_all(&mut self, run: Option<&str>, cause: Cause) -> Vec<Ended> {
        let concerned = |live: &Live| run.is_none_or(|run| live.entry.run == run);
        let live = self.live.iter().filter(|(_, live)| concerned(live));
        let ids: Vec<String> = live.map(|(id, _)| id.clone()).collect();
        ids.iter().filter_map(|id| self.revert(id, cause)).collect()
    }

    /// Whether anything of this run's acts.
    pub fn acts_for(&self, run: &str) -> bool {
        self.live.values().any(|live| live.entry.run == run)
    }

    /// The machine that we run on, and what its owner allows.
    pub fn place(&self) -> (&Host, &Policy) {
        (&self.host, &self.policy)
    }

    /// Whether anything of ours acts.
    pub fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    /// When something is to be done next.
    pub fn next_due(&self) -> Option<Instant> {
        self.live.values().map(Live::next_due).min()
    }

    /// Does what is due: ends, repeats, looks at effects.
    pub fn tick(&mut self, now: Instant) -> Vec<Report> {
        let due: Vec<String> = self
            .live
            .iter()
            .filter(|(_, live)| live.next_due() <= now)
            .map(|(id, _)| id.clone())
            .collect();
        due.iter().flat_map(|id| self.tick_one(id, now)).collect()
    }

    /// A helper may have died: looks at everything at once.
    pub fn look_again(&mut self, now: Instant) -> Vec<Report> {
        self.host.reap();
        self.live.values_mut().for_each(|live| live.look_at(now));
        self.tick(now)
    }

    fn tick_one(&mut self, id: &str, now: Instant) -> Vec<Report> {
        let ended = |engine: &mut Self, cause| {
            engine
                .revert(id, cause)
                .map(Report::Ended)
                .into_iter()
                .collect()
        };
        let Some(live) = self.live.get_mut(id) else {
            return Vec::new();
        };
        if !self.ledger.owes(id) {
            return ended(self, Cause::ByHand);
        }
        if live.is_over(now) {
            return ended(self, Cause::Done);
        }
        if live.repeats(now) {
            return self.repeat(id, now);
        }
        let (effect, next) = live.sample(&self.host, now);
        match next {
            live::Next::GoOn => effect
                .map(|effect| Report::Effect {
                    injection: id.to_owned(),
                    effect,
                })
                .into_iter()
                .collect(),
            live::Next::Done => ended(self, Cause::Done),
            live::Next::Gone => ended(self, Cause::Failed),
        }
    }

    /// The next round of a one-shot fault: the host is looked at afresh.
    fn repeat(&mut self, id: &str, now: Instant) -> Vec<Report> {
        let Some(mut live) = self.live.remove(id) else {
            return Vec::new();
        };
        let _lock = self.ledger.lock_or_go_on(LOCK_PATIENCE);
        let request = live.next_round(&self.host, now);
        // What the round before still does is put back first: the entry is about to tell of the next.
        for change in live.entry.changes.iter().rev() {
            if let Err(error) = change.undo(&self.host) {
                tracing::warn!(injection = id, %error, "the round before could not be ended");
                let ended = self.revert_now(&live.entry, Cause::Failed);
                return vec![Report::Ended(ended)];
            }
        }
        let effect = match self.look(&request) {
            Ok(plan) => match self.carry_out(&request, &plan) {
                Ok(entry) => live.goes_on(entry, plan, now, &self.host),
                Err(NotInjected { refusal, ended }) => {
                    let mut ended = match ended {
                        Some(ended) => *ended,
                        None => self.revert_now(&live.entry, Cause::Failed),
                    };
                    ended.effect = Some(live.fails(&refusal));
                    return vec![Report::Ended(ended)];
                }
            },
            // Nobody there this time: the next round looks again.
            Err(refusal) => live.skips(&refusal),
        };
        self.live.insert(id.to_owned(), live);
        vec![Report::Effect {
            injection: id.to_owned(),
            effect,
        }]
    }

    /// What other agents of this host that are alive have in its ledger: theirs to put back.
    pub fn held_by_others(&self) -> Vec<backburn_experiments::wire::InjectionId> {
        let Ok((entries, _)) = self.ledger.entries() else {
            // `owed` says so.
            return Vec::new();
        };
        let others = entries.into_iter().filter(|entry| {
            entry.stuck.is_empty()
                && entry.owner != self.owner
                && !entry.owner.is_dead(&self.host.table)
        });
        others.map(|entry| entry.injection).collect()
    }

    /// What this host's ledger holds that could not be put back.
    pub fn owed(&self) -> Vec<Owed> {
        match self.ledger.entries() {
            Ok((entries, unreadable)) => entries
                .iter()
                .filter(|entry| !entry.stuck.is_empty())
                .map(LedgerEntry::owed)
                .chain(unreadable.iter().map(crate::ledger::Unreadable::owed))
                .collect(),
            Err(error) => vec![Owed {
                injection: String::new(),
                fault: "unknown".into(),
                residue: vec![format!(
                    "{} can't be read: {error}",
                    self.ledger.folder().display()
                )],
            }],
        }
    }
}

/// A thing is held by one injection at a time.
fn refuse_overlap(held: &[(String, String)], plan: &Plan) -> Result<(), Refusal> {
    let wanted: Vec<String> = plan
        .changes
        .iter()
        .flat_map(|change| change.holds())
        .collect();
    match held
        .iter()
        .find(|(thing, _)| wanted.iter().any(|wanted| overlap(thing, wanted)))
    {
        None => Ok(()),
        Some((thing, whose)) => Err(Refusal::new(
            "overlap",
            format!("`{thing}` is held by injection `{whose}`"),
        )
        .hint(format!(
            "wait for its end, or revert it: `backburn-agent revert {whose}`"
        ))),
    }
}

/// Whether two things that are held are one, or one is a part of the other: `cpu` and `cpu:1`.
fn overlap(one: &str, other: &str) -> bool {
    let part = |whole: &str, part: &str| {
        part.strip_prefix(whole)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    part(one, other) || part(other, one)
}

fn unknown_fault(name: &str) -> Refusal {
    let names = faults::FAULTS.iter().map(|fault| fault.name);
    let known: Vec<&str> = names.clone().collect();
    let refusal = Refusal::new("arguments", format!("there is no fault `{name}`"));
    match nearest(name, names) {
        Some(near) => refusal.hint(format!("`{near}`?")),
        None => refusal.hint(format!("there are {}", known.join(", "))),
    }
}

/// What a request must have besides its fault's arguments.
fn check_request(request: &InjectionRequest, one_shot: bool) -> Result<(), Refusal> {
    let named = request
        .id
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let mut problems = Vec::new();
    if request.id.is_empty() || request.id.len() > 32 || !named {
        problems.push(
            Problem::new("$", format!("`{}` is no injection id", request.id))
                .hint("lower-case letters, digits and `-`, at most 32"),
        );
    }
    match (one_shot, request.duration, request.every) {
        (false, None, _) => problems.push(
            Problem::new("$.duration", "a duration is missing")
                .hint("every fault ends by itself: say when, e.g. `30s`"),
        ),
        (false, _, Some(_)) => {
            problems.push(Problem::new("$.every", "only a one-shot fault is repeated"))
        }
        (true, None, Some(_)) => problems.push(
            Problem::new("$.duration", "a duration is missing").hint("say how long it is repeated"),
        ),
        (true, Some(_), None) => problems.push(
            Problem::new("$.duration", "a one-shot fault has no duration")
                .hint("leave it out, or repeat it with `every`"),
        ),
        _ => {}
    }
    if request
        .duration
        .is_some_and(|duration| duration.0.is_zero())
    {
        problems.push(Problem::new("$.duration", "a duration of nothing"));
    }
    if request.every.is_some_and(|every| every < Span::millis(10)) {
        problems.push(Problem::new("$.every", "too often").hint("10ms at the least"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal {
            problems,
            ..Refusal::new("arguments", "the injection is not usable")
        })
    }
}

/// Whether a change is seen to be gone; if not, in words for people.
fn still_there(host: &Host, change: &crate::changes::Change) -> Option<String> {
    match change.observe(host) {
        Ok(Observed::Absent) => None,
        Ok(Observed::Present(seen) | Observed::Contested(seen)) => Some(seen),
        Err(error) => Some(format!(
            "{} can't be looked at: {error}",
            change.view().kind
        )),
    }
}
