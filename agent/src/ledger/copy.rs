//! A second copy of what a worker owes, in memory that its guardian shares. If the worker is dead and its entry was removed or damaged, the
//! guardian still knows what to undo. The memory is a file without a name (memfd_create(2)), to which the worker appends, and which the
//! guardian reads once, when the worker is dead.

use super::LedgerEntry;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many bytes are appended until outdated ones are freed.
const COMPACT_AFTER_BYTES: u64 = 1 << 20;

/// The memory that a guardian and its worker share.
#[derive(Debug)]
pub struct LedgerCopy {
    file: File,
    written: Mutex<CopyState>,
}

/// What the worker has appended so far.
#[derive(Debug, Default)]
struct CopyState {
    /// Entries that are staged and not owed yet.
    staged: BTreeMap<String, LedgerEntry>,
    owed: BTreeMap<String, LedgerEntry>,
    /// The offset at which the valid content begins.
    begins: u64,
    ends: u64,
}

/// One line of the copy. The last line about an injection counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CopyRecord {
    Owed(Box<LedgerEntry>),
    Settled(String),
}

impl LedgerCopy {
    /// Creates new memory, in the guardian.
    ///
    /// # Errors
    /// The kernel has no memory or no descriptor left.
    pub fn create() -> io::Result<Self> {
        let file = memfd_create("backburn-ledger", MemfdFlags::CLOEXEC)?;
        Ok(Self::of(file.into()))
    }

    /// Opens the memory of this process's parent, by its descriptor number there.
    ///
    /// # Errors
    /// The parent has exited, or access is denied.
    #[expect(
        clippy::disallowed_methods,
        reason = "memory of the parent, no file of the host"
    )]
    pub fn of_parent(number: RawFd) -> io::Result<Self> {
        let parent = std::os::unix::process::parent_id();
        let path = format!("/proc/{parent}/fd/{number}");
        Ok(Self::of(File::options().append(true).open(path)?))
    }

    fn of(file: File) -> Self {
        LedgerCopy {
            file,
            written: Mutex::default(),
        }
    }

    /// The descriptor number by which a child finds the memory.
    pub fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Remembers an entry of this process that is about to be owed.
    pub(super) fn stage(&self, entry: &LedgerEntry) {
        // What others owe is not for this worker's guardian to revert.
        if entry.owner.worker.pid == std::process::id() as i32 {
            self.written()
                .staged
                .insert(entry.injection.clone(), entry.clone());
        }
    }

    /// Records that a staged entry is owed.
    pub(super) fn commit(&self, injection: &str) {
        let mut written = self.written();
        if let Some(entry) = written.staged.remove(injection) {
            written.owed.insert(injection.to_owned(), entry.clone());
            self.append(&mut written, &CopyRecord::Owed(Box::new(entry)));
        }
    }

    /// Forgets a staged entry that will not be owed.
    pub(super) fn discard(&self, injection: &str) {
        self.written().staged.remove(injection);
    }

    /// Records that everything of an injection is observed to be gone.
    #[expect(
        clippy::disallowed_methods,
        reason = "memory of this process, no file of the host"
    )]
    pub(super) fn settle(&self, injection: &str) {
        let mut written = self.written();
        if written.owed.remove(injection).is_none() {
            return;
        }
        // An idle worker's copy takes no memory.
        if written.owed.is_empty() && ftruncate(&self.file, 0).is_ok() {
            (written.begins, written.ends) = (0, 0);
            return;
        }
        self.append(&mut written, &CopyRecord::Settled(injection.to_owned()));
    }

    fn written(&self) -> MutexGuard<'_, CopyState> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, written: &mut CopyState, line: &CopyRecord) {
        let appended = self.write(written, line).and_then(|()| {
            match written.ends - written.begins > COMPACT_AFTER_BYTES {
                true => self.compact(written),
                false => Ok(()),
            }
        });
        if let Err(error) = appended {
            // The ledger itself has the entry; the copy matters only if the ledger is damaged.
            tracing::debug!(%error, "the guardian's copy of the ledger could not be written");
        }
    }

    fn write(&self, written: &mut CopyState, line: &CopyRecord) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.file).write_all(&text)?;
        written.ends += text.len() as u64;
        Ok(())
    }

    /// Appends everything that is owed and frees what came before. If the worker dies in between, both parts say the same.
    #[expect(
        clippy::disallowed_methods,
        reason = "memory of this process, no file of the host"
    )]
    fn compact(&self, written: &mut CopyState) -> io::Result<()> {
        let begins = written.ends;
        for entry in written.owed.values().cloned().collect::<Vec<_>>() {
            self.write(written, &CopyRecord::Owed(Box::new(entry)))?;
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.file.as_fd(), punch, 0, begins)?;
        written.begins = begins;
        Ok(())
    }

    /// Everything that is owed, as far as the worker could record it. For the guardian, once its worker is dead.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn entries(&self) -> io::Result<Vec<LedgerEntry>> {
        match seek(&self.file, SeekFrom::Data(0)) {
            Ok(_) => {}
            // Nothing was ever recorded.
            Err(rustix::io::Errno::NXIO) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut owed = BTreeMap::new();
        for line in BufReader::new(&self.file).split(b'\n') {
            let line = line?;
            // A page that was partly freed begins with zeros and the rest of an outdated line.
            let text: &[u8] = line.trim_ascii();
            let begins = text
                .iter()
                .position(|byte| *byte != 0)
                .unwrap_or(text.len());
            match serde_json::from_slice(text.get(begins..).unwrap_or_default()) {
                Ok(CopyRecord::Owed(entry)) => drop(owed.insert(entry.injection.clone(), *entry)),
                Ok(CopyRecord::Settled(injection)) => drop(owed.remove(&injection)),
                // The worker died while writing this line, so what it says was not applied yet.
                Err(_) => {}
            }
        }
        Ok(owed.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Owner;
    use crate::processes::ProcessId;

    fn entry(injection: &str) -> LedgerEntry {
        let own = ProcessId {
            pid: std::process::id() as i32,
            start: 1,
        };
        LedgerEntry {
            ends_at_ms: Some(1_000),
            version: 1,
            injection: injection.into(),
            run: "r".into(),
            fault: "process-pause".into(),
            victims: Vec::new(),
            changes: Vec::new(),
            owner: Owner {
                boot: "b".into(),
                worker: own,
                guardian: own,
            },
            namespaces: None,
            stuck: Vec::new(),
        }
    }

    fn names(copy: &LedgerCopy) -> Vec<String> {
        let entries = copy.entries().expect("it can be read").into_iter();
        entries.map(|entry| entry.injection).collect()
    }

    /// Another process's view of the same memory.
    #[expect(
        clippy::disallowed_methods,
        reason = "memory of this process, no file of the host"
    )]
    fn reopen(copy: &LedgerCopy) -> LedgerCopy {
        let path = format!("/proc/self/fd/{}", copy.number());
        LedgerCopy::of(
            File::options()
                .append(true)
                .open(path)
                .expect("it is there"),
        )
    }

    #[test]
    fn ledger_copy_keeps_the_owed_and_forgets_the_settled() {
        let copy = LedgerCopy::create().expect("the kernel has memory");
        assert!(names(&copy).is_empty());
        let worker = reopen(&copy);
        worker.stage(&entry("one"));
        assert!(names(&copy).is_empty(), "what is staged was not applied");
        worker.commit("one");
        worker.stage(&entry("two"));
        worker.discard("two");
        worker.commit("two");
        worker.settle("nobody");
        assert_eq!(names(&copy), ["one"]);
        let others = LedgerEntry {
            owner: Owner {
                worker: ProcessId { pid: 1, start: 1 },
                ..entry("x").owner
            },
            ..entry("three")
        };
        worker.stage(&others);
        worker.commit("three");
        assert_eq!(names(&copy), ["one"], "what others owe is theirs");
        worker.settle("one");
        assert!(names(&copy).is_empty());
        let status = rustix::fs::fstat(&copy.file).expect("it is there");
        assert_eq!(status.st_size, 0, "at rest it takes no memory");
    }

    #[test]
    fn ledger_copy_after_many_writes_stays_small_and_complete() {
        let copy = LedgerCopy::create().expect("the kernel has memory");
        let worker = reopen(&copy);
        worker.stage(&entry("one"));
        worker.commit("one");
        for round in 0..20_000 {
            let name = format!("round-{round}");
            worker.stage(&entry(&name));
            worker.commit(&name);
            worker.settle(&name);
        }
        worker.stage(&entry("last"));
        worker.commit("last");
        assert_eq!(names(&copy), ["last", "one"]);
        let status = rustix::fs::fstat(&copy.file).expect("it is there");
        assert!(status.st_size > 3 << 20, "it was written for long");
        assert!(status.st_blocks * 512 < 3 << 20, "{}", status.st_blocks);
    }

    #[test]
    fn ledger_copy_with_torn_line_keeps_complete_ones() {
        let copy = LedgerCopy::create().expect("the kernel has memory");
        let worker = reopen(&copy);
        worker.stage(&entry("one"));
        worker.commit("one");
        (&worker.file)
            .write_all(b"{\"settled\": \"on")
            .expect("it is written");
        assert_eq!(names(&copy), ["one"]);
    }
}
