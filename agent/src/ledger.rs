//! What the agents of this host owe. Each injection has one file, which is written and synced before anything is changed, and removed
//! after everything was observed to be gone. All agents of a host share the ledger, so that a resource is held by one injection at a time:
//! whoever adds an entry holds a lock from reading the others' entries to the rename.

mod copy;
mod entry;
mod namespaces;
mod visibility;

pub use crate::boot::boot_id;
pub use copy::LedgerCopy;
pub use entry::{LedgerEntry, Owner, UnreadableEntry, VERSION};
pub use namespaces::{FolderId, Namespaces};
pub use visibility::NotVisible;

use crate::host::{Host, HostError, Interrupt};
use crate::processes::ProcessTable;
use crate::trusted_files;
use backburn_experiments::wire::UnrevertedInjection;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ledger in a state folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
    /// The copy that lets the guardian know what is owed even if the files are lost.
    copy: Option<Arc<LedgerCopy>>,
}

/// The lock of a ledger. The kernel releases it when its holder dies.
#[derive(Debug)]
pub struct LedgerLock {
    _held: Flock<File>,
}

impl Ledger {
    /// Opens the ledger in this state folder, and creates it if there is none.
    ///
    /// # Errors
    /// The folder could not be created.
    pub fn open(host: &Host, state: &Path) -> Result<Self, HostError> {
        let folder = state.join("ledger");
        host.make_folder(&folder)?;
        Ok(Ledger { folder, copy: None })
    }

    /// The ledger in this state folder, whether it exists or not.
    pub fn at(state: &Path) -> Self {
        Ledger {
            folder: state.join("ledger"),
            copy: None,
        }
    }

    /// Keeps this copy of what this process owes up to date from now on.
    #[must_use]
    pub fn copied_to(self, copy: Option<LedgerCopy>) -> Self {
        Ledger {
            copy: copy.map(Arc::new),
            ..self
        }
    }

    /// Reports that the ledger's folder has disappeared although agents that keep their ledger in it are alive: somebody removed it, and only
    /// those agents know what they owe. None if all is well.
    pub fn vanished(&self, table: &ProcessTable) -> Option<UnrevertedInjection> {
        if self.folder.is_dir() {
            return None;
        }
        let agents = table.workers_of(self.folder.parent()?);
        let listed: Vec<String> = agents.iter().map(i32::to_string).collect();
        (!agents.is_empty()).then(|| UnrevertedInjection {
            injection: String::new(),
            fault: "unknown".into(),
            residue: vec![format!(
                "{} has disappeared, and an agent that keeps its ledger there is alive (process {}): only that agent knows what it owes, and it \
                  reverts it when it ends",
                self.folder.display(),
                listed.join(", ")
            )],
        })
    }

    /// The folder that contains the entries.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the lock, waiting for at most `timeout` and until `interrupt` is raised. Only whoever writes an entry takes the lock, from
    /// reading what others hold to the rename. Reverting takes no lock, since it only touches its own entry.
    ///
    /// # Errors
    /// The lock file could not be opened, another process on this host kept the lock, or the interrupt was raised.
    pub fn lock(&self, timeout: Duration, interrupt: &Interrupt) -> io::Result<LedgerLock> {
        let until = Instant::now() + timeout;
        let mut file = trusted_files::open_lock(&self.folder.join("lock"))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(LedgerLock { _held: held }),
                Err((back, nix::errno::Errno::EWOULDBLOCK))
                    if Instant::now() < until && !interrupt.is_raised() =>
                {
                    file = back;
                    // The lock is held for less than a millisecond, and the kernel offers no way to wait for it with a limit.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
    }

    fn path(&self, injection: &str) -> PathBuf {
        self.folder.join(format!("{injection}.json"))
    }

    /// Writes an entry, durably.
    ///
    /// # Errors
    /// The entry could not be written; what was there before still is.
    pub fn write(&self, host: &Host, entry: &LedgerEntry) -> Result<(), HostError> {
        self.stage(host, entry)?;
        self.commit(host, &entry.injection, ())
    }

    /// The slow half of [`Ledger::write`]: puts the entry on the disk, where it does not count yet.
    ///
    /// # Errors
    /// The entry could not be written; what was there before still is.
    pub fn stage(&self, host: &Host, entry: &LedgerEntry) -> Result<(), HostError> {
        let path = self.path(&entry.injection);
        let failed = |source| HostError {
            what: format!("write {}", path.display()),
            source,
        };
        trusted_files::check_folder(&self.folder).map_err(failed)?;
        let content = entry.to_json().map_err(failed)?;
        host.stage_file(&path, &content)?;
        if trusted_files::read(&path.with_extension("new")).map_err(failed)? != content {
            self.discard(host, &entry.injection);
            let what = "the content read back differs from what was written";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        if let Some(copy) = &self.copy {
            copy.stage(entry);
        }
        Ok(())
    }

    /// The quick half of [`Ledger::write`]: makes a staged entry count. The lock is dropped as soon as others can see the entry.
    ///
    /// # Errors
    /// The file could not be renamed, or not durably.
    pub fn commit<L>(&self, host: &Host, injection: &str, lock: L) -> Result<(), HostError> {
        host.commit_file(&self.path(injection), lock)?;
        if let Some(copy) = &self.copy {
            copy.commit(injection);
        }
        Ok(())
    }

    /// Removes a staged entry that will not be committed.
    pub fn discard(&self, host: &Host, injection: &str) {
        host.discard_staged(&self.path(injection));
        if let Some(copy) = &self.copy {
            copy.discard(injection);
        }
    }

    /// Removes entries that were staged and never committed, because whoever staged them died. Fresh ones are left for their owner.
    pub fn clear_stale(&self, host: &Host) {
        const STALE_AFTER: Duration = Duration::from_secs(60);
        if trusted_files::check_folder(&self.folder).is_err() {
            return;
        }
        for file in std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = file.path();
            let is_staged = path.extension().is_some_and(|extension| extension == "new");
            let age = file.metadata().and_then(|file| file.modified());
            let age = age.ok().and_then(|changed| changed.elapsed().ok());
            if is_staged
                && age.is_some_and(|age| age > STALE_AFTER)
                && let Err(error) = host.remove_durably(&path)
            {
                tracing::warn!(%error, "a staged ledger entry that nobody commits could not be removed");
            }
        }
    }

    /// Removes an entry, durably. To be called only when everything of it was observed to be gone.
    ///
    /// # Errors
    /// The entry could not be removed, so the injection is still owed.
    pub fn remove(&self, host: &Host, injection: &str) -> Result<(), HostError> {
        // Before the file: a process that dies between the two leaves the file, which is enough.
        if let Some(copy) = &self.copy {
            copy.settle(injection);
        }
        host.remove_durably(&self.path(injection))
    }

    /// Whether an injection is owed.
    pub fn owes(&self, injection: &str) -> bool {
        // Anything under this name counts, whether it can be read or not.
        self.path(injection).symlink_metadata().is_ok()
    }

    /// Reads one entry; none if the injection is not owed.
    ///
    /// # Errors
    /// The entry exists and cannot be read.
    pub fn read(&self, injection: &str) -> Result<Option<LedgerEntry>, UnreadableEntry> {
        LedgerEntry::read(&self.path(injection))
    }

    /// Reads all entries, ordered by injection id, and reports those that cannot be read.
    ///
    /// # Errors
    /// The folder cannot be listed, so nothing is known.
    pub fn entries(&self) -> io::Result<(Vec<LedgerEntry>, Vec<UnreadableEntry>)> {
        trusted_files::check_folder(&self.folder)?;
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .map(|found| found.map(|file| file.path()))
            .collect::<io::Result<_>>()?;
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        let mut entries = Vec::new();
        let mut unreadable = Vec::new();
        for path in paths {
            match LedgerEntry::read(&path) {
                Ok(entry) => entries.extend(entry),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((entries, unreadable))
    }
}
