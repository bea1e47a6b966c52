//! Faults: what agents are asked to inject, and what they say about it.

use super::{Note, Runner, play};
use crate::link::Heard;
use backburn_experiments::Span;
use backburn_experiments::check::{Rule, Watch};
use backburn_experiments::journal::{AbortBy, Event};
use backburn_experiments::wire::{
    Cause, Command, Effect, Ended, InjectionId, PlanView, Refusal, Report, WatchRule,
};
use serde_json::json;
use std::time::Duration;

/// How long an agent may take to inject, and to end what is over, before we stop believing in it.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// An injection of this run, and which activity waits for it.
pub(super) struct Injecting {
    pub(super) index: usize,
    /// Who was asked.
    pub(super) agent: String,
    request: u64,
    /// Whether it was last seen to act; none before it was seen at all.
    acts: Option<bool>,
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
        let open = self.record.run.open().count();
        if let Some(most) = most.filter(|most| open + requests.len() > *most as usize) {
            let reason = format!(
                "{} faults at a time, where the blast radius allows {most}",
                open + requests.len()
            );
            return self.abort(AbortBy::BlastRadius, "blast-radius", reason);
        }
        for (name, injection) in requests {
            let Some(agent) = self.agents.get(&name) else {
                return self.done(index, play::Result::failed("no agent takes part"));
            };
            let caller = agent.caller().clone();
            let id = injection.id.clone();
            let activity = self
                .experiment
                .method
                .get(index)
                .map(|activity| activity.name.clone())
                .unwrap_or_default();
            let asked = Event::InjectionRequested {
                injection: id.clone(),
                activity,
                fault: injection.fault.clone(),
                agent: name.clone(),
            };
            let first = self.injecting.is_empty();
            if !self.put(asked) {
                return;
            }
            if let (true, Some(longest)) = (first, self.radius()) {
                self.remind(longest.0, Note::RadiusOver(longest));
            }
            let request = caller.request();
            self.injecting.insert(
                id.clone(),
                Injecting {
                    index,
                    agent: name,
                    request,
                    acts: None,
                },
            );
            caller.say(Command::Inject { request, injection });
            let why = format!("no answer within {}", Span(ANSWER_WITHIN));
            self.remind(ANSWER_WITHIN, Note::Overdue { injection: id, why });
        }
    }

    fn radius(&self) -> Option<Span> {
        self.experiment
            .document
            .blast_radius
            .as_ref()
            .and_then(|radius| radius.duration)
    }

    fn remind(&mut self, after: Duration, note: Note) {
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
                let rules = rules.clone();
                agent.caller().say(Command::Watch { rules });
            }
        }
    }

    pub(super) fn radius_over(&mut self, longest: Span) {
        if !self.over()
            && self.record.run.phase == Some(backburn_experiments::journal::Phase::Method)
        {
            self.abort(
                AbortBy::BlastRadius,
                "blast-radius",
                format!("the run's {longest} were over"),
            );
        }
    }

    /// What should have come has not. Only what nothing was heard of, or what should be over, is late.
    pub(super) fn overdue(&mut self, injection: &str, why: String) {
        let acting = self
            .record
            .run
            .injections
            .get(injection)
            .is_some_and(|found| found.plan.is_some());
        let should_be_over = why.starts_with("it should");
        if self.record.run.is_open(injection) && acting == should_be_over && !self.over() {
            self.abort(
                AbortBy::Agent,
                "agent",
                format!("injection `{injection}`: {why}"),
            );
        }
    }

    pub(super) fn heard(&mut self, agent: &str, heard: Heard) {
        match heard {
            Heard::Report(report) => self.reported(agent, *report),
            Heard::Closed(why) => self.closed(agent, why),
            Heard::Exited(code) => self.exited(agent, code),
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
            Report::Struck { rule, seen } => self.abort(AbortBy::Host, &rule, seen),
            // Answers to questions of tasks that were ended since.
            Report::Hello(_)
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
        let known = self.plans.iter().find(|plan| plan.request.id == *injection);
        let duration = known.and_then(|plan| plan.request.duration);
        self.put(Event::Injected {
            injection: injection.clone(),
            plan,
        });
        if let Some(Span(duration)) = duration {
            let late = duration + ANSWER_WITHIN;
            let why = format!(
                "it should have ended after {}, and has not after {}",
                Span(duration),
                Span(late)
            );
            self.remind(
                late,
                Note::Overdue {
                    injection: injection.clone(),
                    why,
                },
            );
        }
    }

    fn refused(&mut self, agent: &str, request: u64, refusal: Refusal) {
        let Some(injection) = self
            .injecting
            .iter()
            .find(|(_, injecting)| injecting.agent == agent && injecting.request == request)
            .map(|(id, _)| id.clone())
        else {
            return;
        };
        let reason = refusal.to_string();
        let rule = refusal.rule.clone();
        self.put(Event::InjectionRefused {
            injection: injection.clone(),
            refusal,
        });
        // Nothing starts in a run that is being ended: a refusal is what we want then.
        if !self.over() {
            let index = self
                .injecting
                .get(&injection)
                .map(|injecting| injecting.index);
            if let Some(index) = index {
                self.done(index, play::Result::failed(reason.clone()));
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
            self.put(Event::EffectSeen {
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
        self.put(Event::InjectionEnded(ended));
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
        let open = self
            .injecting
            .iter()
            .any(|(id, other)| other.index == index && self.record.run.is_open(id));
        if !open && cause != Cause::Rule {
            let result = match cause {
                Cause::Failed => {
                    play::Result::failed(format!("injection `{id}` ended before its time"))
                }
                _ => play::Result::succeeded(output),
            };
            self.done(index, result);
        }
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
