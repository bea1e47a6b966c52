//! The records of a store. All times come from the caller: a store has no clock.

mod access;
mod audit;
mod hash;

pub use access::*;
pub use audit::*;
pub use hash::*;

use backburn_experiments::game_day::GameDayMode;
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The result of storing an experiment's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutResult {
    /// The version with this document.
    pub version: u64,
    /// Whether it is a new version.
    pub changed: bool,
}

/// A stored experiment, in one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExperimentRecord {
    /// The name of the stored experiment.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
    /// The JSON document of the experiment.
    pub document: Value,
    /// The name of the token that stored it.
    pub who: String,
    /// When it was stored.
    pub at: Timestamp,
}

/// One version in an experiment's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExperimentVersionRecord {
    /// The version, from 1.
    pub version: u64,
    /// The name of the token that stored or removed it.
    pub who: String,
    /// The time at which it happened.
    pub at: Timestamp,
    /// Whether this version removed the experiment; it has no document then.
    pub removed: bool,
}

/// Why a run started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody asked for it.
    Asked,
    /// Its experiment's schedule was due.
    Schedule,
    /// A step of a game day started.
    GameDay,
}

/// A version of a stored experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExperimentRef {
    /// The name of the stored experiment.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
}

/// The start of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRun {
    /// The id of the run.
    pub id: String,
    /// The experiment; none if its document was not stored.
    pub experiment: Option<ExperimentRef>,
    /// The title in the experiment's document.
    pub title: String,
    /// The seed for random selection.
    pub seed: u64,
    /// The name of the token that asked for it, or `schedule`.
    pub who: String,
    /// The reason that it started.
    pub because: Trigger,
    /// The time at which it started.
    pub started: Timestamp,
}

/// What a run waits for that requires an approval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApprovalRecord {
    /// The id of the run.
    pub run: String,
    /// The person who asked for the run.
    pub person: String,
    /// The rule of the controller's policy that requires the approval.
    pub rule: String,
    /// Configuration values that take precedence over the document's, as they were given.
    pub variables: Map<String, Value>,
    /// What the run would do, as people are shown it. None for a run that was asked for before plans were stored.
    pub plan: Option<Value>,
    /// The fingerprint of the plan.
    pub fingerprint: Option<String>,
    /// When the wait ends without an approval.
    pub expires: Timestamp,
}

/// A run that waits for approval.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingRun {
    /// The run, which has no events yet. Its start is the time at which it was asked for.
    pub run: RunRecord,
    /// What it waits for.
    pub approval: ApprovalRecord,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEnd {
    /// The time at which it ended.
    pub ended: Timestamp,
    /// The outcome, which decides the exit code.
    pub outcome: Outcome,
    /// The whole verdict, as JSON.
    pub verdict: Value,
}

/// A run, from its start to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// What is known since its start.
    #[serde(flatten)]
    pub new: NewRun,
    /// Its end; none while the run is open.
    #[serde(flatten)]
    pub end: Option<RunEnd>,
    /// The number of events in its journal, which is the number of the last one.
    pub events: u64,
    /// Whether the run has not started, because it waits for approval.
    pub waiting: bool,
    /// If it ended not clean: when its agents had observed that nothing is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<Timestamp>,
}

/// The kind of the note that nothing is left of a run that ended not clean.
pub const CLEANED: &str = "cleaned";

/// What is added to a run after its journal was sealed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunNote {
    /// When it was added.
    pub at: Timestamp,
    /// Who added it: the name of a token, or `controller`.
    pub who: String,
    /// What it is, e.g. [`CLEANED`].
    pub kind: String,
    /// Its content, by its kind.
    pub body: Value,
}

/// A note, with its place in the run's chain of notes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunNoteEntry {
    /// Its number among the run's notes, from 1, without gaps.
    pub number: u64,
    /// The note itself, without its place.
    #[serde(flatten)]
    pub note: RunNote,
    /// The hash of the run's note before; zeros for the first.
    pub previous: Hash,
    /// The hash of this note, which covers all before it.
    pub hash: Hash,
}

/// How severe what an action mends is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionSeverity {
    /// It is a nuisance.
    Low,
    /// It hurts some users.
    #[default]
    Medium,
    /// It hurts many users.
    High,
    /// It stops the service, or loses data.
    Critical,
}

/// What a change makes of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ActionChange {
    /// The action was added to the list.
    Added {
        /// What will be done.
        title: String,
        /// Name of the person who will do it.
        owner: String,
        /// The day by which it is due, if one is set.
        due: Option<Date>,
        /// How severe the finding is.
        severity: ActionSeverity,
        /// The stored experiment that proves the fix.
        experiment: Option<String>,
        /// The run that it came of.
        run: Option<String>,
    },
    /// What is named was changed.
    Changed {
        /// The new title, if that was changed.
        title: Option<String>,
        /// The new owner, if that was changed.
        owner: Option<String>,
        /// The new due date, if that was changed.
        due: Option<Date>,
        /// The new severity, if that was changed.
        severity: Option<ActionSeverity>,
    },
    /// The action was closed, done or not.
    Closed {
        /// The run in which its experiment held.
        run: Option<String>,
        /// Why it was closed, in the words of whoever did.
        why: Option<String>,
    },
}

/// A change of an action.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActionChangeEntry {
    /// Its number among all changes, from 1, without gaps.
    pub number: u64,
    /// The number of the action.
    pub action: u64,
    /// When it was changed.
    pub at: Timestamp,
    /// The name of the token that changed it.
    pub who: String,
    /// What was changed of the action.
    pub change: ActionChange,
}

/// Whose notes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteStream {
    /// The notes of a run.
    Run,
    /// Those of a game day that is or was held.
    GameDay,
}

/// A stored game day, in one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GameDayDocumentRecord {
    /// The name of the stored game day.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
    /// The document as it was applied.
    pub document: Value,
    /// The name of the token that stored it.
    pub who: String,
    /// When it was stored.
    pub at: Timestamp,
}

/// A game day that is or was held. How far it is follows from its notes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GameDayRecord {
    /// The id of the game day.
    pub id: String,
    /// The name and version of the stored game day; none if its document came with the request.
    pub reference: Option<ExperimentRef>,
    /// The JSON document, as it is held: with the holders of duties.
    pub document: Value,
    /// Whether its experiments run.
    pub mode: GameDayMode,
    /// The name of the token that prepared it.
    pub who: String,
    /// The person to whom that token belongs.
    pub person: String,
    /// When it was prepared.
    pub prepared: Timestamp,
    /// When it ended; none while it is open.
    pub ended: Option<Timestamp>,
}

/// The run of a step of a game day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GameDayRun {
    /// The id of the run.
    pub run: String,
    /// The id of the game day.
    pub game_day: String,
    /// The number of the step, from 1.
    pub step: u32,
}

/// A backup, apart from the store's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// When it was made.
    pub made: Timestamp,
    /// Files that belong to the store, and their text, by name.
    pub files: Vec<(String, String)>,
}

/// What was restored from a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// The number of runs.
    pub runs: u64,
    /// How many of them were open when the backup was made.
    pub open_runs: u64,
    /// The number of agents that may connect.
    pub agents: u64,
    /// The last entry in the audit log of the store that was replaced.
    pub replaced_head: Option<AuditHead>,
    /// Where the store that was replaced is kept.
    pub kept: Option<PathBuf>,
}

/// The size of a store, and how often it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// The bytes of its files.
    pub bytes: u64,
    /// Failures since it was opened, by the word of their kind. What was asked for in vain does not count.
    pub errors: BTreeMap<&'static str, u64>,
}

/// Selects runs. The default selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only runs of this experiment.
    pub experiment: Option<String>,
    /// Only runs with this outcome.
    pub outcome: Option<Outcome>,
    /// Only open runs (`true`) or only closed ones (`false`).
    pub open: Option<bool>,
}

/// An event in a run's journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NumberedEvent {
    /// Its number in the journal, from 1, without gaps.
    pub number: u64,
    /// The entry of the journal.
    pub entry: JournalEntry,
}

/// What may belong to teams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnedKind {
    /// A stored experiment, by its name, in all versions.
    Experiment,
    /// A run, by its id.
    Run,
    /// An action, by its number.
    Action,
    /// A stored game day, by its name, in all versions.
    GameDayDocument,
    /// A game day that is or was held, by its id.
    GameDay,
}
