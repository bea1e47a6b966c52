//! Keeping an agent out in good order: its runs are stopped, and what they did there is observed gone, before its
//! certificate is good for nothing.

use super::{Service, lock};
use crate::fleet::DrainGuard;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;
use std::time::{Duration, Instant};

/// How long an agent that is to be revoked may take to put everything back.
const WITHIN: Duration = Duration::from_secs(30);
/// How often we look whether it has.
const LOOK: Duration = Duration::from_millis(20);

impl Service {
    /// Stops the runs that hold an agent, and waits until nothing of them acts any more. Nobody else may hold it as long as
    /// what this returns is kept.
    ///
    /// # Errors
    /// Something of them is not known to be over.
    pub async fn retire(&self, agent: &str) -> Result<DrainGuard, Refusal> {
        let retired = DrainGuard::of(self.fleet(), agent);
        let by = format!("agent `{agent}` is about to be revoked");
        for run in retired.runs() {
            self.stop(run, by.clone());
        }
        let until = Instant::now() + WITHIN;
        for run in retired.runs() {
            while !self.is_put_back(run) {
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
                            "agent `{agent}` takes part in run `{run}`, which was stopped, and it has not said within {} that everything is gone",
                            HumanDuration(WITHIN)
                        ),
                    };
                    return Err(Refusal::new("agent", what).hint(
                        "try again once that run is over; `--force` revokes at once, and the run ends not clean where its agent can't say any more what it owes",
                    ));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(retired)
    }

    /// Whether a run is over, or is being ended and nothing of it acts any more.
    fn is_put_back(&self, run: &str) -> bool {
        let runs = lock(&self.runs);
        runs.get(run)
            .is_none_or(|running| running.is_ending() && running.open.borrow().is_empty())
    }
}
