//! Runs, their journals, and approvals.

use super::run_plan::RunPlan;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A run of an experiment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Run)]
#[serde(rename_all = "kebab-case")]
pub struct RunInfo {
    /// The id of the run.
    pub id: String,
    /// The name of the stored experiment; null if the experiment is not stored.
    pub experiment: Option<String>,
    /// The version of the stored experiment.
    pub version: Option<u64>,
    /// The experiment's title.
    pub title: String,
    /// Seed of the random selection.
    pub seed: u64,
    /// The name of the token that requested the run or stored its schedule.
    pub who: String,
    /// What triggered the run: `asked` (a request) or `schedule`.
    pub because: String,
    /// The state of the run: `waiting-for-approval`, `open` (it has started) or `over`.
    #[serde(default)]
    pub state: String,
    /// When the run started. For a run that waits for approval, when it was requested.
    pub started: String,
    /// When the run ended; null while it is open.
    pub ended: Option<String>,
    /// The outcome: `held`, `deviated`, `not-started`, `aborted`, `inconclusive`, `not-clean` or `not-injected`; null while the run is open.
    pub outcome: Option<String>,
    /// The exit code that belongs to the outcome.
    pub exit_code: Option<u8>,
    /// The whole verdict, with its reasons; null while the run is open.
    pub verdict: Option<Value>,
    /// The number of events in the run's journal.
    pub events: u64,
    /// If the run ended not clean: when its agents were back and had observed that nothing is left. The verdict stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<String>,
}

/// A note of a run or of a game day. The notes of one form a chain of hashes. A run's journal stays as it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunNoteInfo {
    /// Its number among the notes of the run or of the game day, counted from 1.
    pub number: u64,
    /// When it was added.
    pub at: String,
    /// When it happened: the time that its last correction gives, else the time that its author gave, else when it was added.
    #[serde(default)]
    pub happened: String,
    /// The number of the entry that corrected its time; null if none did.
    #[serde(default, rename = "corrected-by")]
    pub corrected_by: Option<u64>,
    /// The name of the token that added it, or `controller`.
    pub who: String,
    /// What it is. People add `note`, `mark`, `correction`, `decision`, `link`, `duty`, `update` and `prerequisite`; the controller adds
    /// `state`, `prompt`, `reminder` and `reveal` to game days, and `cleaned` when nothing is left of a run that ended not clean.
    pub kind: String,
    /// Its content, which depends on the kind.
    pub body: Value,
    /// The hash of the note before, in hexadecimal digits; empty for blind tokens.
    pub previous: String,
    /// The hash of this note, in hexadecimal digits; empty for blind tokens.
    pub hash: String,
}

/// An event of a run's journal, with its number.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunJournalEntry {
    /// The number of the event, counted from 1.
    pub number: u64,
    /// The event, in the same form as in the journal of a local run.
    pub entry: Value,
}

/// A request to stop a run.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// The reason, for people. It becomes part of the verdict.
    #[serde(default)]
    pub why: Option<String>,
}

/// The result of a request to stop a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StopResult {
    /// The id of the run.
    pub run: String,
    /// Whether the run was open until now and is being ended; its faults are reverted. False if the run was already over.
    pub stopping: bool,
}

/// A run that waits for an approval, with what it would do. Exactly that is what runs: if its agents or their victims have
/// changed when it is approved, it is not started but waits for the approval of its new plan.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Approval)]
pub struct ApprovalInfo {
    /// The id of the run.
    pub id: String,
    /// The name of the stored experiment.
    pub experiment: String,
    /// The version of the experiment that would run.
    pub version: u64,
    /// The experiment's title.
    #[serde(default)]
    pub title: String,
    /// Seed for random selection.
    pub seed: u64,
    /// Configuration values that override those of the document, without secrets.
    pub variables: Map<String, Value>,
    /// The name of the token that requested the run.
    pub who: String,
    /// The person to whom that token belongs. The same person cannot approve the run.
    #[serde(default)]
    pub person: String,
    /// When the run was requested.
    pub at: String,
    /// When the wait ends without a start.
    #[serde(default)]
    pub expires: String,
    /// The rule of the controller's policy that requires the approval.
    pub rule: String,
    /// The fingerprint of the plan, in 64 hexadecimal digits; null for a run that an earlier version of the controller stored.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// What the run would do; null for a run that an earlier version of the controller stored.
    #[serde(default)]
    pub plan: Option<RunPlan>,
}

/// A rejection of a waiting run.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// The reason, for people. It becomes part of the verdict.
    #[serde(default)]
    pub why: Option<String>,
}

/// A run that was approved and has started.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovedRun {
    /// The id of the run.
    pub run: String,
}
