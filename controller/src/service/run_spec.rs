//! A run that somebody asks for, and why it does not start.

use super::RequestedDocument;
use crate::fleet::TeamSet;
use crate::store::{ExperimentRef, StoreError, Trigger};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A run that somebody asks for.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The document of the experiment.
    pub document: RequestedDocument,
    /// The name and version of a stored experiment.
    pub reference: Option<ExperimentRef>,
    /// The seed for random selection. None draws one.
    pub seed: Option<u64>,
    /// Configuration values that take precedence over the document's.
    pub variables: Map<String, Value>,
    /// The name of the token that asks.
    pub who: String,
    /// The teams that the token is limited to: the run knows no agents of others. None means all.
    pub teams: TeamSet,
    /// Why the run starts.
    pub because: Trigger,
    /// The name of the token that approved it.
    pub approved_by: Option<String>,
    /// The run's id, if it has one already: a run that waited for approval keeps its id.
    pub id: Option<String>,
}

/// A run that waits for approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// The id of the approval, and of the run that starts with it.
    pub id: String,
    /// The name of the stored experiment.
    pub experiment: String,
    /// The version of the stored experiment.
    pub version: u64,
    /// The seed for random selection.
    pub seed: u64,
    /// Configuration values that take precedence over the document's.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// The name of the token that asked.
    pub who: String,
    /// The teams that the token is limited to; none means all.
    #[serde(default)]
    pub teams: TeamSet,
    /// When it was asked for.
    pub at: Timestamp,
    /// The rule of the controller's policy that requires approval.
    pub rule: String,
}

/// Why a run did not start.
#[derive(Debug)]
pub enum RunStartError {
    /// The document has these problems.
    Invalid(Vec<Problem>),
    /// A rule forbids it.
    Refusal(Refusal),
    /// It waits for approval.
    Waits(Box<PendingApproval>),
    /// The store could not read or record something.
    Store(StoreError),
}

impl From<StoreError> for RunStartError {
    fn from(error: StoreError) -> Self {
        RunStartError::Store(error)
    }
}

impl From<Refusal> for RunStartError {
    fn from(refusal: Refusal) -> Self {
        RunStartError::Refusal(refusal)
    }
}
