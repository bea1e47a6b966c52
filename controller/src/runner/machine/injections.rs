//! The injections of a run: what is planned, what acts, and by when an answer or an end is due.

use crate::runner::selection::PlannedInjection;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{InjectionId, InjectionRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All injections of the run.
#[derive(Default)]
pub(super) struct Injections {
    planned: Vec<PlannedInjection>,
    /// How many plans were not answered.
    unanswered: usize,
    active: BTreeMap<InjectionId, RequestedInjection>,
    /// How many injections of each activity are not known to be over.
    acting: BTreeMap<usize, usize>,
    deadlines: BTreeSet<(Duration, InjectionDeadline)>,
}

/// An injection that an agent was asked for.
pub(super) struct RequestedInjection {
    /// The place of its activity in the method.
    pub(super) activity: usize,
    /// The agent that was asked.
    pub(super) agent: String,
    /// How long it is to act; none for a one-shot fault.
    pub(super) duration: Option<HumanDuration>,
    /// Whether it was last seen to act; none before it was seen at all.
    pub(super) acts: Option<bool>,
}

/// What is due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InjectionDeadline {
    /// The agent's answer to the request for this injection.
    Answer(InjectionId),
    /// This injection's end.
    End(InjectionId),
    /// The end of all faults, by the blast radius' duration.
    BlastRadius(HumanDuration),
}

impl Injections {
    /// These are to be planned by their agents.
    pub(super) fn plan(&mut self, planned: Vec<PlannedInjection>) {
        self.unanswered = planned.len();
        self.planned = planned;
    }

    /// A plan was answered. The injection that it is about.
    pub(super) fn answered(&mut self, index: usize) -> Option<&PlannedInjection> {
        let planned = self.planned.get(index)?;
        self.unanswered = self.unanswered.saturating_sub(1);
        Some(planned)
    }

    /// The planned injection of this id, with its place in the plan. Its number ends its id, and counts from 1.
    pub(super) fn planned_of(&self, injection: &str) -> Option<(usize, &PlannedInjection)> {
        let number: usize = injection.rsplit('-').next()?.parse().ok()?;
        let index = number.checked_sub(1)?;
        Some((index, self.planned.get(index)?))
    }

    /// Whether every plan was answered.
    pub(super) fn are_planned(&self) -> bool {
        self.unanswered == 0
    }

    /// The injections of this activity, each with its agent.
    pub(super) fn of_activity(&self, activity: usize) -> Vec<(String, InjectionRequest)> {
        self.planned
            .iter()
            .filter(|planned| planned.activity == activity)
            .map(|planned| (planned.agent.clone(), planned.request.clone()))
            .collect()
    }

    /// Whether nothing was ever asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// An agent is asked for this injection, and is to answer by this time.
    pub(super) fn ask(
        &mut self,
        activity: usize,
        agent: String,
        request: &InjectionRequest,
        answer_by: Duration,
    ) {
        let id = request.id.clone();
        self.add_deadline(answer_by, InjectionDeadline::Answer(id.clone()));
        *self.acting.entry(activity).or_default() += 1;
        let injection = RequestedInjection {
            activity,
            agent,
            duration: request.duration,
            acts: None,
        };
        self.active.insert(id, injection);
    }

    pub(super) fn get(&self, injection: &str) -> Option<&RequestedInjection> {
        self.active.get(injection)
    }

    pub(super) fn get_mut(&mut self, injection: &str) -> Option<&mut RequestedInjection> {
        self.active.get_mut(injection)
    }

    /// One injection is over. How many of its activity are not.
    pub(super) fn end(&mut self, injection: &str) -> usize {
        let index = self.active.get(injection).map(|active| active.activity);
        let acting = index.and_then(|index| self.acting.get_mut(&index));
        acting.map_or(0, |acting| {
            *acting = acting.saturating_sub(1);
            *acting
        })
    }

    pub(super) fn add_deadline(&mut self, at: Duration, deadline: InjectionDeadline) {
        self.deadlines.insert((at, deadline));
    }

    /// The next deadline that has passed, which is forgotten.
    pub(super) fn take_passed(&mut self, now: Duration) -> Option<InjectionDeadline> {
        let (at, _) = self.deadlines.first()?;
        (*at <= now)
            .then(|| self.deadlines.pop_first())?
            .map(|(_, deadline)| deadline)
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Nothing is due any more.
    pub(super) fn clear_deadlines(&mut self) {
        self.deadlines.clear();
    }
}
