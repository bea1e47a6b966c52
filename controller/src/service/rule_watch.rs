//! What the passing of time does to runs: quiet hours end what acts, and runs do not wait for approval for ever.

use super::{Service, lock};
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the clock is compared with quiet hours and with the ends of waits.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Service {
    /// Ends runs whose quiet hours have begun, and waits that are over, for as long as the controller runs.
    pub async fn keep_rules(self: Arc<Self>) {
        let mut is_failing = false;
        loop {
            let service = Arc::clone(&self);
            let checked = tokio::task::spawn_blocking(move || {
                service.end_quiet_runs(Timestamp::now());
                service.notify_unresponsive();
                service.end_lapsed_waits()
            });
            let Ok(checked) = checked.await else {
                return;
            };
            // A store that fails is reported once, and not every second.
            if let Err(error) = &checked
                && !is_failing
            {
                tracing::error!(%error, "the runs that wait for approval could not be checked");
            }
            is_failing = checked.is_err();
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Asks every run to end that targets agents whose quiet hours or blackout dates include this time. Returns the runs.
    pub fn end_quiet_runs(&self, now: Timestamp) -> Vec<String> {
        let policy = self.policy();
        let quiet: Vec<(String, String)> = (lock(&self.admitted).iter())
            .filter_map(|(run, load)| Some((run.clone(), policy.quiet_rule(load, now)?.to_owned())))
            .collect();
        let runs = lock(&self.runs);
        let mut ended = Vec::new();
        for (run, rule) in quiet {
            let Some(running) = runs.get(&run) else {
                continue;
            };
            // A second request would leave out the rollbacks.
            if !running.is_quieted.swap(true, Ordering::Relaxed) {
                running
                    .stop
                    .send(format!(
                        "the quiet hours of the controller's rule `{rule}` have begun"
                    ))
                    .ok();
                ended.push(run);
            }
        }
        ended
    }
}
