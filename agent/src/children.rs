//! Disposable children. Whatever opens something that a document, a variable or a stranger can name is done by one of them, because it
//! may hang. Each is this program again, in a process group of its own (see `child_task`). It reads its task from standard input and
//! writes its answer to standard output, which the worker polls with its other descriptors. A child that hangs is killed and harms
//! nobody; one that cannot be killed, because it waits for a disk or a file system, is left alone.

use crate::host::Host;
use crate::processes::ProcessId;
use serde::Serialize;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// Most children at a time. A controller that asks for more is at fault.
pub const MAX_CHILDREN: usize = 32;
/// Longest answer of a child, in bytes; far below what may wait for a controller that does not read (see `controller_socket`).
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The children that are running, each with the purpose of its answer.
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

/// How a child ended.
#[derive(Debug)]
pub enum ChildAnswer {
    /// Everything that it wrote; empty if it died before it wrote anything.
    Output(Vec<u8>),
    /// It exceeded its time and was killed.
    TimedOut,
    /// It wrote more than [`MAX_ANSWER_BYTES`] and was killed.
    TooLong,
    /// Its output could not be read.
    Broken(String),
}

impl ChildAnswer {
    /// Everything that the child wrote.
    ///
    /// # Errors
    /// The child gave no usable answer; says why.
    pub fn into_output(self) -> Result<Vec<u8>, String> {
        match self {
            ChildAnswer::Output(output) if output.is_empty() => {
                Err("the process that checked it died".into())
            }
            ChildAnswer::Output(output) => Ok(output),
            ChildAnswer::TimedOut => Err("the check hung and was killed".into()),
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
    /// Starts a child with a time limit.
    ///
    /// # Errors
    /// [`MAX_CHILDREN`] are running already, or the child could not be started. The purpose is returned with the reason.
    pub fn start(
        &mut self,
        host: &Host,
        task: &impl Serialize,
        within: Duration,
        purpose: P,
    ) -> Result<(), (P, String)> {
        if self.running.len() >= MAX_CHILDREN {
            let why = format!("this agent is running {MAX_CHILDREN} checks already, the limit");
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

    /// The descriptors to poll, in the order of the numbers that [`read_ready`](Self::read_ready) takes.
    pub fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().map(|running| running.stdout.as_fd())
    }

    /// Reads once from the children with these numbers. Returns those that are done.
    pub fn read_ready(&mut self, host: &Host, ready: &[usize]) -> Vec<(P, ChildAnswer)> {
        let mut done = Vec::new();
        // In reverse, because removing a child changes the numbers after it.
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

    /// Kills the children whose time is over.
    pub fn kill_overdue(&mut self, host: &Host, now: Instant) -> Vec<(P, ChildAnswer)> {
        let overdue = self.kill_where(host, |running| running.until <= now);
        overdue
            .into_iter()
            .map(|purpose| (purpose, ChildAnswer::TimedOut))
            .collect()
    }

    /// Kills the children whose answer is no longer needed.
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

    /// How many children have such a purpose.
    pub fn count(&self, is_such: impl Fn(&P) -> bool) -> usize {
        let purposes = self.running.iter().map(|running| &running.purpose);
        purposes.filter(|purpose| is_such(purpose)).count()
    }

    /// When the next child is to be killed.
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
                // The child keeps to this limit itself, unless it was tampered with.
                (self.output.len() > MAX_ANSWER_BYTES).then_some(ChildAnswer::TooLong)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
            Err(error) => Some(ChildAnswer::Broken(error.to_string())),
        }
    }
}

fn kill(host: &Host, id: ProcessId) {
    if let Err(error) = host.kill_group(id) {
        tracing::warn!(%error, "a child process could not be killed");
    }
}
