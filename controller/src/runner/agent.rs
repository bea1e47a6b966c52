//! The agent of a local run: started, lost, started again, sent home.

use super::Runner;
use crate::link::{Heard, Link};
use crate::providers::Around;
use backburn_experiments::check::Watch;
use backburn_experiments::document::{Activity, Provider};
use backburn_experiments::journal::{AbortBy, Event};
use backburn_experiments::wire::{Cause, Command, Ended, Hello, Owed};
use backburn_experiments::{Span, wire};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lost agent's guardian may take to put everything back and end.
const GUARDIAN_WITHIN: Duration = Duration::from_secs(30);
/// How long an agent may take to revert all.
const REVERT_WITHIN: Duration = Duration::from_secs(30);
/// How long an agent may take to end in peace; it has nothing left to do.
const GOODBYE_WITHIN: Duration = Duration::from_secs(10);

/// An agent that takes part.
pub(super) struct Agent {
    pub(super) link: Link,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// The request to revert all that was sent, and whether it was answered.
    reverting: Option<u64>,
    reverted: bool,
    /// When we knew that it was lost.
    lost: Option<Instant>,
    /// Whether its link is closed. A worker whose guardian was killed may still have things to say.
    closed: bool,
    /// Whether its process is known to have ended, and with which exit code.
    exited: Option<Option<i32>>,
}

impl Agent {
    fn new(link: Link, hello: &Hello) -> Self {
        let (name, labels) = (hello.agent.clone(), hello.labels.clone());
        Agent {
            link,
            name,
            labels,
            reverting: None,
            reverted: false,
            lost: None,
            closed: false,
            exited: None,
        }
    }
}

/// What comes from the agent; never anything where there is none.
pub(super) async fn heard(agent: &mut Option<Agent>) -> Heard {
    match agent {
        Some(agent) => agent.link.heard().await,
        None => std::future::pending().await,
    }
}

impl Runner {
    /// Whether somebody is needed who can touch or measure the host.
    pub(super) fn needs_agent(&self) -> bool {
        let of_host = |activity: &Activity| matches!(activity.provider, Provider::Host(_));
        let experiment = &self.experiment;
        self.has_fault()
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

    /// Starts the agent and lets it introduce itself.
    pub(super) async fn join(&mut self) {
        let hint = Some("`backburn agent doctor` says what this host can do".to_owned());
        let started = (self.settings.start)();
        let mut link = match started {
            Ok(link) => link,
            Err(error) => {
                return self.not_started(
                    "agent",
                    format!("the local agent could not be started: {error}"),
                    hint,
                );
            }
        };
        let hello = tokio::select! {
            hello = link.hello() => hello,
            Some(by) = self.stop.recv() => {
                self.asked_to_stop(&by);
                return;
            }
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(why) => {
                return self.not_started(
                    "agent",
                    format!("the local agent did not come up: {why}"),
                    hint,
                );
            }
        };
        self.welcome(link, hello);
        let owed = self
            .record
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

    fn welcome(&mut self, link: Link, hello: Hello) {
        let agent = Agent::new(link, &hello);
        self.around = Arc::new(Around {
            configuration: self.experiment.configuration.clone(),
            secrets: self.experiment.secrets.clone(),
            own_secrets: None,
            agent: Some(agent.link.caller()),
        });
        self.agent = Some(agent);
        self.put(Event::AgentJoined {
            agent: hello.agent,
            recovered: hello.recovered,
            owed: hello.owed,
        });
    }

    /// Tells the agent to put everything back, once. Does not wait.
    pub(super) fn ask_revert(&mut self) {
        // Before the method nothing was injected, and nothing is until it begins.
        if self.injecting.is_empty() {
            return;
        }
        if let Some(agent) = self
            .agent
            .as_mut()
            .filter(|agent| agent.reverting.is_none() && agent.lost.is_none())
        {
            let caller = agent.link.caller();
            let request = caller.request();
            caller.say(Command::RevertAll { request });
            agent.reverting = Some(request);
        }
    }

    pub(super) fn all_reverted(&mut self, request: u64, owed: Vec<Owed>) {
        let Some(agent) = self
            .agent
            .as_mut()
            .filter(|agent| agent.reverting == Some(request))
        else {
            return;
        };
        agent.reverted = true;
        for owed in owed {
            if self.record.run.is_open(&owed.injection) {
                self.ended(never_gone(&owed));
            }
        }
    }

    /// The link closed, and not because we said goodbye.
    pub(super) fn closed(&mut self, why: String) {
        self.lost(why);
        if let Some(agent) = &mut self.agent {
            agent.closed = true;
        }
    }

    fn lost(&mut self, why: String) {
        let Some(agent) = self.agent.as_mut().filter(|agent| agent.lost.is_none()) else {
            return;
        };
        agent.lost = Some(Instant::now());
        // One that only hangs must not keep its faults because we still beat.
        agent.link.hang_up();
        let name = agent.name.clone();
        // Once all is reverted nothing of the run depends on it any more.
        if self.reverted_at.is_none() {
            self.put(Event::AgentLost {
                agent: name.clone(),
                reason: why,
            });
            self.abort(
                AbortBy::Agent,
                "agent",
                format!("the run cannot go on without `{name}`"),
            );
        }
    }

    pub(super) fn exited(&mut self, code: Option<i32>) {
        let why = match code {
            Some(code) => format!("its process ended with exit code {code}"),
            None => "its process was killed".to_owned(),
        };
        self.lost(why);
        if let Some(agent) = &mut self.agent {
            agent.exited = Some(code);
        }
    }

    /// Puts everything back, and waits until the agent, or the one that comes after it, says so.
    pub(super) async fn revert_all(&mut self) {
        if self.agent.is_none() || self.injecting.is_empty() {
            return;
        }
        self.ask_revert();
        let deadline = tokio::time::Instant::now() + REVERT_WITHIN;
        while self
            .agent
            .as_ref()
            .is_some_and(|agent| !agent.reverted && agent.lost.is_none())
        {
            if tokio::time::timeout_at(deadline, self.turn())
                .await
                .is_err()
            {
                self.lost(format!(
                    "it did not put everything back within {}",
                    Span(REVERT_WITHIN)
                ));
            }
        }
        let lost = self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.lost.is_some());
        if lost && self.record.run.open().next().is_some() {
            self.replace().await;
        }
    }

    /// A lost agent's guardian puts things back and ends; the next agent settles what is left
    /// in the ledger before it says its first word, and tells us of both.
    async fn replace(&mut self) {
        let since = self
            .agent
            .as_ref()
            .and_then(|agent| agent.lost)
            .unwrap_or_else(Instant::now);
        let deadline = tokio::time::Instant::now() + GUARDIAN_WITHIN;
        while self.agent.as_ref().is_some_and(|agent| {
            !agent.closed || (agent.link.has_process() && agent.exited.is_none())
        }) {
            if tokio::time::timeout_at(deadline, self.turn())
                .await
                .is_err()
            {
                break;
            }
        }
        if self.record.run.open().next().is_none() {
            // A worker that outlived its guardian put everything back and said so before it went.
            return;
        }
        let guardian = self.agent.take().and_then(|agent| agent.exited).flatten();
        let mut next = match (self.settings.start)() {
            Ok(link) => link,
            Err(error) => {
                return self.abort(
                    AbortBy::Agent,
                    "agent",
                    format!("no agent could be started again: {error}"),
                );
            }
        };
        let hello = match next.hello().await {
            Ok(hello) => hello,
            Err(why) => {
                return self.abort(
                    AbortBy::Agent,
                    "agent",
                    format!("the next agent did not come up: {why}"),
                );
            }
        };
        let owed = hello.owed.clone();
        self.welcome(next, hello);
        let open: Vec<_> = self.record.run.open().map(|(id, _)| id.clone()).collect();
        for injection in open {
            if let Some(owed) = owed.iter().find(|owed| owed.injection == injection) {
                self.ended(never_gone(owed));
            } else if guardian == Some(0) {
                // Its exit code is the guardian's word that the ledger was empty when it went.
                self.ended(gone(injection, since));
            }
        }
    }

    /// Ends the agent in peace.
    pub(super) async fn farewell(&mut self) {
        self.timers = tokio::task::JoinSet::new();
        let Some(agent) = self.agent.take() else {
            return;
        };
        if agent.lost.is_some() || !agent.link.has_process() {
            agent.link.caller().say(Command::Goodbye);
            return;
        }
        match agent.link.goodbye(GOODBYE_WITHIN).await {
            Some(0) => {}
            // With nothing injected there is nothing that could be left by this run.
            _ if self.injecting.is_empty() => {}
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
