//! The requests to an agent that are not yet answered.

use backburn_experiments::wire::Report;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The requests to an agent that somebody waits for, by number.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    waiting: BTreeMap<u64, Waiting>,
    /// The latest request to revert everything of every run.
    revert_all: Option<RevertAllRequest>,
    /// Whether the connection is closed: nothing will be answered.
    is_closed: bool,
}

/// Who waits for one answer.
#[derive(Debug, Default)]
struct Waiting {
    callers: Vec<oneshot::Sender<Report>>,
    /// Whether runs wait for it as an event, too.
    as_event: bool,
}

/// A request to revert everything of every run.
#[derive(Debug)]
struct RevertAllRequest {
    request: u64,
    /// Whether it was sent, and not only announced.
    is_sent: bool,
    /// Whether an injection was requested after it was sent, of which its answer says nothing.
    is_outdated: bool,
}

impl PendingRequests {
    /// Somebody waits for the answer to this request. The sender is dropped if none can come.
    pub(super) fn insert(&mut self, request: u64, caller: oneshot::Sender<Report>) {
        if !self.is_closed {
            self.waiting
                .entry(request)
                .or_default()
                .callers
                .push(caller);
        }
    }

    /// An injection is about to be requested.
    pub(super) fn injection_requested(&mut self) {
        if let Some(latest) = &mut self.revert_all {
            latest.is_outdated = latest.is_sent;
        }
    }

    /// The request to revert everything whose answer is still to come and covers all that was requested so far.
    fn current_revert_all(&mut self) -> Option<&mut RevertAllRequest> {
        let waiting = &self.waiting;
        (self.revert_all.as_mut())
            .filter(|latest| !latest.is_outdated && waiting.contains_key(&latest.request))
    }

    /// Registers a request to revert everything that will be sent in a moment.
    pub(super) fn announce_revert_all(&mut self, request: u64) {
        if self.is_closed || self.current_revert_all().is_some() {
            return;
        }
        self.waiting.entry(request).or_default();
        self.revert_all = Some(RevertAllRequest {
            request,
            is_sent: false,
            is_outdated: false,
        });
    }

    /// A run waits, too, for the answer to a request to revert everything. Its number; none if there is no such request.
    pub(super) fn join_revert_all(&mut self) -> Option<u64> {
        let request = self.current_revert_all()?.request;
        self.waiting.entry(request).or_default().as_event = true;
        Some(request)
    }

    /// Somebody wants everything reverted. The number of the request to send; none if it was sent before.
    pub(super) fn revert_all(
        &mut self,
        next: u64,
        caller: Option<oneshot::Sender<Report>>,
    ) -> Option<u64> {
        self.announce_revert_all(next);
        let latest = self.current_revert_all()?;
        let request = latest.request;
        let to_send = !std::mem::replace(&mut latest.is_sent, true);
        if let Some(caller) = caller {
            self.insert(request, caller);
        }
        to_send.then_some(request)
    }

    /// Hands an answer to those who wait for it. Gives it back if it is an event, too.
    pub(super) fn answer(&mut self, request: u64, report: Report) -> Option<Report> {
        let Some(Waiting { callers, as_event }) = self.waiting.remove(&request) else {
            return Some(report);
        };
        for caller in callers {
            // Whoever asked may have been ended since.
            caller.send(report.clone()).ok();
        }
        as_event.then_some(report)
    }

    /// The answer to this request came, and cannot be read: it counts as none.
    pub(super) fn forget(&mut self, request: u64) {
        self.waiting.remove(&request);
    }

    /// Nobody waits any more for an agent that does not answer. What it answers later comes as events.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
    }

    /// The connection is closed: nothing will be answered any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}

/// Locks the pending requests.
pub(super) fn locked(pending: &Mutex<PendingRequests>) -> MutexGuard<'_, PendingRequests> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reverted(request: u64) -> Report {
        Report::AllReverted {
            request,
            owed: Vec::new(),
            held: Vec::new(),
        }
    }

    #[test]
    fn revert_request_of_a_run_joins_an_announced_or_sent_one_of_a_halt() {
        let mut pending = PendingRequests::default();
        assert_eq!(pending.join_revert_all(), None, "nothing to join");
        pending.announce_revert_all(1);
        assert_eq!(pending.join_revert_all(), Some(1));
        let (caller, mut answer) = oneshot::channel();
        assert_eq!(pending.revert_all(2, Some(caller)), Some(1), "as announced");
        let (second, mut second_answer) = oneshot::channel();
        assert_eq!(pending.revert_all(3, Some(second)), None, "sent before");
        assert!(pending.answer(1, reverted(1)).is_some(), "the run waits");
        assert!(answer.try_recv().is_ok() && second_answer.try_recv().is_ok());
        assert_eq!(pending.join_revert_all(), None, "it is answered");
        assert!(pending.answer(9, reverted(9)).is_some(), "nobody waits");
    }

    #[test]
    fn revert_request_does_not_join_one_that_was_sent_before_an_injection() {
        let mut pending = PendingRequests::default();
        pending.announce_revert_all(1);
        pending.injection_requested();
        assert_eq!(pending.join_revert_all(), Some(1), "it is sent afterwards");
        let (caller, _answer) = oneshot::channel();
        assert_eq!(pending.revert_all(2, Some(caller)), Some(1));
        pending.injection_requested();
        assert_eq!(pending.join_revert_all(), None);
        let (caller, _answer) = oneshot::channel();
        assert_eq!(pending.revert_all(3, Some(caller)), Some(3));
        assert!(
            pending.answer(1, reverted(1)).is_some(),
            "the run still waits for the first"
        );
        assert!(
            pending.answer(3, reverted(3)).is_none(),
            "no run waits for the second"
        );
    }

    #[test]
    fn request_over_a_closed_connection_fails_at_once() {
        let mut pending = PendingRequests::default();
        pending.close();
        let (caller, mut answer) = oneshot::channel();
        pending.insert(1, caller);
        assert!(matches!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
        let (caller, mut answer) = oneshot::channel();
        assert_eq!(pending.revert_all(2, Some(caller)), None);
        assert!(answer.try_recv().is_err());
    }
}
