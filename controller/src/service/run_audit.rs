//! The start and the end of each run in the audit log, whoever or whatever started it.

use super::Service;
use crate::store::{AuditRecord, NewRun, StoreError};
use backburn_experiments::journal::Outcome;
use serde_json::json;

impl Service {
    /// Records that a run is about to start: what, in which version, and by which seed. A run that cannot be recorded must not start.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn audit_start(
        &self,
        run: &NewRun,
        sha256: Option<String>,
        approved_by: Option<&str>,
    ) -> Result<(), StoreError> {
        let experiment = run.experiment.as_ref();
        let mut detail = json!({
            "experiment": experiment.map(|experiment| &experiment.name),
            "version": experiment.map(|experiment| experiment.version),
            "seed": run.seed,
            "because": run.because,
        });
        if let Some(hash) = sha256 {
            detail["sha256"] = hash.into();
        }
        if let Some(approver) = approved_by {
            detail["approved-by"] = approver.into();
        }
        let record = AuditRecord {
            at: run.started,
            who: run.who.clone(),
            role: None,
            what: "start run".into(),
            about: run.id.clone(),
            outcome: "asked".into(),
            detail,
        };
        self.store.audit(&record).map(|_| ())
    }

    /// Records how a run ended. The run is over whether or not that can be recorded.
    pub(super) fn audit_end(&self, run: &str, outcome: Outcome) {
        if let Err(error) = self.audit_own("end run", run, outcome.word(), json!({})) {
            tracing::error!(run, %error, "the end of a run could not be written to the audit log");
        }
    }
}
