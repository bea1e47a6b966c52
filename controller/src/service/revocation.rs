//! Preparing the revocation of an agent: its runs are stopped, and their faults are observed gone on it, before its
//! certificate is revoked.

use super::{Service, lock};
use crate::fleet::DrainGuard;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;
use std::time::{Duration, Instant};

/// How long an agent that is to be revoked may take to revert everything.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is checked whether it has.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Service {
    /// Stops the runs that have reserved an agent, and waits until nothing of them acts on it. The agent cannot be reserved
    /// as long as the returned guard lives.
    ///
    /// # Errors
    /// Some of their faults are not known to be over.
    pub async fn drain(&self, agent: &str) -> Result<DrainGuard, Refusal> {
        let guard = DrainGuard::of(self.fleet(), agent);
        let by = format!("agent `{agent}` is about to be revoked");
        for run in guard.runs() {
            self.stop(run, by.clone());
        }
        let until = Instant::now() + REVERT_TIMEOUT;
        for run in guard.runs() {
            while !self.is_reverted(run) {
                let hangs = self
                    .fleet()
                    .get(agent)
                    .is_some_and(|agent| agent.unresponsive);
                if hangs || Instant::now() >= until {
                    let what = match hangs {
                        true => format!(
                            "agent `{agent}` takes part in run `{run}`, which was stopped, and it does not answer"
                        ),
                        false => format!(
                            "agent `{agent}` takes part in run `{run}`, which was stopped, and has not reported within {} that everything is gone",
                            HumanDuration(REVERT_TIMEOUT)
                        ),
                    };
                    return Err(Refusal::new("agent", what).hint(
                        "try again once that run is over; `--force` revokes the agent at once, and the run ends not clean if the agent can no longer report what it owes",
                    ));
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(guard)
    }

    /// Whether a run is over, or was aborted and none of its faults acts any more.
    fn is_reverted(&self, run: &str) -> bool {
        let runs = lock(&self.runs);
        runs.get(run)
            .is_none_or(|running| running.is_ending() && running.open.borrow().is_empty())
    }
}
