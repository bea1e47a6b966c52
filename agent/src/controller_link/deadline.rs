//! Waiting for a socket with a deadline, cancelled at once when this process is asked to end.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This process was asked to end.
    #[error("cancelled by a signal")]
    Cancelled,
    /// The connection could not be made, or broke.
    #[error("{what}\nhint: {hint}")]
    Failed {
        /// Where it failed, and why.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

impl ConnectError {
    pub(super) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        ConnectError::Failed {
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// A limit for waiting.
#[derive(Debug, Clone, Copy)]
pub struct Deadline<'a> {
    /// When waiting ends at the latest.
    pub until: Instant,
    /// A descriptor that is readable when this process is asked to end.
    pub cancelled: Option<BorrowedFd<'a>>,
}

impl Deadline<'_> {
    /// Waits until a descriptor is ready. Returns whether that happened in time.
    pub(super) fn wait_ready(
        &self,
        fd: impl AsFd,
        wanted: PollFlags,
    ) -> Result<bool, ConnectError> {
        let fd = fd.as_fd();
        let mut fds = vec![PollFd::from_borrowed_fd(fd, wanted)];
        fds.extend(
            self.cancelled
                .map(|cancelled| PollFd::from_borrowed_fd(cancelled, PollFlags::IN)),
        );
        loop {
            let left = timespec(self.until.saturating_duration_since(Instant::now()));
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_)
                    if fds
                        .get(1)
                        .is_some_and(|cancelled| !cancelled.revents().is_empty()) =>
                {
                    return Err(ConnectError::Cancelled);
                }
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(ConnectError::new(error.to_string(), "try again")),
            }
        }
    }
}

pub(super) fn timespec(length: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    }
}
