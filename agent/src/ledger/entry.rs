//! What one injection owes, as stored in a file of the ledger.

use super::{Namespaces, boot_id};
use crate::changes::Change;
use crate::faults::Plan;
use crate::processes::ProcessId;
use crate::trusted_files;
use backburn_experiments::wire::{InjectionId, InjectionRequest, UnrevertedInjection, Victim};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of the format that is written, and the latest that can be read. A change that an older program could not undo correctly
/// needs a higher version.
pub const VERSION: u32 = 1;

/// How long after its time a fault may still be in the ledger before its end counts as late.
const REVERT_GRACE: Duration = Duration::from_secs(2);

/// Everything that is needed to revert one injection, and what people want to know about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The version of the format, see [`VERSION`].
    pub version: u32,
    /// The injection's id, which is also the file's name.
    pub injection: InjectionId,
    /// The id of the injection's run.
    #[serde(default, deserialize_with = "or_nothing")]
    pub run: String,
    /// The name of the injected fault.
    #[serde(default, deserialize_with = "or_nothing")]
    pub fault: String,
    /// The victims, for people to read.
    #[serde(default, deserialize_with = "or_nothing")]
    pub victims: Vec<Victim>,
    /// The changes, which are undone last first.
    pub changes: Vec<Change>,
    /// The processes that answer for this entry.
    pub owner: Owner,
    /// When the fault ends at the latest, in milliseconds of the monotonic clock of its boot. None for a one-shot fault that is not repeated,
    /// and in entries written by versions before this field.
    #[serde(
        default,
        deserialize_with = "or_nothing",
        skip_serializing_if = "Option::is_none"
    )]
    pub ends_at_ms: Option<u64>,
    /// The namespaces in which the entry was written; none in entries written by versions before this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Namespaces>,
    /// What could not be reverted, if that was attempted and failed.
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
    /// The boot in which these process ids are valid.
    pub boot: String,
    /// The worker, which applied the changes.
    pub worker: ProcessId,
    /// The guardian, which reverts them if the worker dies.
    pub guardian: ProcessId,
}

/// A ledger entry that cannot be read, so that somebody has to check it.
#[derive(Debug, thiserror::Error)]
#[error("ledger entry {path} cannot be read: {why}")]
pub struct UnreadableEntry {
    /// The path of the entry.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub why: String,
}

impl LedgerEntry {
    /// The entry of an injection that is about to apply this plan.
    ///
    /// # Errors
    /// The namespaces of this process cannot be determined.
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

    /// How long the fault still acts; none if it should be over, or if that is not known.
    pub fn remaining(&self) -> Option<Duration> {
        if boot_id().ok().as_ref() != Some(&self.owner.boot) {
            return None;
        }
        let left = self.ends_at_ms?.checked_sub(monotonic_ms())?;
        Some(Duration::from_millis(left))
    }

    /// How long ago the fault should have ended; none if it is not late, or if that is not known.
    pub fn overdue(&self) -> Option<Duration> {
        if boot_id().ok().as_ref() != Some(&self.owner.boot) {
            return None;
        }
        let late = monotonic_ms().checked_sub(self.ends_at_ms?)?;
        Some(Duration::from_millis(late)).filter(|late| *late > REVERT_GRACE)
    }
}

/// Milliseconds of the monotonic clock, which counts from some moment of this boot.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

impl UnreadableEntry {
    /// Reports the entry as owed: somebody has to check it.
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

/// Reads a field that only people need. A damaged one must not keep an entry from being undone, so it counts as empty.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + for<'t> Deserialize<'t>,
{
    let written = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(written).unwrap_or_default())
}

impl LedgerEntry {
    /// Parses the content of a ledger file. `injection` is the one that the file is named after.
    ///
    /// # Errors
    /// Why the content cannot be used.
    pub fn parse(content: &[u8], injection: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version <= u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "it has version {version}, and this program supports up to {VERSION}: revert it with the program that wrote it"
                ));
            }
            None => return Err("it has no version".into()),
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

    /// The content of the ledger file for this entry. Only content that can be read back is returned.
    ///
    /// # Errors
    /// The entry cannot be written as JSON, or could not be read back.
    pub fn to_json(&self) -> io::Result<Vec<u8>> {
        let content = serde_json::to_vec_pretty(self)?;
        let unwritable = |why: String| {
            let what = format!("the entry could not be read back: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        };
        match Self::parse(&content, &self.injection) {
            Ok(entry) if entry == *self => Ok(content),
            Ok(_) => unwritable("it would be a different entry".into()),
            Err(why) => unwritable(why),
        }
    }

    /// Reads the entry in a file; none if there is no such file.
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
