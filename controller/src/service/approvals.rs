//! Runs that wait for approval, and starting them.

use super::{Actor, PendingApproval, RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::runner;
use crate::store::{ExperimentRecord, ExperimentRef, StoreError, Trigger};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

/// The setting that holds the pending approvals.
const APPROVALS: &str = "approvals";

impl Service {
    /// The runs that wait for approval.
    ///
    /// # Errors
    /// The store failed.
    pub fn approvals(&self) -> Result<Vec<PendingApproval>, StoreError> {
        let stored = self.store.setting(APPROVALS)?.unwrap_or_default();
        Ok(serde_json::from_value(stored).unwrap_or_default())
    }

    /// Records that a run waits for approval by this rule.
    pub(super) fn await_approval(
        &self,
        spec: &RunSpec,
        reference: &ExperimentRef,
        seed: u64,
        rule: String,
    ) -> Result<PendingApproval, StoreError> {
        let approval = PendingApproval {
            id: runner::run_id(),
            experiment: reference.name.clone(),
            version: reference.version,
            seed,
            variables: spec.variables.clone(),
            who: spec.who.clone(),
            teams: spec.teams.clone(),
            at: Timestamp::now(),
            rule,
        };
        self.own_run(&approval.id, Some(reference), &spec.teams)?;
        let _guard = lock(&self.approving);
        let mut all = self.approvals()?;
        all.push(approval.clone());
        self.store.set(APPROVALS, &json!(all))?;
        Ok(approval)
    }

    /// Approves a waiting run and starts it. Returns its id.
    ///
    /// # Errors
    /// No run waits under this id, the same token asked for it, or the run did not start.
    pub fn approve(self: &Arc<Self>, id: &str, who: &Actor) -> Result<String, RunStartError> {
        let (approval, experiment) = self.take(id, who)?;
        self.start(RunSpec {
            document: RequestedDocument::Stored(experiment.document),
            reference: Some(ExperimentRef {
                name: approval.experiment,
                version: approval.version,
            }),
            seed: Some(approval.seed),
            variables: approval.variables,
            who: approval.who,
            teams: approval.teams,
            because: Trigger::Asked,
            approved_by: Some(who.name.clone()),
            id: Some(approval.id),
        })
    }

    /// Removes a pending approval before it is used, so that nothing is started twice.
    fn take(
        &self,
        id: &str,
        who: &Actor,
    ) -> Result<(PendingApproval, ExperimentRecord), RunStartError> {
        let _guard = lock(&self.approving);
        let all = self.approvals()?;
        let Some(approval) = all.iter().find(|approval| approval.id == id).cloned() else {
            let refusal = Refusal::new("not-there", format!("no run `{id}` waits for approval"))
                .hint("`backburn approvals` lists those that do");
            return Err(refusal.into());
        };
        if approval.who == who.name {
            let refusal = Refusal::new("policy", format!("`{}` asked for this run", who.name))
                .hint("somebody else must approve it");
            return Err(refusal.into());
        }
        let experiment = self
            .store
            .experiment(&approval.experiment, Some(approval.version))?;
        let rest: Vec<&PendingApproval> = all.iter().filter(|other| other.id != id).collect();
        self.store.set(APPROVALS, &json!(rest))?;
        Ok((approval, experiment))
    }
}
