//! Probes that a controller has measured from here. Each is a child process of the worker, this
//! program again, so that nothing that is measured can hold up or bring down who puts faults back.
//! It gets its errand on standard input and says what came back on standard output; the worker
//! polls that beside its other descriptors.
//!
//! The child and whatever it starts are one process group. It ends that group itself when its time
//! is over or the worker has died; the worker ends it where it does not.

mod child;
mod dns;
mod http;
mod process;
mod prometheus;
mod tcp;

pub use child::run;

use crate::host::Host;
use crate::policy::Policy;
use crate::processes::ProcessId;
use backburn_experiments::Span;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{NoValue, late, within};
use backburn_experiments::wire::Probed;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// The most probes at a time: a controller that asks for more is not well.
const MOST_AT_A_TIME: usize = 32;

/// The most that is handed on of an answer, in bytes: far below what may wait on a link for a
/// controller that does not read (see `link`).
const MOST: usize = 1 << 20;

/// The longest that anything may take, whatever is said.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long it may take to look what the host can do.
const EXAMINED_WITHIN: Duration = Duration::from_secs(30);

/// How long a child may go on after its time; it ends by itself where the machine is well.
const GRACE: Duration = Duration::from_secs(5);

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
enum Task {
    /// Measure this.
    Measure(Box<Errand>),
    /// Say what the host can do; the state folder.
    Examine(PathBuf),
}

/// What a child is to measure.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    provider: Provider,
    /// How long all of it may take.
    within: Span,
    /// The time-out of the activity, where the provider says nothing of that.
    timeout: Option<Span>,
    /// The file of the program that is run, which the policy allows.
    program: Option<PathBuf>,
}

/// What is being measured, and the answers that have not been handed on yet.
#[derive(Debug, Default)]
pub struct Probes {
    going: Vec<Going>,
    answers: VecDeque<(u64, Probed)>,
}

#[derive(Debug)]
struct Going {
    request: u64,
    child: ProcessId,
    stdout: ChildStdout,
    said: Vec<u8>,
    until: Instant,
    /// What it comes to when it says nothing in time.
    late: Probed,
}

impl Probes {
    /// Begins to measure. Whatever comes of it is among the answers at some time.
    pub fn start(
        &mut self,
        host: &Host,
        policy: &Policy,
        request: u64,
        provider: Provider,
        timeout: Option<Span>,
    ) {
        if let Err(why) = self.begin(host, policy, request, provider, timeout) {
            self.answers.push_back((request, Probed::Broken(why)));
        }
    }

    fn begin(
        &mut self,
        host: &Host,
        policy: &Policy,
        request: u64,
        provider: Provider,
        timeout: Option<Span>,
    ) -> Result<(), String> {
        if self.going.len() >= MOST_AT_A_TIME {
            return Err(format!(
                "this agent measures {MOST_AT_A_TIME} probes already, which is the most at a time"
            ));
        }
        is_measured_here(&provider)?;
        let within = Span(within(&provider, timeout).0.min(LONGEST));
        let program = match &provider {
            Provider::Process(process) => {
                let allowed = process::allowed(process, policy);
                Some(allowed.map_err(|refusal| refusal.to_string())?)
            }
            _ => None,
        };
        let no_answer = in_time(&provider, Err(late(within)));
        let errand = Errand {
            provider,
            within,
            timeout,
            program,
        };
        let task = Task::Measure(Box::new(errand));
        self.send(host, request, &task, within.0 + GRACE, no_answer.into())
    }

    /// Begins to look what the host can do. Not while faults act: some of it is tried, on the very things that they hold.
    pub fn examine(&mut self, host: &Host, request: u64, state: &Path, is_idle: bool) {
        let task = Task::Examine(state.to_owned());
        let late = Probed::Broken(format!("it took more than {}", Span(EXAMINED_WITHIN)));
        let begun = match is_idle {
            true => self.send(host, request, &task, EXAMINED_WITHIN, late),
            false => Err("faults act on this host; ask when it is at rest".into()),
        };
        if let Err(why) = begun {
            self.answers.push_back((request, Probed::Broken(why)));
        }
    }

    fn send(
        &mut self,
        host: &Host,
        request: u64,
        task: &Task,
        within: Duration,
        late: Probed,
    ) -> Result<(), String> {
        let task = serde_json::to_vec(task).map_err(|error| error.to_string())?;
        let (child, stdout) = host.spawn_probe(&task).map_err(|error| error.to_string())?;
        self.going.push(Going {
            request,
            child,
            stdout,
            said: Vec::new(),
            until: Instant::now() + within,
            late,
        });
        Ok(())
    }

    /// What to poll, in the order of [`take`](Self::take)'s numbers.
    pub fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.going.iter().map(|going| going.stdout.as_fd())
    }

    /// Takes what these have said.
    pub fn take(&mut self, ready: &[usize]) {
        // From the end, so that the numbers before stay true.
        for number in ready.iter().rev().copied() {
            let Some(going) = self.going.get_mut(number) else {
                continue;
            };
            if let Some(outcome) = going.take() {
                let going = self.going.swap_remove(number);
                self.answers.push_back((going.request, outcome));
            }
        }
    }

    /// Ends what should have ended by itself.
    pub fn tick(&mut self, host: &Host, now: Instant) {
        let (over, going) = std::mem::take(&mut self.going)
            .into_iter()
            .partition(|going| going.until <= now);
        self.going = going;
        for Going {
            request,
            child,
            late,
            ..
        } in over
        {
            if let Err(error) = host.kill_group(child) {
                tracing::warn!(%error, "a probe could not be ended");
            }
            self.answers.push_back((request, late));
        }
    }

    /// When to wake for one that does not end.
    pub fn next_due(&self) -> Option<Instant> {
        self.going.iter().map(|going| going.until).min()
    }

    /// The next answer to hand on.
    pub fn answer(&mut self) -> Option<(u64, Probed)> {
        self.answers.pop_front()
    }
}

impl Going {
    /// Reads once. Its outcome, when that was all.
    fn take(&mut self) -> Option<Probed> {
        let mut buffer = [0; 64 * 1024];
        match self.stdout.read(&mut buffer) {
            Ok(0) => Some(serde_json::from_slice(&self.said).unwrap_or_else(|_| {
                Probed::Broken("what measures it has died without an answer".into())
            })),
            Ok(count) => {
                let more = buffer.get(..count).unwrap_or_default();
                self.said.extend_from_slice(more);
                // It keeps to that itself, unless it is not itself any more.
                (self.said.len() > MOST).then(|| too_long().into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
            Err(error) => Some(Probed::Broken(error.to_string())),
        }
    }
}

fn is_measured_here(provider: &Provider) -> Result<(), String> {
    match provider {
        Provider::Http(_)
        | Provider::Prometheus(_)
        | Provider::Tcp(_)
        | Provider::Dns(_)
        | Provider::Process(_) => Ok(()),
        Provider::Python(_) => {
            Err("an agent runs no Python: leave out `from`, and the controller measures it".into())
        }
        Provider::Host(_) => Err("a figure of the host is no probe's to measure".into()),
        Provider::Fault(fault) => Err(format!(
            "`{}` is a fault: it is injected, nobody measures it",
            fault.fault
        )),
    }
}

/// The outcome, as it is judged for this provider: an instrument that does not answer is broken.
fn in_time(
    provider: &Provider,
    outcome: Result<serde_json::Value, NoValue>,
) -> Result<serde_json::Value, NoValue> {
    use backburn_experiments::probes::prometheus;
    match provider {
        Provider::Prometheus(_) => prometheus::value(outcome),
        _ => outcome,
    }
}

fn too_long() -> Result<serde_json::Value, NoValue> {
    Err(NoValue::Broken(format!(
        "the answer is longer than {} MiB, which is the most that an agent hands on",
        MOST >> 20
    )))
}
