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

use crate::children::MAX_ANSWER_BYTES;
use crate::policy::HostPolicy;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{NoValue, late, within};
use backburn_experiments::wire::ProbeOutcome;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest that anything may take, whatever is said.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a child may go on after its time; it ends by itself where the machine is well.
const GRACE: Duration = Duration::from_secs(5);

/// What a child is to measure.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProbeJob {
    provider: Provider,
    /// How long all of it may take.
    within: HumanDuration,
    /// The time-out of the activity, where the provider says nothing of that.
    timeout: Option<HumanDuration>,
    /// What this host allows: a program is looked up by the child, since a path may hang.
    policy: HostPolicy,
}

impl ProbeJob {
    /// The job of measuring `provider` on this host. `timeout` is the activity's, for a provider that has none of its own.
    ///
    /// # Errors
    /// Agents do not measure this provider; says why.
    pub fn new(provider: Provider, timeout: Option<HumanDuration>, policy: &HostPolicy) -> Result<Self, String> {
        is_measured_here(&provider)?;
        let within = HumanDuration(within(&provider, timeout).0.min(LONGEST));
        Ok(ProbeJob {
            provider,
            within,
            timeout,
            policy: policy.clone(),
        })
    }

    /// How long the child that runs this job may live. It ends by itself a grace period earlier.
    pub fn child_timeout(&self) -> Duration {
        self.within.0 + GRACE
    }

    /// The outcome where the child does not answer within [`child_timeout`](Self::child_timeout).
    pub fn timed_out(&self) -> ProbeOutcome {
        in_time(&self.provider, Err(late(self.within))).into()
    }
}

/// The outcome that a child said.
pub fn outcome(answer: crate::children::ChildAnswer, late: ProbeOutcome) -> ProbeOutcome {
    use crate::children::ChildAnswer;
    match answer {
        ChildAnswer::Output(output) => serde_json::from_slice(&output).unwrap_or_else(|_| {
            ProbeOutcome::Broken("what measures it has died without an answer".into())
        }),
        ChildAnswer::TimedOut => late,
        ChildAnswer::TooLong => too_long().into(),
        ChildAnswer::Broken(why) => ProbeOutcome::Broken(why),
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
