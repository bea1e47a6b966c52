//! A run that somebody asks for, and why it does not start.

use super::RequestedDocument;
use crate::fleet::TeamSet;
use crate::store::{ExperimentRef, StoreError, Trigger, WaitingRun};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
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
    /// The name of the token that asks. For a scheduled run, of the token that applied the experiment.
    pub who: String,
    /// The person to whom that token belongs.
    pub person: String,
    /// The teams that the token is limited to: the run knows no agents of others. None means all.
    pub teams: TeamSet,
    /// Why the run starts.
    pub because: Trigger,
    /// The lock that the run holds until it is closed. None if it needs none.
    pub lock: Option<String>,
}

/// Why a run did not start.
#[derive(Debug)]
pub enum RunStartError {
    /// The document has these problems.
    Invalid(Vec<Problem>),
    /// A rule forbids it. Nothing was recorded as a run.
    Refusal(Refusal),
    /// A rule kept the run from starting. It is recorded as a run that was not started.
    NotStarted {
        /// The id of the run.
        run: String,
        /// The rule that was violated.
        refusal: Refusal,
    },
    /// It waits for approval.
    Waits(Box<WaitingRun>),
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
