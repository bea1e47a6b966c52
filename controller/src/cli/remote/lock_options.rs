//! `--lock`: a run on the fleet waits until no other run with the same lock is open.

use super::super::{CommandFailure, print_stderr};
use super::client::LockedAnswer;
use backburn_experiments::HumanDuration;
use clap::Args;
use std::time::{Duration, Instant};

/// How long a run waits for its lock, unless the command says otherwise.
const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The longest time that one request waits, in seconds; the controller allows no more.
const MAX_WAIT_SECONDS: u64 = 20;

/// The shortest time between two requests, so that a controller that answers at once is not flooded.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The lock of a run on the fleet.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct LockOptions {
    /// Wait until no other run with this lock is open on the controller, for example one lock for each environment
    #[arg(long, value_name = "NAME", help_heading = "Controller")]
    lock: Option<String>,
    /// How long to wait for the lock; `0s` does not wait [default: 30m]
    #[arg(
        long,
        value_name = "DURATION",
        requires = "lock",
        help_heading = "Controller"
    )]
    lock_timeout: Option<HumanDuration>,
}

/// A lock as it is requested from the controller.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestedLock<'a> {
    /// The name of the lock.
    pub(super) name: &'a str,
    /// How long the request waits for it, in seconds.
    pub(super) wait_seconds: u8,
}

impl LockOptions {
    /// Whether a lock was given.
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.lock.is_some()
    }

    /// Starts a run by `start`, which gets the lock, as soon as that is free.
    ///
    /// # Errors
    /// The run cannot start, or the lock was not free in time.
    pub(super) fn start<T>(
        &self,
        start: impl Fn(Option<RequestedLock<'_>>) -> Result<LockedAnswer<T>, CommandFailure>,
    ) -> Result<T, CommandFailure> {
        let patience = self
            .lock_timeout
            .map_or(DEFAULT_LOCK_TIMEOUT, |timeout| timeout.0);
        let begun = Instant::now();
        let mut last = String::new();
        loop {
            let left = patience.saturating_sub(begun.elapsed()).as_secs();
            // The first request does not wait, so that people learn at once for which run they wait.
            let wait = match last.is_empty() {
                true => 0,
                false => left.min(MAX_WAIT_SECONDS),
            };
            let lock = self.lock.as_deref().map(|name| RequestedLock {
                name,
                wait_seconds: u8::try_from(wait).unwrap_or(0),
            });
            let failure = match start(lock)? {
                LockedAnswer::Free(started) => return Ok(started),
                LockedAnswer::Held(failure) => failure,
            };
            if begun.elapsed() >= patience {
                return Err(failure);
            }
            let first_line = failure.message.lines().next().unwrap_or_default();
            if last != first_line {
                print_stderr(&format!("waiting: {first_line}\n"));
                last = first_line.to_owned();
            }
            std::thread::sleep(RETRY_DELAY.min(patience.saturating_sub(begun.elapsed())));
        }
    }
}
