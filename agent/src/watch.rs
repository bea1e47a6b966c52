//! Abort rules about the host's own figures, which the agent watches by itself: they work when
//! the controller can't be reached, which is when they are needed most.

use crate::metrics::Metrics;
use backburn_experiments::wire::WatchRule;
use std::time::Instant;

/// The rules and how they stand.
#[derive(Debug, Default)]
pub struct Watch {
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    rule: WatchRule,
    due: Instant,
    failures: u32,
}

impl Watch {
    /// Watches these from now on.
    pub fn new(rules: Vec<WatchRule>) -> Self {
        let due = Instant::now();
        Watch {
            watched: rules
                .into_iter()
                .map(|rule| Watched {
                    rule,
                    due,
                    failures: 0,
                })
                .collect(),
        }
    }

    /// When the next figure is to be looked at.
    pub fn next_due(&self) -> Option<Instant> {
        self.watched.iter().map(|watched| watched.due).min()
    }

    /// Looks at what is due. The first rule that strikes, with what was seen.
    pub fn strike(&mut self, metrics: &mut Metrics, now: Instant) -> Option<(String, String)> {
        for watched in self.watched.iter_mut().filter(|watched| watched.due <= now) {
            let WatchRule {
                name,
                host,
                every,
                failures,
            } = &watched.rule;
            watched.due = now + every.0;
            // What can't be measured is neither fine nor a failure: the count stays as it is.
            let Ok(figure) = metrics.measure(host.metric, host.path.as_deref()) else {
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
