//! Runs that a second person has to approve: what waits, and starting it.

use super::requested_document::RequestedDocument;
use super::runs::{RunSpec, StartError};
use super::{Actor, Service, lock};
use crate::runner;
use crate::store::{ExperimentRef, StoreError, StoredExperiment, Trigger};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The setting in which what waits is kept.
const APPROVALS: &str = "approvals";

/// Something that waits for a second person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// Its name, and the id of the run that begins with the approval.
    pub id: String,
    /// The experiment.
    pub experiment: String,
    /// Its version.
    pub version: u64,
    /// What every pick comes from.
    pub seed: u64,
    /// Configuration values that go before the document's.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Who asked.
    pub who: String,
    /// When.
    pub at: Timestamp,
    /// The rule that wants a second person.
    pub rule: String,
}

impl Service {
    /// What waits for a second person.
    ///
    /// # Errors
    /// The store's.
    pub fn approvals(&self) -> Result<Vec<PendingApproval>, StoreError> {
        let kept = self.store.setting(APPROVALS)?.unwrap_or_default();
        Ok(serde_json::from_value(kept).unwrap_or_default())
    }

    pub(super) fn wait(
        &self,
        ask: &RunSpec,
        reference: &ExperimentRef,
        seed: u64,
        rule: String,
    ) -> Result<PendingApproval, StoreError> {
        let approval = PendingApproval {
            id: runner::run_id(),
            experiment: reference.name.clone(),
            version: reference.version,
            seed,
            variables: ask.variables.clone(),
            who: ask.who.clone(),
            at: Timestamp::now(),
            rule,
        };
        let _held = lock(&self.approving);
        let mut all = self.approvals()?;
        all.push(approval.clone());
        self.store.set(APPROVALS, &json!(all))?;
        Ok(approval)
    }

    /// Starts what waited, approved by somebody who is not who asked. Returns the run's id.
    ///
    /// # Errors
    /// There is no such thing, the same person asks, or why the run did not begin.
    pub fn approve(self: &Arc<Self>, id: &str, who: &Actor) -> Result<String, StartError> {
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
            because: Trigger::Asked,
            approved_by: Some(who.name.clone()),
            id: Some(approval.id),
        })
    }
    /// Uses up what waits, before it is used: nothing is started twice.
    fn take(
        &self,
        id: &str,
        who: &Actor,
    ) -> Result<(PendingApproval, StoredExperiment), StartError> {
        let _held = lock(&self.approving);
        let all = self.approvals()?;
        let Some(approval) = all.iter().find(|approval| approval.id == id).cloned() else {
            let refusal = Refusal::new("not-there", format!("nothing waits under the name `{id}`"))
                .hint("`backburn approvals` lists what does");
            return Err(refusal.into());
        };
        if approval.who == who.name {
            let refusal = Refusal::new("policy", format!("`{}` asked for it", who.name))
                .hint("somebody else has to approve");
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
