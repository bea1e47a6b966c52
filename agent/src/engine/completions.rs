//! What other threads do for the worker's own thread. That thread owns deadlines, leases and the connection, and waits in its `poll` only.
//! Everything that may take time runs elsewhere and is reported back as a [`Completion`]:
//!
//! * one *executor* thread writes the ledger and applies changes. It lives as long as the worker, since helpers die with the thread that
//!   started them (`docs/decisions/single-threaded-worker.md`);
//! * one *observer* thread observes the effects of active injections;
//! * one thread for each revert (see `revert`), so that no revert waits for another.

use super::InjectionFailure;
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{Effect, EndedInjection, InjectionId};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// Something that another thread has completed.
#[derive(Debug)]
pub(super) enum Completion {
    /// The executor has applied an injection, or failed to.
    Applied {
        /// The id of the injection.
        injection: InjectionId,
        /// The ledger entry and when the effect began, or why the injection failed.
        outcome: Result<(LedgerEntry, Instant), InjectionFailure>,
    },
    /// The observer has observed an active injection.
    Looked {
        /// The id of the injection.
        injection: InjectionId,
        /// The observed effect of its changes.
        effect: Effect,
        /// Whether all changes are done, so that nothing more will happen.
        is_done: bool,
        /// Whether the ledger still contains the injection.
        is_owed: bool,
    },
    /// An injection was reverted, or reverting it failed.
    Ended {
        /// The outcome, without the effect.
        ended: EndedInjection,
        /// The last observed effect before reverting; none if it could not be observed in time.
        effect: Option<Effect>,
    },
}

/// The sending end, one for each thread. Sending wakes the worker's thread and never waits.
#[derive(Debug, Clone)]
pub(super) struct CompletionSender {
    done: Sender<Completion>,
    wake: Arc<OwnedFd>,
}

impl CompletionSender {
    pub(super) fn send(&self, done: Completion) {
        // Nobody receives any more if the worker has ended.
        if self.done.send(done).is_ok() {
            rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).ok();
        }
    }
}

/// The receiving end, on the worker's thread. Readable when something was completed.
#[derive(Debug)]
pub(super) struct CompletionReceiver {
    done: Receiver<Completion>,
    wake: Arc<OwnedFd>,
}

impl CompletionReceiver {
    /// The next completion, oldest first, if there is one.
    pub(super) fn next(&self) -> Option<Completion> {
        self.done.try_recv().ok()
    }

    /// Clears the wake-up. Call this before [`CompletionReceiver::next`].
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

/// Creates both ends of the channel.
///
/// # Errors
/// No descriptor is left.
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
