//! The one door to the machine. Every effect on a host, the ledger's own writes included, passes
//! `Host::effect`, which can be told to fail, or to kill a process of the agent before or after the
//! n-th effect: that is how the crash conformance suite reaches every line between two effects,
//! in the very binary that is shipped.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the door that the list points to"
)]

mod clock;
mod failpoint;
mod files;
mod interrupt;
mod memory;
mod mounts;
mod spawn;
mod stopped_process;
mod units;

pub use clock::time_of_day_ahead;
pub use failpoint::Failpoint;
pub use files::{CopyEdit, MADE_FILE_PREFIX, OpenFolder};
pub use interrupt::Interrupt;
pub use memory::{return_freed, settle};
pub use spawn::{Invocation, end_own_group, program};
pub use stopped_process::MemoryWrite;

use crate::processes::{ProcessId, ProcessTable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An effect on the host that failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}: {source}")]
pub struct HostError {
    /// The effect as `verb object`.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// The role of an agent's process. Failpoints are meant for one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRole {
    /// The worker, which injects faults.
    Worker,
    /// The guardian, which waits for the worker to die.
    Guardian,
    /// A command of a person at a terminal.
    Command,
}

/// The machine, for whoever may change it. One for each thread: see [`Host::for_thread`].
#[derive(Debug)]
pub struct Host {
    /// The process table, for reading.
    pub table: ProcessTable,
    /// How this program is started again.
    pub invocation: Invocation,
    shared: Arc<Shared>,
    /// Calls off the wait for a helper that is not ready.
    interrupt: Option<Arc<Interrupt>>,
}

/// The state that all threads of a process share.
#[derive(Debug)]
struct Shared {
    failpoint: Failpoint,
    /// Number of effects so far.
    effects: AtomicU64,
    /// The helpers that this process started, so that they are found without a scan.
    children: Mutex<BTreeMap<String, ProcessId>>,
    /// What others have made as a change of this process was about to: it is not to be undone.
    not_ours: Mutex<BTreeSet<String>>,
}

impl Host {
    /// The machine that this process runs on.
    pub fn new(role: HostRole, invocation: Invocation) -> Self {
        Host {
            table: ProcessTable::default(),
            invocation,
            shared: Arc::new(Shared {
                failpoint: Failpoint::from_environment(role),
                effects: AtomicU64::new(0),
                children: Mutex::default(),
                not_ours: Mutex::default(),
            }),
            interrupt: None,
        }
    }

    /// The same machine for another thread of this process: effects go on being counted together, and helpers that any
    /// thread started are known to all.
    #[must_use]
    pub fn for_thread(&self) -> Self {
        Host {
            table: ProcessTable::default(),
            invocation: self.invocation.clone(),
            shared: Arc::clone(&self.shared),
            interrupt: None,
        }
    }

    /// The same machine for work that somebody else may call off: a wait for a helper then ends at once, as failed.
    #[must_use]
    pub fn interruptible(&self, interrupt: &Arc<Interrupt>) -> Self {
        Host {
            interrupt: Some(Arc::clone(interrupt)),
            ..self.for_thread()
        }
    }

    /// Whether the work that this is for was called off.
    pub fn is_interrupted(&self) -> bool {
        let interrupt = self.interrupt.as_ref();
        interrupt.is_some_and(|interrupt| interrupt.is_raised())
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, ProcessId>> {
        let children = self.shared.children.lock();
        children.unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers, in this process, that others have made `thing` what a change was about to make it, so that undoing the change must
    /// leave it alone.
    pub fn leave_to_others(&self, thing: &str) {
        let not_ours = self.shared.not_ours.lock();
        let mut not_ours = not_ours.unwrap_or_else(PoisonError::into_inner);
        not_ours.insert(thing.to_owned());
    }

    /// Whether `thing` was left to others.
    pub fn is_left_to_others(&self, thing: &str) -> bool {
        let not_ours = self.shared.not_ours.lock();
        let not_ours = not_ours.unwrap_or_else(PoisonError::into_inner);
        not_ours.contains(thing)
    }

    fn newest_helper(&self) -> Option<ProcessId> {
        let children = self.children();
        let living = children.values().filter(|id| self.table.alive(**id));
        living.max_by_key(|id| id.start).copied()
    }

    /// Has an effect on the machine. `what` names it as `verb object`.
    ///
    /// # Errors
    /// The error of the effect, with `what` before it.
    pub fn effect<T>(
        &self,
        what: &str,
        action: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, HostError> {
        let number = self.shared.effects.fetch_add(1, Ordering::Relaxed) + 1;
        let failpoint = &self.shared.failpoint;
        let helper = || self.newest_helper();
        let outcome = failpoint
            .before(number, what, helper)
            .and_then(|()| action());
        failpoint.after(number, helper);
        outcome.map_err(|source| HostError {
            what: what.to_owned(),
            source,
        })
    }

    /// Sends a signal to exactly this process: a recycled id is never hit.
    ///
    /// Returns whether the process was there.
    ///
    /// # Errors
    /// The kernel refused, e.g. for another user's process.
    pub fn signal(
        &self,
        victim: ProcessId,
        signal: rustix::process::Signal,
    ) -> Result<bool, HostError> {
        self.effect(&format!("send {signal:?} to process {victim}"), || {
            let Some(pidfd) = self.table.open_pidfd_checked(victim)? else {
                return Ok(false);
            };
            match rustix::process::pidfd_send_signal(&pidfd, signal) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::SRCH) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Kills a process and waits until it is gone, at the most this long. Where `asked` is given, it is first asked to end
    /// by itself (SIGTERM), and has so long for it.
    ///
    /// # Errors
    /// The kernel refused, or it was not gone in time.
    pub fn kill_and_wait(
        &self,
        victim: ProcessId,
        asked: Option<Duration>,
        patience: Duration,
    ) -> Result<(), HostError> {
        use rustix::process::{Signal, pidfd_send_signal};
        let verb = if asked.is_some() { "end" } else { "kill" };
        let first = asked.map(|patience| (Signal::TERM, patience));
        self.effect(&format!("{verb} process {victim}"), || {
            let Some(pidfd) = self.table.open_pidfd_checked(victim)? else {
                return Ok(());
            };
            for (signal, patience) in first.into_iter().chain([(Signal::KILL, patience)]) {
                match pidfd_send_signal(&pidfd, signal) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::SRCH) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
                if wait_readable(&pidfd, patience)? {
                    return Ok(());
                }
            }
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it was still there after {patience:?}"),
            ))
        })
    }

    /// Creates, writes and syncs a file, which nobody else may read, beside its final place, then renames it there and syncs
    /// the folder: after a crash the old or the new content is there, never a part.
    ///
    /// # Errors
    /// The error of the file system; the file is then unchanged.
    pub fn write_durably(&self, path: &Path, content: &[u8]) -> Result<(), HostError> {
        self.stage_file(path, content)?;
        self.commit_file(path, ())
    }

    /// Like [`Host::write_durably`], for a program, which this user may run and nobody may write.
    ///
    /// # Errors
    /// The error of the file system; the file is then unchanged.
    pub fn write_program(&self, path: &Path, content: &[u8]) -> Result<(), HostError> {
        use std::os::unix::fs::PermissionsExt as _;
        self.stage_file(path, content)?;
        let beside = path.with_extension("new");
        self.effect(&format!("make {} a program", beside.display()), || {
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o500))
        })?;
        self.commit_file(path, ())
    }

    /// The slow half of [`Host::write_durably`]: the content is beside its final place, and synced.
    ///
    /// # Errors
    /// The error of the file system; the file is then unchanged.
    pub fn stage_file(&self, path: &Path, content: &[u8]) -> Result<(), HostError> {
        use std::io::Write as _;
        let beside = path.with_extension("new");
        self.effect(&format!("write {}", beside.display()), || {
            let mut file = new_file(&beside)?;
            file.write_all(content)
                .and_then(|()| file.sync_all())
                .inspect_err(|_| {
                    // A part of an entry is no entry; a file that cannot be removed is skipped when the ledger is read.
                    std::fs::remove_file(&beside).ok();
                })
        })
    }

    /// The quick half of [`Host::write_durably`]: renames what was staged to its final place. `lock` is dropped before the
    /// folder is synced, so that nobody waits for the disk behind it.
    ///
    /// # Errors
    /// The error of the file system; where only the sync failed, the new content is there.
    pub fn commit_file<L>(&self, path: &Path, lock: L) -> Result<(), HostError> {
        let beside = path.with_extension("new");
        self.effect(&format!("rename to {}", path.display()), || {
            std::fs::rename(&beside, path)?;
            drop(lock);
            sync_folder(path)
        })
    }

    /// Removes a staged file that will not be committed.
    pub fn discard_staged(&self, path: &Path) {
        // A file that cannot be removed is skipped when the ledger is read.
        std::fs::remove_file(path.with_extension("new")).ok();
    }

    /// Removes a file, durably. One that is not there is removed already.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn remove_durably(&self, path: &Path) -> Result<(), HostError> {
        self.effect(
            &format!("remove {}", path.display()),
            || match std::fs::remove_file(path) {
                Ok(()) => sync_folder(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
        )
    }

    /// Makes a folder and those above it, which only this user may enter.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn make_folder(&self, path: &Path) -> Result<(), HostError> {
        use std::os::unix::fs::DirBuilderExt as _;
        if path.is_dir() {
            return Ok(());
        }
        self.effect(&format!("make folder {}", path.display()), || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
        })
    }
}

/// A length of time as `poll` wants it.
pub(crate) fn timespec(length: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    }
}

/// Waits until a descriptor is readable, at the most this long.
///
/// # Errors
/// What `poll` said.
pub fn wait_readable(fd: impl AsFd, patience: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let until = Instant::now() + patience;
    loop {
        let timeout = timespec(until.saturating_duration_since(Instant::now()));
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A new file, which nobody else may read. What is in its place, of one who died or of one who wants it written elsewhere, is removed
/// first and not followed.
fn new_file(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::File::options();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
