//! What this host's agents owe: one file an injection, written and synced before anything is
//! touched, removed after everything was observed gone. Several agents of a host share it, so
//! that a thing is held by one injection at a time; who adds an entry holds a lock from the look at the others to the rename.

mod copy;
mod entry;
mod namespaces;
pub(crate) mod trusted_files;

pub use copy::LedgerCopy;
pub use entry::{LedgerEntry, Owner, UnreadableEntry, VERSION};
pub use namespaces::{FolderId, Namespaces, NotVisible};

use crate::host::{Host, HostError, Interrupt};
use crate::processes::ProcessTable;
use backburn_experiments::wire::UnrevertedInjection;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ledger's folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
    /// What the guardian is to know of it, whatever becomes of the files.
    copy: Option<Arc<LedgerCopy>>,
}

/// Held from the look at the entries to the rename. The kernel lets go of it when its holder dies.
#[derive(Debug)]
pub struct LedgerLock {
    _held: Flock<File>,
}

impl Ledger {
    /// The ledger below this state folder; made where there is none.
    ///
    /// # Errors
    /// The folder could not be made.
    pub fn open(host: &Host, state: &Path) -> Result<Self, HostError> {
        let folder = state.join("ledger");
        host.make_folder(&folder)?;
        Ok(Ledger { folder, copy: None })
    }

    /// The ledger below this state folder, whether it is there or not.
    pub fn at(state: &Path) -> Self {
        Ledger {
            folder: state.join("ledger"),
            copy: None,
        }
    }

    /// Also tells this copy what this process owes.
    #[must_use]
    pub fn copied_to(self, copy: Option<LedgerCopy>) -> Self {
        Ledger {
            copy: copy.map(Arc::new),
            ..self
        }
    }

    /// That the folder is not there, although agents are that keep their ledger in it: somebody removed it. What they owe is known
    /// to nobody but them. None where all is well.
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
                "{} has vanished, and an agent that keeps its ledger there is alive (process {}): what it owes, only it knows, and puts \
                 it back when it ends",
                self.folder.display(),
                listed.join(", ")
            )],
        })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the lock, at the most this long, and no longer once the work is called off. Only who writes an entry takes
    /// it, from the look at what others hold to the rename; putting back waits for nobody, since its entry is its own.
    ///
    /// # Errors
    /// The lock file could not be opened, another process of this host kept the lock, or the work was called off.
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
                    // Held for less than a millisecond by whoever injects; there is no waiting for it with a limit but this.
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
    /// It could not be written; what was there before still is.
    pub fn write(&self, host: &Host, entry: &LedgerEntry) -> Result<(), HostError> {
        self.stage(host, entry)?;
        self.commit(host, &entry.injection, ())
    }

    /// The slow half of [`Ledger::write`]: the entry is on the disk, and does not count yet.
    ///
    /// # Errors
    /// It could not be written; what was there before still is.
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
            let what = "what is read back is not what was written";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        if let Some(copy) = &self.copy {
            copy.stage(entry);
        }
        Ok(())
    }

    /// The quick half of [`Ledger::write`]: a staged entry counts from now on. The lock is dropped as soon as others can
    /// see that.
    ///
    /// # Errors
    /// It could not be renamed, or not durably.
    pub fn commit<L>(&self, host: &Host, injection: &str, lock: L) -> Result<(), HostError> {
        host.commit_file(&self.path(injection), lock)?;
        if let Some(copy) = &self.copy {
            copy.commit(injection);
        }
        Ok(())
    }

    /// Removes an entry that was staged and will not be committed.
    pub fn discard(&self, host: &Host, injection: &str) {
        host.discard_staged(&self.path(injection));
        if let Some(copy) = &self.copy {
            copy.discard(injection);
        }
    }

    /// Removes what somebody staged and did not live to commit: it was never owed. What is so fresh that it may be committed yet is left.
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
                tracing::warn!(%error, "what nobody will commit could not be removed");
            }
        }
    }

    /// Removes an entry, durably. Only after everything of it was observed gone.
    ///
    /// # Errors
    /// It could not be removed, so it is still owed.
    pub fn remove(&self, host: &Host, injection: &str) -> Result<(), HostError> {
        // Before the file: who dies between the two leaves the file, which says enough.
        if let Some(copy) = &self.copy {
            copy.settle(injection);
        }
        host.remove_durably(&self.path(injection))
    }

    /// Whether an injection is owed.
    pub fn owes(&self, injection: &str) -> bool {
        // Whatever is there in its place stands for it.
        self.path(injection).symlink_metadata().is_ok()
    }

    /// One entry; none where nothing is owed.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn read(&self, injection: &str) -> Result<Option<LedgerEntry>, UnreadableEntry> {
        LedgerEntry::read(&self.path(injection))
    }

    /// Every entry, by injection, and those that can't be read.
    ///
    /// # Errors
    /// The folder could not be listed, so nothing is known.
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

/// This boot's id (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// It can't be read, so that nobody knows whether the machine was started again since.
pub fn boot_id() -> io::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let said = std::fs::read_to_string(PATH);
    let id = said.map_err(|error| io::Error::new(error.kind(), format!("{PATH}: {error}")))?;
    match id.trim() {
        "" => Err(io::Error::other(format!("{PATH} says nothing"))),
        id => Ok(id.to_owned()),
    }
}
