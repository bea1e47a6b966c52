//! What a store keeps. Times are the caller's: a store has no clock.

use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A SHA-256 hash; 64 hexadecimal digits where it is shown or sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
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

/// What came of putting an experiment's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutResult {
    /// The version that holds the document.
    pub version: u64,
    /// Whether it is a new one.
    pub changed: bool,
}

/// An experiment's document under its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredExperiment {
    /// Its name.
    pub name: String,
    /// Which version of it, from 1.
    pub version: u64,
    /// The document.
    pub document: Value,
    /// Who put it.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// One step in an experiment's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExperimentVersion {
    /// Which version, from 1.
    pub version: u64,
    /// Who put it or removed it.
    pub who: String,
    /// When.
    pub at: Timestamp,
    /// Whether this step removed the experiment; then it has no document.
    pub removed: bool,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody asked for it.
    Asked,
    /// Its experiment's schedule.
    Schedule,
}

/// Which version of which experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExperimentRef {
    /// Its name.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
}

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRun {
    /// Its id.
    pub id: String,
    /// What it executes; none for a document that was never put.
    pub experiment: Option<ExperimentRef>,
    /// The experiment's title.
    pub title: String,
    /// What every pick comes from.
    pub seed: u64,
    /// Who asked for it, or put the schedule.
    pub who: String,
    /// Why it began.
    pub because: Trigger,
    /// When.
    pub started: Timestamp,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEnd {
    /// When.
    pub ended: Timestamp,
    /// What it came to; the exit code follows from it.
    pub outcome: Outcome,
    /// The whole verdict, as JSON.
    pub verdict: Value,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// How it began.
    #[serde(flatten)]
    pub new: NewRun,
    /// How it ended; none while it is open.
    #[serde(flatten)]
    pub end: Option<RunEnd>,
    /// How many events its journal has: the last one's number.
    pub events: u64,
}

/// Which runs. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this experiment only.
    pub experiment: Option<String>,
    /// With this outcome only.
    pub outcome: Option<Outcome>,
    /// Open ones only, or closed ones only.
    pub open: Option<bool>,
}

/// An event in a run's journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NumberedEvent {
    /// Its place in the journal, from 1, without gaps.
    pub number: u64,
    /// The entry.
    pub entry: JournalEntry,
}

/// An agent that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolledAgent {
    /// Its name.
    pub name: String,
    /// The serial numbers of the certificates that it may use, in hexadecimal.
    pub serials: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub enrolled: Timestamp,
    /// Since when it may not come back.
    pub revoked: Option<Timestamp>,
}

/// What lets an agent join, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// The part of it that is no secret.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// Who made it.
    pub who: String,
    /// Until when it may be used.
    pub expires: Timestamp,
    /// The only agent that may use it; none means any.
    pub agent: Option<String>,
}

/// What somebody may do. A later one may do all that an earlier one may.
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

/// What lets somebody use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRecord {
    /// The part of it that is no secret.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// Whose it is.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it may be used; none means for ever.
    pub expires: Option<Timestamp>,
    /// Since when it may not.
    pub revoked: Option<Timestamp>,
}

/// Who did what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// In which role; none for one whom nobody knows.
    pub role: Option<Role>,
    /// What was done, or tried.
    pub what: String,
    /// To what.
    pub about: String,
    /// What came of it.
    pub outcome: String,
    /// More about it.
    pub detail: Value,
}

/// A deed in the audit log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its place, from 1, without gaps.
    pub number: u64,
    /// What was done.
    #[serde(flatten)]
    pub record: AuditRecord,
    /// The hash of the one before; zeros for the first.
    pub previous: Hash,
    /// The hash of this one, and with it of all before.
    pub hash: Hash,
}

/// The end of the audit log. Whoever keeps one elsewhere can tell whether the log was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The last entry's number; 0 where there is none.
    pub number: u64,
    /// The last entry's hash; zeros where there is none.
    pub hash: Hash,
}

/// What a walk along the audit log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditVerification {
    /// The end of what is whole.
    pub head: AuditHead,
    /// The first entry that is not as it was written.
    pub broken: Option<AuditMismatch>,
}

/// Where the audit log is not as it was written.
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
    fn a_hash_is_read_as_it_is_shown() {
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
    fn roles_are_in_order() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
