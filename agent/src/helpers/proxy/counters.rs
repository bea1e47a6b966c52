//! What passed, counted where others can read it: in eventfds, whose counts the kernel shows under
//! `/proc/PID/fdinfo`. It keeps none of its own: a listening socket does not count what it
//! accepts, and a closed connection takes its figures with it.

use crate::helpers::event_counts::{EventCount, event_counts};
use crate::processes::{ProcessId, ProcessTable};
use std::sync::atomic::{AtomicBool, Ordering};

/// The counters of a proxy. They are its first eventfds, in this order.
pub(super) struct Counters {
    connections: EventCount,
    affected: EventCount,
    bytes: EventCount,
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
        Ok(Counters {
            connections: EventCount::new()?,
            affected: EventCount::new()?,
            bytes: EventCount::new()?,
        })
    }

    pub(super) fn connection(&self) {
        self.connections.add(1);
    }

    pub(super) fn bytes(&self, count: usize) {
        self.bytes.add(count as u64);
    }
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
            self.counters.affected.add(1);
        }
    }

    /// So much was passed on.
    pub(super) fn bytes(&self, count: usize) {
        self.counters.bytes(count);
    }
}

/// What the proxy with this process id has counted, read from outside.
pub(crate) fn counted(id: ProcessId, table: &ProcessTable) -> Option<ProxyCounts> {
    let mut counts = event_counts(id, table)?.into_iter();
    Some(ProxyCounts {
        connections: counts.next()?,
        affected: counts.next()?,
        bytes: counts.next()?,
    })
}
