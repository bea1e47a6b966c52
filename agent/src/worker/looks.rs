//! What disposable children look at for the worker, and what becomes of their answers.

use super::{FIGURE_TIMEOUT, Worker};
use crate::children::Answer;
use crate::engine;
use crate::probes::{self, Task};
use backburn_experiments::document::HostProvider;
use backburn_experiments::wire::{ProbeOutcome, Report};
use std::time::{Duration, Instant};

/// The most plans at a time that somebody only wants to see: whoever asks for many that hang keeps no injection from being made.
const MAX_PLANS: usize = 16;

/// What a child's answer is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A controller's probe, and what it comes to when nothing is heard in time.
    Probe { request: u64, late: ProbeOutcome },
    /// A controller asked for a figure of the host.
    Figure { request: u64 },
    /// A rule of a run watches a figure of the host.
    Rule { run: String, rule: String },
    /// The engine wants to know.
    Engine(engine::Purpose),
}

impl Worker {
    /// Has a child look at something.
    pub(super) fn look(&mut self, task: &Task, within: Duration, purpose: Purpose) {
        let is_plan =
            |purpose: &Purpose| matches!(purpose, Purpose::Engine(engine::Purpose::Plan { .. }));
        if is_plan(&purpose) && self.children.count(is_plan) >= MAX_PLANS {
            let why = format!("{MAX_PLANS} plans are made already, which is the most at a time");
            return self.take_answer(purpose, Answer::Broken(why), Instant::now());
        }
        let host = self.engine.place().0;
        if let Err((purpose, why)) = self.children.start(host, task, within, purpose) {
            self.take_answer(purpose, Answer::Broken(why), Instant::now());
        }
    }

    /// Takes what a child has found.
    pub(super) fn take_answer(&mut self, purpose: Purpose, answer: Answer, now: Instant) {
        match purpose {
            Purpose::Probe { request, late } => {
                let outcome = probes::outcome(answer, late);
                self.measured.push_back((request, outcome));
            }
            Purpose::Figure { request } => {
                let value = figure(answer);
                self.link.say(&Report::Measured { request, value });
            }
            Purpose::Rule { run, rule } => {
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.take(&rule, figure(answer).ok(), now);
                }
            }
            Purpose::Engine(purpose) => self.engine.take_look(purpose, answer.said(), now),
        }
    }

    /// Hands on what was measured, one answer after the other: many at once could be more than may wait on the link.
    pub(super) fn hand_on(&mut self) {
        while !self.link.has_unsent()
            && let Some((request, outcome)) = self.measured.pop_front()
        {
            self.link.say(&Report::Probed { request, outcome });
        }
    }

    /// Has a child measure or examine something, or says why not.
    pub(super) fn probe(&mut self, request: u64, look: Result<probes::Look, String>) {
        match look {
            Ok(look) => {
                let late = look.late;
                self.look(&look.task, look.within, Purpose::Probe { request, late });
            }
            Err(why) => self.measured.push_back((request, ProbeOutcome::Broken(why))),
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
            return self.look(&task, FIGURE_TIMEOUT, Purpose::Figure { request });
        }
        let value = self.metrics.measure(wanted.metric, None);
        let value = value.map_err(|error| error.to_string());
        self.link.say(&Report::Measured { request, value });
    }
}

/// The figure that a child has measured.
fn figure(answer: Answer) -> Result<f64, String> {
    serde_json::from_slice(&answer.said()?).map_err(|error| error.to_string())?
}
