//! What one injection owes, as a file of the ledger tells it.

use super::{Namespaces, boot_id, trusted_files};
use crate::changes::Change;
use crate::faults::Plan;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::{InjectionId, InjectionRequest, UnrevertedInjection, Victim};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format's version that is written, and the latest that is read. A program that must not undo what another one wrote, since it
/// would not do it right, is told so by a higher one.
pub const VERSION: u32 = 1;

/// How long after its time a fault may still be in the ledger: its end is late then, whoever's fault it is.
const REVERT_GRACE: Duration = Duration::from_secs(2);

/// What one injection owes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The format's version.
    pub version: u32,
    /// The injection.
    pub injection: InjectionId,
    /// Its run.
    #[serde(default, deserialize_with = "or_nothing")]
    pub run: String,
    /// Its fault.
    #[serde(default, deserialize_with = "or_nothing")]
    pub fault: String,
    /// Who is hit, for people.
    #[serde(default, deserialize_with = "or_nothing")]
    pub victims: Vec<Victim>,
    /// What is undone, last first.
    pub changes: Vec<Change>,
    /// Whose it is.
    pub owner: Owner,
    /// When its fault is over at the latest, in milliseconds of the monotonic clock of its boot. None for a one-shot fault that
    /// is not repeated, and in entries of before they told it.
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Option::is_none"
    )]
    pub ends_at_ms: Option<u64>,
    /// Where it was written. Entries of before they told it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Namespaces>,
    /// What could not be put back, if that was tried and failed.
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub stuck: Vec<String>,
}

/// The processes that answer for an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The boot that their ids belong to.
    pub boot: String,
    /// The worker.
    pub worker: ProcessId,
    /// The worker's guardian.
    pub guardian: ProcessId,
}

/// An entry that cannot be read: somebody has to look.
#[derive(Debug, thiserror::Error)]
#[error("ledger entry {path} can't be read: {why}")]
pub struct UnreadableEntry {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl LedgerEntry {
    /// What an injection will owe once this plan is applied.
    ///
    /// # Errors
    /// The namespaces that this process is in can't be told.
    pub fn new(request: &InjectionRequest, plan: &Plan, owner: Owner) -> io::Result<Self> {
        Ok(LedgerEntry {
            version: VERSION,
            injection: request.id.clone(),
            run: request.run.clone(),
            fault: request.fault.clone(),
            victims: plan.victims.clone(),
            changes: plan.changes.clone(),
            owner,
            ends_at_ms: request
                .duration
                .and_then(|duration| u64::try_from(duration.0.as_millis()).ok())
                .and_then(|duration| monotonic_ms().checked_add(duration)),
            namespaces: Some(Namespaces::of(&plan.changes)?),
            stuck: Vec::new(),
        })
    }

    /// What somebody has to look at, for people: what could not be put back, or can't be seen from here. None where all is well, as
    /// far as can be seen.
    pub fn owed(&self, table: &ProcessTable) -> Option<UnrevertedInjection> {
        let mut residue = self.stuck.clone();
        let hidden = self.is_abandoned(table).err();
        residue.extend(hidden.map(|hidden| hidden.to_string()));
        (!residue.is_empty()).then(|| UnrevertedInjection {
            injection: self.injection.clone(),
            fault: self.fault.clone(),
            residue,
        })
    }
}

impl LedgerEntry {
    /// For how long its fault should have ended already; none where it has not to, or that is not known.
    pub fn overdue(&self) -> Option<Duration> {
        if boot_id().ok().as_ref() != Some(&self.owner.boot) {
            return None;
        }
        let late = monotonic_ms().checked_sub(self.ends_at_ms?)?;
        Some(Duration::from_millis(late)).filter(|late| *late > REVERT_GRACE)
    }
}

/// The monotonic clock, in milliseconds since some moment of this boot.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

impl UnreadableEntry {
    /// What is owed as far as can be told: that somebody has to look.
    pub fn owed(&self) -> UnrevertedInjection {
        let name = self
            .path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        UnrevertedInjection {
            injection: name.unwrap_or_default(),
            fault: "unknown".into(),
            residue: vec![self.to_string()],
        }
    }
}

/// What is for people only must not keep an entry from being undone.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + for<'t> Deserialize<'t>,
{
    let written = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(written).unwrap_or_default())
}

impl LedgerEntry {
    /// Reads what a file of the ledger holds. `injection` is the one that the file is named after.
    ///
    /// # Errors
    /// What keeps it from being read, in words for people.
    pub fn parse(content: &[u8], injection: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version <= u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "it is of version {version}, and this program knows none later than {VERSION}: put it back with the program that wrote it"
                ));
            }
            None => return Err("it tells no version".into()),
        }
        let entry: LedgerEntry =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        match entry.injection == injection {
            true => Ok(entry),
            false => Err(format!(
                "it is the entry of another injection, `{}`",
                entry.injection
            )),
        }
    }

    /// What a file of the ledger is to hold: only what is read back as the same is written.
    ///
    /// # Errors
    /// It can't be written, or what was written could not be read back.
    pub fn to_json(&self) -> io::Result<Vec<u8>> {
        let content = serde_json::to_vec_pretty(self)?;
        let unwritable = |why: String| {
            let what = format!("what would be written could not be read back: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        };
        match Self::parse(&content, &self.injection) {
            Ok(entry) if entry == *self => Ok(content),
            Ok(_) => unwritable("it would be another entry".into()),
            Err(why) => unwritable(why),
        }
    }

    /// The entry in a file; none where there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, UnreadableEntry> {
        let unreadable = |why: String| UnreadableEntry {
            path: path.to_owned(),
            why,
        };
        let injection = path.file_stem().unwrap_or_default().to_string_lossy();
        match trusted_files::read(path) {
            Ok(content) => LedgerEntry::parse(&content, &injection)
                .map(Some)
                .map_err(unreadable),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}
