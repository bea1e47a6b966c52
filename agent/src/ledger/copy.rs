//! What a worker owes, a second time: in memory that its guardian shares. When both the worker and its entry are gone, since somebody
//! removed or spoiled the ledger, the guardian still knows what is to be undone. It is a file without a name (memfd_create(2)) to
//! which the worker appends, and which the guardian reads once, when the worker is dead.

use super::LedgerEntry;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much is appended until what is out of date is given back.
const COMPACT_AFTER_BYTES: u64 = 1 << 20;

/// The memory that a guardian and its worker share.
#[derive(Debug)]
pub struct LedgerCopy {
    file: File,
    written: Mutex<CopyState>,
}

/// What the worker has appended.
#[derive(Debug, Default)]
struct CopyState {
    /// Entries that are staged, and not owed yet.
    staged: BTreeMap<String, LedgerEntry>,
    owed: BTreeMap<String, LedgerEntry>,
    /// Where what still counts begins.
    begins: u64,
    ends: u64,
}

/// One line. The last one about an injection counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CopyRecord {
    Owed(Box<LedgerEntry>),
    Settled(String),
}

impl LedgerCopy {
    /// New memory, of the guardian.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn create() -> io::Result<Self> {
        let file = memfd_create("backburn-ledger", MemfdFlags::CLOEXEC)?;
        Ok(Self::of(file.into()))
    }

    /// The memory of this process's parent, by the number that it has there.
    ///
    /// # Errors
    /// The parent has gone, or does not let this process have it.
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

    /// The number by which a child finds it.
    pub fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Keeps an entry of this process at hand, which is about to be owed.
    pub(super) fn stage(&self, entry: &LedgerEntry) {
        // What others owe is not for this worker's guardian to put back.
        if entry.owner.worker.pid == std::process::id() as i32 {
            self.written()
                .staged
                .insert(entry.injection.clone(), entry.clone());
        }
    }

    /// An entry that was staged is owed from now on.
    pub(super) fn commit(&self, injection: &str) {
        let mut written = self.written();
        if let Some(entry) = written.staged.remove(injection) {
            written.owed.insert(injection.to_owned(), entry.clone());
            self.append(&mut written, &CopyRecord::Owed(Box::new(entry)));
        }
    }

    /// An entry that was staged will not be owed.
    pub(super) fn discard(&self, injection: &str) {
        self.written().staged.remove(injection);
    }

    /// All of an injection is seen to be gone.
    #[expect(
        clippy::disallowed_methods,
        reason = "memory of this process, no file of the host"
    )]
    pub(super) fn settle(&self, injection: &str) {
        let mut written = self.written();
        if written.owed.remove(injection).is_none() {
            return;
        }
        // At rest it takes no memory.
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
            // The ledger itself tells it; this is for when somebody spoils that.
            tracing::debug!(%error, "the guardian's memory could not be written");
        }
    }

    fn write(&self, written: &mut CopyState, line: &CopyRecord) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.file).write_all(&text)?;
        written.ends += text.len() as u64;
        Ok(())
    }

    /// Appends all that is owed, and gives back what came before. A death within leaves both, which say the same.
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

    /// What is owed, as far as whoever wrote came. For the guardian, once its worker is dead.
    ///
    /// # Errors
    /// It can't be read.
    pub fn entries(&self) -> io::Result<Vec<LedgerEntry>> {
        match seek(&self.file, SeekFrom::Data(0)) {
            Ok(_) => {}
            // Nothing was ever written.
            Err(rustix::io::Errno::NXIO) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut owed = BTreeMap::new();
        for line in BufReader::new(&self.file).split(b'\n') {
            let line = line?;
            // A page that was given back in part begins with zeros, and with the rest of a line that does not count any more.
            let text: &[u8] = line.trim_ascii();
            let begins = text
                .iter()
                .position(|byte| *byte != 0)
                .unwrap_or(text.len());
            match serde_json::from_slice(text.get(begins..).unwrap_or_default()) {
                Ok(CopyRecord::Owed(entry)) => drop(owed.insert(entry.injection.clone(), *entry)),
                Ok(CopyRecord::Settled(injection)) => drop(owed.remove(&injection)),
                // Its writer died within it: then what it tells was not applied yet.
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
    fn copy_holds_what_is_owed_and_forgets_what_is_settled() {
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
    fn copy_written_for_long_stays_small_and_whole() {
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
    fn copy_torn_by_a_death_keeps_what_was_whole() {
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
