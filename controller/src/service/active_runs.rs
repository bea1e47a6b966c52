//! The runs that are not closed yet: who follows them, and who ends them.

use super::{RunStartError, Service, lock};
use backburn_experiments::journal::Event;
use backburn_experiments::wire::{InjectionId, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Why runs are stopped when the controller ends.
pub(super) const CONTROLLER_ENDS: &str = "the controller ends";

/// A run that is not closed yet.
#[derive(Debug)]
pub(super) struct ActiveRun {
    pub(super) stop: mpsc::UnboundedSender<String>,
    /// The number of events in its journal. Dropped when the run is closed.
    pub(super) events: watch::Sender<u64>,
    /// The injections that were requested and are not known to be over.
    pub(super) open: watch::Sender<BTreeSet<InjectionId>>,
    /// Whether it was aborted: nothing new is injected.
    ending: AtomicBool,
    /// Whether it was asked to end because of quiet hours.
    pub(super) is_quieted: AtomicBool,
}

impl ActiveRun {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (stop, stopped) = mpsc::unbounded_channel();
        let running = ActiveRun {
            stop,
            events: watch::Sender::new(0),
            open: watch::Sender::new(BTreeSet::new()),
            ending: AtomicBool::new(false),
            is_quieted: AtomicBool::new(false),
        };
        (Arc::new(running), stopped)
    }

    /// Follows an event that is in the journal.
    pub(super) fn follow(&self, event: &Event) {
        match event {
            Event::InjectionRequested { injection, .. } => self.open.send_modify(|open| {
                open.insert(injection.clone());
            }),
            Event::Aborted(_) => self.ending.store(true, Ordering::Relaxed),
            Event::InjectionRefused { injection, .. } => self.closed(injection),
            Event::InjectionEnded(ended) if ended.clean => self.closed(&ended.injection),
            Event::AgentJoined { recovered, .. } => recovered
                .iter()
                .filter(|ended| ended.clean)
                .for_each(|ended| self.closed(&ended.injection)),
            _ => {}
        }
        self.events.send_modify(|events| *events += 1);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// An injection is over. Those who wait are woken by the last one.
    fn closed(&self, injection: &str) {
        self.open
            .send_if_modified(|open| open.remove(injection) && open.is_empty());
    }
}

impl Service {
    /// Asks a run to end, with this reason; everything it injected is reverted. The wait of one that waits for approval ends.
    /// Whether there is such a run.
    ///
    /// # Errors
    /// The store failed.
    pub fn stop_or_withdraw(
        self: &Arc<Self>,
        run: &str,
        why: String,
    ) -> Result<bool, RunStartError> {
        if self.stop(run, why.clone()) {
            return Ok(true);
        }
        match self.end_wait(run, &Refusal::new("approval", why)) {
            Ok(()) => Ok(true),
            Err(RunStartError::Refusal(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks an active run to end, with this reason; everything it injected is reverted. Whether there is such a run.
    pub fn stop(&self, run: &str, why: String) -> bool {
        let runs = lock(&self.runs);
        runs.get(run)
            .inspect(|running| {
                running.stop.send(why).ok();
            })
            .is_some()
    }

    /// The runs that are not closed, and how many injections of each are not known to be over.
    pub fn active_runs(&self) -> BTreeMap<String, usize> {
        let runs = lock(&self.runs);
        let open = |running: &Arc<ActiveRun>| running.open.borrow().len();
        runs.iter()
            .map(|(run, running)| (run.clone(), open(running)))
            .collect()
    }

    /// Changes with each event of a run. None if the run is closed.
    pub fn follow(&self, run: &str) -> Option<watch::Receiver<u64>> {
        lock(&self.runs)
            .get(run)
            .map(|running| running.events.subscribe())
    }

    /// Whether the controller ends, so that no run can start.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Asks every run to end, and waits until all are closed, at most this long. Returns those that were not.
    pub async fn end_runs(&self, timeout: Duration) -> Vec<String> {
        self.ending.store(true, Ordering::SeqCst);
        for running in lock(&self.runs).values() {
            running.stop.send(CONTROLLER_ENDS.to_owned()).ok();
        }
        let until = tokio::time::Instant::now() + timeout;
        loop {
            let left: Vec<String> = lock(&self.runs).keys().cloned().collect();
            if left.is_empty() || tokio::time::Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
