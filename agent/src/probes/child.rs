//! Measuring one probe, within its time and the limit of its answer.

use super::{ProbeJob, dns, http, in_time, process, prometheus, tcp, too_long};
use crate::children::MAX_ANSWER_BYTES;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{NoValue, late};
use backburn_experiments::wire::ProbeOutcome;
use serde_json::Value;
use std::sync::mpsc;

impl ProbeJob {
    /// Measures the provider. The answer is a [`ProbeOutcome`] as JSON, in time and of at most [`MAX_ANSWER_BYTES`].
    pub fn run(self) -> Vec<u8> {
        let job = self;
        let within = job.within;
        let provider = job.provider.clone();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send(measure(&job)).ok());
        let outcome = match told.recv_timeout(within.0) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => in_time(&provider, Err(late(within))),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(NoValue::Broken(
                "what measures it has ended without an answer".into(),
            )),
        };
        let line = |outcome: Result<Value, NoValue>| {
            serde_json::to_vec(&ProbeOutcome::from(outcome)).unwrap_or_default()
        };
        let said = line(outcome);
        match said.len() > MAX_ANSWER_BYTES {
            true => line(too_long()),
            false => said,
        }
    }
}

fn measure(job: &ProbeJob) -> Result<Value, NoValue> {
    match &job.provider {
        Provider::Http(http) => http::measure(http, job.timeout),
        Provider::Prometheus(query) => prometheus::measure(query, job.timeout),
        Provider::Tcp(tcp) => tcp::measure(tcp),
        Provider::Dns(dns) => dns::measure(dns),
        Provider::Process(process) => process::measure(process, &job.policy),
        Provider::Python(_) | Provider::Host(_) | Provider::Fault(_) => {
            Err(NoValue::Broken("this is not measured here".into()))
        }
    }
}
