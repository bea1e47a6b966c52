//! Starting ourselves again: the guardian's worker, and the helpers that do harm as long as they
//! live. A helper bears its mark on its command line, so that it is found after any crash; it
//! dies with the thread that started it and knows its own deadline (see `helpers`).

use super::{Host, HostError, wait_readable};
use crate::helpers::Role;
use crate::processes::ProcessId;
use serde::Deserialize;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How this program is started again: its own file, and the words that come before a subcommand
/// of the agent's.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// `["agent"]` where the agent is a part of a larger binary, else nothing.
    pub prefix: Vec<String>,
}

impl Invocation {
    /// A command that starts this very program, even when its file was replaced or removed
    /// meanwhile: undoing needs nothing but what runs already.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.prefix).arg(subcommand);
        command
    }
}

/// What a helper says once, on its standard output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ready(String),
    Failed(String),
}

/// How long a helper may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

impl Host {
    /// Starts a helper and waits until it says that it is ready.
    ///
    /// # Errors
    /// It could not be started, or said that it could not do its work; then it is gone.
    pub fn spawn_helper(
        &self,
        mark: &str,
        deadline: Duration,
        role: &Role,
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
            if let Some(id) = self.table.identify(child.id() as i32) {
                self.children.borrow_mut().insert(mark.to_owned(), id);
            }
            let answer = child.stdout.take().map_or_else(
                || Err(io::Error::other("it has no standard output")),
                |stdout| read_answer(stdout, PATIENCE),
            );
            match answer {
                Ok(Answer::Ready(seen)) => Ok(seen),
                Ok(Answer::Failed(why)) => {
                    end(&mut child)?;
                    Err(io::Error::other(why))
                }
                Err(error) => {
                    end(&mut child)?;
                    Err(error)
                }
            }
        })
    }

    /// Starts a process that measures a probe, in a group of its own. What it says is to be read to the end.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn_probe(&self, errand: &[u8]) -> Result<(ProcessId, ChildStdout), HostError> {
        self.effect("start a probe", || {
            // A file in memory, not a pipe: writing must not wait for a reader.
            let input = rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?;
            let mut input = std::fs::File::from(input);
            input.write_all(errand)?;
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
                _ => {
                    end(&mut child)?;
                    Err(io::Error::other("it is not there"))
                }
            }
        })
    }

    /// Kills the process group that a child of ours leads. One that is dead leads none any more.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kill_group(&self, leader: ProcessId) -> Result<(), HostError> {
        self.effect(&format!("kill the group of process {leader}"), || {
            // Its id is its own until we take leave of it, which only we do, and not now.
            let pid = rustix::process::Pid::from_raw(leader.pid);
            match pid.filter(|_| self.table.alive(leader)) {
                Some(pid) => Ok(rustix::process::kill_process_group(
                    pid,
                    rustix::process::Signal::KILL,
                )?),
                None => Ok(()),
            }
        })
    }

    /// The process that this one started as the helper of this mark.
    pub(crate) fn child(&self, mark: &str) -> Option<ProcessId> {
        self.children.borrow().get(mark).copied()
    }

    /// Every process that bears this mark, dead ones that nobody has reaped left out.
    pub fn find_marked(&self, mark: &str) -> io::Result<Vec<ProcessId>> {
        self.table.find_marked(mark)
    }

    /// Takes leave of children that died, so that they leave the process table.
    pub fn reap(&self) {
        use rustix::process::{WaitOptions, wait};
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        self.children
            .borrow_mut()
            .retain(|_, id| self.table.alive(*id));
    }
}

fn end(child: &mut std::process::Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(|_| ())
}

fn read_answer(mut stdout: std::process::ChildStdout, patience: Duration) -> io::Result<Answer> {
    let until = Instant::now() + patience;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if !wait_readable(&stdout, until.saturating_duration_since(Instant::now()))? {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it was not ready after {patience:?}"),
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

/// A program of somebody else's, for a probe that the owner of this host allows. The kernel kills it when the thread that
/// starts it ends, whatever it ends of. Source: prctl(2), `PR_SET_PDEATHSIG`. Signals that we block reach it.
#[allow(unsafe_code)]
pub fn program(file: &Path) -> Command {
    let mut command = Command::new(file);
    let parent = rustix::process::getpid();
    let prepare = move || {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill)?;
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        // We may have died before the first line.
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
