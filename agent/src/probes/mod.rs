//! The probes that a controller has measured from this host: one transport for each kind. What is sent and what an answer is worth stands
//! in `backburn_experiments::probes`.
//!
//! Each probe is a child process of the worker, so that nothing that is measured can hold up or bring down the process that reverts faults:
//! see `child_task`. A program that a probe runs ends with it; what the program has left running is left alone.

mod capture;
mod dns;
mod http;
mod load;
mod process;
mod tcp;
mod tls;

use crate::children::{ChildAnswer, MAX_ANSWER_BYTES};
use crate::policy::HostPolicy;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{HttpExchange, ProbeError, ProbeResult, Transport};
use backburn_experiments::wire::ProbeOutcome;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The longest that any probe may take, whatever its time-out.
const MAX_PROBE_TIME: Duration = Duration::from_secs(3600);

/// How much longer than its probe a child may live. It ends by itself where the machine is well.
const CHILD_GRACE: Duration = Duration::from_secs(5);

/// What a child is to measure.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProbeJob {
    provider: Provider,
    /// How long all of it may take.
    limit: HumanDuration,
    /// The time-out of the activity, for a provider that has none of its own.
    timeout: Option<HumanDuration>,
    /// What this host allows. The child looks programs up, since a path may hang.
    #[serde(with = "crate::policy::with_its_file")]
    policy: HostPolicy,
}

impl ProbeJob {
    /// The job of measuring `provider` on this host. `timeout` is the activity's, for a provider that has none of its own.
    ///
    /// # Errors
    /// Agents do not measure this provider; says why.
    pub fn new(
        provider: Provider,
        timeout: Option<HumanDuration>,
        policy: &HostPolicy,
    ) -> Result<Self, String> {
        let probe = provider.measured()?;
        if let Some(why) = probe.refused_by_agents() {
            return Err(why.into());
        }
        let limit = HumanDuration(probe.time_limit_on_agent(timeout).0.min(MAX_PROBE_TIME));
        Ok(ProbeJob {
            provider,
            limit,
            timeout,
            policy: policy.clone(),
        })
    }

    /// How long the child that runs this job may live. It ends by itself a grace period earlier.
    pub fn child_timeout(&self) -> Duration {
        self.limit.0 + CHILD_GRACE
    }

    /// The outcome where the child does not answer within [`child_timeout`](Self::child_timeout).
    pub fn timed_out(&self) -> ProbeOutcome {
        self.judge(Err(ProbeError::timed_out(self.limit))).into()
    }

    /// Measures the provider. The answer is a [`ProbeOutcome`] as JSON, in time and of at most [`MAX_ANSWER_BYTES`].
    pub fn run(self) -> Vec<u8> {
        let (limit, job) = (self.limit.0, Arc::new(self));
        let (sender, receiver) = mpsc::channel();
        let measured = Arc::clone(&job);
        std::thread::spawn(move || sender.send(measured.measure()).ok());
        let answer = match receiver.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(ProbeError::timed_out(job.limit)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ProbeError::Broken(
                "the process that measures it ended without an answer".into(),
            )),
        };
        let as_json = |outcome: ProbeResult| {
            serde_json::to_vec(&ProbeOutcome::from(outcome)).unwrap_or_default()
        };
        let outcome = job.judge(answer);
        // Of a web page that is too long, the status is worth something all the same.
        let shorter = match &outcome {
            Ok(value) => HttpExchange::without_body(value, MAX_ANSWER_BYTES),
            Err(_) => None,
        };
        let candidates = [Some(outcome), shorter.map(Ok), Some(answer_too_long())];
        let mut written = candidates.into_iter().flatten().map(as_json);
        written
            .find(|outcome| outcome.len() <= MAX_ANSWER_BYTES)
            .unwrap_or_default()
    }

    fn measure(&self) -> ProbeResult {
        let transport = (self.provider.probe()).map(|probe| probe.transport(self.timeout));
        match transport {
            Some(Transport::Http(http)) => {
                http::measure(&http, self.timeout, &self.policy.destinations())
            }
            Some(Transport::Tcp(tcp)) => tcp::measure(tcp, &self.policy.destinations()),
            Some(Transport::Dns(dns)) => dns::measure(dns),
            Some(Transport::Load(load)) => {
                load::measure(load, self.timeout, &self.policy.request_limits())
            }
            Some(Transport::Process(process)) => process::measure(process, &self.policy),
            Some(Transport::Python(_) | Transport::Host(_)) | None => {
                Err(ProbeError::Broken("agents do not measure this".into()))
            }
        }
    }

    fn judge(&self, answer: ProbeResult) -> ProbeResult {
        match self.provider.probe() {
            Some(probe) => probe.judge(answer),
            None => answer,
        }
    }
}

/// The outcome of a probe whose child gave this answer; `timed_out` is [`ProbeJob::timed_out`].
pub fn outcome(answer: ChildAnswer, timed_out: ProbeOutcome) -> ProbeOutcome {
    match answer {
        ChildAnswer::Output(output) => serde_json::from_slice(&output).unwrap_or_else(|_| {
            ProbeOutcome::Broken("the process that measures it died without an answer".into())
        }),
        ChildAnswer::TimedOut => timed_out,
        ChildAnswer::TooLong => answer_too_long().into(),
        ChildAnswer::Broken(why) => ProbeOutcome::Broken(why),
    }
}

fn answer_too_long() -> ProbeResult {
    Err(ProbeError::Broken(format!(
        "the answer is longer than {} MiB, the most that an agent passes on",
        MAX_ANSWER_BYTES >> 20
    )))
}
