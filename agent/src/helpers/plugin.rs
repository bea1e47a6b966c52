//! Holds a plug-in's process: the fault lasts as long as the process does. The process is the first of a process namespace of its own
//! and dies with this helper, and all that it has started dies with it.

use super::helper::{AlteredPlace, Helper};
use super::{HelperError, HelperProcess, MemoryBallast};
use crate::plugin_call::{Confinement, EffectLook, PinnedPlugin, PluginTexts, shown, spawn_plugin};
use crate::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStderr, ChildStdout};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long a plug-in may take until its fault acts.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest first line, and most of standard error that is read, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;

/// How much of a wrong first line is shown, in bytes.
const SHOWN_BYTES: usize = 200;

/// Holds the process of a plug-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginHolder {
    /// The copy of the plug-in that is run.
    pub program: PinnedPlugin,
    /// The capabilities that it keeps, a bit for each.
    pub capabilities: u64,
    /// The mark of this helper.
    pub mark: String,
    /// What it is to do.
    pub data: Value,
    /// What it holds alone.
    pub holds: Vec<String>,
    /// How the agent itself sees whether it acts.
    pub effect: EffectLook,
    /// The change in words for people.
    pub texts: PluginTexts,
}

/// The first line of a plug-in that holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum HoldAnswer {
    Ready(String),
    Failed(String),
}

impl PluginHolder {
    fn start(&self, deadline: Duration) -> io::Result<std::process::Child> {
        self.program.check()?;
        let request = json!({
            "verb": "hold",
            "data": self.data,
            "mark": self.mark,
            "deadline": HumanDuration(deadline),
        });
        let file = rustix::fs::memfd_create("plugin", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(format!("{request}\n").as_bytes())?;
        file.rewind()?;
        let confinement = Confinement {
            capabilities: self.capabilities,
            ..Confinement::default()
        };
        spawn_plugin(&self.program.file, OwnedFd::from(file), confinement)
    }

    fn failed(&self, what: &str, stderr: &mut ChildStderr) -> HelperError {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        while text.len() < MAX_LINE_BYTES
            && wait_readable(&*stderr, Duration::from_millis(50)).unwrap_or(false)
        {
            match stderr.read(&mut part).unwrap_or(0) {
                0 => break,
                count => text.extend_from_slice(part.get(..count).unwrap_or_default()),
            }
        }
        let said = shown(&String::from_utf8_lossy(&text));
        HelperError::new(format!("plug-in `{}` {what}{said}", self.program.name))
    }
}

impl Helper for PluginHolder {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        let no = |error: io::Error| {
            HelperError::new(format!(
                "plug-in `{}` could not be run: {error}",
                self.program.name
            ))
        };
        let (sender, started) = channel();
        let holder = self.clone();
        let deadline = process.deadline;
        // On a thread of its own, which lives as long as the plug-in: the kernel kills the plug-in when it ends. A thread whose children
        // are in another process namespace can start no threads, so it is not this one.
        let waiter = std::thread::spawn(move || {
            let child = holder.start(deadline);
            let (child, outputs) = match child {
                Ok(mut child) => {
                    let outputs = (child.stdout.take(), child.stderr.take());
                    (Some(child), Ok(outputs))
                }
                Err(error) => (None, Err(error)),
            };
            // The other end is there as long as this process.
            sender.send(outputs).ok();
            match child {
                Some(mut child) => child.wait(),
                None => Err(io::Error::other("it was not started")),
            }
        });
        let outputs = started
            .recv()
            .map_err(io::Error::other)
            .and_then(|outputs| outputs);
        let (Some(mut stdout), Some(mut stderr)) = outputs.map_err(no)? else {
            return Err(no(io::Error::other("it has no output")));
        };
        let line = first_line(&mut stdout).map_err(no)?;
        let answer = match line {
            None => {
                let limit = HumanDuration(READY_TIMEOUT);
                return Err(self.failed(&format!("was not ready within {limit}"), &mut stderr));
            }
            Some(line) => serde_json::from_slice(&line).map_err(|error| {
                let end = line.len().min(SHOWN_BYTES);
                let begin = String::from_utf8_lossy(line.get(..end).unwrap_or_default());
                self.failed(
                    &format!("answered `hold` with something else ({error}): {begin}"),
                    &mut stderr,
                )
            })?,
        };
        match answer {
            HoldAnswer::Ready(seen) => process.ready(seen)?,
            HoldAnswer::Failed(why) => {
                return Err(self.failed(&format!("cannot hold: {why}"), &mut stderr));
            }
        }
        // What it writes from now on is read, so that it never waits for a reader, and forgotten.
        std::thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        std::thread::spawn(move || io::copy(&mut stderr, &mut io::sink()));
        let status = waiter
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread failed")))
            .map_err(no)?;
        Err(HelperError::new(format!(
            "plug-in `{}` ended by itself: {status}",
            self.program.name
        )))
    }

    fn describe(&self) -> String {
        self.texts.apply.clone()
    }

    fn describe_end(&self) -> &'static str {
        "the kernel kills the plug-in and all that it has started"
    }

    fn holds(&self) -> Vec<String> {
        self.holds.clone()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, _: i32, _: &ProcessTable) -> Effect {
        let (acts, seen) = self
            .effect
            .take()
            .unwrap_or_else(|error| (false, format!("it cannot be seen: {error}")));
        Effect {
            acts,
            seen,
            ..Effect::default()
        }
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        // Whatever its process held is back. The look may still see the same, e.g. a port that its owner has taken again.
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = MemoryBallast;

    fn substitute(_: &Value) -> Option<MemoryBallast> {
        // All that a holder does ends with its process.
        Some(MemoryBallast::NONE)
    }
}

/// The first line, or what there is of it at the end; none where it does not come in time.
fn first_line(stdout: &mut ChildStdout) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + READY_TIMEOUT;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while line.len() <= MAX_LINE_BYTES && !line.contains(&b'\n') {
        if !wait_readable(&*stdout, until.saturating_duration_since(Instant::now()))? {
            return Ok(None);
        }
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let end = line
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(line.len());
    line.truncate(end);
    Ok(Some(line))
}

/// Waits until there is something to read, at the most this long.
fn wait_readable(from: impl AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
