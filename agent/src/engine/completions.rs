//! What the worker's own thread never does itself. It owns deadlines, leases and the link and only ever waits in its `poll`;
//! everything that may take time is done by others, which tell it when they are done:
//!
//! * one *executor*, which writes the ledger and applies. It lives as long as the worker, since helpers die with the thread
//!   that started them (`docs/decisions/single-threaded-worker.md`);
//! * one *observer*, which looks at what acting faults do;
//! * a thread for each end (see `revert`), so that no end waits behind another.

use super::InjectionFailure;
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{Effect, EndedInjection, InjectionId};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// What another thread has done.
#[derive(Debug)]
pub(super) enum Completion {
    /// An injection was applied, or not.
    Applied {
        /// The injection.
        injection: InjectionId,
        /// What it owes now and since when; else why not.
        outcome: Result<(LedgerEntry, Instant), InjectionFailure>,
    },
    /// An injection that acts was looked at.
    Looked {
        /// The injection.
        injection: InjectionId,
        /// What its changes are seen to do.
        effect: Effect,
        /// Whether they have nothing more to do.
        is_done: bool,
        /// Whether the ledger still names it.
        is_owed: bool,
    },
    /// An injection was put back, or could not be.
    Ended {
        /// What came of it.
        ended: EndedInjection,
        /// What its changes were last seen to do; none where that could not be looked at in time.
        effect: Option<Effect>,
    },
}

/// Tells the worker's thread what is done, and wakes it. Never waits.
#[derive(Debug, Clone)]
pub(super) struct CompletionSender {
    done: Sender<Completion>,
    wake: Arc<OwnedFd>,
}

impl CompletionSender {
    pub(super) fn send(&self, done: Completion) {
        // A worker that does not listen any more has ended.
        if self.done.send(done).is_ok() {
            rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).ok();
        }
    }
}

/// The worker's end: what was done, in the order in which it was told.
#[derive(Debug)]
pub(super) struct CompletionReceiver {
    done: Receiver<Completion>,
    wake: Arc<OwnedFd>,
}

impl CompletionReceiver {
    /// The next thing that was done, if there is one.
    pub(super) fn next(&self) -> Option<Completion> {
        self.done.try_recv().ok()
    }

    /// Forgets that it was woken. To be called before [`CompletionReceiver::next`].
    pub(super) fn clear_wakeup(&self) {
        let mut count = [0; 8];
        rustix::io::read(&*self.wake, &mut count).ok();
    }
}

impl AsFd for CompletionReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Both ends.
///
/// # Errors
/// There are no descriptors left.
pub(super) fn completion_channel() -> io::Result<(CompletionSender, CompletionReceiver)> {
    let (sender, receiver) = channel();
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let wake = Arc::new(eventfd(0, flags)?);
    let completion_sender = CompletionSender {
        done: sender,
        wake: Arc::clone(&wake),
    };
    let completions = CompletionReceiver {
        done: receiver,
        wake,
    };
    Ok((completion_sender, completions))
}
