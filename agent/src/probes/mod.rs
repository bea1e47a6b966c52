//! Probes that a controller has measured from here. Each is a child process of the worker, this
//! program again, so that nothing that is measured can hold up or bring down who puts faults back.
//! See `children`.
//!
//! The child ends itself when its time is over or the worker has died; the worker ends it where it does not. A program that it
//! runs is ended with it, and what that has left running is left alone.

mod capture;
mod child;
mod dns;
mod http;
mod process;
mod prometheus;
mod tcp;
mod tls;

pub use child::run;

use crate::children::MAX_ANSWER_BYTES;
use crate::engine::{Expectation, PlanTask};
use crate::policy::HostPolicy;
use backburn_experiments::Span;
use backburn_experiments::document::{HostMetric, Provider};
use backburn_experiments::probes::{NoValue, late, within};
use backburn_experiments::wire::Probed;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The longest that anything may take, whatever is said.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long it may take to look what the host can do.
const EXAMINED_WITHIN: Duration = Duration::from_secs(30);

/// How long a child may go on after its time; it ends by itself where the machine is well.
const GRACE: Duration = Duration::from_secs(5);

/// What a child of the worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Measure this. The answer is a [`Probed`].
    Measure(Box<ProbeJob>),
    /// Say what the host can do; the state folder. The answer is a [`Probed`].
    Examine(PathBuf),
    /// Look at the host and plan an injection. The answer is a `Result<Plan, Refusal>`.
    Plan(Box<PlanTask>),
    /// Wait until a supervisor has brought processes back. The answer is an [`crate::engine::SupervisorReturn`].
    AwaitReturn(Box<Expectation>),
    /// Measure a figure of the host that is read from a path. The answer is a `Result<f64, String>`.
    Figure {
        /// Which figure.
        metric: HostMetric,
        /// The path that it is read from.
        path: Option<String>,
    },
}

/// What a child is to measure.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProbeJob {
    provider: Provider,
    /// How long all of it may take.
    within: Span,
    /// The time-out of the activity, where the provider says nothing of that.
    timeout: Option<Span>,
    /// What this host allows: a program is looked up by the child, since a path may hang.
    policy: HostPolicy,
}

/// A task for a child, how long it has, and what it comes to when it says nothing in time.
#[derive(Debug)]
pub struct Look {
    /// The task.
    pub task: Task,
    /// How long the child has.
    pub within: Duration,
    /// The outcome of one that is late.
    pub late: Probed,
}

/// What measures a provider from here.
///
/// # Errors
/// Agents do not measure such a provider; says why.
pub fn measuring(
    provider: Provider,
    timeout: Option<Span>,
    policy: &HostPolicy,
) -> Result<Look, String> {
    is_measured_here(&provider)?;
    let within = Span(within(&provider, timeout).0.min(LONGEST));
    let late = in_time(&provider, Err(late(within)));
    Ok(Look {
        task: Task::Measure(Box::new(ProbeJob {
            provider,
            within,
            timeout,
            policy: policy.clone(),
        })),
        within: within.0 + GRACE,
        late: late.into(),
    })
}

/// What looks what the host can do. Not while faults act: some of it is tried, on the very things that they hold.
///
/// # Errors
/// Faults act.
pub fn examining(state: PathBuf, is_idle: bool) -> Result<Look, String> {
    match is_idle {
        true => Ok(Look {
            task: Task::Examine(state),
            within: EXAMINED_WITHIN,
            late: Probed::Broken(format!("it took more than {}", Span(EXAMINED_WITHIN))),
        }),
        false => Err("faults act on this host; ask when it is at rest".into()),
    }
}

/// The outcome that a child said.
pub fn outcome(answer: crate::children::ChildAnswer, late: Probed) -> Probed {
    use crate::children::ChildAnswer;
    match answer {
        ChildAnswer::Output(output) => serde_json::from_slice(&output).unwrap_or_else(|_| {
            Probed::Broken("what measures it has died without an answer".into())
        }),
        ChildAnswer::TimedOut => late,
        ChildAnswer::TooLong => too_long().into(),
        ChildAnswer::Broken(why) => Probed::Broken(why),
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
        MAX_ANSWER_BYTES >> 20
    )))
}
