//! What passed, counted where others can read it: in eventfds, whose counts the kernel shows under
//! `/proc/PID/fdinfo`. It keeps none of its own: a listening socket does not count what it
//! accepts, and a closed connection takes its figures with it.

use crate::processes::{ProcessId, ProcessTable};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The counters of a proxy. They are its first eventfds, in this order.
pub(super) struct Counters {
    connections: OwnedFd,
    affected: OwnedFd,
    bytes: OwnedFd,
}

/// What the proxy has counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProxyCounts {
    /// Connections that were accepted.
    pub(crate) connections: u64,
    /// Those to which some harm was done.
    pub(crate) affected: u64,
    /// What was passed on, both ways together.
    pub(crate) bytes: u64,
}

impl Counters {
    pub(super) fn new() -> rustix::io::Result<Self> {
        let counter = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Counters {
            connections: counter()?,
            affected: counter()?,
            bytes: counter()?,
        })
    }

    pub(super) fn connection(&self) {
        add(&self.connections, 1);
    }

    pub(super) fn bytes(&self, count: usize) {
        add(&self.bytes, count as u64);
    }
}

fn add(counter: &OwnedFd, count: u64) {
    let added = rustix::io::write(counter, &count.to_ne_bytes());
    // A count of 2^64 - 2 is full; nothing else can go wrong with one's own eventfd.
    debug_assert!(matches!(added, Ok(8) | Err(Errno::AGAIN)), "{added:?}");
}

/// The counters, as one connection sees them: it is harmed once.
pub(super) struct ConnectionCounter<'a> {
    counters: &'a Counters,
    affected: AtomicBool,
}

impl<'a> ConnectionCounter<'a> {
    pub(super) fn new(counters: &'a Counters) -> Self {
        ConnectionCounter {
            counters,
            affected: AtomicBool::new(false),
        }
    }

    /// Some harm was done to the connection.
    pub(super) fn affected(&self) {
        if !self.affected.swap(true, Ordering::Relaxed) {
            add(&self.counters.affected, 1);
        }
    }

    /// So much was passed on.
    pub(super) fn bytes(&self, count: usize) {
        self.counters.bytes(count);
    }
}

/// What the proxy with this process id has counted, read from outside.
pub(crate) fn counted(id: ProcessId, table: &ProcessTable) -> Option<ProxyCounts> {
    let mut descriptors = table.entries(id.pid, "fdinfo").ok()?;
    descriptors.sort_unstable();
    let mut counts = descriptors.into_iter().filter_map(|descriptor| {
        let file = table.root().join(format!("{}/fdinfo/{descriptor}", id.pid));
        let text = std::fs::read_to_string(file).ok()?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("eventfd-count:"))?;
        u64::from_str_radix(count.trim(), 16).ok()
    });
    Some(ProxyCounts {
        connections: counts.next()?,
        affected: counts.next()?,
        bytes: counts.next()?,
    })
}
