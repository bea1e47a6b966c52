//! The process that measures one probe, and ends.
//!
//! ```text
//! backburn-agent probe PARENT-PID < TASK-JSON > ANSWER-JSON
//! ```

use super::{ProbeJob, Task, dns, http, in_time, process, prometheus, tcp, too_long};
use crate::children::MAX_ANSWER_BYTES;
use crate::host::end_own_group;
use crate::metrics::Metrics;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{NoValue, late};
use backburn_experiments::wire::ProbeOutcome;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{getppid, set_parent_process_death_signal};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc;

/// A probe's whole life. `args` are what follows the word `probe`.
pub fn run(args: &[OsString]) -> ExitCode {
    let parent = args
        .first()
        .and_then(|word| word.to_str()?.parse::<i32>().ok());
    if parent.is_none() || !tied_to(parent) {
        return ExitCode::FAILURE;
    }
    let line = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(Task::Measure(job)) => outcome(*job),
        Ok(Task::Examine(state)) => {
            let findings = json!(crate::doctor::examine(&state));
            serde_json::to_vec(&ProbeOutcome::Output(findings)).unwrap_or_default()
        }
        Ok(Task::Plan(task)) => serde_json::to_vec(&task.plan()).unwrap_or_default(),
        Ok(Task::AwaitReturn(expected)) => {
            serde_json::to_vec(&crate::engine::await_return(&expected)).unwrap_or_default()
        }
        Ok(Task::Figure { metric, path }) => {
            let figure = Metrics::default().measure(metric, path.as_deref());
            let figure = figure.map_err(|error| error.to_string());
            serde_json::to_vec(&figure).unwrap_or_default()
        }
        Err(_) => return ExitCode::FAILURE,
    };
    let mut stdout = std::io::stdout().lock();
    // Whoever does not listen any more needs no answer.
    let told = stdout.write_all(&line).and_then(|()| stdout.flush());
    drop(told);
    // With us goes a program that took too long.
    end_group();
    ExitCode::SUCCESS
}

/// The outcome as JSON, in time and not too long.
fn outcome(job: ProbeJob) -> Vec<u8> {
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

/// Has the kernel tell us when the worker dies, and our whole group end then. False where it has died already.
fn tied_to(parent: Option<i32>) -> bool {
    let mut death = SigSet::empty();
    death.add(Signal::SIGTERM);
    // Blocked in every thread, so that the one that waits for it gets it.
    if death.thread_block().is_err() {
        return false;
    }
    std::thread::spawn(move || {
        if death.wait().is_ok() {
            end_group();
        }
    });
    set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).is_ok()
        && getppid().map(|pid| pid.as_raw_nonzero().get()) == parent
}

/// Ends our process group, which the worker made for this probe, and us with it.
fn end_group() {
    end_own_group();
    // Started by hand, in a group of somebody's: only we end.
    std::process::exit(0);
}
