//! The halt: every agent is told to revert everything, and is waited for as long as it answers.

use super::Fleet;
use crate::agent_connection::{AgentHandle, EventKind};
use backburn_experiments::wire::{Cause, EndedInjection, Report, UnrevertedInjection};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// An agent that has sent nothing for this long after it was told to revert everything is asked for a sign of life.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(1);
/// An agent that has still sent nothing then is reported as unresponsive, and not waited for.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(4);
/// How many reports of one agent's guardian are kept.
const MAX_GUARDIAN_REPORTS: usize = 10_000;

/// What an agent did when it was told to revert everything.
#[derive(Debug, Clone)]
pub struct AgentReverted {
    /// The name of the agent.
    pub agent: String,
    /// The time from the command to its report that everything is gone. None if it did not report that.
    pub took: Option<Duration>,
    /// What could not be proved gone.
    pub owed: Vec<UnrevertedInjection>,
    /// Whether it is connected and does not answer.
    pub unresponsive: bool,
    /// What its guardian has reverted because its worker died or hung.
    pub guardian: Vec<EndedInjection>,
}

/// Holds events of agents back, and delivers them in their order when it is dropped.
struct EventDeferral<'a>(&'a Fleet);

impl Drop for EventDeferral<'_> {
    fn drop(&mut self) {
        // Under the lock, so that no later event comes in between.
        let mut deferred = self.0.deferred();
        for (events, event) in deferred.take().into_iter().flatten() {
            // A run that is over does not receive any more.
            events.send(event).ok();
        }
    }
}

impl Fleet {
    /// Whether a halt is in force.
    pub fn is_halted(&self) -> bool {
        self.is_halted.load(Ordering::SeqCst)
    }

    /// From now on no agent can be reserved. Runs that are told to end before [`revert_all`](Self::revert_all) is called
    /// wait for its requests instead of sending their own.
    pub fn halt(&self) {
        self.guardians().clear();
        self.is_halted.store(true, Ordering::SeqCst);
        // Reservations check for a halt under this lock: those made before are complete.
        for member in self.members().values() {
            member.handle.announce_revert_all();
        }
    }

    /// Agents can be reserved again.
    pub fn resume(&self) {
        self.is_halted.store(false, Ordering::SeqCst);
    }

    pub(super) fn guardians(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<EndedInjection>>> {
        (self.guardians.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a guardian reports for a dead worker while a halt is in force.
    pub(super) fn record_guardian_report(&self, agent: &str, kind: &EventKind) {
        let EventKind::Report(report) = kind else {
            return;
        };
        if let Report::Ended(ended) = &**report
            && ended.cause == Cause::AgentDied
            && (self.is_halted() || self.is_team_halted(agent))
        {
            let mut guardians = self.guardians();
            let said = guardians.entry(agent.to_owned()).or_default();
            if said.len() < MAX_GUARDIAN_REPORTS {
                said.push(ended.clone());
            }
        }
    }

    /// Has every connected agent revert everything. Calls `report` for each as soon as it has answered, is known not to
    /// answer, or the time is over. Runs get the events of all agents after that, or after one second: recording them at
    /// the same time would delay the agents that have not reverted yet.
    pub async fn revert_all(&self, timeout: Duration, report: impl FnMut(AgentReverted)) {
        let deferral = Some(self.defer_events());
        self.revert(|_| true, deferral, timeout, report).await;
    }

    /// Has these of the connected agents revert everything. Other agents, and their runs, do not notice.
    pub async fn revert_agents(
        &self,
        agents: &BTreeSet<String>,
        timeout: Duration,
        report: impl FnMut(AgentReverted),
    ) {
        let includes = |name: &str| agents.contains(name);
        self.revert(includes, None, timeout, report).await;
    }

    async fn revert(
        &self,
        includes: impl Fn(&str) -> bool,
        mut deferral: Option<EventDeferral<'_>>,
        timeout: Duration,
        mut report: impl FnMut(AgentReverted),
    ) {
        let began = Instant::now();
        let handles: Vec<(String, AgentHandle)> = (self.members().iter())
            .filter(|(name, _)| includes(name))
            .map(|(name, member)| (name.clone(), member.handle.clone()))
            .collect();
        // All agents are told before the first answer is awaited.
        let mut waited_for: BTreeMap<String, (AgentHandle, u64)> = BTreeMap::new();
        let mut answers = FuturesUnordered::new();
        for (agent, handle) in handles {
            let received = handle.messages_received();
            let answer = handle.start_revert_all();
            waited_for.insert(agent.clone(), (handle, received));
            answers.push(async move { (agent, answer.await) });
        }
        let mut stages = [HEARTBEAT_AFTER, UNRESPONSIVE_AFTER, timeout].into_iter();
        let mut stage = stages.next();
        while let Some(length) = stage
            && !waited_for.is_empty()
        {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = sleep_until(began + length) => {
                    if length == HEARTBEAT_AFTER {
                        deferral = None;
                        // Agents that do not answer heartbeats are waited for to the end.
                        for (handle, received) in waited_for.values_mut() {
                            if *received == handle.messages_received() && !handle.request_heartbeat(self.lease) {
                                *received = u64::MAX;
                            }
                        }
                    }
                    if length == UNRESPONSIVE_AFTER {
                        let is_silent = |(handle, received): &(AgentHandle, u64)| *received == handle.messages_received();
                        let silent = waited_for.extract_if(.., |_, of| is_silent(of));
                        silent.for_each(|(agent, _)| report(self.unanswered(agent, true)));
                    }
                    stage = stages.next();
                    continue;
                }
            };
            let Some((agent, answer)) = answer else { break };
            let Some((handle, _)) = waited_for.remove(&agent) else {
                continue;
            };
            let Ok(Report::AllReverted { owed, .. }) = answer else {
                // Its connection is closed, or it does not answer: nothing more will come.
                report(self.unanswered(agent, handle.is_unresponsive()));
                continue;
            };
            if let Some(member) = self.members().get_mut(&agent) {
                member.introduction.owed.clone_from(&owed);
            }
            report(AgentReverted {
                agent,
                took: Some(began.elapsed()),
                owed,
                unresponsive: false,
                guardian: Vec::new(),
            });
        }
        drop(deferral);
        for (agent, (handle, _)) in waited_for {
            report(self.unanswered(agent, handle.is_unresponsive()));
        }
    }

    /// Holds events of agents back until the returned value is dropped.
    fn defer_events(&self) -> EventDeferral<'_> {
        self.deferred().get_or_insert_default();
        EventDeferral(self)
    }

    fn unanswered(&self, agent: String, unresponsive: bool) -> AgentReverted {
        AgentReverted {
            took: None,
            owed: Vec::new(),
            unresponsive,
            guardian: self.guardians().get(&agent).cloned().unwrap_or_default(),
            agent,
        }
    }

    /// The runs that have reserved this agent, whether or not it is connected.
    pub fn runs_of(&self, agent: &str) -> Vec<String> {
        let runs = self.runs();
        let claims = runs.get(agent).into_iter().flatten();
        claims.map(|claim| claim.run.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Reservation;
    use crate::fleet::reservation::tests::connect;
    use backburn_experiments::HumanDuration;
    use std::sync::Arc;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    #[tokio::test]
    async fn halt_sends_one_request_and_delivers_its_answer_to_the_run_after_all_earlier_events() {
        let fleet = Arc::new(Fleet::new(HumanDuration::seconds(30)));
        let (from, mut to) = tokio::io::split(connect(&fleet).await);
        let mut reservation = Reservation::new(Arc::clone(&fleet), "run");
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let sessions = reservation
            .reserve(&["a".to_owned()].into(), &sender)
            .unwrap();
        fleet.halt();
        let request = sessions[0].handle.start_revert_run("run");
        let halting = Arc::clone(&fleet);
        let halt = tokio::spawn(async move {
            let mut reverted = Vec::new();
            let timeout = Duration::from_secs(30);
            halting
                .revert_all(timeout, |agent| reverted.push(agent))
                .await;
            reverted
        });
        let mut lines = BufReader::new(from).lines();
        let asked = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if line.contains("revert-all") {
                break line;
            }
        };
        assert!(asked.contains(&format!("\"request\":{request}")), "{asked}");
        let effect = Report::AbortRuleTriggered {
            run: "run".into(),
            rule: String::new(),
            seen: String::new(),
        };
        let answer = Report::AllReverted {
            request,
            owed: Vec::new(),
            held: Vec::new(),
        };
        let mut line = serde_json::to_string(&effect).unwrap() + "\n";
        to.write_all(line.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(events.try_recv().is_err(), "it is held back");
        line = serde_json::to_string(&answer).unwrap() + "\n";
        to.write_all(line.as_bytes()).await.unwrap();
        let reverted = halt.await.unwrap();
        assert!(reverted[0].took.is_some(), "{reverted:?}");
        let mut received = Vec::new();
        while let Ok(event) = events.try_recv() {
            received.push(event.kind);
        }
        assert!(
            matches!(&received[..], [EventKind::Report(first), EventKind::Report(last)]
                if matches!(**first, Report::AbortRuleTriggered { .. }) && matches!(**last, Report::AllReverted { .. })),
            "{received:?}"
        );
    }
}
