//! Abort rules about the host's own figures, which the agent watches by itself: they work when
//! the controller can't be reached, which is when they are needed most.

use crate::metrics::Metrics;
use crate::child_task::ChildTask;
use backburn_experiments::wire::WatchRule;
use std::time::Instant;

/// The rules and how they stand.
#[derive(Debug, Default)]
pub struct LocalAbortRules {
    watched: Vec<LocalAbortRule>,
}

#[derive(Debug)]
struct LocalAbortRule {
    rule: WatchRule,
    due: Instant,
    failures: u32,
    /// Whether a child is looking, for a figure that is read from a path.
    is_looked_at: bool,
    /// What a child has found, until it is judged.
    found: Option<f64>,
}

impl LocalAbortRules {
    /// Watches these from now on.
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

    /// When the next figure is to be looked at.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.watched.iter().filter(|watched| !watched.is_looked_at);
        waiting.map(|watched| watched.due).min()
    }

    /// What children are to look at now: the figures that are due and are read from a path, each with its rule's name. Their
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

    /// Takes what a child has found for a rule; nothing where it could not be measured.
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

    /// Judges what is due. The first rule that strikes, with what was seen.
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
