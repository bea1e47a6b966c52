//! A run that is over, on this host or on a fleet, as reports are made of it.

use backburn::runner::FinishedRun;
use backburn_experiments::journal::JournalEntry;
use std::path::PathBuf;

/// A run that is over.
pub(crate) struct CompletedRun {
    /// The title of the experiment.
    pub(crate) title: String,
    /// The run's state and verdict.
    pub(crate) finished: FinishedRun,
    /// The events of the run's journal.
    pub(crate) entries: Vec<JournalEntry>,
    /// The path of the run's journal, if it is on this host.
    pub(crate) journal: Option<PathBuf>,
}
