//! The journal's file: one JSON object a line, in the order of the events.
//!
//! Each event is one `write` to a file opened for appending, before anything is done about it.
//! It is not synced: what was written survives our own death by any signal, which is what a local
//! run has to survive. A crash of the host loses at most the last events; what is owed is the
//! agent's to know, and its ledger is synced.

use backburn_experiments::journal::Entry;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
}

impl Journal {
    /// A new journal for this run, `<state>/runs/<run>.jsonl`. Only its owner may read it: outputs
    /// of probes may hold what is nobody else's business.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn create(state: &Path, run: &str) -> io::Result<Journal> {
        let folder = state.join("runs");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        Journal::open(folder.join(format!("{run}.jsonl")))
    }

    /// The journal in this file, which is made where it is not there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<Journal> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Journal {
            file,
            path,
            line: Vec::with_capacity(1024),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one entry, whole or not at all as far as the system allows.
    ///
    /// # Errors
    /// It could not be written; the run must not go on.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        self.file.write_all(&self.line)
    }
}
