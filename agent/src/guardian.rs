//! The agent's parent: tiny, without tokio and without a link of its own. When the worker dies in
//! any way, it reverts what the ledger owes; when the guardian dies, the worker sees its lifeline
//! close, reverts and ends. It wakes for nothing else.

use crate::engine::revert_dead;
use crate::host::{self, Host, Invocation, Role, wait_readable};
use crate::ledger::{Ledger, boot_id};
use crate::processes::ProcessId;
use backburn_experiments::wire::Cause;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long a worker that was told to end may take before it is killed and reverted for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The exit code of an agent that owes.
pub const NOT_CLEAN: u8 = 6;

/// Starts the worker with these words, waits for its end, and puts back what it left. Returns
/// the exit code: 0 all is back, 6 something is owed, else what the worker said when it could not
/// start.
///
/// # Errors
/// The worker could not be started, or could not start: nothing was touched.
pub fn run(state: &Path, words: &[String], invocation: &Invocation) -> io::Result<u8> {
    // A Ctrl-C at a terminal is the controller's to take; a group of our own keeps it from us.
    rustix::process::setpgid(None, None).ok();
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    let (lifeline, its_end) = UnixStream::pair()?;
    let mut worker = invocation
        .command("worker")
        .args(words)
        .stdin(Stdio::inherit())
        .stdout(Stdio::from(OwnedFd::from(its_end)))
        .spawn()?;
    let pid = worker.id() as i32;
    let host = Host::new(Role::Guardian, invocation.clone());
    let id = host.table.identify(pid);
    host::settle();
    let said = wait_for_end(&mut worker, lifeline, &signals)?;

    let Some(id) = id else {
        return Err(io::Error::other(
            "the worker died before it could be looked at",
        ));
    };
    let clean = settle(&host, state, id)?;
    Ok(match said {
        _ if !clean => NOT_CLEAN,
        Some(code) => code,
        None => 0,
    })
}

/// Waits until the worker is dead. Returns its exit code; none where a signal ended it.
fn wait_for_end(
    worker: &mut Child,
    lifeline: UnixStream,
    signals: &SignalFd,
) -> io::Result<Option<u8>> {
    let pidfd = Pid::from_raw(worker.id() as i32)
        .ok_or_else(|| io::Error::other("the worker has no id"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))?;
    let mut fds = [
        PollFd::new(&pidfd, PollFlags::IN),
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => break,
            Ok(_) => {
                // Told to end: so is the worker, by its lifeline.
                drop(lifeline);
                if !wait_readable(&pidfd, PATIENCE)? {
                    worker.kill()?;
                }
                break;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(worker
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok()))
}

/// Puts back what a dead worker owes.
fn settle(host: &Host, state: &Path, worker: ProcessId) -> io::Result<bool> {
    let ledger = Ledger::open(host, state).map_err(|error| io::Error::other(error.to_string()))?;
    let boot = boot_id();
    let its = |entry: &crate::ledger::LedgerEntry| {
        entry.owner.worker == worker && entry.owner.boot == boot
    };
    let (ended, _) = revert_dead(host, &ledger, its, Cause::Died);
    for end in &ended {
        tracing::warn!(
            injection = end.injection,
            clean = end.clean,
            "put back for a worker that died"
        );
    }
    Ok(ended.iter().all(|end| end.clean))
}
