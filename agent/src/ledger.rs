//! What this host's agents owe: one file an injection, written and synced before anything is
//! touched, removed after everything was observed gone. Several agents of a host share it, so
//! that a thing is held by one injection at a time; who adds an entry holds a lock from the look at the others to the rename.

mod copy;
mod namespaces;

pub use copy::LedgerCopy;
pub use namespaces::{Folder, Namespaces, NotVisible};

use crate::changes::Change;
use crate::faults::Plan;
use crate::host::{Host, HostError, Interrupt};
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::{InjectionId, InjectionRequest, Owed, Victim};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after its time a fault may still be in the ledger: its end is late then, whoever's fault it is.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The ledger's folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
    /// What the guardian is to know of it, whatever becomes of the files.
    copy: Option<Arc<LedgerCopy>>,
}

/// What one injection owes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The format's version.
    pub version: u32,
    /// The injection.
    pub injection: InjectionId,
    /// Its run.
    pub run: String,
    /// Its fault.
    pub fault: String,
    /// Who is hit, for people.
    pub victims: Vec<Victim>,
    /// What is undone, last first.
    pub changes: Vec<Change>,
    /// Whose it is.
    pub owner: Owner,
    /// When its fault is over at the latest, in milliseconds of the monotonic clock of its boot. None for a one-shot fault that
    /// is not repeated, and in entries of before they told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at_ms: Option<u64>,
    /// Where it was written. Entries of before they told it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Namespaces>,
    /// What could not be put back, if that was tried and failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<String>,
}

/// The processes that answer for an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The boot that their ids belong to.
    pub boot: String,
    /// The worker.
    pub worker: ProcessId,
    /// The worker's guardian.
    pub guardian: ProcessId,
}

/// An entry that cannot be read: somebody has to look.
#[derive(Debug, thiserror::Error)]
#[error("ledger entry {path} can't be read: {why}")]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
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
    pub fn vanished(&self, table: &ProcessTable) -> Option<Owed> {
        if self.folder.is_dir() {
            return None;
        }
        let agents = table.workers_of(self.folder.parent()?);
        let listed: Vec<String> = agents.iter().map(i32::to_string).collect();
        (!agents.is_empty()).then(|| Owed {
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
        let path = self.folder.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
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
        let content = serde_json::to_vec_pretty(entry).map_err(|error| HostError {
            what: format!("write {}", path.display()),
            source: error.into(),
        })?;
        host.stage_file(&path, &content)?;
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
        self.path(injection).exists()
    }

    /// One entry; none where nothing is owed.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn read(&self, injection: &str) -> Result<Option<LedgerEntry>, Unreadable> {
        read(&self.path(injection))
    }

    /// Every entry, by injection, and those that can't be read.
    ///
    /// # Errors
    /// The folder could not be listed, so nothing is known.
    pub fn entries(&self) -> io::Result<(Vec<LedgerEntry>, Vec<Unreadable>)> {
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
            match read(&path) {
                Ok(entry) => entries.extend(entry),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((entries, unreadable))
    }
}

impl LedgerEntry {
    /// What an injection will owe once this plan is applied.
    ///
    /// # Errors
    /// The namespaces that this process is in can't be told.
    pub fn new(request: &InjectionRequest, plan: &Plan, owner: Owner) -> io::Result<Self> {
        Ok(LedgerEntry {
            version: 1,
            injection: request.id.clone(),
            run: request.run.clone(),
            fault: request.fault.clone(),
            victims: plan.victims.clone(),
            changes: plan.changes.clone(),
            owner,
            ends_at_ms: request
                .duration
                .and_then(|duration| u64::try_from(duration.0.as_millis()).ok())
                .and_then(|duration| monotonic_ms().checked_add(duration)),
            namespaces: Some(Namespaces::of(&plan.changes)?),
            stuck: Vec::new(),
        })
    }

    /// What somebody has to look at, for people: what could not be put back, or can't be seen from here. None where all is well, as
    /// far as can be seen.
    pub fn owed(&self, table: &ProcessTable) -> Option<Owed> {
        let mut residue = self.stuck.clone();
        let hidden = self.is_abandoned(table).err();
        residue.extend(hidden.map(|hidden| hidden.to_string()));
        (!residue.is_empty()).then(|| Owed {
            injection: self.injection.clone(),
            fault: self.fault.clone(),
            residue,
        })
    }
}

impl LedgerEntry {
    /// For how long its fault should have ended already; none where it has not to, or that is not known.
    pub fn overdue(&self) -> Option<Duration> {
        if boot_id().ok().as_ref() != Some(&self.owner.boot) {
            return None;
        }
        let late = monotonic_ms().checked_sub(self.ends_at_ms?)?;
        Some(Duration::from_millis(late)).filter(|late| *late > ENDS_WITHIN)
    }
}

/// The monotonic clock, in milliseconds since some moment of this boot.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

impl Unreadable {
    /// What is owed as far as can be told: that somebody has to look.
    pub fn owed(&self) -> Owed {
        let name = self
            .path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        Owed {
            injection: name.unwrap_or_default(),
            fault: "unknown".into(),
            residue: vec![self.to_string()],
        }
    }
}

fn read(path: &Path) -> Result<Option<LedgerEntry>, Unreadable> {
    let unreadable = |why: String| Unreadable {
        path: path.to_owned(),
        why,
    };
    match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
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
