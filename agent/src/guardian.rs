//! The agent's parent process, which is tiny. When the worker dies in any way, or does not answer while it owes anything (see
//! `heartbeat`), the guardian reverts what the ledger owes and reports it to the controller. When the guardian dies or hangs, the worker
//! notices, reverts and exits. The guardian wakes for nothing else.

use crate::engine::revert_dead_worker;
use crate::exit_code;
use crate::heartbeat::{self, HeartbeatMonitor, PeerState};
use crate::host::{self, Host, HostRole, Invocation, timespec, wait_readable};
use crate::ledger::LedgerCopy;
use crate::processes::ProcessId;
use backburn_experiments::terminal_text::escape;
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

/// How long a worker that was asked to end may take before it is killed and the guardian reverts.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a worker that was killed may take to exit. One that waits for a disk, or is frozen, is not waited for: what it owes is
/// reverted all the same.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reporting to the controller may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the worker with these arguments, waits for its end, and reverts what it left. Returns the exit code: 0 if everything is reverted,
/// 6 if something is owed, else the worker's own exit code if it could not start.
///
/// # Errors
/// The worker could not be started, or could not start; nothing was changed.
/// The worker could not be started, or could not start: nothing was touched.
pub fn run(state: &Path, arguments: &[String], invocation: &Invocation) -> io::Result<u8> {
    // A process group of its own: Ctrl-C at a terminal is for the controller, not for the guardian.
    rustix::process::setpgid(None, None).ok();
    crate::user_signals::ignore()?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    // Without the copy, only the ledger's files say what is owed.
    let copy = LedgerCopy::create().ok();
    let number = copy.as_ref().map(|copy| copy.number().to_string());
    let (lifeline, worker_end) = UnixStream::pair()?;
    let mut worker = invocation
        .command("worker")
        .args(arguments)
        .args(
            number
                .into_iter()
                .flat_map(|number| ["--ledger-copy".into(), number]),
        )
        .stdin(Stdio::inherit())
        .stdout(Stdio::from(OwnedFd::from(worker_end)))
        .spawn()?;
    let pid = worker.id() as i32;
    let host = Host::new(HostRole::Guardian, invocation.clone());
    let id = host.table.identify(pid);
    host::settle();
    let end = wait_for_end(&mut worker, lifeline, &signals)?;

    let Some(id) = id else {
        return Err(io::Error::other(
            "the worker died before it could be identified",
        ));
    };
    let clean = revert_for_worker(&host, state, id, copy.as_ref());
    Ok(match end {
        _ if !clean => exit_code::NOT_CLEAN,
        WorkerEnd::Exited(code) => code,
        WorkerEnd::Killed => 0,
    })
}

/// How the worker ended.
enum WorkerEnd {
    /// It exited with this code.
    Exited(u8),
    /// A signal killed it, the guardian's own or another.
    Killed,
}

/// Waits until the worker dies. A worker that hangs is killed.
fn wait_for_end(
    worker: &mut Child,
    lifeline: UnixStream,
    signals: &SignalFd,
) -> io::Result<WorkerEnd> {
    let pidfd = Pid::from_raw(worker.id() as i32)
        .ok_or_else(|| io::Error::other("the worker has no id"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))?;
    let mut watch = HeartbeatMonitor::for_started_worker(Instant::now());
    // Whether there is still a controller to serve. Without one, the worker ends, and must not hang while it does.
    let mut is_served = true;
    let link = rustix::stdio::stdin();
    // When a worker that was asked to end counts as hung although it still sends heartbeats.
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
                // The kernel always reports a hang-up.
                false => PollFd::new(&lifeline, PollFlags::IN),
            },
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [is_dead, is_signalled, is_heard, has_hung_up] = fds.map(|fd| !fd.revents().is_empty());
        let now = Instant::now();
        if is_served && has_hung_up {
            is_served = false;
            watch.expect_beat(now);
        }
        if is_dead {
            return ended(worker);
        }
        if is_signalled && signals.read_signal()?.is_some() && killed_at.is_none() {
            // Tells the worker to end, by closing what it reads. It keeps sending heartbeats while it reverts.
            lifeline.shutdown(Shutdown::Write)?;
            killed_at = Some(now + SHUTDOWN_TIMEOUT);
            watch.expect_beat(now);
        }
        if killed_at.is_some_and(|at| at <= now) {
            let end = kill(worker, &pidfd);
            tracing::error!(
                "the worker did not end within {} s and was killed",
                SHUTDOWN_TIMEOUT.as_secs()
            );
            return end;
        }
        match watch.check(&lifeline, is_heard, now) {
            PeerState::Alive => {}
            // It is about to exit, which is all that is left to wait for.
            PeerState::Gone => {
                return match wait_readable(&pidfd, KILL_TIMEOUT)? {
                    true => ended(worker),
                    false => kill(worker, &pidfd),
                };
            }
            PeerState::Hung => {
                let end = kill(worker, &pidfd);
                tracing::error!(
                    "the worker did not answer for {:.1} s and was killed; what it owes is reverted",
                    heartbeat::SILENCE_TIMEOUT.as_secs_f64()
                );
                return end;
            }
        }
    }
}

fn ended(worker: &mut Child) -> io::Result<WorkerEnd> {
    let code = worker.wait()?.code();
    Ok(match code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => WorkerEnd::Exited(code),
        None => WorkerEnd::Killed,
    })
}

/// Kills the worker and waits up to [`KILL_TIMEOUT`] for its exit.
fn kill(worker: &mut Child, pidfd: &OwnedFd) -> io::Result<WorkerEnd> {
    worker.kill()?;
    if wait_readable(pidfd, KILL_TIMEOUT)? {
        return ended(worker);
    }
    tracing::error!(
        "the worker could not be killed; what it owes is reverted while it is still there"
    );
    Ok(WorkerEnd::Killed)
}

/// Reports what was reverted to the controller, over the same socket as the worker. A controller that does not read is not waited for.
fn report_ended(ended: Vec<EndedInjection>) {
    let link = rustix::stdio::stdin();
    let mut link = crate::controller_socket::ControllerSocket::new(link);
    // The worker may have died in the middle of a line.
    link.end_partial_line();
    for ended in ended {
        link.send(&Report::Ended(ended));
    }
    link.flush(REPORT_TIMEOUT);
}

/// Reverts what a dead worker owes. Returns whether everything is observed to be gone.
fn revert_for_worker(
    host: &Host,
    state: &Path,
    worker: ProcessId,
    copy: Option<&LedgerCopy>,
) -> bool {
    let remembered = copy.and_then(|copy| copy.entries().ok());
    let (ended, owed) = revert_dead_worker(host, state, worker, remembered.as_deref());
    for end in &ended {
        let what = match end.clean {
            true => "reverted for a worker that died",
            false => "not reverted for a worker that died",
        };
        tracing::warn!(injection = end.injection, clean = end.clean, "{what}");
    }
    for owed in &owed {
        eprintln!(
            "error: {} ({}) is not reverted: {}",
            escape(&owed.injection),
            escape(&owed.fault),
            escape(&owed.residue.join("; "))
        );
    }
    let clean = owed.is_empty() && ended.iter().all(|end| end.clean);
    if !ended.is_empty() {
        report_ended(ended);
    }
    clean
}
