//! Faults: what agents are asked to inject, and what they say about it.

use super::{Runner, RunnerEvent, activities};
use crate::agent_connection::{AgentEvent, EventKind};
use backburn_experiments::Span;
use backburn_experiments::check::{Rule, Watch};
use backburn_experiments::journal::{AbortBy, Event};
use backburn_experiments::wire::{
    Cause, Command, Effect, Ended, InjectionId, PlanView, Refusal, Report, WatchRule,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long an agent that lives may take to inject: it waits for its turn, looks, and starts helpers.
const INJECT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long what should be over may take to be put back and said to be.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// An injection of this run, and which activity waits for it.
pub(super) struct ActiveInjection {
    pub(super) index: usize,
    /// Who was asked.
    pub(super) agent: String,
    /// How long it is to act.
    duration: Option<Span>,
    /// Whether it was last seen to act; none before it was seen at all.
    acts: Option<bool>,
}

/// What should have come of an injection by some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// The agent's answer.
    Answer,
    /// Its end.
    End,
}

impl Runner {
    /// Asks for every injection of this activity, as it was planned.
    pub(super) fn inject(&mut self, index: usize) {
        let requests: Vec<_> = self
            .plans
            .iter()
            .filter(|plan| plan.index == index)
            .map(|plan| (plan.agent.clone(), plan.request.clone()))
            .collect();
        let most = self
            .experiment
            .document
            .blast_radius
            .as_ref()
            .and_then(|radius| radius.concurrent_faults);
        let open = self.log.run.open().count();
        if let Some(most) = most.filter(|most| open + requests.len() > *most as usize) {
            let reason = format!(
                "{} faults at a time, where the blast radius allows {most}",
                open + requests.len()
            );
            return self.abort(AbortBy::BlastRadius, "blast-radius", reason);
        }
        if requests
            .iter()
            .any(|(name, _)| !self.agents.contains_key(name))
        {
            return self.done(
                index,
                activities::ActivityResult::failed("no agent takes part"),
            );
        }
        let activity = self.experiment.method.get(index);
        let activity = activity.map(|activity| activity.name.clone());
        // All of them are written down, by one write, before the first is asked for.
        for (name, injection) in &requests {
            let asked = Event::InjectionRequested {
                injection: injection.id.clone(),
                activity: activity.clone().unwrap_or_default(),
                fault: injection.fault.clone(),
                agent: name.clone(),
            };
            if !self.record_buffered(asked) {
                return;
            }
        }
        if !self.flush() {
            return;
        }
        if let (true, Some(longest)) = (self.injecting.is_empty(), self.radius()) {
            self.remind(longest.0, RunnerEvent::RadiusOver(longest));
        }
        let late = Instant::now() + INJECT_TIMEOUT;
        self.acting.insert(index, requests.len());
        self.told_to_revert = false;
        for (name, injection) in requests {
            let Some(agent) = self.agents.get_mut(&name) else {
                continue;
            };
            let (handle, id) = (agent.handle(), injection.id.clone());
            let request = handle.next_request_id();
            let duration = injection.duration;
            handle.send(Command::Inject { request, injection });
            agent.asked.push((request, id.clone()));
            self.due.insert((late, Deadline::Answer, id.clone()));
            let injecting = ActiveInjection {
                index,
                agent: name,
                duration,
                acts: None,
            };
            self.injecting.insert(id, injecting);
        }
    }

    fn radius(&self) -> Option<Span> {
        self.experiment
            .document
            .blast_radius
            .as_ref()
            .and_then(|radius| radius.duration)
    }

    fn remind(&mut self, after: Duration, note: RunnerEvent) {
        let tell = self.tell.clone();
        self.timers.spawn(async move {
            tokio::time::sleep(after).await;
            tell.send(note).ok();
        });
    }

    /// From now on the agent watches its host by itself, so that it works without us.
    pub(super) fn watch_hosts(&self) {
        let rules: Vec<WatchRule> = self.experiment.abort.iter().filter_map(watched).collect();
        if !rules.is_empty() {
            for agent in self.agents.values() {
                let (run, rules) = (self.settings.run.clone(), rules.clone());
                agent.handle().send(Command::Watch { run, rules });
            }
        }
    }

    pub(super) fn radius_over(&mut self, longest: Span) {
        if !self.over() && self.log.run.phase == Some(backburn_experiments::journal::Phase::Method)
        {
            self.abort(
                AbortBy::BlastRadius,
                "blast-radius",
                format!("the run's {longest} were over"),
            );
        }
    }

    /// What should have come has not. Only what nothing was heard of, or what should be over, is late.
    pub(super) fn late(&mut self) {
        while let Some((_, due, injection)) = self
            .due
            .first()
            .is_some_and(|(at, ..)| *at <= Instant::now())
            .then(|| self.due.pop_first())
            .flatten()
        {
            let found = self.log.run.injections.get(&injection);
            let acting = found.is_some_and(|found| found.plan.is_some());
            if !self.log.run.is_open(&injection) || self.over() {
                continue;
            }
            let own = self.injecting.get(&injection);
            let lasts = own.and_then(|own| own.duration).unwrap_or_default();
            let why = match due {
                Deadline::Answer if !acting => format!("no answer within {}", Span(INJECT_TIMEOUT)),
                Deadline::End if acting => format!(
                    "it should have ended after {lasts}, and has not after {}",
                    Span(lasts.0 + END_TIMEOUT)
                ),
                Deadline::Answer | Deadline::End => continue,
            };
            self.abort(
                AbortBy::Agent,
                "agent",
                format!("injection `{injection}`: {why}"),
            );
        }
    }

    pub(super) fn heard(&mut self, event: AgentEvent) {
        let AgentEvent {
            agent,
            connection,
            kind,
        } = event;
        let agent = &*agent;
        let known = self.agents.get(agent);
        // One that was lost may still have had something to say: the next one's ledger has the last word.
        if known.is_none_or(|known| !known.speaks_over(connection)) {
            return;
        }
        match kind {
            EventKind::Report(report) => self.reported(agent, *report),
            EventKind::Unresponsive(silence) => self.unresponsive(agent, silence),
            // Its run is being ended, and what it says counts as before.
            EventKind::RespondsAgain => {}
            EventKind::Closed(why) => self.closed(agent, why),
            EventKind::Exited(code) => self.exited(agent, code),
        }
    }

    fn reported(&mut self, agent: &str, report: Report) {
        match report {
            Report::Injected {
                injection, plan, ..
            } => self.injected(agent, &injection, plan),
            Report::Refused { request, refusal } => self.refused(agent, request, refusal),
            Report::Effect { injection, effect } => self.effect(agent, &injection, effect),
            Report::Ended(ended) => self.ended(agent, ended),
            Report::AllReverted { request, owed, .. } => self.all_reverted(agent, request, owed),
            Report::Struck { run, rule, seen } if run == self.settings.run => {
                self.abort(AbortBy::Host, &rule, seen);
            }
            // Another run's, which shares the agent with us.
            Report::Struck { .. } => {}
            // Answers to questions of tasks that were ended since.
            Report::Hello(_)
            | Report::Alive
            | Report::Planned { .. }
            | Report::Described { .. }
            | Report::Probed { .. }
            | Report::Measured { .. } => {}
        }
    }

    fn injected(&mut self, agent: &str, injection: &InjectionId, plan: PlanView) {
        if !self.is_open_on(agent, injection) {
            return;
        }
        let own = self.injecting.get(injection);
        let duration = own.and_then(|own| own.duration);
        self.record_buffered(Event::Injected {
            injection: injection.clone(),
            plan,
        });
        let late = duration.and_then(|Span(duration)| {
            let late = Instant::now().checked_add(duration)?;
            late.checked_add(END_TIMEOUT)
        });
        if let Some(late) = late {
            self.due.insert((late, Deadline::End, injection.clone()));
        }
    }

    fn refused(&mut self, agent: &str, request: u64, refusal: Refusal) {
        let asked = self.agents.get(agent).into_iter();
        let mut asked = asked.flat_map(|agent| &agent.asked);
        let Some((_, injection)) = asked.find(|(asked, _)| *asked == request).cloned() else {
            return;
        };
        let reason = refusal.to_string();
        let rule = refusal.rule.clone();
        let was_open = self.log.run.is_open(&injection);
        self.record_buffered(Event::InjectionRefused {
            injection: injection.clone(),
            refusal,
        });
        if was_open {
            self.no_longer_acting(&injection);
        }
        // Nothing starts in a run that is being ended: a refusal is what we want then.
        if !self.over() {
            let index = self
                .injecting
                .get(&injection)
                .map(|injecting| injecting.index);
            if let Some(index) = index {
                self.done(index, activities::ActivityResult::failed(reason.clone()));
            }
            self.abort(AbortBy::Action, &rule, reason);
        }
    }

    /// Journals the first look at an effect and each change of whether it acts; its end tells the last.
    fn effect(&mut self, agent: &str, injection: &InjectionId, effect: Effect) {
        let Some(injecting) = (self.injecting.get_mut(injection)).filter(|own| own.agent == agent)
        else {
            return;
        };
        if injecting.acts != Some(effect.acts) {
            injecting.acts = Some(effect.acts);
            self.record_buffered(Event::EffectSeen {
                injection: injection.clone(),
                effect,
            });
        }
    }

    pub(super) fn ended(&mut self, agent: &str, ended: Ended) {
        let Some(injecting) = self.injecting.get(&ended.injection) else {
            return;
        };
        let index = injecting.index;
        // Nobody tells of what was asked of somebody else.
        if !self.is_open_on(agent, &ended.injection) {
            return;
        }
        let (id, cause, clean) = (ended.injection.clone(), ended.cause, ended.clean);
        let residue = ended.residue.join("; ");
        let output = json!({"cause": cause, "effect": ended.effect});
        let known = self.log.run.injections.get(&id);
        let was_injected = known.is_some_and(|known| known.plan.is_some());
        self.record_buffered(Event::InjectionEnded(ended));
        let left = self.no_longer_acting(&id);
        if self.over() && clean {
            return;
        }
        if !clean {
            return self.abort(
                AbortBy::Revert,
                "revert",
                format!("injection `{id}` was not put back: {residue}"),
            );
        }
        match cause {
            // The refusal that follows ends the run, where it failed to begin.
            Cause::Done | Cause::Asked | Cause::Failed => {}
            // The rule itself follows.
            Cause::Rule => {}
            Cause::Lease => {
                return self.abort(
                    AbortBy::Agent,
                    "lease",
                    format!("the agent did not hear from us and put `{id}` back"),
                );
            }
            Cause::ByHand => {
                return self.abort(
                    AbortBy::Operator,
                    "revert",
                    format!("`{id}` was put back by hand"),
                );
            }
            Cause::Link | Cause::Shutdown | Cause::Died => {
                return self.abort(
                    AbortBy::Agent,
                    "agent",
                    format!("the agent ended and put `{id}` back"),
                );
            }
        }
        if left == 0 && cause != Cause::Rule {
            let result = match cause {
                Cause::Failed if !was_injected => activities::ActivityResult::failed(format!(
                    "injection `{id}` could not be made"
                )),
                Cause::Failed => activities::ActivityResult::failed(format!(
                    "injection `{id}` ended before its time"
                )),
                _ => activities::ActivityResult::succeeded(output),
            };
            self.done(index, result);
        }
    }
}

impl Runner {
    /// One injection of an activity is over. How many of it are not.
    fn no_longer_acting(&mut self, injection: &str) -> usize {
        let index = self.injecting.get(injection).map(|own| own.index);
        let acting = index.and_then(|index| self.acting.get_mut(&index));
        acting.map_or(0, |acting| {
            *acting = acting.saturating_sub(1);
            *acting
        })
    }
}

/// The part of an abort rule that an agent can watch.
fn watched(rule: &Rule) -> Option<WatchRule> {
    let Watch::Host(host) = &rule.watch else {
        return None;
    };
    Some(WatchRule {
        name: rule.name.clone(),
        host: host.clone(),
        every: rule.every,
        failures: rule.failures.max(1),
    })
}
