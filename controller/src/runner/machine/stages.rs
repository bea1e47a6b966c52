//! The stages of a run up to its method, and their order: programs → agents → plans → gate → method. A run that is over before its
//! method goes to the release of the agents at once; what comes after the method is in [`super::ending`].

use super::Machine;
use super::activities::Activities;
use super::ending::{LAST_SAMPLES_TIMEOUT, REVERT_TIMEOUT};
use super::run_stage::RunStage;
use crate::agent_connection::Inventory;
use crate::runner::events::{JoiningAgent, RunnerCommand};
use crate::runner::selection::{Selection, needs_agent, select};
use backburn_experiments::check::{AbortCondition, EffectiveAbortRule};
use backburn_experiments::journal::{Event, Judgement, Phase, revert_hint};
use backburn_experiments::select::Picked;
use backburn_experiments::wire::{Command, PlanView, Refusal, WatchRule};
use backburn_experiments::{HumanDuration, Problem};
use std::collections::BTreeSet;
use std::time::Duration;

impl Machine {
    pub(super) fn start(&mut self) {
        let experiment = &self.experiment;
        let started = Event::RunStarted {
            run: self.parameters.run.clone(),
            title: experiment.document.title.clone(),
            seed: self.parameters.seed,
            version: env!("CARGO_PKG_VERSION").into(),
            hypothesis: (experiment.hypothesis.iter())
                .map(|probe| probe.name.clone())
                .collect(),
            hypothesis_timing: experiment.hypothesis_timing,
            sha256: self.parameters.sha256.clone(),
            recovery_within: experiment.document.recovery.map(|recovery| recovery.within),
            approved_by: (self.parameters.approval.as_ref()).map(|approval| approval.by.clone()),
            question: (experiment.document.steady_state_hypothesis.as_ref())
                .map(|hypothesis| hypothesis.title.clone()),
            tolerances: (experiment.hypothesis.iter())
                .filter_map(|probe| {
                    let tolerance = serde_json::to_value(probe.tolerance.as_ref()?).ok()?;
                    Some((probe.name.clone(), tolerance))
                })
                .collect(),
        };
        self.record(started);
        self.stage = RunStage::CheckingPrograms;
        self.commands.push(RunnerCommand::CheckPrograms);
    }

    /// Moves to the next stage if the current one has what it waits for. Whether it did.
    pub(super) fn advance(&mut self) -> bool {
        let now = self.now.elapsed;
        match &self.stage {
            stage if stage.is_before_method() && self.is_over() => self.enter_release(),
            RunStage::Planning if self.injections.are_planned() => self.enter_gate(),
            RunStage::Gate if !self.sampling.goes_on() => {
                self.cancel_sampling();
                self.judge_gate();
                if !self.is_over() {
                    self.enter_method();
                }
            }
            RunStage::Method if self.is_over() || self.activities.are_over() => {
                self.sampling.stop();
                self.enter_revert();
            }
            RunStage::Reverting { until } if !self.agents.are_reverting() || now >= *until => {
                for agent in self.agents.take_reverting() {
                    let within = HumanDuration(REVERT_TIMEOUT);
                    self.lost(
                        &agent,
                        format!("it did not revert everything within {within}"),
                    );
                }
                self.replace_next_lost();
            }
            RunStage::AwaitingGuardian { agent, until } => {
                let agent = agent.clone();
                let is_gone = self.agents.get(&agent).is_none_or(|agent| agent.is_gone());
                if self.agents.open_on(&agent, &self.log.run).is_empty() {
                    // A worker that outlived its guardian reverted everything and reported it before it went.
                    self.replace_next_lost();
                } else if is_gone || now >= *until {
                    self.reconnect(agent);
                } else {
                    return false;
                }
            }
            RunStage::LastSamples { until } => {
                if !self.sampling.goes_on() || self.stops > 0 {
                    self.cancel_sampling();
                } else if now >= *until {
                    self.give_up_sampling(LAST_SAMPLES_TIMEOUT);
                } else {
                    return false;
                }
                match self.rolls_back_first() {
                    true => self.enter_rollbacks(),
                    false => self.enter_after(),
                }
            }
            RunStage::Rollbacks { stops } if self.activities.are_over() || self.stops >= *stops => {
                self.stop_activities();
                self.after_rollbacks();
            }
            RunStage::After { stops } if !self.sampling.goes_on() || self.stops != *stops => {
                self.cancel_sampling();
                self.after_after();
            }
            RunStage::Recovery {
                reverted_at,
                within,
                until,
            } if self.sampling.hypothesis_holds() || self.stops > 0 || now >= *until => {
                let (reverted_at, within) = (*reverted_at, *within);
                self.judge_recovery(reverted_at, within);
                self.cancel_sampling();
                self.after_after();
            }
            RunStage::Releasing { until } if self.agents.have_left() || now >= *until => self.end(),
            _ => return false,
        }
        true
    }

    pub(super) fn programs_checked(&mut self, missing: &[Problem]) {
        if !matches!(self.stage, RunStage::CheckingPrograms) || self.is_over() {
            return;
        }
        if let Some(first) = missing.first() {
            let told: Vec<String> = missing
                .iter()
                .map(|problem| format!("{}: {}", problem.at, problem.what))
                .collect();
            self.not_started("missing", told.join("; "), first.hint.clone());
        } else if needs_agent(&self.experiment, self.parameters.is_fleet) {
            self.stage = RunStage::Discovering;
            self.commands.push(RunnerCommand::Discover);
        } else {
            self.enter_gate();
        }
    }

    pub(super) fn discovered(&mut self, found: Result<Inventory, Refusal>) {
        if !matches!(self.stage, RunStage::Discovering) || self.is_over() {
            return;
        }
        let inventory = match found {
            Ok(inventory) => inventory,
            Err(refusal) => return self.not_started(&refusal.rule, refusal.what, refusal.hint),
        };
        let selected = select(
            &self.experiment,
            &inventory,
            self.parameters.seed,
            &self.parameters.run,
            self.parameters.is_fleet,
        );
        // A local agent takes part even if nothing could be selected: it has been started, and has to be released.
        let names = selected.as_ref().map(Selection::agents).unwrap_or_default();
        self.stage = RunStage::Reserving(selected.map(Box::new));
        self.commands.push(RunnerCommand::Reserve(names));
    }

    pub(super) fn reserved(&mut self, joining: Result<Vec<JoiningAgent>, Refusal>) {
        let selected = match std::mem::replace(&mut self.stage, RunStage::Planning) {
            RunStage::Reserving(selected) => selected,
            other => {
                self.stage = other;
                return;
            }
        };
        match joining {
            Ok(agents) => {
                for agent in agents {
                    self.joined(agent, Vec::new());
                }
            }
            Err(refusal) => self.not_started(&refusal.rule, refusal.what, refusal.hint),
        }
        let run = &self.log.run;
        let agents: BTreeSet<&String> = run.owed_by.values().collect();
        let agents: Vec<String> = agents.into_iter().cloned().collect();
        let owed = run.owed.iter();
        let owed = owed.map(|owed| format!("{} ({})", owed.injection, owed.fault));
        let owed = owed.collect::<Vec<_>>().join(", ");
        if !owed.is_empty() {
            let whose = agents.join("`, `");
            self.not_started(
                "ledger",
                format!("`{whose}` still owes what an earlier run could not revert: {owed}"),
                Some(revert_hint(&agents)),
            );
        }
        if self.is_over() {
            return;
        }
        match selected {
            Ok(selection) => self.plan(*selection),
            Err(refusal) => self.not_started(&refusal.rule, refusal.what, refusal.hint),
        }
    }

    fn plan(&mut self, selection: Selection) {
        let Selection {
            picks,
            aimed,
            planned,
        } = selection;
        let mut targets = std::collections::BTreeMap::new();
        for (target, Picked { matched, picked }) in picks.into_iter().chain(aimed) {
            targets.insert(target.clone(), picked.clone());
            self.record_buffered(Event::TargetPicked {
                target,
                matched,
                picked,
            });
        }
        self.commands.push(RunnerCommand::SetTargets(targets));
        let plans = planned.iter().enumerate().map(|(index, planned)| {
            let (agent, request) = (planned.agent.clone(), planned.request.clone());
            RunnerCommand::Plan {
                index,
                agent,
                request,
            }
        });
        self.commands.extend(plans);
        self.injections.plan(planned);
    }

    /// An agent's answer to what it would do. A refusal ends the run before it began.
    pub(super) fn planned(&mut self, index: usize, outcome: Result<PlanView, Refusal>) {
        if !matches!(self.stage, RunStage::Planning) {
            return;
        }
        let Some(planned) = self.injections.answered(index) else {
            return;
        };
        let (activity, agent) = (planned.activity_name.clone(), planned.agent.clone());
        let refusal = match outcome {
            Ok(plan) => {
                if self.parameters.approval.is_some() {
                    self.fingerprint.add(index, planned, &plan);
                }
                self.record_buffered(Event::Planned {
                    activity,
                    agent,
                    plan,
                });
                return;
            }
            Err(refusal) => refusal,
        };
        let problems: String = (refusal.problems.iter())
            .map(|problem| format!("; {}: {}", problem.at, problem.what))
            .collect();
        let of_problem = || (refusal.problems.iter()).find_map(|problem| problem.hint.clone());
        let hint = refusal.hint.clone().or_else(of_problem);
        let on = match self.parameters.is_fleet {
            true => format!(" on `{agent}`"),
            false => String::new(),
        };
        let reason = format!("action `{activity}`{on}: {}{problems}", refusal.what);
        self.not_started(&refusal.rule, reason, hint);
    }

    /// The hypothesis before anything is done: all of it must hold.
    fn enter_gate(&mut self) {
        self.check_approval();
        if self.is_over() {
            return self.enter_release();
        }
        if !self.experiment.hypothesis_timing.before || self.experiment.hypothesis.is_empty() {
            return self.enter_method();
        }
        self.record(Event::PhaseStarted { phase: Phase::Gate });
        self.sampling
            .start_hypothesis(self.now.elapsed, Duration::ZERO);
        self.stage = RunStage::Gate;
    }

    /// Nothing but what was approved is done.
    fn check_approval(&mut self) {
        let approved = (self.parameters.approval.as_ref()).map(|approval| &approval.fingerprint);
        if !self.is_over() && approved.is_some_and(|approved| *approved != self.fingerprint.hash())
        {
            self.not_started(
                "approval",
                "the run would not do what was approved: its agents or their victims have changed since",
                Some("run the experiment again, and have its new plan approved".into()),
            );
        }
    }

    fn judge_gate(&mut self) {
        let failed: Vec<String> = (self.log.run.probes.iter())
            .filter(|(_, probe)| probe.last.is_some_and(|last| last != Judgement::Within))
            .map(|(name, probe)| match (probe.last, &probe.why) {
                (Some(Judgement::Unknown), Some(why)) => {
                    format!("probe `{name}` could not be measured: {why}")
                }
                (_, Some(why)) => format!("probe `{name}`: {why}"),
                (_, None) => format!("probe `{name}` is out of tolerance"),
            })
            .collect();
        if !failed.is_empty() {
            let reason = format!(
                "the hypothesis does not hold before anything is done: {}",
                failed.join("; ")
            );
            self.not_started("gate", reason, None);
        }
    }

    fn enter_method(&mut self) {
        let phase = Phase::Method;
        self.record(Event::PhaseStarted { phase });
        self.watch_hosts();
        self.sampling.start_method(self.now.elapsed);
        self.activities = Activities::of(&self.experiment, phase);
        self.stage = RunStage::Method;
    }

    /// From now on each agent watches its host by itself, so that it needs no controller for that.
    fn watch_hosts(&mut self) {
        let rules: Vec<WatchRule> = self.experiment.abort.iter().filter_map(host_rule).collect();
        if !rules.is_empty() {
            self.send_to_all(&Command::Watch {
                run: self.parameters.run.clone(),
                rules,
            });
        }
    }

    pub(super) fn send_to_all(&mut self, command: &Command) {
        let commands = self.agents.names().map(|agent| RunnerCommand::Send {
            agent: agent.clone(),
            command: command.clone(),
        });
        self.commands.extend(commands);
    }
}

/// The part of an abort rule that an agent watches by itself.
fn host_rule(rule: &EffectiveAbortRule) -> Option<WatchRule> {
    let AbortCondition::Host(host) = &rule.watch else {
        return None;
    };
    Some(WatchRule {
        name: rule.name.clone(),
        host: host.clone(),
        every: rule.every,
        failures: rule.failures.max(1),
    })
}
