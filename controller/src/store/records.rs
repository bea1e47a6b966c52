//! The records of a store. All times come from the caller: a store has no clock.

use backburn_experiments::game_day::GameDayMode;
use backburn_experiments::journal::{JournalEntry, Outcome};
use backburn_experiments::labels::Labels;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A SHA-256 hash. It is shown and sent as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Returns the SHA-256 hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash is 64 hexadecimal digits in lower case")
    }
}

impl std::error::Error for NotAHash {}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digits = text.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotAHash),
        };
        if digits.len() != 64 {
            return Err(NotAHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Hash(hash))
    }
}

impl TryFrom<String> for Hash {
    type Error = NotAHash;

    fn try_from(text: String) -> Result<Self, NotAHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

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
    /// It was added.
    Added {
        /// What will be done.
        title: String,
        /// Who does it.
        owner: String,
        /// By when.
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
        /// The new title.
        title: Option<String>,
        /// The new owner.
        owner: Option<String>,
        /// The new date.
        due: Option<Date>,
        /// The new severity.
        severity: Option<ActionSeverity>,
    },
    /// It was closed.
    Closed {
        /// The run in which its experiment held.
        run: Option<String>,
        /// Why, in words.
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
    /// What was changed.
    pub change: ActionChange,
}

/// Whose notes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteStream {
    /// A run's.
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
    /// The JSON document.
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

/// An agent that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolledAgent {
    /// The name of the agent.
    pub name: String,
    /// The serial numbers of its valid certificates, in hexadecimal digits.
    pub serials: Vec<String>,
    /// The labels that the agent is granted. Without `labels_by` they are what the agent said of itself when it joined, before labels were
    /// granted; facts are not among them.
    pub labels: Labels,
    /// The name of the token that granted the labels last, itself or by a join token that it made.
    pub labels_by: Option<String>,
    /// When it joined.
    pub enrolled: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was last heard, as far as it was recorded; none if it never was connected.
    pub heard: Option<Timestamp>,
}

/// A join token, with which one agent may join once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// The public part of the token.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// The name of the API token that created it.
    pub who: String,
    /// When it expires.
    pub expires: Timestamp,
    /// The only agent that may use it; none means any agent.
    pub agent: Option<String>,
    /// The labels that it grants.
    pub labels: Labels,
}

/// What a token allows. A later role includes all earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Run experiments and end them.
    Operator,
    /// Everything.
    Admin,
}

/// How a token came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOrigin {
    /// An admin made it, or it is the first token of a controller.
    #[default]
    Made,
    /// Its person logged in with an identity provider.
    Login,
    /// It was made on the controller's host, without another token.
    BreakGlass,
}

/// What lets somebody use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRecord {
    /// The public part of the token.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// The name of the token.
    pub name: String,
    /// The person or job that the token belongs to. Several tokens may belong to one.
    pub person: String,
    /// The teams whose experiments, runs and agents the token may use; none means all.
    pub teams: BTreeSet<String>,
    /// How it came to be.
    pub origin: TokenOrigin,
    /// Its role.
    pub role: Role,
    /// Whether it is the token of a participant of game days, who may not know what they do before it is revealed.
    pub is_blind: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires; none means never.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl ApiTokenRecord {
    /// Whether the token is neither revoked nor expired at this time.
    pub fn is_valid(&self, at: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| at < expires)
    }
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

/// An action for the audit log: who did what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRecord {
    /// The time at which it happened.
    pub at: Timestamp,
    /// The name of the token.
    pub who: String,
    /// The role of the token; none if there was no valid token.
    pub role: Option<Role>,
    /// What was done or attempted.
    pub what: String,
    /// The object of the action.
    pub about: String,
    /// The result.
    pub outcome: String,
    /// Further details.
    pub detail: Value,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// The action.
    #[serde(flatten)]
    pub record: AuditRecord,
    /// The hash of the entry before; zeros for the first.
    pub previous: Hash,
    /// The hash of this entry, which covers all entries before it.
    pub hash: Hash,
}

/// The last entry of the audit log. A copy kept elsewhere reveals whether the log was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Its number; 0 if the log is empty.
    pub number: u64,
    /// Its hash; zeros if the log is empty.
    pub hash: Hash,
}

/// A text that is not a head of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected NUMBER:HASH with a hash of 64 hexadecimal digits, as `backburn audit --verify` prints it"
)]
pub struct InvalidAuditHead;

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for AuditHead {
    type Err = InvalidAuditHead;

    fn from_str(text: &str) -> Result<Self, InvalidAuditHead> {
        let (number, hash) = text.trim().split_once(':').ok_or(InvalidAuditHead)?;
        Ok(AuditHead {
            number: number.parse().map_err(|_| InvalidAuditHead)?,
            hash: hash.parse().map_err(|_| InvalidAuditHead)?,
        })
    }
}

/// The result of verifying the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainVerification {
    /// The last entry that is intact.
    pub head: AuditHead,
    /// The first entry that is not as it was written, if any.
    pub broken: Option<AuditMismatch>,
}

/// An entry of the audit log that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditMismatch {
    /// The entry's number.
    pub number: u64,
    /// What is wrong with it.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_parses_as_it_is_displayed() {
        // FIPS 180-4's example.
        let shown = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of(b"abc").to_string(), shown);
        assert_eq!(shown.parse(), Ok(Hash::of(b"abc")));
        for wrong in [
            "",
            &shown[1..],
            &shown.to_uppercase(),
            &shown.replace('b', "g"),
        ] {
            assert_eq!(wrong.parse::<Hash>(), Err(NotAHash), "{wrong}");
        }
    }

    #[test]
    fn audit_head_parses_as_it_is_displayed() {
        let head = AuditHead {
            number: 7,
            hash: Hash::of(b"abc"),
        };
        assert_eq!(head.to_string().parse(), Ok(head));
        let shown = Hash::of(b"abc").to_string();
        for wrong in [
            "",
            "7",
            &shown,
            ":",
            "7:ab",
            &format!("x:{shown}"),
            &format!("-1:{shown}"),
        ] {
            assert_eq!(wrong.parse::<AuditHead>(), Err(InvalidAuditHead), "{wrong}");
        }
    }

    #[test]
    fn roles_are_ordered_by_what_they_allow() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
