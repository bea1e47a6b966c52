//! Where a run's events go. A local run's journal is a file: one JSON object a line, in the order of the events.
//!
//! Events that come together are one `write` to a file opened for appending, before anything is done about them.
//! The file is not synced: what was written survives the death of the process by any signal, which is what a local
//! run has to survive. A crash of the host loses at most the last events; the agent's ledger, which is synced, knows what is owed.

use backburn_experiments::journal::JournalEntry;
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a run's events are written. What is appended survives the death of the process.
pub trait Journal: Send {
    /// Writes these entries in their order, whole or not at all as far as the system allows. Returns when they are written.
    ///
    /// # Errors
    /// They could not be written; the run must not go on.
    fn append(&mut self, entries: &[JournalEntry]) -> io::Result<()>;

    /// Where it is, for people.
    fn place(&self) -> String;
}

/// Sees each event after it is in the journal. Must not block.
pub type EventObserver = Box<dyn FnMut(&JournalEntry) + Send>;

/// A run's journal, and who sees its entries.
pub(super) struct JournalWriter {
    /// None after a failure: the journal has no hole, it ends where it ended.
    journal: Option<Box<dyn Journal>>,
    observers: Vec<EventObserver>,
}

impl JournalWriter {
    pub(super) fn new(journal: Box<dyn Journal>, observers: Vec<EventObserver>) -> Self {
        JournalWriter {
            journal: Some(journal),
            observers,
        }
    }

    /// Writes these entries, and shows them to the observers even if that failed. Nothing more is written after a failure.
    ///
    /// # Errors
    /// They could not be written, for people; told once.
    pub(super) fn append(&mut self, entries: &[JournalEntry]) -> Result<(), String> {
        let written = match &mut self.journal {
            Some(journal) => journal.append(entries).map_err(|error| {
                let place = journal.place();
                format!("the journal {place} could not be written: {error}")
            }),
            None => Ok(()),
        };
        if written.is_err() {
            self.journal = None;
        }
        for entry in entries {
            for observer in &mut self.observers {
                observer(entry);
            }
        }
        written
    }
}

/// A journal in a file.
#[derive(Debug)]
pub struct JournalFile {
    file: fs::File,
    path: PathBuf,
    lines: Vec<u8>,
}

impl JournalFile {
    /// A new journal for this run, `<state>/runs/<run>.jsonl`. Only its owner may read it: outputs
    /// of probes may hold what is nobody else's business.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn create(state: &Path, run: &str) -> io::Result<JournalFile> {
        let folder = state.join("runs");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        JournalFile::open(folder.join(format!("{run}.jsonl")))
    }

    /// The journal in this file, which is made where it is not there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<JournalFile> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        // The kernel releases the lock when the process ends, however it ends. A file system without locks costs only the
        // knowledge that the run goes on.
        file.try_lock().ok();
        Ok(JournalFile {
            file,
            path,
            lines: Vec::with_capacity(1024),
        })
    }

    /// Whether a process still writes the journal in this file.
    pub fn is_written(file: &fs::File) -> bool {
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Journal for JournalFile {
    fn append(&mut self, entries: &[JournalEntry]) -> io::Result<()> {
        self.lines.clear();
        for entry in entries {
            serde_json::to_writer(&mut self.lines, entry)?;
            self.lines.push(b'\n');
        }
        self.file.write_all(&self.lines)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}
