//! The tasks that the worker has disposable children do, and what happens with their answers.

use super::{METRIC_TIMEOUT, Worker};
use crate::child_task::ChildTask;
use crate::children::ChildAnswer;
use crate::engine;
use crate::probes::{self, ProbeJob};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::HostProvider;
use backburn_experiments::wire::{ProbeOutcome, Report};
use std::time::{Duration, Instant};

/// Most dry-run plans that may be made at a time. Further ones are refused, so that plans that hang never keep an injection from being
/// made.
const MAX_DRY_RUN_PLANS: usize = 16;

/// How long a child may take to examine what the host can do.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a child may take to list the host's services.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(10);

/// What a child's answer is for.
#[derive(Debug)]
pub(super) enum ChildPurpose {
    /// The controller's probe with this request number; `timed_out` is its outcome if the child does not answer in time.
    Probe {
        request: u64,
        timed_out: ProbeOutcome,
    },
    /// A metric of the host that the controller requested.
    Metric { request: u64 },
    /// A metric of the host that an abort rule of a run watches.
    Rule { run: String, rule: String },
    /// A question of the engine.
    Engine(engine::EnginePurpose),
}

impl Worker {
    /// Starts a child for a task. A child that cannot be started counts as one with a broken answer.
    pub(super) fn start_task(
        &mut self,
        task: &ChildTask,
        timeout: Duration,
        purpose: ChildPurpose,
    ) {
        let is_dry_run = |purpose: &ChildPurpose| {
            matches!(
                purpose,
                ChildPurpose::Engine(engine::EnginePurpose::Plan { .. })
            )
        };
        if is_dry_run(&purpose) && self.children.count(is_dry_run) >= MAX_DRY_RUN_PLANS {
            let why = format!("this agent is making {MAX_DRY_RUN_PLANS} plans already, the limit");
            return self.handle_answer(purpose, ChildAnswer::Broken(why), Instant::now());
        }
        let host = self.engine.host();
        if let Err((purpose, why)) = self.children.start(host, task, timeout, purpose) {
            self.handle_answer(purpose, ChildAnswer::Broken(why), Instant::now());
        }
    }

    /// Passes a child's answer to whoever asked for it.
    pub(super) fn handle_answer(
        &mut self,
        purpose: ChildPurpose,
        answer: ChildAnswer,
        now: Instant,
    ) {
        match purpose {
            ChildPurpose::Probe { request, timed_out } => {
                let outcome = probes::outcome(answer, timed_out);
                self.probe_results.push_back((request, outcome));
            }
            ChildPurpose::Metric { request } => {
                let value = metric_value(answer);
                self.link.send(&Report::Measured { request, value });
            }
            ChildPurpose::Rule { run, rule } => {
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.take(&rule, metric_value(answer).ok(), now);
                }
            }
            ChildPurpose::Engine(purpose) => {
                self.engine
                    .handle_child_answer(purpose, answer.into_output(), now);
            }
        }
    }

    /// Forwards the outcomes of probes to the controller, one at a time: together they might exceed what may wait on the socket.
    pub(super) fn forward_results(&mut self) {
        while !self.link.has_unsent()
            && let Some((request, outcome)) = self.probe_results.pop_front()
        {
            self.link.send(&Report::Probed { request, outcome });
        }
    }

    /// Has a child measure a probe.
    pub(super) fn probe(&mut self, request: u64, job: Result<ProbeJob, String>) {
        match job {
            Ok(job) => {
                let timeout = job.child_timeout();
                let timed_out = job.timed_out();
                let purpose = ChildPurpose::Probe { request, timed_out };
                self.start_task(&ChildTask::Measure(Box::new(job)), timeout, purpose);
            }
            Err(why) => self
                .probe_results
                .push_back((request, ProbeOutcome::Broken(why))),
        }
    }

    /// Has a child examine what this host can do. Refused while faults are active, since some of it is tried on the very things that
    /// they hold.
    pub(super) fn examine(&mut self, request: u64) {
        if !self.engine.is_idle() {
            let why = "faults are active on this host; try again when none is".into();
            return self
                .probe_results
                .push_back((request, ProbeOutcome::Broken(why)));
        }
        let late = format!("it took more than {}", HumanDuration(EXAMINE_TIMEOUT));
        let timed_out = ProbeOutcome::Broken(late);
        let purpose = ChildPurpose::Probe { request, timed_out };
        let task = ChildTask::Examine(self.state.clone());
        self.start_task(&task, EXAMINE_TIMEOUT, purpose);
    }

    /// Has a child list the services of this host that the policy does not protect. Nothing is tried or touched.
    pub(super) fn list_services(&mut self, request: u64) {
        let late = format!("it took more than {}", HumanDuration(SERVICES_TIMEOUT));
        let timed_out = ProbeOutcome::Broken(late);
        let purpose = ChildPurpose::Probe { request, timed_out };
        let task = ChildTask::Services(self.engine.policy().protect.clone());
        self.start_task(&task, SERVICES_TIMEOUT, purpose);
    }

    /// Measures a metric of the host: at once if the kernel has it, by a child if it is read from a path, which may hang.
    pub(super) fn measure(&mut self, request: u64, provider: &HostProvider) {
        if provider.metric.is_read_from_a_path() {
            let task = ChildTask::Figure {
                metric: provider.metric,
                path: provider.path.clone(),
            };
            return self.start_task(&task, METRIC_TIMEOUT, ChildPurpose::Metric { request });
        }
        let value = self.metrics.measure(provider.metric, None);
        let value = value.map_err(|error| error.to_string());
        self.link.send(&Report::Measured { request, value });
    }
}

/// The value that a child has measured.
fn metric_value(answer: ChildAnswer) -> Result<f64, String> {
    serde_json::from_slice(&answer.into_output()?).map_err(|error| error.to_string())?
}
