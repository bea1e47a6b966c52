//! What disposable children look at for the worker, and what becomes of their answers.

use super::{FIGURE_TIMEOUT, Worker};
use crate::children::ChildAnswer;
use crate::engine;
use crate::probes::{self, Task};
use backburn_experiments::document::HostProvider;
use backburn_experiments::wire::{Probed, Report};
use std::time::{Duration, Instant};

/// The most plans at a time that somebody only wants to see: whoever asks for many that hang keeps no injection from being made.
const MAX_DRY_RUN_PLANS: usize = 16;

/// What a child's answer is for.
#[derive(Debug)]
pub(super) enum ChildPurpose {
    /// A controller's probe, and what it comes to when nothing is heard in time.
    Probe { request: u64, late: Probed },
    /// A controller asked for a figure of the host.
    Figure { request: u64 },
    /// A rule of a run watches a figure of the host.
    Rule { run: String, rule: String },
    /// The engine wants to know.
    Engine(engine::EnginePurpose),
}

impl Worker {
    /// Has a child look at something.
    pub(super) fn start_task(&mut self, task: &Task, within: Duration, purpose: ChildPurpose) {
        let is_plan = |purpose: &ChildPurpose| {
            matches!(
                purpose,
                ChildPurpose::Engine(engine::EnginePurpose::Plan { .. })
            )
        };
        if is_plan(&purpose) && self.children.count(is_plan) >= MAX_DRY_RUN_PLANS {
            let why =
                format!("{MAX_DRY_RUN_PLANS} plans are made already, which is the most at a time");
            return self.handle_answer(purpose, ChildAnswer::Broken(why), Instant::now());
        }
        let host = self.engine.place().0;
        if let Err((purpose, why)) = self.children.start(host, task, within, purpose) {
            self.handle_answer(purpose, ChildAnswer::Broken(why), Instant::now());
        }
    }

    /// Takes what a child has found.
    pub(super) fn handle_answer(
        &mut self,
        purpose: ChildPurpose,
        answer: ChildAnswer,
        now: Instant,
    ) {
        match purpose {
            ChildPurpose::Probe { request, late } => {
                let outcome = probes::outcome(answer, late);
                self.probe_results.push_back((request, outcome));
            }
            ChildPurpose::Figure { request } => {
                let value = figure(answer);
                self.link.send(&Report::Measured { request, value });
            }
            ChildPurpose::Rule { run, rule } => {
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.take(&rule, figure(answer).ok(), now);
                }
            }
            ChildPurpose::Engine(purpose) => {
                self.engine
                    .handle_child_answer(purpose, answer.into_output(), now)
            }
        }
    }

    /// Hands on what was measured, one answer after the other: many at once could be more than may wait on the link.
    pub(super) fn forward_results(&mut self) {
        while !self.link.has_unsent()
            && let Some((request, outcome)) = self.probe_results.pop_front()
        {
            self.link.send(&Report::Probed { request, outcome });
        }
    }

    /// Has a child measure or examine something, or says why not.
    pub(super) fn probe(&mut self, request: u64, start_task: Result<probes::Look, String>) {
        match start_task {
            Ok(start_task) => {
                let late = start_task.late;
                self.start_task(
                    &start_task.task,
                    start_task.within,
                    ChildPurpose::Probe { request, late },
                );
            }
            Err(why) => self.probe_results.push_back((request, Probed::Broken(why))),
        }
    }

    /// Measures a figure of the host: at once where the kernel itself has it, by a child where a path leads to it.
    pub(super) fn measure(&mut self, request: u64, wanted: &HostProvider) {
        let path = wanted.path.clone();
        if wanted.metric.is_read_from_a_path() {
            let task = Task::Figure {
                metric: wanted.metric,
                path,
            };
            return self.start_task(&task, FIGURE_TIMEOUT, ChildPurpose::Figure { request });
        }
        let value = self.metrics.measure(wanted.metric, None);
        let value = value.map_err(|error| error.to_string());
        self.link.send(&Report::Measured { request, value });
    }
}

/// The figure that a child has measured.
fn figure(answer: ChildAnswer) -> Result<f64, String> {
    serde_json::from_slice(&answer.into_output()?).map_err(|error| error.to_string())?
}
