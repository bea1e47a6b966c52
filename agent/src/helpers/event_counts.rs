//! What a helper counts where others can read it: in eventfds, whose counts the kernel shows under `/proc/PID/fdinfo`.

use crate::processes::{ProcessId, ProcessTable};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// One count. Those of a process are read in the order in which they were made.
pub(super) struct EventCount(OwnedFd);

impl EventCount {
    pub(super) fn new() -> rustix::io::Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(EventCount)
    }

    /// Replaces the count. Whoever reads it meanwhile may read 0.
    pub(super) fn set(&self, count: u64) {
        // Reading takes all of it; an empty one says that there is nothing to take.
        let taken = rustix::io::read(&self.0, &mut [0; 8]);
        debug_assert!(matches!(taken, Ok(8) | Err(Errno::AGAIN)), "{taken:?}");
        self.add(count);
    }

    pub(super) fn add(&self, count: u64) {
        let added = rustix::io::write(&self.0, &count.to_ne_bytes());
        // A count of 2^64 - 2 is full; nothing else can go wrong with one's own eventfd.
        debug_assert!(matches!(added, Ok(8) | Err(Errno::AGAIN)), "{added:?}");
    }
}

/// The counts of a process, read from outside.
pub(super) fn event_counts(id: ProcessId, table: &ProcessTable) -> Option<Vec<u64>> {
    let mut descriptors = table.entries(id.pid, "fdinfo").ok()?;
    descriptors.sort_unstable();
    let counts = descriptors.into_iter().filter_map(|descriptor| {
        let file = table.root().join(format!("{}/fdinfo/{descriptor}", id.pid));
        let text = std::fs::read_to_string(file).ok()?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("eventfd-count:"))?;
        u64::from_str_radix(count.trim(), 16).ok()
    });
    Some(counts.collect())
}
