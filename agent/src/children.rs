//! Disposable children: whatever looks at what a document, a variable or a stranger can name does so in one of these.
//! Each is this program again, in a process group of its own. It gets its task on standard input and says what it found on
//! standard output, which the worker polls beside its other descriptors. One that hangs is killed and harms nobody; one that
//! cannot even be killed (it waits for a disk or a file system) is left to itself.

use crate::host::Host;
use crate::processes::ProcessId;
use serde::Serialize;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// The most children at a time: a controller that asks for more is not well.
pub const MAX_CHILDREN: usize = 32;
/// The most that a child may say, in bytes: far below what may wait on a link for a controller that does not read (see `link`).
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The children at work, each with what its answer is for.
#[derive(Debug)]
pub struct Children<P> {
    running: Vec<RunningChild<P>>,
}

#[derive(Debug)]
struct RunningChild<P> {
    purpose: P,
    id: ProcessId,
    stdout: ChildStdout,
    output: Vec<u8>,
    until: Instant,
}

/// What came of a child.
#[derive(Debug)]
pub enum ChildAnswer {
    /// All that it said; nothing where it died before it said anything.
    Output(Vec<u8>),
    /// It was not done in time and was killed.
    TimedOut,
    /// It said more than [`MAX_ANSWER_BYTES`] and was killed.
    TooLong,
    /// What it said could not be read.
    Broken(String),
}

impl ChildAnswer {
    /// What was said.
    ///
    /// # Errors
    /// Nothing that could be used; says why.
    pub fn into_output(self) -> Result<Vec<u8>, String> {
        match self {
            ChildAnswer::Output(output) if output.is_empty() => Err("who looked has died".into()),
            ChildAnswer::Output(output) => Ok(output),
            ChildAnswer::TimedOut => Err("the look hung and was ended".into()),
            ChildAnswer::TooLong => Err("the answer is too long".into()),
            ChildAnswer::Broken(why) => Err(why),
        }
    }
}

impl<P> Default for Children<P> {
    fn default() -> Self {
        Children {
            running: Vec::new(),
        }
    }
}

impl<P> Children<P> {
    /// Starts one, which has this long.
    ///
    /// # Errors
    /// There are too many already, or it could not be started. The purpose comes back.
    pub fn start(
        &mut self,
        host: &Host,
        task: &impl Serialize,
        within: Duration,
        purpose: P,
    ) -> Result<(), (P, String)> {
        if self.running.len() >= MAX_CHILDREN {
            let why = format!(
                "this agent looks at {MAX_CHILDREN} things already, which is the most at a time"
            );
            return Err((purpose, why));
        }
        let started = serde_json::to_vec(task)
            .map_err(|error| error.to_string())
            .and_then(|task| host.spawn_look(&task).map_err(|error| error.to_string()));
        match started {
            Ok((id, stdout)) => {
                self.running.push(RunningChild {
                    purpose,
                    id,
                    stdout,
                    output: Vec::new(),
                    until: Instant::now() + within,
                });
                Ok(())
            }
            Err(why) => Err((purpose, why)),
        }
    }

    /// What to poll, in the order of [`read_ready`](Self::take)'s numbers.
    pub fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().map(|running| running.stdout.as_fd())
    }

    /// Reads from these once. Returns those that are done.
    pub fn read_ready(&mut self, host: &Host, ready: &[usize]) -> Vec<(P, ChildAnswer)> {
        let mut done = Vec::new();
        // From the end, so that the numbers before stay true.
        for number in ready.iter().rev().copied() {
            let Some(running) = self.running.get_mut(number) else {
                continue;
            };
            if let Some(answer) = running.read() {
                let running = self.running.swap_remove(number);
                if matches!(answer, ChildAnswer::TooLong) {
                    kill(host, running.id);
                }
                done.push((running.purpose, answer));
            }
        }
        done
    }

    /// Kills those whose time is over.
    pub fn kill_overdue(&mut self, host: &Host, now: Instant) -> Vec<(P, ChildAnswer)> {
        let overdue = self.kill_where(host, |running| running.until <= now);
        overdue
            .into_iter()
            .map(|purpose| (purpose, ChildAnswer::TimedOut))
            .collect()
    }

    /// Kills those whose answer nobody wants any more.
    pub fn cancel(&mut self, host: &Host, is_unwanted: impl Fn(&P) -> bool) {
        drop(self.kill_where(host, |running| is_unwanted(&running.purpose)));
    }

    fn kill_where(&mut self, host: &Host, is_such: impl Fn(&RunningChild<P>) -> bool) -> Vec<P> {
        let ended: Vec<RunningChild<P>> = self
            .running
            .extract_if(.., |running| is_such(running))
            .collect();
        ended
            .into_iter()
            .map(|running| {
                kill(host, running.id);
                running.purpose
            })
            .collect()
    }

    /// How many of these there are.
    pub fn count(&self, is_such: impl Fn(&P) -> bool) -> usize {
        let purposes = self.running.iter().map(|running| &running.purpose);
        purposes.filter(|purpose| is_such(purpose)).count()
    }

    /// When the first of them is to be killed.
    pub fn next_due(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.until).min()
    }
}

impl<P> RunningChild<P> {
    fn read(&mut self) -> Option<ChildAnswer> {
        let mut buffer = [0; 64 * 1024];
        match self.stdout.read(&mut buffer) {
            Ok(0) => Some(ChildAnswer::Output(std::mem::take(&mut self.output))),
            Ok(count) => {
                let more = buffer.get(..count).unwrap_or_default();
                self.output.extend_from_slice(more);
                // It keeps to that itself, unless it is not itself any more.
                (self.output.len() > MAX_ANSWER_BYTES).then_some(ChildAnswer::TooLong)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
            Err(error) => Some(ChildAnswer::Broken(error.to_string())),
        }
    }
}

fn kill(host: &Host, id: ProcessId) {
    if let Err(error) = host.kill_group(id) {
        tracing::warn!(%error, "a child that looks at something could not be ended");
    }
}
