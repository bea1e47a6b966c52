//! What agents report of their injections and of themselves, and what follows from it.

use super::Machine;
use super::agents::is_open_on;
use super::run_stage::LostAgent;
use crate::runner::events::{ActivityResult, AgentReport, JoiningAgent, RunnerCommand};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{AbortBy, Event, InjectionState};
use backburn_experiments::wire::{
    Cause, Effect, EndedInjection, InjectionId, PlanView, Refusal, UnrevertedInjection,
};
use serde_json::json;
use std::time::Duration;

use super::END_TIMEOUT;
use super::injections::InjectionDeadline;

impl Machine {
    pub(super) fn reported(&mut self, agent: &str, report: AgentReport) {
        match report {
            AgentReport::Injected { injection, plan } => self.injected(agent, &injection, plan),
            AgentReport::Refused { injection, refusal } => {
                self.refused(agent, &injection, refusal);
            }
            AgentReport::Effect { injection, effect } => self.effect(agent, &injection, effect),
            AgentReport::Ended(ended) => self.ended(agent, ended),
            AgentReport::AllReverted(owed) => self.all_reverted(agent, &owed),
            AgentReport::AbortRuleTriggered { run, rule, seen } => {
                // Another run may share the agent with this one.
                if run == self.parameters.run {
                    self.abort(AbortBy::Host, &rule, seen);
                }
            }
            AgentReport::Unresponsive(silence) => self.unresponsive(agent, silence),
            AgentReport::Closed(why) => {
                self.lost(agent, why);
                self.agents.mark_closed(agent);
            }
            AgentReport::Exited(code) => {
                let why = match code {
                    Some(code) => format!("its process ended with exit code {code}"),
                    None => "its process was killed".to_owned(),
                };
                self.lost(agent, why);
                self.agents.mark_exited(agent, code);
            }
        }
    }

    fn injected(&mut self, agent: &str, injection: &InjectionId, plan: PlanView) {
        // An answer that comes twice, or after the end, says nothing new.
        if self.state_on(agent, injection) != Some(&InjectionState::Requested) {
            return;
        }
        // An agent picks its victims again when it injects.
        let is_approved = self.parameters.approval.is_none()
            || (self.injections.planned_of(injection))
                .is_some_and(|(index, planned)| self.fingerprint.agrees(index, planned, &plan));
        self.record_buffered(Event::Injected {
            injection: injection.clone(),
            plan,
        });
        let end = (self.now.elapsed)
            .checked_add(self.longest(injection))
            .and_then(|end| end.checked_add(END_TIMEOUT));
        if let Some(end) = end {
            (self.injections).add_deadline(end, InjectionDeadline::End(injection.clone()));
        }
        if !is_approved {
            let reason =
                format!("injection `{injection}` hit other victims than those that were approved");
            self.abort(AbortBy::Operator, "approval", reason);
        }
    }

    pub(super) fn refused(&mut self, agent: &str, injection: &InjectionId, refusal: Refusal) {
        if !self.agents.was_asked(agent, injection) {
            return;
        }
        let was_open = match self.state_on(agent, injection) {
            Some(InjectionState::Requested) => true,
            // What failed while it was being injected is reported as ended first.
            Some(InjectionState::Ended(_)) => false,
            Some(InjectionState::Acting | InjectionState::Refused) | None => return,
        };
        let (reason, rule) = (refusal.to_string(), refusal.rule.clone());
        self.record_buffered(Event::InjectionRefused {
            injection: injection.clone(),
            refusal,
        });
        if was_open {
            self.injections.end(injection);
        }
        // A run that is being ended is refused what it no longer wants.
        if !self.is_over() {
            let active = self.injections.get(injection);
            if let Some(activity) = active.map(|active| active.activity) {
                self.finish_activity(activity, ActivityResult::failed(reason.clone()));
            }
            self.abort(AbortBy::Action, &rule, reason);
        }
    }

    /// Records the first effect that is seen and each change of whether the fault acts; the injection's end tells the last.
    fn effect(&mut self, agent: &str, injection: &InjectionId, effect: Effect) {
        let active = self.injections.get_mut(injection);
        let Some(active) = active.filter(|active| active.agent == agent) else {
            return;
        };
        if active.acts != Some(effect.acts) {
            active.acts = Some(effect.acts);
            self.record_buffered(Event::EffectSeen {
                injection: injection.clone(),
                effect,
            });
        }
    }

    fn ended(&mut self, agent: &str, ended: EndedInjection) {
        let Some(active) = self.injections.get(&ended.injection) else {
            return;
        };
        let activity = active.activity;
        // An agent reports nothing of what another one was asked for.
        if !is_open_on(&self.log.run, agent, &ended.injection) {
            return;
        }
        let (id, cause, clean) = (ended.injection.clone(), ended.cause, ended.clean);
        let residue = ended.residue.join("; ");
        let output = json!({"cause": cause, "effect": ended.effect});
        let known = self.log.run.injections.get(&id);
        let was_injected = known.is_some_and(|known| known.plan.is_some());
        self.record_buffered(Event::InjectionEnded(ended));
        let left = self.injections.end(&id);
        if self.is_over() && clean {
            return;
        }
        let (by, rule, reason) = match cause {
            _ if !clean => (
                AbortBy::Revert,
                "revert",
                format!("injection `{id}` was not reverted: {residue}"),
            ),
            // The rule itself is reported next, and ends the run.
            Cause::AbortRule => return,
            Cause::Finished | Cause::ControllerRequest | Cause::Failed => {
                if left == 0 {
                    let result = match cause {
                        // The refusal that follows ends the run, where the injection failed to begin.
                        Cause::Failed if !was_injected => {
                            ActivityResult::failed(format!("injection `{id}` could not be made"))
                        }
                        Cause::Failed => ActivityResult::failed(format!(
                            "injection `{id}` ended before its time"
                        )),
                        _ => ActivityResult::succeeded(output),
                    };
                    self.finish_activity(activity, result);
                }
                return;
            }
            Cause::LeaseExpired => (
                AbortBy::Agent,
                "lease",
                format!("the agent did not hear from the controller and reverted `{id}`"),
            ),
            Cause::Manual => (
                AbortBy::Operator,
                "revert",
                format!("`{id}` was reverted by hand"),
            ),
            Cause::ConnectionClosed | Cause::Shutdown | Cause::AgentDied => (
                AbortBy::Agent,
                "agent",
                format!("the agent ended and reverted `{id}`"),
            ),
        };
        self.abort(by, rule, reason);
    }

    fn all_reverted(&mut self, agent: &str, owed: &[UnrevertedInjection]) {
        if !self.agents.all_reverted(agent) {
            return;
        }
        for owed in owed {
            if is_open_on(&self.log.run, agent, &owed.injection) {
                self.ended(agent, not_reverted(owed));
            }
        }
    }

    /// The agent is connected and has not answered for a lease: it counts as lost. A local one is killed by its connection.
    fn unresponsive(&mut self, agent: &str, silence: HumanDuration) {
        let Some(has_process) = self.agents.get(agent).map(|agent| agent.has_process) else {
            return;
        };
        self.agents.mark_unresponsive(agent);
        let then = match has_process {
            true => "it is killed, and the next agent reverts what it owes",
            false => "what it was asked for may still act",
        };
        self.lost(
            agent,
            format!("it is unresponsive: connected, but silent for {silence}, although it was asked; {then}"),
        );
    }

    pub(super) fn lost(&mut self, agent: &str, why: String) {
        if !self.agents.lose(agent, self.now.elapsed) {
            return;
        }
        // An agent that only hangs must not keep its faults because its lease is still renewed.
        self.commands.push(RunnerCommand::HangUp {
            agent: agent.to_owned(),
        });
        if self.is_expected_absence(agent) {
            return;
        }
        // Once all is reverted nothing of the run depends on the agent any more.
        if self.reverted_at.is_none() {
            self.record_buffered(Event::AgentLost {
                agent: agent.to_owned(),
                reason: why,
            });
            let reason = format!("the run cannot go on without `{agent}`");
            self.abort(AbortBy::Agent, "agent", reason);
        }
    }

    pub(super) fn joined(&mut self, joining: JoiningAgent, asked: Vec<InjectionId>) {
        self.agents.join(&joining, asked);
        self.record_buffered(Event::AgentJoined {
            agent: joining.hello.agent,
            recovered: joining.hello.recovered,
            owed: joining.hello.owed,
        });
    }

    /// The agent that came back after one was lost has settled the ledger: what is neither owed nor held is gone.
    pub(super) fn settle(&mut self, agent: &str, joining: JoiningAgent, lost: LostAgent) {
        let LostAgent {
            asked,
            exited,
            boot,
            lost,
            ..
        } = lost;
        // A local guardian exits with 0 only if the ledger was empty. Of a fleet's agent the new ledger is known: what nobody
        // owes or holds any more is gone.
        let is_settled = match exited {
            Some(code) => code == Some(0),
            None => self.parameters.is_fleet,
        };
        let (owed, held) = (joining.hello.owed.clone(), joining.hello.held.clone());
        let new_boot = joining.hello.boot.clone();
        self.joined(joining, asked);
        for injection in self.agents.open_on(agent, &self.log.run) {
            if let Some(owed) = owed.iter().find(|owed| owed.injection == injection) {
                self.ended(agent, not_reverted(owed));
            } else if is_settled && !held.contains(&injection) {
                let took = self.now.elapsed.saturating_sub(lost);
                let effect =
                    self.restart_effect(&injection, boot.as_deref(), new_boot.as_deref(), took);
                let has_restarted = effect.as_ref().is_some_and(|effect| effect.acts);
                let cause = match has_restarted {
                    true => Cause::Finished,
                    false => Cause::AgentDied,
                };
                self.ended(
                    agent,
                    EndedInjection {
                        cause,
                        effect,
                        ..reverted(injection, took)
                    },
                );
            }
        }
    }

    /// Where an injection stands that was asked of this agent.
    fn state_on(&self, agent: &str, injection: &str) -> Option<&InjectionState> {
        let found = self.log.run.injections.get(injection);
        found
            .filter(|found| found.agent == agent)
            .map(|found| &found.state)
    }
}

fn not_reverted(owed: &UnrevertedInjection) -> EndedInjection {
    EndedInjection {
        injection: owed.injection.clone(),
        cause: Cause::AgentDied,
        clean: false,
        residue: owed.residue.clone(),
        took: HumanDuration::default(),
        effect: None,
    }
}

fn reverted(injection: InjectionId, took: Duration) -> EndedInjection {
    EndedInjection {
        injection,
        cause: Cause::AgentDied,
        clean: true,
        residue: Vec::new(),
        took: HumanDuration(took),
        effect: None,
    }
}
