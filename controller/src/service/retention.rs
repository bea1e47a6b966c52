//! Deleting runs that ended longer ago than the owner wants to keep them.

use super::Service;
use crate::store::{AuditRecord, StoreError};
use backburn_experiments::HumanDuration;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How often old runs are searched for.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3600);

impl Service {
    /// Deletes runs that ended longer ago than this, for as long as the controller runs.
    pub async fn keep_runs_for(self: Arc<Self>, keep: HumanDuration) {
        let keep = SignedDuration::try_from(keep.0).unwrap_or(SignedDuration::MAX);
        loop {
            let service = Arc::clone(&self);
            let forgotten = tokio::task::spawn_blocking(move || {
                // A time before the earliest representable one means that everything is kept.
                let before = Timestamp::now().checked_sub(keep);
                before.map_or(Ok(0), |before| service.forget_runs(before))
            });
            match forgotten.await {
                Ok(Ok(0)) => {}
                Ok(Ok(runs)) => tracing::info!(runs, "deleted old runs"),
                Ok(Err(error)) => tracing::error!(%error, "old runs could not be deleted"),
                Err(_) => return,
            }
            tokio::time::sleep(SEARCH_INTERVAL).await;
        }
    }

    /// Deletes the runs that ended before this time, with their journals, and records that in the audit log. Returns their
    /// number.
    ///
    /// # Errors
    /// The store failed; runs deleted before that stay deleted.
    pub fn forget_runs(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        // One at a time, so that active runs, which write to the store, do not wait for all of them.
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
