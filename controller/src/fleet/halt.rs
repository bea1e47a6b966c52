//! The lever: every agent is told to put everything back, and each is waited for as long as it answers.

use super::Fleet;
use crate::agent_connection::{AgentHandle, EventKind};
use backburn_experiments::wire::{Cause, Ended, Owed, Report};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// An agent that has said nothing at all for so long after it was told to put everything back is asked whether it lives.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(1);
/// One that has then still said nothing is named as unresponsive, and not waited for.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(4);
/// The most that is kept of what one agent's guardian says.
const MAX_GUARDIAN_REPORTS: usize = 10_000;

/// The lever that ends every fault at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HaltState {
    /// Agents may be held.
    Running,
    /// Nobody may; agents are told to put everything back, and listened to.
    Reverting,
    /// Nobody may; every agent has answered, or has had its time.
    Settled,
}

/// What an agent did when the lever was pulled.
#[derive(Debug, Clone)]
pub struct Reverted {
    /// The agent.
    pub agent: String,
    /// From the command to its word that everything is gone. None where it has not said so.
    pub took: Option<Duration>,
    /// What could not be proved gone.
    pub owed: Vec<Owed>,
    /// Whether it is connected and says nothing.
    pub unresponsive: bool,
    /// What its guardian has put back for it, because it died or hung.
    pub guardian: Vec<Ended>,
}

impl Fleet {
    /// Whether the lever is pulled.
    pub fn is_halted(&self) -> bool {
        *self.halt_state.borrow() != HaltState::Running
    }

    /// From now on nobody can be held.
    pub fn halt(&self) {
        self.guardians().clear();
        self.halt_state.send_replace(HaltState::Reverting);
    }

    /// Agents may be held again.
    pub fn resume(&self) {
        self.halt_state.send_replace(HaltState::Running);
    }

    fn guardians(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Ended>>> {
        (self.guardians.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a guardian says for a dead worker, while the lever is pulled.
    pub(super) fn record_guardian_report(&self, agent: &str, kind: &EventKind) {
        let EventKind::Report(report) = kind else {
            return;
        };
        if let Report::Ended(ended) = &**report
            && ended.cause == Cause::Died
            && self.is_halted()
        {
            let mut guardians = self.guardians();
            let said = guardians.entry(agent.to_owned()).or_default();
            if said.len() < MAX_GUARDIAN_REPORTS {
                said.push(ended.clone());
            }
        }
    }

    /// Has every connected agent put everything back, and tells of each as soon as it has, does not answer, or the time is over.
    pub async fn revert_all(&self, within: Duration, mut told: impl FnMut(Reverted)) {
        let began = Instant::now();
        let handles: Vec<(String, AgentHandle)> = (self.members().iter())
            .map(|(name, member)| (name.clone(), member.handle.clone()))
            .collect();
        // Every one is told before the first is listened to.
        let mut waited_for: BTreeMap<String, (AgentHandle, u64)> = BTreeMap::new();
        let mut answers = FuturesUnordered::new();
        for (agent, handle) in handles {
            let received = handle.messages_received();
            let answer = handle.start_revert_all();
            waited_for.insert(agent.clone(), (handle, received));
            answers.push(async move { (agent, answer.await) });
        }
        let mut stages = [HEARTBEAT_AFTER, UNRESPONSIVE_AFTER, within].into_iter();
        let mut stage = stages.next();
        while let Some(length) = stage
            && !waited_for.is_empty()
        {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = sleep_until(began + length) => {
                    if length == HEARTBEAT_AFTER {
                        // Those that do not answer beats are waited for to the end.
                        for (handle, received) in waited_for.values_mut() {
                            if *received == handle.messages_received() && !handle.request_heartbeat(self.lease) {
                                *received = u64::MAX;
                            }
                        }
                    }
                    if length == UNRESPONSIVE_AFTER {
                        let is_silent = |(handle, received): &(AgentHandle, u64)| *received == handle.messages_received();
                        let silent = waited_for.extract_if(.., |_, of| is_silent(of));
                        silent.for_each(|(agent, _)| told(self.unanswered(agent, true)));
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
                // Its link is closed, or it does not answer; nothing more will come of it.
                told(self.unanswered(agent, handle.is_unresponsive()));
                continue;
            };
            if let Some(member) = self.members().get_mut(&agent) {
                member.introduction.owed.clone_from(&owed);
            }
            told(Reverted {
                agent,
                took: Some(began.elapsed()),
                owed,
                unresponsive: false,
                guardian: Vec::new(),
            });
        }
        self.halt_state.send_if_modified(|halt_state| {
            let pulled = *halt_state == HaltState::Reverting;
            if pulled {
                *halt_state = HaltState::Settled;
            }
            pulled
        });
        for (agent, (handle, _)) in waited_for {
            told(self.unanswered(agent, handle.is_unresponsive()));
        }
    }

    fn unanswered(&self, agent: String, unresponsive: bool) -> Reverted {
        Reverted {
            took: None,
            owed: Vec::new(),
            unresponsive,
            guardian: self.guardians().get(&agent).cloned().unwrap_or_default(),
            agent,
        }
    }

    /// The runs that hold this agent, whether it is connected or not.
    pub fn runs_of(&self, agent: &str) -> Vec<String> {
        let runs = self.runs();
        let claims = runs.get(agent).into_iter().flatten();
        claims.map(|claim| claim.run.clone()).collect()
    }
}
