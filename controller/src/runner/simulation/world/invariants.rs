//! What must hold in every simulated run, whatever goes wrong.

use super::World;
use crate::runner::events::RunnerCommand;
use crate::runner::machine::Machine;
use backburn_experiments::journal::{
    Event, InjectionState, Judgement, Outcome, Phase, Run, verdict,
};
use std::collections::BTreeSet;

impl World {
    /// Follows what the journal tells, and checks that it may.
    pub(super) fn check_entry(&mut self, event: &Event, fails: bool) {
        match event {
            Event::InjectionRequested { injection, .. } if !fails => {
                self.requested.insert(injection.clone());
            }
            Event::RunStarted {
                recovery_within, ..
            } => self.recovery_within = recovery_within.unwrap_or_default(),
            Event::Recovered { after } => {
                let within = self.recovery_within;
                assert!(*after <= within, "{after} is later than {within}");
            }
            Event::PhaseStarted { phase } => {
                if *phase == Phase::Revert {
                    self.reverting_since = Some(self.now);
                }
                self.phase = Some(*phase);
                self.foreground = None;
            }
            Event::Aborted(_) | Event::NotStarted { .. } => self.is_over = true,
            Event::AgentLost { agent, reason } => {
                assert!(self.hung_up.contains(agent), "{agent} keeps its lease");
                let connection = (agent.clone(), self.agents[agent].connection);
                assert!(
                    self.closed.contains(&connection) || reason.starts_with("it did not revert"),
                    "{agent} counts as lost and is not: {reason}"
                );
            }
            Event::ActivityStarted {
                index, background, ..
            } => {
                // One in the background may begin later, after a pause of its own.
                let waits = self.foreground.is_some_and(|before| before < *index);
                assert!(!waits, "activity {index} does not wait for the one before");
                if !background {
                    self.foreground = Some(*index);
                }
            }
            Event::ActivityFinished { index, .. } if self.foreground == Some(*index) => {
                self.foreground = None;
            }
            Event::Sampled { phase, output, .. } => {
                if let Some(number) = output.as_u64() {
                    let started = self.samples[usize::try_from(number).unwrap()];
                    assert_eq!(started, Some(*phase), "a sample counts in another phase");
                }
            }
            _ => {}
        }
    }

    /// Nothing is begun in a run that is being ended.
    pub(super) fn check_may_start(&self, what: &str, phase: Phase) {
        assert_eq!(
            self.phase,
            Some(phase),
            "{what} is started out of its phase"
        );
        if phase == Phase::Method {
            assert!(!self.is_over, "{what} is started in a run that is over");
            assert!(!self.journal_failed, "{what} is started without a journal");
            assert!(
                self.told_to_revert.is_empty(),
                "{what} is started after a revert"
            );
        }
    }

    /// The step that aborts the run tells every agent that may owe something, right after the abort is written.
    pub(super) fn check_abort_is_first(&self, commands: &[RunnerCommand]) {
        let is_abort = |command: &RunnerCommand| match command {
            RunnerCommand::Append(entries) => {
                let mut entries = entries.iter();
                entries.any(|entry| matches!(entry.event, Event::Aborted(_)))
            }
            _ => false,
        };
        let Some(aborted) = commands.iter().position(is_abort).filter(|_| !self.is_over) else {
            return;
        };
        let (before, after) = commands.split_at(aborted + 1);
        let at_once = after
            .iter()
            .take_while(|command| !matches!(command, RunnerCommand::Append(_)));
        let told: BTreeSet<&String> = (before.iter().chain(at_once))
            .filter_map(|command| match command {
                RunnerCommand::RevertAll { agent } | RunnerCommand::HangUp { agent } => Some(agent),
                _ => None,
            })
            .collect();
        for agent in self.commanded.values() {
            assert!(
                told.contains(agent)
                    || self.told_to_revert.contains(agent)
                    || self.hung_up.contains(agent),
                "{agent} is not told of the abort at once"
            );
        }
    }

    pub(super) fn check_end(&mut self, machine: Machine) -> (Outcome, usize) {
        let (run, illegal) = machine.into_run();
        if !self.journal_failed {
            assert_eq!(illegal, None);
        }
        let folded = Run::fold(&self.recorded).expect("the journal is legal");
        assert_eq!(folded, run, "the journal alone tells the run");
        let verdict = verdict(&folded);
        assert!(folded.ended, "the last event is recorded");
        assert!(
            matches!(
                self.recorded.last().map(|last| &last.event),
                Some(Event::RunEnded)
            ),
            "the last event is the last"
        );
        for (id, agent) in &self.commanded {
            let is_lost = folded.lost.iter().any(|(lost, _)| lost == agent);
            assert!(
                self.told_to_revert.contains(agent) || is_lost,
                "{agent} was asked for {id} and never told to revert"
            );
            let is_seen_gone = match &folded.injections[id].state {
                InjectionState::Refused => true,
                InjectionState::Ended(ended) => ended.clean,
                InjectionState::Requested | InjectionState::Acting => false,
            };
            let host = &self.agents[agent];
            let is_there = host.acting.contains(id) || host.residue.contains(id);
            assert!(
                !(is_there && is_seen_gone),
                "{id} is there and counts as gone"
            );
            let is_owed = verdict.owed.iter().any(|owed| owed.injection == *id);
            assert_eq!(is_owed, !is_seen_gone, "{id}");
        }
        if !verdict.owed.is_empty() {
            assert_eq!(verdict.outcome, Outcome::NotClean);
        }
        let gate_failed = self.recorded.iter().any(|entry| {
            matches!(entry.event, Event::Sampled { phase: Phase::Gate, judgement, .. } if judgement != Judgement::Within)
        });
        if gate_failed || folded.not_started.is_some() {
            assert!(
                self.commanded.is_empty(),
                "nothing is injected after the gate failed"
            );
        }
        (verdict.outcome, self.commanded.len())
    }
}
