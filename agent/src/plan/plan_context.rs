//! The look that a fault gets at its host: reading only.

use crate::metrics::{self, MetricUnavailable};
use crate::packet_filter::ControlConnection;
use crate::processes::{ProcessId, ProcessTable, Protection};
use backburn_experiments::Span;
use std::io;
use std::path::Path;

/// A look at the host, and what is known of the injection that is planned.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// Who runs.
    pub table: &'a ProcessTable,
    /// Who is never a victim.
    pub protection: &'a Protection,
    /// Ports whose packets are never touched, at either end.
    pub protected_ports: &'a [u16],
    /// The connection over which the agent hears its controller, where that is one: never touched either.
    pub control_connection: Option<ControlConnection>,
    /// The injection's id: what is made for it bears a name that begins with it.
    pub injection: &'a str,
    /// What other injections hold, as changes name it, each with the injection's id.
    pub held: &'a [(String, String)],
    /// How long it lasts; nothing for a one-shot fault.
    pub duration: Option<Span>,
    /// What random picks come from.
    pub seed: u64,
}

/// The host's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`: what can be had without swapping.
    pub available: u64,
}

/// A file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device number.
    pub device: u64,
    /// All of it.
    pub size: u64,
    /// What anyone may still take.
    pub available: u64,
}

impl PlanContext<'_> {
    /// The name of the n-th thing that is made for the injection.
    pub fn mark(&self, number: usize) -> String {
        format!("{}-{number}", self.injection)
    }

    /// Whether another injection holds this process.
    pub fn is_held(&self, process: ProcessId) -> bool {
        let name = format!("process:{process}");
        self.held.iter().any(|(thing, _)| *thing == name)
    }

    /// When the kernel ends a helper: a little after the agent should have.
    pub fn deadline(&self, takes: Span) -> Span {
        const GRACE: Span = Span::seconds(2);
        let takes = self.duration.unwrap_or(takes).0;
        // A longer one could not be read back from the ledger.
        Span(takes.saturating_add(GRACE.0).min(Span::LONGEST.0))
    }

    /// The host's memory, from `/proc/meminfo`.
    ///
    /// # Errors
    /// It can't be read.
    pub fn memory(&self) -> Result<Memory, MetricUnavailable> {
        Ok(Memory {
            total: metrics::memory_total()?,
            available: metrics::memory_available()?,
        })
    }

    /// The file system that a path lies on.
    ///
    /// # Errors
    /// There is no such path, or it can't be looked at.
    pub fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        let status = rustix::fs::statvfs(path)?;
        let file = rustix::fs::stat(path)?;
        Ok(FileSystem {
            device: file.st_dev,
            size: status.f_blocks.saturating_mul(status.f_frsize),
            available: status.f_bavail.saturating_mul(status.f_frsize),
        })
    }

    /// How many processors we may run on.
    pub fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
