//! Abort rules about metrics of the host, which the agent evaluates by itself: they work even when
//! the controller cannot be reached, which is when they are needed most.

use crate::child_task::ChildTask;
use crate::metrics::Metrics;
use backburn_experiments::wire::WatchRule;
use std::time::Instant;

/// The abort rules of a run, with their states.
#[derive(Debug, Default)]
pub struct LocalAbortRules {
    watched: Vec<LocalAbortRule>,
}

#[derive(Debug)]
struct LocalAbortRule {
    rule: WatchRule,
    due: Instant,
    failures: u32,
    /// Whether a child process is measuring, for a metric that is read from a path.
    is_looked_at: bool,
    /// What a child process has measured, until it is evaluated.
    found: Option<f64>,
}

impl LocalAbortRules {
    /// Evaluates these rules from now on.
    pub fn new(rules: Vec<WatchRule>) -> Self {
        let due = Instant::now();
        LocalAbortRules {
            watched: rules
                .into_iter()
                .map(|rule| LocalAbortRule {
                    rule,
                    due,
                    failures: 0,
                    is_looked_at: false,
                    found: None,
                })
                .collect(),
        }
    }

    /// When the next metric is to be measured.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.watched.iter().filter(|watched| !watched.is_looked_at);
        waiting.map(|watched| watched.due).min()
    }

    /// What child processes are to measure now: the metrics that are due and are read from a path, each with the name of its rule. Their
    /// answers are for [`LocalAbortRules::take`].
    pub fn due_from_paths(&mut self, now: Instant) -> Vec<(String, ChildTask)> {
        let due = self.watched.iter_mut().filter(|watched| {
            let from_a_path = watched.rule.host.metric.is_read_from_a_path();
            from_a_path && watched.due <= now && !watched.is_looked_at
        });
        due.map(|watched| {
            watched.is_looked_at = true;
            let host = &watched.rule.host;
            let task = ChildTask::Figure {
                metric: host.metric,
                path: host.path.clone(),
            };
            (watched.rule.name.clone(), task)
        })
        .collect()
    }

    /// Takes what a child process has measured for a rule; none where it could not be measured.
    pub fn take(&mut self, rule: &str, figure: Option<f64>, now: Instant) {
        let asked = self.watched.iter_mut();
        for watched in asked.filter(|watched| watched.rule.name == rule && watched.is_looked_at) {
            watched.is_looked_at = false;
            watched.found = figure;
            watched.due = match figure {
                // To be judged at once.
                Some(_) => now,
                None => now + watched.rule.every.0,
            };
        }
    }

    /// Evaluates the rules that are due. Returns the name of the first that is triggered, with what was measured.
    pub fn strike(&mut self, metrics: &mut Metrics, now: Instant) -> Option<(String, String)> {
        let due = self.watched.iter_mut();
        for watched in due.filter(|watched| watched.due <= now && !watched.is_looked_at) {
            let WatchRule {
                name,
                host,
                every,
                failures,
            } = &watched.rule;
            watched.due = now + every.0;
            let figure = match host.metric.is_read_from_a_path() {
                true => watched.found.take(),
                false => metrics.measure(host.metric, None).ok(),
            };
            // What can't be measured is neither fine nor a failure: the count stays as it is.
            let Some(figure) = figure else {
                continue;
            };
            let failed = host.below.is_some_and(|limit| figure < limit)
                || host.above.is_some_and(|limit| figure > limit);
            watched.failures = if failed { watched.failures + 1 } else { 0 };
            if watched.failures >= (*failures).max(1) {
                let metric = serde_json::to_value(host.metric).unwrap_or_default();
                let seen = format!("{} is {figure:.1}", metric.as_str().unwrap_or("the figure"));
                watched.failures = 0;
                return Some((name.clone(), seen));
            }
        }
        None
    }
}
