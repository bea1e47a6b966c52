//! Runs that are over are not kept for ever, where the owner says for how long.

use super::Service;
use crate::store::{AuditRecord, StoreError};
use backburn_experiments::HumanDuration;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether something is old enough.
const LOOK: Duration = Duration::from_secs(3600);

impl Service {
    /// Forgets runs that have been over for longer than this, for as long as the controller lives.
    pub async fn keep_runs_for(self: Arc<Self>, keep: HumanDuration) {
        let keep = SignedDuration::try_from(keep.0).unwrap_or(SignedDuration::MAX);
        loop {
            let service = Arc::clone(&self);
            let forgotten = tokio::task::spawn_blocking(move || {
                // Longer than there have been times is for ever.
                let before = Timestamp::now().checked_sub(keep);
                before.map_or(Ok(0), |before| service.forget_runs(before))
            });
            match forgotten.await {
                Ok(Ok(0)) => {}
                Ok(Ok(runs)) => tracing::info!(runs, "old runs are forgotten"),
                Ok(Err(error)) => tracing::error!(%error, "old runs can't be forgotten"),
                Err(_) => return,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Forgets runs that were over before this time, with their journals. The audit log stays, and says that it was done. How
    /// many they were.
    ///
    /// # Errors
    /// The store's; what was forgotten before is.
    pub fn forget_runs(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        // One at a time: who writes down what goes on must not wait for all of them.
        let ended = loop {
            match self.store.forget_run(before) {
                Ok(Some(_)) => forgotten += 1,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if forgotten > 0 {
            self.store.audit(&AuditRecord {
                at: Timestamp::now(),
                who: "controller".into(),
                role: None,
                what: "forget runs".into(),
                about: format!("over before {before}"),
                outcome: "done".into(),
                detail: json!({"runs": forgotten}),
            })?;
        }
        ended.map(|()| forgotten)
    }
}
