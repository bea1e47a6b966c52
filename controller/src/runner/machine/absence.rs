//! Agents that go away since the run has their hosts restarted or switched off: that is no loss. A restarted one is awaited while
//! the run goes on, and the id of its new boot is the evidence.

use super::Machine;
use super::agents::RunAgent;
use super::run_stage::{LostAgent, RunStage};
use crate::runner::events::{ActivityResult, JoiningAgent, RunnerCommand};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{AbortBy, Event, InjectionState};
use backburn_experiments::wire::{Effect, InjectionId};
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;

/// The fault that restarts a host.
const REBOOT: &str = "host-reboot";
/// The fault that switches a host off.
const SHUTDOWN: &str = "host-shutdown";
/// How long a host may take to restart unless the fault's `within` says otherwise.
const DEFAULT_ABSENCE: HumanDuration = HumanDuration::seconds(300);

/// The agents that are away as was asked for.
#[derive(Default)]
pub(super) struct Absences {
    /// The one that is awaited now.
    current: Option<(String, LostAgent)>,
    /// Those whose turn comes after it, each with the time that its host may take.
    waiting: VecDeque<(String, Duration)>,
}

impl Absences {
    /// The agent that is awaited now, to be awaited by the stage of the run instead. The others count as lost like any other.
    pub(super) fn take(&mut self) -> Option<(String, LostAgent)> {
        self.waiting.clear();
        self.current.take()
    }
}

impl Machine {
    /// Whether the loss of this agent is what the run asked for; if so, what follows from it is begun.
    pub(super) fn is_expected_absence(&mut self, agent: &str) -> bool {
        if !matches!(self.stage, RunStage::Method) || self.is_over() {
            return false;
        }
        let open = self.agents.open_on(agent, &self.log.run);
        let Some((injection, fault)) = open.into_iter().find_map(|id| {
            let found = self.log.run.injections.get(&id)?;
            let is_whole = [REBOOT, SHUTDOWN].contains(&found.fault.as_str());
            (is_whole && found.state == InjectionState::Acting).then(|| (id, found.fault.clone()))
        }) else {
            return false;
        };
        if fault == REBOOT {
            let within = self.longest_absence(&injection);
            self.absences.waiting.push_back((agent.to_owned(), within));
            self.await_next_absent();
        } else {
            self.went_down(&injection);
        }
        true
    }

    /// The agent of a host that is switched off is gone. The activity has nothing more to wait for once all of its agents are; that
    /// the host is off is not known, and the injection stays open until its agent comes back.
    fn went_down(&mut self, injection: &str) {
        let Some(activity) = self.injections.get(injection).map(|active| active.activity) else {
            return;
        };
        let is_away = |name: &str| {
            let agent = self.agents.get(name);
            agent.is_none_or(|agent| agent.lost.is_some())
        };
        let of_activity = self.injections.of_activity(activity);
        if (of_activity.iter())
            .all(|(agent, request)| is_away(agent) || !self.log.run.is_open(&request.id))
        {
            let seen = "the agents announced it and their connections closed; whether their hosts are off is not known from here";
            self.finish_activity(activity, ActivityResult::succeeded(json!({"seen": seen})));
        }
    }

    /// How long the host of this injection may take to restart.
    fn longest_absence(&self, injection: &str) -> Duration {
        let planned = self.injections.planned_of(injection);
        let written = planned.and_then(|(_, planned)| planned.request.arguments.get("within"));
        let within = written.and_then(|written| serde_json::from_value(written.clone()).ok());
        within.unwrap_or(DEFAULT_ABSENCE).0
    }

    /// Awaits the next agent that is away, one at a time. The time of each runs from its own loss.
    fn await_next_absent(&mut self) {
        if self.absences.current.is_some() {
            return;
        }
        while let Some((name, within)) = self.absences.waiting.pop_front() {
            let Some(before) = self.agents.remove(&name) else {
                continue;
            };
            let lost = before.into_lost(self.now.elapsed);
            self.command_after_journal(RunnerCommand::Reconnect {
                agent: name.clone(),
                lost: lost.lost,
                hung: Some(within),
            });
            self.absences.current = Some((name, lost));
            return;
        }
    }

    /// An agent that is awaited while the run goes on has come back, or has not in time. False where it is not awaited.
    pub(super) fn returned(
        &mut self,
        name: &str,
        outcome: &mut Option<Result<JoiningAgent, String>>,
    ) -> bool {
        if !matches!(&self.absences.current, Some((agent, _)) if agent == name) {
            return false;
        }
        let (Some((_, lost)), Some(outcome)) = (self.absences.current.take(), outcome.take())
        else {
            return false;
        };
        match outcome {
            Ok(joining) => self.settle(name, joining, lost),
            Err(why) => {
                self.record_buffered(Event::AgentLost {
                    agent: name.to_owned(),
                    reason: why.clone(),
                });
                let reason = format!("its host was to restart, and {why}");
                self.abort(AbortBy::Agent, "agent", reason);
            }
        }
        self.await_next_absent();
        true
    }

    /// What the boot of a returned agent's host says of an injection that was to restart that host or to switch it off. None where it
    /// is about something else, or one of the boots is not known.
    pub(super) fn restart_effect(
        &self,
        injection: &InjectionId,
        before: Option<&str>,
        now: Option<&str>,
        absent: Duration,
    ) -> Option<Effect> {
        let found = self.log.run.injections.get(injection)?;
        if ![REBOOT, SHUTDOWN].contains(&found.fault.as_str()) {
            return None;
        }
        let (before, now) = (before?, now?);
        let acts = before != now;
        let seen = match acts {
            true => format!("the host has booted anew: its boot id is {now}, and was {before}"),
            false => {
                format!("the agent is back in the same boot {now}: the host was not restarted")
            }
        };
        Some(Effect {
            acts,
            seen,
            figures: [
                ("restarts".to_owned(), f64::from(u8::from(acts))),
                ("absent-seconds".to_owned(), absent.as_secs_f64()),
            ]
            .into(),
            ..Effect::default()
        })
    }
}

impl RunAgent {
    /// What is kept of it for its successor; it was lost now, where that is not known.
    pub(super) fn into_lost(self, now: Duration) -> LostAgent {
        LostAgent {
            lost: self.lost.unwrap_or(now),
            address: self.address.clone(),
            exited: self.exited,
            boot: self.boot.clone(),
            asked: self.into_asked(),
        }
    }
}
