//! The program that a disposable child runs: one task, one answer.
//!
//! ```text
//! backburn-agent probe PARENT-PID < TASK-JSON > ANSWER-JSON
//! ```
//!
//! The child ends itself when the process that started it dies. See `children` for the other side.

use crate::doctor;
use crate::engine::EngineTask;
use crate::host::end_own_group;
use crate::metrics::Metrics;
use crate::probes::ProbeJob;
use crate::processes::{ProcessTable, Protection, seen_services};
use backburn_experiments::document::HostMetric;
use backburn_experiments::wire::ProbeOutcome;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum ChildTask {
    /// Measure a probe. The answer is a [`ProbeOutcome`].
    Measure(Box<ProbeJob>),
    /// Report what this host can do; the path is the agent's state folder. The answer is a [`ProbeOutcome`].
    Examine(PathBuf),
    /// List the services of this host that this does not protect. The answer is a [`ProbeOutcome`].
    Services(Protection),
    /// Answer a question of the engine.
    Engine(EngineTask),
    /// Measure a metric of the host that is read from a path. The answer is a `Result<f64, String>`.
    Figure {
        /// The metric to measure.
        metric: HostMetric,
        /// The path that it is read from.
        path: Option<String>,
    },
}

impl ChildTask {
    fn run(self) -> Vec<u8> {
        match self {
            ChildTask::Measure(job) => job.run(),
            ChildTask::Examine(state) => {
                let findings = json!(doctor::examine(&state));
                serde_json::to_vec(&ProbeOutcome::Output(findings)).unwrap_or_default()
            }
            ChildTask::Services(protection) => {
                let outcome = match seen_services(&ProcessTable::default(), &protection) {
                    Ok(services) => ProbeOutcome::Output(json!(services)),
                    Err(error) => ProbeOutcome::Broken(error.to_string()),
                };
                serde_json::to_vec(&outcome).unwrap_or_default()
            }
            ChildTask::Engine(task) => task.run(),
            ChildTask::Figure { metric, path } => {
                let figure = Metrics::default().measure(metric, path.as_deref());
                let figure = figure.map_err(|error| error.to_string());
                serde_json::to_vec(&figure).unwrap_or_default()
            }
        }
    }
}

/// Runs the task on standard input and writes its answer to standard output. `arguments` are those that follow the word `probe`.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let parent = arguments
        .first()
        .and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    if parent.is_none() || !end_with_parent(parent) {
        return ExitCode::FAILURE;
    }
    let Ok(task) = serde_json::from_reader::<_, ChildTask>(std::io::stdin().lock()) else {
        return ExitCode::FAILURE;
    };
    let answer = task.run();
    let mut stdout = std::io::stdout().lock();
    // A parent that has stopped listening needs no answer.
    drop(stdout.write_all(&answer).and_then(|()| stdout.flush()));
    // A program that took too long ends with this process.
    end_group();
    ExitCode::SUCCESS
}

/// Has the kernel signal this process when its parent dies, and ends the whole process group then. Returns false where the parent has
/// died already.
fn end_with_parent(parent: Option<i32>) -> bool {
    let mut death = SigSet::empty();
    death.add(Signal::SIGTERM);
    // Blocked in every thread, so that the thread that waits for it receives it.
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

/// Ends this process and its process group, which the worker created for it.
fn end_group() {
    end_own_group();
    // Started by hand, this process is in a group of somebody else: it ends alone.
    std::process::exit(0);
}
