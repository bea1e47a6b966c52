//! The agent's parent: tiny, without tokio. When the worker dies in any way, or does not answer while it owes anything (see
//! `heartbeat`), it reverts what the ledger owes, and tells the controller; when the guardian dies or hangs, the worker
//! notices, reverts and ends. It wakes for nothing else.

use crate::engine::recover;
use crate::heartbeat::{self, HeartbeatWatch, Pulse};
use crate::host::{self, Host, Invocation, Role, timespec, wait_readable};
use crate::ledger::LedgerCopy;
use crate::processes::ProcessId;
use backburn_experiments::wire::{EndedInjection, Report};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a worker that was told to end may take before it is killed and reverted for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a worker that was killed may take to leave. One that waits for a disk, or is frozen, is not waited for: what it owes
/// is put back all the same.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// How long telling the controller may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
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

    // Without it, only the ledger's files tell what is owed.
    let copy = LedgerCopy::create().ok();
    let number = copy.as_ref().map(|copy| copy.number().to_string());
    let (lifeline, its_end) = UnixStream::pair()?;
    let mut worker = invocation
        .command("worker")
        .args(words)
        .args(
            number
                .into_iter()
                .flat_map(|number| ["--ledger-copy".into(), number]),
        )
        .stdin(Stdio::inherit())
        .stdout(Stdio::from(OwnedFd::from(its_end)))
        .spawn()?;
    let pid = worker.id() as i32;
    let host = Host::new(Role::Guardian, invocation.clone());
    let id = host.table.identify(pid);
    host::settle();
    let end = wait_for_end(&mut worker, lifeline, &signals)?;

    let Some(id) = id else {
        return Err(io::Error::other(
            "the worker died before it could be looked at",
        ));
    };
    let clean = settle(&host, state, id, copy.as_ref());
    Ok(match end {
        _ if !clean => NOT_CLEAN,
        End::Left(code) => code,
        End::Killed => 0,
    })
}

/// How the worker ended.
enum End {
    /// It left with this exit code.
    Left(u8),
    /// A signal ended it, the guardian's own or another.
    Killed,
}

/// Waits until the worker is dead or hangs; one that hangs is killed.
fn wait_for_end(worker: &mut Child, lifeline: UnixStream, signals: &SignalFd) -> io::Result<End> {
    let pidfd = Pid::from_raw(worker.id() as i32)
        .ok_or_else(|| io::Error::other("the worker has no id"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))?;
    let mut watch = HeartbeatWatch::of_started(Instant::now());
    // Whether there is still somebody to serve. Once there is not, the worker ends, and must not hang on the way.
    let mut is_served = true;
    let link = rustix::stdio::stdin();
    // When a worker that was told to end counts as hung although it still beats.
    let mut killed_at: Option<Instant> = None;
    loop {
        let due = watch.next_due().into_iter().chain(killed_at).min();
        let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::new(&lifeline, PollFlags::IN),
            match is_served {
                true => PollFd::new(&link, PollFlags::RDHUP),
                // What has hung up is always reported.
                false => PollFd::new(&lifeline, PollFlags::IN),
            },
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [is_dead, is_told, speaks, hangs_up] = fds.map(|fd| !fd.revents().is_empty());
        let now = Instant::now();
        if is_served && hangs_up {
            is_served = false;
            watch.expect(now);
        }
        if is_dead {
            return ended(worker);
        }
        if is_told && signals.read_signal()?.is_some() && killed_at.is_none() {
            // So is the worker: what it reads from here ends. It goes on beating while it puts things back.
            lifeline.shutdown(Shutdown::Write)?;
            killed_at = Some(now + PATIENCE);
            watch.expect(now);
        }
        if killed_at.is_some_and(|at| at <= now) {
            let end = kill(worker, &pidfd);
            tracing::error!(
                "the worker did not end within {} s and was killed",
                PATIENCE.as_secs()
            );
            return end;
        }
        match watch.hear(&lifeline, speaks, now) {
            Pulse::Alive => {}
            // It is about to leave: nothing is waited for but that.
            Pulse::Gone => {
                return match wait_readable(&pidfd, LEAVES_WITHIN)? {
                    true => ended(worker),
                    false => kill(worker, &pidfd),
                };
            }
            Pulse::Hangs => {
                let end = kill(worker, &pidfd);
                tracing::error!(
                    "the worker did not answer for {:.1} s and was killed; what it owes is put back",
                    heartbeat::TIMEOUT.as_secs_f64()
                );
                return end;
            }
        }
    }
}

fn ended(worker: &mut Child) -> io::Result<End> {
    let code = worker.wait()?.code();
    Ok(match code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => End::Left(code),
        None => End::Killed,
    })
}

/// Kills the worker and waits a little for its end.
fn kill(worker: &mut Child, pidfd: &OwnedFd) -> io::Result<End> {
    worker.kill()?;
    if wait_readable(pidfd, LEAVES_WITHIN)? {
        return ended(worker);
    }
    tracing::error!("the worker could not be killed; what it owes is put back without its end");
    Ok(End::Killed)
}

/// Tells the controller what was put back: the link is the guardian's as well. One that does not read is not waited for.
fn tell(ended: Vec<EndedInjection>) {
    let link = rustix::stdio::stdin();
    let mut link = crate::link::Link::new(link);
    // The worker may have died within a line.
    link.break_line();
    for ended in ended {
        link.say(&Report::Ended(ended));
    }
    link.flush(TELL_TIMEOUT);
}

/// Puts back what a dead worker owes. Returns whether all of it is seen to be gone.
fn settle(host: &Host, state: &Path, worker: ProcessId, copy: Option<&LedgerCopy>) -> bool {
    let remembered = copy.and_then(|copy| copy.entries().ok());
    let (ended, owed) = recover(host, state, worker, remembered.as_deref());
    for end in &ended {
        tracing::warn!(
            injection = end.injection,
            clean = end.clean,
            "put back for a worker that died"
        );
    }
    for owed in &owed {
        eprintln!(
            "error: {} ({}) is not put back: {}",
            owed.injection,
            owed.fault,
            owed.residue.join("; ")
        );
    }
    let clean = owed.is_empty() && ended.iter().all(|end| end.clean);
    if !ended.is_empty() {
        tell(ended);
    }
    clean
}
