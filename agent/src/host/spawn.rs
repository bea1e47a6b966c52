//! Starting this program again: the guardian's worker, and the helpers that cause an effect as long as they
//! live. A helper bears its mark on its command line, so that it is found after any crash; it
//! dies with the thread that started it and knows its own deadline (see `helpers`).

use super::{Host, HostError, Interrupt, wait_readable};
use crate::helpers::HelperSpec;
use crate::processes::ProcessId;
use serde::Deserialize;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How this program is started again: its own file, and the words that come before a subcommand
/// of the agent's.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// `["agent"]` where the agent is a part of a larger binary, else nothing.
    pub prefix: Vec<String>,
}

impl Invocation {
    /// A command that starts this very program, even if its file was replaced or removed
    /// meanwhile: reverting needs nothing but what runs already.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.prefix).arg(subcommand);
        command
    }
}

/// What a helper reports once, on its standard output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HelperAnswer {
    Ready(String),
    Failed(String),
    /// Others have made what it was about to make.
    Foreign(String),
}

/// How long a helper may take to report that it is ready.
const HELPER_READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a killed child may take to end before it is left to itself.
const CHILD_EXIT_TIMEOUT: Duration = Duration::from_secs(2);

impl Host {
    /// Starts a helper and waits until it says that it is ready, or until the work is called off.
    ///
    /// # Errors
    /// It could not be started, said that it could not do its work, was not ready in time, or the work was called off; then
    /// it was killed.
    pub fn spawn_helper(
        &self,
        mark: &str,
        deadline: Duration,
        role: &HelperSpec,
    ) -> Result<String, HostError> {
        self.effect(&format!("start helper {mark}"), || {
            let mut child = self
                .invocation
                .command("helper")
                .arg(mark)
                .arg(std::process::id().to_string())
                .arg(deadline.as_millis().to_string())
                .arg(serde_json::to_string(role)?)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            // Not waited for by its handle: whoever reaps children in this process may be another thread.
            let id = self.table.identify(child.id() as i32);
            if let Some(id) = id {
                self.children().insert(mark.to_owned(), id);
            }
            let answer = match child.stdout.take() {
                Some(stdout) => {
                    read_answer(stdout, self.interrupt.as_deref(), HELPER_READY_TIMEOUT)
                }
                None => Err(io::Error::other("it has no standard output")),
            };
            let failed = match answer {
                Ok(HelperAnswer::Ready(seen)) => return Ok(seen),
                Ok(HelperAnswer::Failed(why)) => io::Error::other(why),
                Ok(HelperAnswer::Foreign(why)) => {
                    self.leave_to_others(mark);
                    io::Error::other(why)
                }
                Err(error) => error,
            };
            if let Some(id) = id {
                self.kill_child(id)?;
            }
            Err(failed)
        })
    }

    /// Starts a process that looks at something on behalf of this one, in a group of its own: it may hang, and nobody is
    /// harmed. What it says is to be read to the end. It changes nothing, so it is no effect.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn_look(&self, task: &[u8]) -> io::Result<(ProcessId, ChildStdout)> {
        // A file in memory, not a pipe: writing must not wait for a reader.
        let input = rustix::fs::memfd_create("look", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut input = std::fs::File::from(input);
        input.write_all(task)?;
        input.rewind()?;
        let mut child = self
            .invocation
            .command("probe")
            .arg(std::process::id().to_string())
            .stdin(input)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let id = self.table.identify(child.id() as i32);
        match (id, child.stdout.take()) {
            (Some(id), Some(stdout)) => Ok((id, stdout)),
            _ => Err(io::Error::other("it is not there")),
        }
    }

    /// Kills the process group that a child of this process leads; a dead child leads none. Does not wait for its end.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kill_group(&self, leader: ProcessId) -> io::Result<()> {
        // The id is not reused before the child is reaped, which only this process does, and not now.
        let pid = rustix::process::Pid::from_raw(leader.pid);
        match pid.filter(|_| self.table.alive(leader)) {
            Some(pid) => Ok(rustix::process::kill_process_group(
                pid,
                rustix::process::Signal::KILL,
            )?),
            None => Ok(()),
        }
    }

    /// Kills the process group that this child leads, whoever of it is left. Does not wait for its end.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kill_group_of(&self, leader: &Child) -> Result<(), HostError> {
        // The id is not reused before the child is reaped: no other process leads a group of that number.
        self.effect(&format!("kill process group {}", leader.id()), || {
            let pid = i32::try_from(leader.id()).ok();
            let pid = pid.and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("it has no id"))?;
            match rustix::process::kill_process_group(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Kills a child of this process and waits a little for its end.
    fn kill_child(&self, id: ProcessId) -> io::Result<()> {
        if let Some(pidfd) = self.table.open_pidfd_checked(id)? {
            match rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
                Ok(()) => drop(wait_readable(&pidfd, CHILD_EXIT_TIMEOUT)?),
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.reap();
        Ok(())
    }

    /// The process that this one started as the helper of this mark.
    pub(crate) fn child(&self, mark: &str) -> Option<ProcessId> {
        self.children().get(mark).copied()
    }

    /// Every process that bears this mark, dead ones that nobody has reaped left out.
    pub fn find_marked(&self, mark: &str) -> io::Result<Vec<ProcessId>> {
        self.table.find_marked(mark)
    }

    /// Reaps children that died, so that they leave the process table.
    pub fn reap(&self) {
        use rustix::process::{WaitOptions, wait};
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        self.children().retain(|_, id| self.table.alive(*id));
    }
}

/// Reads a helper's first line, at the most this long, and no longer once the work is called off.
fn read_answer(
    mut stdout: ChildStdout,
    interrupt: Option<&Interrupt>,
    patience: Duration,
) -> io::Result<HelperAnswer> {
    let until = Instant::now() + patience;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if !wait_for_either(&stdout, interrupt, until)? {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it was not ready after {patience:?}"),
            ));
        }
        if interrupt.is_some_and(Interrupt::is_raised) {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "it was called off before it was ready",
            ));
        }
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if line.contains(&b'\n') {
            break;
        }
    }
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it died before it was ready",
        ));
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Waits until there is something to read, or the work is called off. False where neither came in time.
fn wait_for_either(
    stdout: &ChildStdout,
    interrupt: Option<&Interrupt>,
    until: Instant,
) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let left = super::timespec(until.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(stdout, PollFlags::IN)];
        fds.extend(interrupt.map(|interrupt| PollFd::new(interrupt, PollFlags::IN)));
        match poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A command that runs another program, for a probe that the owner of this host allows. The kernel kills it when the thread that
/// starts it ends, for whatever reason. Source: prctl(2), `PR_SET_PDEATHSIG`. Signals that this process blocks reach the program.
#[allow(unsafe_code)]
pub fn program(file: &Path) -> Command {
    let mut command = Command::new(file);
    let parent = rustix::process::getpid();
    let prepare = move || {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill)?;
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        // The parent may have died before the first line.
        match rustix::process::getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::NotConnected)),
        }
    };
    // SAFETY: between fork and exec only prctl, pthread_sigmask and getppid are called, which are
    // safe after a signal (signal-safety(7)); nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(prepare);
    }
    command
}

/// Ends the process group that was made for this process, and so this process. Returns where the group is not its own.
pub fn end_own_group() {
    let group = rustix::process::getpgrp();
    if group == rustix::process::getpid() {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
}
