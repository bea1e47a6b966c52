//! The agents of a run: mustered, held, lost, replaced, sent home.

use super::Runner;
use crate::agent_connection::AgentHandle;
use crate::agent_pool::{AgentSession, Inventory};
use crate::fleet::HaltState;
use crate::providers::ProbeContext;
use backburn_experiments::check::Watch;
use backburn_experiments::document::{Activity, Provider};
use backburn_experiments::journal::{AbortBy, Event, Run};
use backburn_experiments::wire::{Cause, Command, Ended, Owed};
use backburn_experiments::{Span, wire};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lost agent's guardian may take to put everything back and end.
const GUARDIAN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent that does not answer may take until somebody near it has ended it and put back what it owes, and it has come
/// again. After that its run ends without it.
const HUNG_AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a local agent that was killed may take to leave.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent may take to revert all.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long agents that were told by whoever pulled the lever may take before we ask them, too, and how long they may be quiet.
const HALT_TIMEOUT: Duration = Duration::from_secs(1);
const HALT_QUIET_TIME: Duration = Duration::from_millis(100);
/// How long an agent may take to end in peace; it has nothing left to do.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent that takes part.
pub(super) struct RunAgent {
    handle: AgentHandle,
    /// Over which of its connections its words come.
    connection: u64,
    has_process: bool,
    /// What it was asked for, each with the request that was sent.
    pub(super) asked: Vec<(u64, wire::InjectionId)>,
    /// The request to revert all that was sent.
    reverting: Option<u64>,
    /// Where its host is, for people, where that is not here.
    host: Option<String>,
    /// Whether it was lost because it does not answer, although it is connected.
    is_unresponsive: bool,
    /// When we knew that it was lost.
    lost: Option<Instant>,
    /// Whether it was told to go: its end is no loss.
    leaves: bool,
    /// Whether its link is closed. A worker whose guardian was killed may still have things to say.
    closed: bool,
    /// Whether its process is known to have ended, and with which exit code.
    exited: Option<Option<i32>>,
}

impl RunAgent {
    /// What it is told.
    pub(super) fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// Whether what came over this connection is its word.
    pub(super) fn speaks_over(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Whether nothing more is to be expected of it.
    fn is_gone(&self) -> bool {
        self.closed && (!self.has_process || self.exited.is_some())
    }
}

impl Runner {
    /// Whether somebody is needed who can touch or measure the host.
    pub(super) fn needs_agent(&self) -> bool {
        let of_host = |activity: &Activity| matches!(activity.provider, Provider::Host(_));
        let experiment = &self.experiment;
        self.has_fault()
            || (self.settings.agent_pool.is_fleet() && experiment.measured_from().next().is_some())
            || (experiment
                .hypothesis
                .iter()
                .chain(&experiment.method)
                .chain(&experiment.rollbacks))
            .any(of_host)
            || experiment.abort.iter().any(|rule| match &rule.watch {
                Watch::Host(_) => true,
                Watch::Probe(probe) => of_host(probe),
                Watch::Hypothesis(_) => false,
            })
    }

    /// Asks who is there. Where that fails, nothing is started.
    pub(super) async fn discover(&mut self) -> Option<Inventory> {
        let mustered = tokio::select! {
            inventory = self.settings.agent_pool.discover() => inventory,
            Some(by) = self.stop.recv() => {
                self.asked_to_stop(&by);
                return None;
            }
        };
        mustered
            .map_err(|refusal| self.not_started(&refusal.rule, refusal.what, refusal.hint))
            .ok()
    }

    /// Has these take part.
    pub(super) fn join(&mut self, names: &BTreeSet<String>) {
        let session = match self.settings.agent_pool.reserve(names, &self.hear) {
            Ok(session) => session,
            Err(refusal) => return self.not_started(&refusal.rule, refusal.what, refusal.hint),
        };
        for session in session {
            self.welcome(session, Vec::new());
        }
        self.flush();
        let owed = self
            .log
            .run
            .owed
            .iter()
            .map(|owed| format!("{} ({})", owed.injection, owed.fault));
        let owed = owed.collect::<Vec<_>>().join(", ");
        if !owed.is_empty() {
            let reason =
                format!("this host still owes what an earlier run could not put back: {owed}");
            self.not_started(
                "ledger",
                reason,
                Some("`backburn revert --all` tries again and says what is left".into()),
            );
        }
    }

    /// An agent takes part; one that comes again was asked for these before.
    fn welcome(&mut self, session: AgentSession, asked: Vec<(u64, wire::InjectionId)>) {
        let AgentSession {
            hello,
            handle,
            connection,
            has_process,
        } = session;
        let agent = RunAgent {
            handle,
            connection,
            has_process,
            asked,
            reverting: None,
            host: hello.labels.get(super::ADDRESS).cloned(),
            is_unresponsive: false,
            lost: None,
            leaves: false,
            closed: false,
            exited: None,
        };
        self.agents.insert(hello.agent.clone(), agent);
        self.context_knows_agents = false;
        self.told_to_revert = false;
        self.record_buffered(Event::AgentJoined {
            agent: hello.agent,
            recovered: hello.recovered,
            owed: hello.owed,
        });
    }

    /// Has whoever measures know all agents that take part: once for all that have come, since they may be many.
    pub(super) fn update_context(&mut self) {
        if self.context_knows_agents {
            return;
        }
        let mut context = ProbeContext::clone(&self.context);
        let handles = self.agents.iter();
        context.is_fleet = self.settings.agent_pool.is_fleet();
        context.agents = handles
            .map(|(name, agent)| (name.clone(), agent.handle.clone()))
            .collect();
        self.context = Arc::new(context);
        self.context_knows_agents = true;
    }

    /// Tells every agent that was asked to inject to put everything back, once. Does not wait.
    pub(super) fn ask_revert(&mut self) {
        // Whoever pulled the lever tells them all; we ask those of whom we do not hear that it is done.
        let waits =
            self.settings.agent_pool.is_halted() && self.reverted_at.is_none() && !self.gave_time;
        if waits || std::mem::replace(&mut self.told_to_revert, true) {
            return;
        }
        let is_open = |name: &str, agent: &RunAgent| {
            let mut asked = agent.asked.iter();
            asked.any(|(_, injection)| is_open_on(&self.log.run, name, injection))
        };
        // Before the method nothing was injected, and nothing is until it begins.
        for (name, agent) in &mut self.agents {
            let concerned = match self.gave_time {
                false => !agent.asked.is_empty(),
                true => is_open(name, agent),
            };
            if concerned && agent.reverting.is_none() && agent.lost.is_none() {
                let request = agent.handle.next_request_id();
                let run = Some(self.settings.run.clone());
                agent.handle.send(Command::RevertAll { request, run });
                agent.reverting = Some(request);
                self.reverting.insert(name.clone());
            }
        }
    }

    pub(super) fn all_reverted(&mut self, name: &str, request: u64, owed: Vec<Owed>) {
        let agent = self.agents.get(name);
        if agent.is_none_or(|agent| agent.reverting != Some(request)) {
            return;
        }
        self.reverting.remove(name);
        for owed in owed {
            if self.is_open_on(name, &owed.injection) {
                self.ended(name, never_gone(&owed));
            }
        }
    }

    /// Whether this agent was asked for this injection, and it is not known to be over.
    pub(super) fn is_open_on(&self, name: &str, injection: &str) -> bool {
        is_open_on(&self.log.run, name, injection)
    }

    /// The link closed, and not because we said goodbye.
    pub(super) fn closed(&mut self, name: &str, why: String) {
        self.lost(name, why);
        if let Some(agent) = self.agents.get_mut(name) {
            agent.closed = true;
        }
    }

    /// The agent is connected and has said nothing for a lease: it counts as lost. A local one was killed by its link.
    pub(super) fn unresponsive(&mut self, name: &str, silence: Span) {
        let Some(agent) = self.agents.get_mut(name) else {
            return;
        };
        agent.is_unresponsive = true;
        let then = match agent.has_process {
            true => "it is killed, and what it owes is put back by the next agent",
            false => "what it was asked for may still act",
        };
        self.lost(name, format!("it is unresponsive: connected, and nothing was heard of it for {silence}, although it was asked; {then}"));
    }

    fn lost(&mut self, name: &str, why: String) {
        let Some(agent) = self
            .agents
            .get_mut(name)
            .filter(|agent| agent.lost.is_none() && !agent.leaves)
        else {
            return;
        };
        agent.lost = Some(Instant::now());
        self.reverting.remove(name);
        // One that only hangs must not keep its faults because we still beat.
        agent.handle.close();
        // Once all is reverted nothing of the run depends on it any more.
        if self.reverted_at.is_none() {
            self.record_buffered(Event::AgentLost {
                agent: name.to_owned(),
                reason: why,
            });
            self.abort(
                AbortBy::Agent,
                "agent",
                format!("the run cannot go on without `{name}`"),
            );
        }
    }

    pub(super) fn exited(&mut self, name: &str, code: Option<i32>) {
        let why = match code {
            Some(code) => format!("its process ended with exit code {code}"),
            None => "its process was killed".to_owned(),
        };
        self.lost(name, why);
        if let Some(agent) = self.agents.get_mut(name) {
            agent.exited = Some(code);
        }
    }

    /// Puts everything back, and waits until each agent, or the one that comes after it, says so.
    pub(super) async fn revert_all(&mut self) {
        if self.injecting.is_empty() {
            return;
        }
        if self.settings.agent_pool.is_halted() {
            self.give_time().await;
        }
        self.ask_revert();
        let deadline = tokio::time::Instant::now() + REVERT_TIMEOUT;
        while !self.reverting.is_empty() {
            if tokio::time::timeout_at(deadline, self.step()).await.is_ok() {
                continue;
            }
            for name in std::mem::take(&mut self.reverting) {
                let why = format!(
                    "it did not put everything back within {}",
                    Span(REVERT_TIMEOUT)
                );
                self.lost(&name, why);
            }
        }
        let lost = self.agents.iter().filter(|(_, agent)| agent.lost.is_some());
        let lost: Vec<String> = lost.map(|(name, _)| name.clone()).collect();
        for name in lost {
            self.replace(&name).await;
        }
        self.flush();
    }

    /// Lets agents that were told by whoever pulled the lever put everything back: ten thousand of them need not be told
    /// twice. Not for long, and not once they are quiet: an injection may have crossed with what they were told.
    async fn give_time(&mut self) {
        let most = tokio::time::Instant::now() + HALT_TIMEOUT;
        if let Some(mut lever) = self.settings.agent_pool.halt_state() {
            // Their answers come first, and our paper after: the processors have nothing better to do.
            let answered = lever.wait_for(|lever| *lever != HaltState::Reverting);
            tokio::time::timeout_at(most, answered).await.ok();
        }
        while self.acting.values().any(|acting| *acting > 0) {
            let quiet = tokio::time::Instant::now() + HALT_QUIET_TIME;
            let turned = tokio::time::timeout_at(most.min(quiet), self.step()).await;
            if turned.is_err() {
                break;
            }
        }
        self.gave_time = true;
    }

    /// What this agent was asked for and is not known to be over.
    fn open_on(&self, name: &str) -> Vec<wire::InjectionId> {
        let asked = self.agents.get(name).into_iter();
        let asked = asked.flat_map(|agent| agent.asked.iter().map(|(_, id)| id));
        asked
            .filter(|id| self.is_open_on(name, id))
            .cloned()
            .collect()
    }

    /// A lost agent's guardian puts things back and ends; the next agent settles what is left
    /// in the ledger before it says its first word, and tells us of both. Of many that were lost together, none is waited
    /// for after another.
    async fn replace(&mut self, name: &str) {
        let since = (self.agents.get(name))
            .and_then(|agent| agent.lost)
            .unwrap_or_else(Instant::now);
        let hangs = self.agents.get(name).filter(|agent| agent.is_unresponsive);
        let hung = hangs.map(|_| HUNG_AGENT_TIMEOUT);
        let deadline = match hangs {
            Some(agent) if agent.has_process => KILL_TIMEOUT,
            Some(_) => HUNG_AGENT_TIMEOUT,
            None => GUARDIAN_TIMEOUT,
        };
        let deadline = tokio::time::Instant::from_std(since + deadline);
        while !self.open_on(name).is_empty()
            && self.agents.get(name).is_some_and(|agent| !agent.is_gone())
        {
            if tokio::time::timeout_at(deadline, self.step())
                .await
                .is_err()
            {
                break;
            }
        }
        if self.open_on(name).is_empty() {
            // A worker that outlived its guardian put everything back and said so before it went.
            return;
        }
        let Some(mut before) = self.agents.remove(name) else {
            return;
        };
        let (exited, asked) = (before.exited, std::mem::take(&mut before.asked));
        let host = before.host.take();
        drop(before);
        let come = (self.settings.agent_pool)
            .reconnect(name, since, hung, &self.hear)
            .await;
        let session = match come {
            Ok(found) => found,
            Err(why) => {
                let host = host.map(|host| format!(" ({host})"));
                let why = format!(
                    "{why}; what it was asked for may still act: on its host{}, `backburn agent status` says what is there, and `backburn agent revert --all` puts it back",
                    host.unwrap_or_default()
                );
                return self.abort(AbortBy::Agent, "agent", why);
            }
        };
        // A local guardian's exit code is its word that the ledger was empty when it went. From a fleet's agent we have
        // its ledger's: what is in it for nobody any more is gone.
        let settled = match exited {
            Some(code) => code == Some(0),
            None => self.settings.agent_pool.is_fleet(),
        };
        let (owed, held) = (session.hello.owed.clone(), session.hello.held.clone());
        self.welcome(session, asked);
        for injection in self.open_on(name) {
            if let Some(owed) = owed.iter().find(|owed| owed.injection == injection) {
                self.ended(name, never_gone(owed));
            } else if settled && !held.contains(&injection) {
                self.ended(name, gone(injection, since));
            }
        }
    }

    /// Sends the agents home in peace.
    pub(super) async fn release_agents(&mut self) {
        self.timers = tokio::task::JoinSet::new();
        self.due.clear();
        let home =
            |agent: &RunAgent| agent.lost.is_some() || !agent.has_process || agent.exited.is_some();
        let is_fleet = self.settings.agent_pool.is_fleet();
        for agent in self.agents.values_mut() {
            agent.leaves = true;
            agent.handle.send(match is_fleet {
                false => Command::Goodbye,
                // It stays, and has nothing to watch for us any more.
                true => Command::Watch {
                    run: self.settings.run.clone(),
                    rules: Vec::new(),
                },
            });
        }
        let deadline = tokio::time::Instant::now() + GOODBYE_TIMEOUT;
        while !self.agents.values().all(home)
            && tokio::time::timeout_at(deadline, self.step()).await.is_ok()
        {}
        for (_, agent) in std::mem::take(&mut self.agents) {
            // With nothing injected there is nothing that could be left by this run.
            if agent.lost.is_some() || !agent.has_process || self.injecting.is_empty() {
                continue;
            }
            match agent.exited.flatten() {
                Some(0) => {}
                Some(code) => self.abort(
                    AbortBy::Revert,
                    "revert",
                    format!("the agent ended with exit code {code}"),
                ),
                None => self.abort(
                    AbortBy::Agent,
                    "agent",
                    "the agent did not end in peace".to_owned(),
                ),
            }
        }
    }
}

fn is_open_on(run: &Run, name: &str, injection: &str) -> bool {
    let found = run.injections.get(injection);
    run.is_open(injection) && found.is_some_and(|found| found.agent == name)
}

fn never_gone(owed: &Owed) -> Ended {
    Ended {
        injection: owed.injection.clone(),
        cause: Cause::Died,
        clean: false,
        residue: owed.residue.clone(),
        took: Span::default(),
        effect: None,
    }
}

fn gone(injection: wire::InjectionId, since: Instant) -> Ended {
    Ended {
        injection,
        cause: Cause::Died,
        clean: true,
        residue: Vec::new(),
        took: Span(since.elapsed()),
        effect: None,
    }
}
