//! The stages of a run and their order: programs → agents → plans → gate → method → revert, always → rollbacks and the
//! hypothesis again → release of the agents. A run that is over before its method goes to the release at once.

use super::Machine;
use super::activities::Activities;
use crate::agent_connection::Inventory;
use crate::runner::events::{JoiningAgent, RunnerCommand};
use crate::runner::selection::{Selection, needs_agent, select};
use backburn_experiments::check::{AbortCondition, EffectiveAbortRule};
use backburn_experiments::document::RollbackStrategy;
use backburn_experiments::journal::{AbortBy, Event, Judgement, Phase, revert_hint};
use backburn_experiments::select::Picked;
use backburn_experiments::wire::{Command, PlanView, Refusal, WatchRule};
use backburn_experiments::{HumanDuration, Problem};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the hypothesis is sampled, at the least, until it holds again.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);
/// How long samples that are under way may take once all is reverted.
const LAST_SAMPLES_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lost agent's guardian may take to revert everything and end.
const GUARDIAN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent that does not answer may take to be ended, reverted by its successor, and back. Then its run ends
/// without it.
const HUNG_AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the process of a local agent that was killed may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent may take to revert everything.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a local agent may take to end when it is told to; it has nothing left to do.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the run waits for.
pub(super) enum RunStage {
    /// Its first event.
    Created,
    /// Which programs are missing.
    CheckingPrograms,
    /// Which agents there are.
    Discovering,
    /// The agents that were selected; or why none could be.
    Reserving(Result<Box<Selection>, Refusal>),
    /// What each agent would do.
    Planning,
    /// The hypothesis, before anything is done.
    Gate,
    /// The method's end.
    Method,
    /// Agents that were told to revert.
    Reverting { until: Duration },
    /// A lost agent's guardian, which reverts and ends.
    AwaitingGuardian { agent: String, until: Duration },
    /// A lost agent's successor.
    Reconnecting { agent: String, lost: LostAgent },
    /// Samples that were started while a fault acted.
    LastSamples { until: Duration },
    /// The rollbacks' end, or so many requests to stop.
    Rollbacks { stops: usize },
    /// One sample of the hypothesis after the revert, or a request to stop beyond these.
    After { stops: usize },
    /// That the hypothesis holds again.
    Recovery {
        reverted_at: Duration,
        within: HumanDuration,
        until: Duration,
    },
    /// Agents that were told to leave.
    Releasing { until: Duration },
    /// Nothing: the run is over.
    Ended,
}

/// What is kept of an agent that is gone, for its successor.
pub(super) struct LostAgent {
    pub(super) asked: Vec<backburn_experiments::wire::InjectionId>,
    pub(super) address: Option<String>,
    pub(super) exited: Option<Option<i32>>,
    /// The id of the last boot of its host that it told.
    pub(super) boot: Option<String>,
    pub(super) lost: Duration,
}

impl RunStage {
    /// When the stage ends at the latest.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            RunStage::Reverting { until }
            | RunStage::AwaitingGuardian { until, .. }
            | RunStage::LastSamples { until }
            | RunStage::Recovery { until, .. }
            | RunStage::Releasing { until } => Some(*until),
            _ => None,
        }
    }

    /// The phase that samples belong to which come in this stage.
    pub(super) fn sampled_phase(&self) -> Option<Phase> {
        match self {
            RunStage::Gate => Some(Phase::Gate),
            RunStage::Method
            | RunStage::Reverting { .. }
            | RunStage::AwaitingGuardian { .. }
            | RunStage::Reconnecting { .. }
            | RunStage::LastSamples { .. } => Some(Phase::Method),
            RunStage::After { .. } | RunStage::Recovery { .. } => Some(Phase::After),
            _ => None,
        }
    }

    fn is_before_method(&self) -> bool {
        matches!(
            self,
            RunStage::CheckingPrograms
                | RunStage::Discovering
                | RunStage::Reserving(_)
                | RunStage::Planning
                | RunStage::Gate
        )
    }
}

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

    fn send_to_all(&mut self, command: &Command) {
        let commands = self.agents.names().map(|agent| RunnerCommand::Send {
            agent: agent.clone(),
            command: command.clone(),
        });
        self.commands.extend(commands);
    }

    /// Reverts everything, and waits until each agent, or the one that comes after it, reports that it is done.
    fn enter_revert(&mut self) {
        let phase = Phase::Revert;
        self.record(Event::PhaseStarted { phase });
        if self.injections.is_empty() {
            self.reverted();
        } else {
            self.enter_reverting();
        }
    }

    fn enter_reverting(&mut self) {
        self.revert_all();
        self.stage = RunStage::Reverting {
            until: self.now.elapsed + REVERT_TIMEOUT,
        };
    }

    /// A lost agent's guardian reverts everything and ends; the next agent settles what is left in the ledger before it
    /// introduces itself. Of many that were lost together, all have the same time.
    fn replace_next_lost(&mut self) {
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

    fn reconnect(&mut self, name: String) {
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
    fn reverted(&mut self) {
        self.flush();
        self.reverted_at = Some(self.now.elapsed);
        self.stage = RunStage::LastSamples {
            until: self.now.elapsed + LAST_SAMPLES_TIMEOUT,
        };
    }

    /// Whether rollbacks come before the last samples. They wait for those that may deviate; and where nothing was injected,
    /// the order is the Chaos Toolkit's.
    fn rolls_back_first(&self) -> bool {
        self.has_fault() && self.experiment.rollback_strategy != RollbackStrategy::Deviated
    }

    /// The author's own steps, where the strategy has them played.
    fn enter_rollbacks(&mut self) {
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

    fn has_deviated(&self) -> bool {
        let run = &self.log.run;
        let mut activities = run.activities.iter();
        (run.probes.values()).any(|probe| probe.during.outside + probe.after.outside > 0)
            || activities.any(|activity| activity.judgement == Some(Judgement::Outside))
            || matches!(run.recovery, Some(Err(_)))
    }

    fn after_rollbacks(&mut self) {
        match self.rolls_back_first() {
            true => self.enter_after(),
            false => self.enter_release(),
        }
    }

    /// The hypothesis after everything is reverted; until it holds again, where it has a time for that.
    fn enter_after(&mut self) {
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

    fn judge_recovery(&mut self, reverted_at: Duration, within: HumanDuration) {
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

    fn after_after(&mut self) {
        match self.rolls_back_first() {
            true => self.enter_release(),
            false => self.enter_rollbacks(),
        }
    }

    /// Tells the agents to leave.
    fn enter_release(&mut self) {
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

    fn end(&mut self) {
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
