//! What becomes of runs that ended not clean. Their agents are asked again when they are connected, and when all of them have
//! observed that nothing is left, that is noted beside the verdict. The journal, and with it the verdict, stays as it is.

use super::{Service, lock};
use crate::store::{CLEANED, NoteStream, RunNote, StoreError};
use backburn_experiments::journal::{InjectionState, Outcome, Run, Verdict};
use backburn_experiments::wire::InjectionId;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before agents that still owe something are asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(30);
/// How long an agent may take to answer: it reverts what is left first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// The name that stands for the controller itself in notes and in the audit log.
const CONTROLLER: &str = "controller";

/// The injections of a run that are not proved to be gone, by agent.
pub(super) type Unproved = BTreeMap<String, BTreeSet<InjectionId>>;

/// The injections of a run that are not proved to be gone.
fn unproved(run: &Run) -> Unproved {
    let mut left = Unproved::new();
    for (id, injection) in &run.injections {
        let is_gone = match &injection.state {
            InjectionState::Requested | InjectionState::Acting => false,
            InjectionState::Refused => true,
            InjectionState::Ended(ended) => ended.clean,
        };
        if !is_gone {
            let of = left.entry(injection.agent.clone()).or_default();
            of.insert(id.clone());
        }
    }
    left
}

impl Service {
    /// How many injections of ended runs are not proved to be gone.
    pub fn unproved_injections(&self) -> usize {
        let unclean = lock(&self.unclean);
        unclean
            .values()
            .flat_map(BTreeMap::values)
            .map(BTreeSet::len)
            .sum()
    }

    /// Remembers a run that ended, if it ended not clean.
    pub(super) fn remember_unclean(&self, run: &str, verdict: &Verdict) {
        if verdict.outcome != Outcome::NotClean {
            return;
        }
        match self.read(run) {
            Ok(journal) => {
                lock(&self.unclean).insert(run.to_owned(), unproved(&journal.run));
                self.unclean_changed.send_modify(|count| *count += 1);
            }
            Err(error) => {
                tracing::error!(run, %error, "the journal of a run that is not clean could not be read");
            }
        }
    }

    /// Reads which runs are not clean.
    fn load_unclean(&self) -> Result<(), StoreError> {
        for run in self.store.unclean_runs()? {
            let journal = self.read(&run)?;
            lock(&self.unclean).insert(run, unproved(&journal.run));
        }
        Ok(())
    }

    /// Asks the agents of runs that are not clean, for as long as the controller runs.
    pub async fn watch_unclean_runs(self: Arc<Self>) {
        let mut unclean = self.unclean_changed.subscribe();
        let mut agents = self.fleet.changes();
        let service = Arc::clone(&self);
        let loaded = tokio::task::spawn_blocking(move || service.load_unclean()).await;
        if !matches!(loaded, Ok(Ok(()))) {
            tracing::error!(?loaded, "the runs that are not clean could not be read");
        }
        loop {
            unclean.borrow_and_update();
            agents.borrow_and_update();
            let runs = lock(&self.unclean).clone();
            for (run, left) in &runs {
                self.ask_unclean(run, left).await;
            }
            let is_waiting = !lock(&self.unclean).is_empty();
            tokio::select! {
                changed = unclean.changed() => if changed.is_err() { return },
                changed = agents.changed(), if is_waiting => if changed.is_err() { return },
                () = tokio::time::sleep(ASK_INTERVAL), if is_waiting => {}
            }
        }
    }

    /// Asks the connected agents of a run what is left of it, and notes when nothing is.
    async fn ask_unclean(self: &Arc<Self>, run: &str, left: &Unproved) {
        let mut still = left.clone();
        for (agent, injections) in left {
            if self.observes_nothing(run, agent, injections).await {
                still.remove(agent);
            }
        }
        if !still.is_empty() {
            if let Some(known) = lock(&self.unclean).get_mut(run) {
                *known = still;
            }
            return;
        }
        let service = Arc::clone(self);
        let note = RunNote {
            at: Timestamp::now(),
            who: CONTROLLER.into(),
            kind: CLEANED.into(),
            body: json!({"agents": left.keys().collect::<Vec<_>>()}),
        };
        let id = run.to_owned();
        let noted =
            tokio::task::spawn_blocking(move || service.record_note(NoteStream::Run, &id, &note))
                .await;
        match noted {
            Ok(Ok(_)) => {
                lock(&self.unclean).remove(run);
                tracing::info!(run, "nothing is left of a run that ended not clean");
            }
            failed => {
                tracing::error!(
                    run,
                    ?failed,
                    "it could not be noted that a run is clean now"
                );
            }
        }
    }

    /// Whether an agent has looked, and observed that nothing of these injections is left on its host.
    pub async fn observes_nothing(
        self: &Arc<Self>,
        run: &str,
        agent: &str,
        injections: &BTreeSet<InjectionId>,
    ) -> bool {
        let Some(handle) = self.fleet.handle(agent) else {
            return false;
        };
        if handle.is_unresponsive() {
            return false;
        }
        let (service, name, id) = (Arc::clone(self), agent.to_owned(), run.to_owned());
        let is_same = tokio::task::spawn_blocking(move || service.is_same_agent(&id, &name)).await;
        if !matches!(is_same, Ok(Ok(true))) {
            return false;
        }
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, handle.revert_run(run)).await;
        let Ok(Some((owed, held))) = answer else {
            return false;
        };
        let is_left = |id: &InjectionId| injections.contains(id);
        !owed.iter().any(|owed| is_left(&owed.injection)) && !held.iter().any(is_left)
    }

    /// Whether the agent of this name is the one that took part in the run. One that joined later has another ledger, which
    /// says nothing about the run.
    fn is_same_agent(&self, run: &str, agent: &str) -> Result<bool, StoreError> {
        let started = self.store.run(run)?.new.started;
        Ok(self.store.agent(agent)?.enrolled <= started)
    }
}
