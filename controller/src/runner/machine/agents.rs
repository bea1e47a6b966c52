//! The agents that take part: what each was asked for, whether it is lost, and what it still has to answer.

use crate::runner::events::JoiningAgent;
use backburn_experiments::journal::Run;
use backburn_experiments::labels::ADDRESS;
use backburn_experiments::wire::InjectionId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All agents that take part, by name.
#[derive(Default)]
pub(super) struct Agents {
    agents: BTreeMap<String, RunAgent>,
    /// Those that were told to revert everything and have not answered.
    reverting: BTreeSet<String>,
    /// Those whose successors were waited for. Nobody is waited for twice.
    replaced: BTreeSet<String>,
    /// Whether all agents concerned were told to revert everything.
    told_to_revert: bool,
}

/// An agent that takes part.
pub(super) struct RunAgent {
    connection: u64,
    pub(super) has_process: bool,
    /// The injections that it was asked for.
    asked: Vec<InjectionId>,
    was_told_to_revert: bool,
    /// The address of its host, for people, where that is another host.
    pub(super) address: Option<String>,
    /// The id of its host's boot, as it told it.
    pub(super) boot: Option<String>,
    /// Whether it was lost because it does not answer, although it is connected.
    pub(super) is_unresponsive: bool,
    /// When it was lost.
    pub(super) lost: Option<Duration>,
    /// Whether it was told to leave: its end is no loss.
    leaves: bool,
    /// Whether its connection is closed. A worker whose guardian was killed may still report over it.
    closed: bool,
    /// Whether its process is known to have ended, and with which exit code.
    pub(super) exited: Option<Option<i32>>,
}

impl RunAgent {
    /// Whether nothing more is to be expected of it.
    pub(super) fn is_gone(&self) -> bool {
        self.closed && (!self.has_process || self.exited.is_some())
    }

    /// Whether the run's end need not wait for it.
    fn has_left(&self) -> bool {
        self.lost.is_some() || !self.has_process || self.exited.is_some()
    }

    /// The injections that it was asked for.
    pub(super) fn into_asked(self) -> Vec<InjectionId> {
        self.asked
    }
}

impl Agents {
    /// An agent takes part. One that comes back was asked for these injections before.
    pub(super) fn join(&mut self, joining: &JoiningAgent, asked: Vec<InjectionId>) {
        let agent = RunAgent {
            connection: joining.connection,
            has_process: joining.has_process,
            asked,
            was_told_to_revert: false,
            address: joining.hello.labels.get(ADDRESS).cloned(),
            boot: joining.hello.boot.clone(),
            is_unresponsive: false,
            lost: None,
            leaves: false,
            closed: false,
            exited: None,
        };
        self.agents.insert(joining.hello.agent.clone(), agent);
        self.told_to_revert = false;
    }

    pub(super) fn get(&self, name: &str) -> Option<&RunAgent> {
        self.agents.get(name)
    }

    /// The names of all agents.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.agents.keys()
    }

    /// Whether reports that come over this connection are this agent's.
    pub(super) fn reports_over(&self, name: &str, connection: u64) -> bool {
        let agent = self.agents.get(name);
        agent.is_some_and(|agent| agent.connection == connection)
    }

    /// The agent is about to be asked for this injection.
    pub(super) fn ask(&mut self, name: &str, injection: InjectionId) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.asked.push(injection);
            self.told_to_revert = false;
        }
    }

    /// Whether this agent was asked for this injection.
    pub(super) fn was_asked(&self, name: &str, injection: &str) -> bool {
        let agent = self.agents.get(name);
        agent.is_some_and(|agent| agent.asked.iter().any(|asked| asked == injection))
    }

    /// The injections that this agent was asked for and that are not known to be over.
    pub(super) fn open_on(&self, name: &str, run: &Run) -> Vec<InjectionId> {
        let agent = self.agents.get(name).into_iter();
        let asked = agent.flat_map(|agent| &agent.asked);
        asked
            .filter(|injection| is_open_on(run, name, injection))
            .cloned()
            .collect()
    }

    /// The agents that are now to be told to revert everything; they count as told.
    pub(super) fn take_to_revert(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.told_to_revert, true) {
            return Vec::new();
        }
        let mut told = Vec::new();
        // Before the method nothing was injected, and nothing is until it begins.
        for (name, agent) in &mut self.agents {
            if !agent.asked.is_empty() && !agent.was_told_to_revert && agent.lost.is_none() {
                agent.was_told_to_revert = true;
                self.reverting.insert(name.clone());
                told.push(name.clone());
            }
        }
        told
    }

    /// The agent has answered that everything is reverted. Whether it was asked.
    pub(super) fn all_reverted(&mut self, name: &str) -> bool {
        self.reverting.remove(name);
        let agent = self.agents.get(name);
        agent.is_some_and(|agent| agent.was_told_to_revert)
    }

    /// Whether an agent that was told to revert everything has not answered.
    pub(super) fn are_reverting(&self) -> bool {
        !self.reverting.is_empty()
    }

    /// Those that have not answered, for the last time.
    pub(super) fn take_reverting(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.reverting)
    }

    /// The agent is lost. False where that was known, or it was told to leave.
    pub(super) fn lose(&mut self, name: &str, now: Duration) -> bool {
        let agent = self.agents.get_mut(name);
        let Some(agent) = agent.filter(|agent| agent.lost.is_none() && !agent.leaves) else {
            return false;
        };
        agent.lost = Some(now);
        self.reverting.remove(name);
        true
    }

    pub(super) fn mark_unresponsive(&mut self, name: &str) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.is_unresponsive = true;
        }
    }

    pub(super) fn mark_closed(&mut self, name: &str) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.closed = true;
        }
    }

    pub(super) fn mark_exited(&mut self, name: &str, code: Option<i32>) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.exited = Some(code);
        }
    }

    /// The next lost agent that nobody has waited for.
    pub(super) fn take_next_lost(&mut self) -> Option<String> {
        let mut agents = self.agents.iter();
        let (name, _) =
            agents.find(|(name, agent)| agent.lost.is_some() && !self.replaced.contains(*name))?;
        let name = name.clone();
        self.replaced.insert(name.clone());
        Some(name)
    }

    /// The agent takes part no more.
    pub(super) fn remove(&mut self, name: &str) -> Option<RunAgent> {
        self.agents.remove(name)
    }

    /// All agents are told to leave.
    pub(super) fn release(&mut self) {
        (self.agents.values_mut()).for_each(|agent| agent.leaves = true);
    }

    /// Whether the run's end need not wait for any of them.
    pub(super) fn have_left(&self) -> bool {
        self.agents.values().all(RunAgent::has_left)
    }

    /// All agents, which take part no more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = RunAgent> + use<> {
        std::mem::take(&mut self.agents).into_values()
    }
}

/// Whether this injection was asked of this agent, and is not known to be over.
pub(super) fn is_open_on(run: &Run, agent: &str, injection: &str) -> bool {
    let found = run.injections.get(injection);
    run.is_open(injection) && found.is_some_and(|found| found.agent == agent)
}
