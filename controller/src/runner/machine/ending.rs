//! The stages of a run after its method: revert, always → rollbacks and the hypothesis again → release of the agents.

use super::Machine;
use super::activities::Activities;
use super::run_stage::RunStage;
use crate::runner::events::{JoiningAgent, RunnerCommand};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::RollbackStrategy;
use backburn_experiments::journal::{AbortBy, Event, Judgement, Phase};
use backburn_experiments::wire::Command;
use std::time::Duration;

/// How often the hypothesis is sampled, at the least, until it holds again.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);
/// How long samples that are under way may take once all is reverted.
pub(super) const LAST_SAMPLES_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lost agent's guardian may take to revert everything and end.
const GUARDIAN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent that does not answer may take to be ended, reverted by its successor, and back. Then its run ends
/// without it.
const HUNG_AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the process of a local agent that was killed may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent may take to revert everything.
pub(super) const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a local agent may take to end when it is told to; it has nothing left to do.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

impl Machine {
    /// Reverts everything, and waits until each agent, or the one that comes after it, reports that it is done.
    pub(super) fn enter_revert(&mut self) {
        let phase = Phase::Revert;
        self.record(Event::PhaseStarted { phase });
        if self.injections.is_empty() {
            self.reverted();
        } else {
            self.enter_reverting();
        }
    }

    pub(super) fn enter_reverting(&mut self) {
        self.revert_all();
        self.stage = RunStage::Reverting {
            until: self.now.elapsed + REVERT_TIMEOUT,
        };
    }

    /// A lost agent's guardian reverts everything and ends; the next agent settles what is left in the ledger before it
    /// introduces itself. Of many that were lost together, all have the same time.
    pub(super) fn replace_next_lost(&mut self) {
        if let Some((agent, lost)) = self.absences.take() {
            // It is awaited already.
            self.stage = RunStage::Reconnecting { agent, lost };
            return;
        }
        let Some(name) = self.agents.take_next_lost() else {
            return self.reverted();
        };
        let now = self.now.elapsed;
        let found = self.agents.get(&name);
        let lost = found.and_then(|agent| agent.lost).unwrap_or(now);
        let timeout = match found.filter(|agent| agent.is_unresponsive) {
            Some(agent) if agent.has_process => KILL_TIMEOUT,
            Some(_) => HUNG_AGENT_TIMEOUT,
            None => GUARDIAN_TIMEOUT,
        };
        self.stage = RunStage::AwaitingGuardian {
            agent: name,
            until: lost + timeout,
        };
    }

    pub(super) fn reconnect(&mut self, name: String) {
        let Some(before) = self.agents.remove(&name) else {
            return self.replace_next_lost();
        };
        let hung = before.is_unresponsive.then_some(HUNG_AGENT_TIMEOUT);
        let lost = before.into_lost(self.now.elapsed);
        self.command_after_journal(RunnerCommand::Reconnect {
            agent: name.clone(),
            lost: lost.lost,
            hung,
        });
        self.stage = RunStage::Reconnecting { agent: name, lost };
    }

    pub(super) fn reconnected(&mut self, name: &str, outcome: Result<JoiningAgent, String>) {
        let mut outcome = Some(outcome);
        if self.returned(name, &mut outcome)
            || !matches!(&self.stage, RunStage::Reconnecting { agent, .. } if agent == name)
        {
            return;
        }
        let RunStage::Reconnecting { lost, .. } =
            std::mem::replace(&mut self.stage, RunStage::Created)
        else {
            return;
        };
        match outcome {
            None => {}
            Some(Ok(joining)) => self.settle(name, joining, lost),
            Some(Err(why)) => {
                let address = lost.address.map(|address| format!(" ({address})"));
                let why = format!(
                    "{why}; what it was asked for may still act: on its host{}, `backburn agent status` says what is there, and `backburn agent revert --all` reverts it",
                    address.unwrap_or_default()
                );
                self.abort(AbortBy::Agent, "agent", why);
            }
        }
        self.replace_next_lost();
    }

    /// All is reverted, as far as that is known. Samples that were started before belong to the method.
    pub(super) fn reverted(&mut self) {
        self.flush();
        self.reverted_at = Some(self.now.elapsed);
        self.stage = RunStage::LastSamples {
            until: self.now.elapsed + LAST_SAMPLES_TIMEOUT,
        };
    }

    /// Whether rollbacks come before the last samples. They wait for those that may deviate; and where nothing was injected,
    /// the order is the Chaos Toolkit's.
    pub(super) fn rolls_back_first(&self) -> bool {
        self.has_fault() && self.experiment.rollback_strategy != RollbackStrategy::Deviated
    }

    /// The author's own steps, where the strategy has them played.
    pub(super) fn enter_rollbacks(&mut self) {
        let strategy = self.experiment.rollback_strategy;
        let is_wanted = match strategy {
            RollbackStrategy::Always => true,
            RollbackStrategy::Never => false,
            RollbackStrategy::Deviated => self.has_deviated(),
            RollbackStrategy::Default => self.log.run.aborts.is_empty(),
        };
        if !is_wanted || self.experiment.rollbacks.is_empty() || self.stops > 1 {
            return self.after_rollbacks();
        }
        let phase = Phase::Rollbacks;
        self.record(Event::PhaseStarted { phase });
        self.activities = Activities::of(&self.experiment, phase);
        self.stage = RunStage::Rollbacks {
            // With `always` it takes a second request to leave them out.
            stops: match strategy {
                RollbackStrategy::Always => 2,
                _ => self.stops + 1,
            },
        };
    }

    pub(super) fn has_deviated(&self) -> bool {
        let run = &self.log.run;
        let mut activities = run.activities.iter();
        (run.probes.values()).any(|probe| probe.during.outside + probe.after.outside > 0)
            || activities.any(|activity| activity.judgement == Some(Judgement::Outside))
            || matches!(run.recovery, Some(Err(_)))
    }

    pub(super) fn after_rollbacks(&mut self) {
        match self.rolls_back_first() {
            true => self.enter_after(),
            false => self.enter_release(),
        }
    }

    /// The hypothesis after everything is reverted; until it holds again, where it has a time for that.
    pub(super) fn enter_after(&mut self) {
        if !self.experiment.hypothesis_timing.after
            || self.experiment.hypothesis.is_empty()
            || self.stops > 1
        {
            return self.after_after();
        }
        let phase = Phase::After;
        self.record(Event::PhaseStarted { phase });
        let now = self.now.elapsed;
        // An operator who ends a run wants to know how things are, not to wait until they are well.
        let recovery = (self.experiment.document.recovery).filter(|_| self.stops == 0);
        let Some(recovery) = recovery else {
            self.sampling.start_hypothesis(now, Duration::ZERO);
            self.stage = RunStage::After { stops: self.stops };
            return;
        };
        let interval = self.parameters.frequency.min(RECOVERY_INTERVAL);
        self.sampling.start_hypothesis(now, interval);
        let reverted_at = self.reverted_at.unwrap_or(now);
        self.stage = RunStage::Recovery {
            reverted_at,
            within: recovery.within,
            until: reverted_at.saturating_add(recovery.within.0),
        };
    }

    pub(super) fn judge_recovery(&mut self, reverted_at: Duration, within: HumanDuration) {
        if self.sampling.hypothesis_holds() {
            let after = self.now.elapsed.saturating_sub(reverted_at).as_millis();
            // To the millisecond: that is what a sample each tenth of a second can tell.
            self.record(Event::Recovered {
                after: HumanDuration(Duration::from_millis(after as u64)),
            });
        } else if self.stops == 0 && !self.sampling.hypothesis_is_unknown() {
            // A broken check says nothing about recovery; the verdict sees it as it is.
            self.record(Event::NotRecovered { within });
        }
    }

    pub(super) fn after_after(&mut self) {
        match self.rolls_back_first() {
            true => self.enter_release(),
            false => self.enter_rollbacks(),
        }
    }

    /// Tells the agents to leave.
    pub(super) fn enter_release(&mut self) {
        self.commands.push(RunnerCommand::CancelAll);
        self.sampling.cancel();
        self.injections.clear_deadlines();
        self.agents.release();
        self.send_to_all(&match self.parameters.is_fleet {
            false => Command::Shutdown,
            // A fleet's agent stays, and has nothing to watch for this run any more.
            true => Command::Watch {
                run: self.parameters.run.clone(),
                rules: Vec::new(),
            },
        });
        self.stage = RunStage::Releasing {
            until: self.now.elapsed + GOODBYE_TIMEOUT,
        };
    }

    pub(super) fn end(&mut self) {
        for agent in self.agents.take_all() {
            // Where nothing was injected, this run can have left nothing.
            if agent.lost.is_some() || !agent.has_process || self.injections.is_empty() {
                continue;
            }
            match agent.exited.flatten() {
                Some(0) => {}
                Some(code) => {
                    let reason = format!("the agent ended with exit code {code}");
                    self.abort(AbortBy::Revert, "revert", reason);
                }
                None => {
                    let reason = "the agent did not end when it was told to";
                    self.abort(AbortBy::Agent, "agent", reason);
                }
            }
        }
        self.record(Event::RunEnded);
        self.stage = RunStage::Ended;
    }
}
