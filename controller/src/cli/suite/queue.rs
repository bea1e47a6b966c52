//! Which experiment of a suite runs next: in order, several at a time if they cannot hit the same, and none once the suite is stopped.

use super::footprint::Footprint;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The experiments of a suite by their places, shared by the threads that plan and run them.
#[derive(Debug, Default)]
pub(super) struct SuiteQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Places that are not planned yet.
    unplanned: usize,
    /// Experiments that wait, in order.
    waiting: Vec<(usize, Footprint)>,
    running: Vec<(usize, Footprint)>,
    /// Why nothing new starts.
    stopped: Option<String>,
}

impl SuiteQueue {
    /// A queue to which this many experiments will come.
    pub(super) fn of(count: usize) -> Self {
        let queue = SuiteQueue::default();
        queue.lock().unplanned = count;
        queue
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next experiment, with what it would hit.
    pub(super) fn add(&self, place: usize, footprint: Footprint) {
        let mut state = self.lock();
        state.unplanned = state.unplanned.saturating_sub(1);
        state.waiting.push((place, footprint));
        self.changed.notify_all();
    }

    /// Waits until an experiment may start, and takes the first of them. One that meets a running one waits, and later ones may overtake it.
    /// None when none is left, or the suite is stopped.
    pub(super) fn next(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopped.is_some() || (state.unplanned == 0 && state.waiting.is_empty()) {
                return None;
            }
            let free = (state.waiting.iter())
                .position(|(_, own)| !state.running.iter().any(|(_, other)| own.meets(other)));
            if let Some(at) = free {
                let (place, footprint) = state.waiting.remove(at);
                state.running.push((place, footprint));
                return Some(place);
            }
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An experiment is over.
    pub(super) fn done(&self, place: usize) {
        self.lock().running.retain(|(running, _)| *running != place);
        self.changed.notify_all();
    }

    /// Starts nothing new. The first reason counts.
    pub(super) fn stop(&self, why: String) {
        self.lock().stopped.get_or_insert(why);
        self.changed.notify_all();
    }

    /// Why nothing new starts; none while the suite goes on.
    pub(super) fn stopped(&self) -> Option<String> {
        self.lock().stopped.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: &str) -> Footprint {
        Footprint::Processes([("host".to_owned(), id.to_owned())].into())
    }

    #[test]
    fn queue_holds_back_what_meets_a_running_one() {
        let queue = SuiteQueue::of(4);
        for (place, id) in ["a", "a", "b", "a"].iter().enumerate() {
            queue.add(place, process(id));
        }
        assert_eq!((queue.next(), queue.next()), (Some(0), Some(2)));
        queue.done(0);
        assert_eq!(queue.next(), Some(1));
        queue.done(1);
        queue.done(2);
        assert_eq!(queue.next(), Some(3));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn queue_stopped_gives_out_nothing_more() {
        let queue = SuiteQueue::of(2);
        queue.add(0, process("a"));
        queue.stop("first".into());
        queue.stop("second".into());
        assert_eq!(queue.next(), None);
        assert_eq!(queue.stopped().as_deref(), Some("first"));
    }

    #[test]
    fn queue_waits_for_what_is_not_planned_yet() {
        let queue = SuiteQueue::of(1);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.next());
            queue.add(0, Footprint::Unknown);
            assert_eq!(next.join().ok().flatten(), Some(0));
        });
    }
}
