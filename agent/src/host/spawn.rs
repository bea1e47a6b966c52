//! Starting ourselves again: the guardian's worker, and the helpers that do harm as long as they
//! live. A helper bears its mark on its command line, so that it is found after any crash; it
//! dies with the thread that started it and knows its own deadline (see `helpers`).

use super::{Host, HostError, wait_readable};
use crate::helpers::Role;
use crate::processes::ProcessId;
use serde::Deserialize;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};
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
