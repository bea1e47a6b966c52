//! The trusted core: small, serialisable, reversible alterations of a host. Each can be applied,
//! observed and undone; undoing is idempotent, and right after none, part or all of applying.
//! Whatever a change makes bears a name that was known before it was made.
//!
//! Only the engine calls `apply` and `undo`. The match below is the only one over kinds.

mod file_limit;
mod host_clock;
mod kill;
mod plugin_change;
mod process_clock;
mod process_helper;
mod read_only_mount;
mod replace_file;
mod stop;
mod stopped_units;
mod unreadable;

pub(crate) use crate::vdso::NotSkewable;
pub(crate) use file_limit::check_limitable;
pub use file_limit::{FileLimit, LimitedProcess};
pub use host_clock::HostClock;
pub use kill::Kill;
pub use plugin_change::PluginChange;
pub(crate) use process_clock::offset_text;
pub use process_clock::{AlteredEntry, ProcessClock, SkewedProcess};
pub use process_helper::ProcessHelper;
pub use read_only_mount::ReadOnlyMount;
pub use replace_file::{FilePatch, OriginalFile, ReplaceFile};
pub use stop::Stop;
pub(crate) use stop::is_stopped;
pub use stopped_units::{StoppedUnit, StoppedUnits, UnitRole};
pub use unreadable::UnreadableChange;

use crate::host::{Host, HostError};
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use std::io;

/// What a change is seen to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Nothing of it is there.
    Absent,
    /// It is there, or a part of it; in words for people.
    Present(String),
    /// Somebody else has changed the same thing since; in words for people.
    Contested(String),
}

/// One reversible alteration of a host, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Processes are stopped by a signal.
    Stop(Stop),
    /// Processes get a signal for good.
    Kill(Kill),
    /// Processes may open fewer files.
    FileLimit(FileLimit),
    /// Processes read another time of day.
    ProcessClock(ProcessClock),
    /// The host has another time of day.
    HostClock(HostClock),
    /// A process of the agent's acts as long as it lives.
    Helper(ProcessHelper),
    /// A file is replaced by an edited copy.
    Replace(ReplaceFile),
    /// A mount is read-only.
    ReadOnlyMount(ReadOnlyMount),
    /// Units of systemd's are stopped.
    StoppedUnits(StoppedUnits),
    /// A plug-in changes something.
    #[serde(rename = "plug-in")]
    Plugin(Box<PluginChange>),
    /// What none of the above can read.
    #[serde(untagged)]
    Unreadable(UnreadableChange),
}

/// What every change can do.
pub trait ReversibleChange {
    /// The change, for people.
    fn view(&self) -> ChangeView;

    /// What it holds alone, so that no other injection may: `process:4711@123456`, `memory`, …
    fn holds(&self) -> Vec<String>;

    /// Does it.
    ///
    /// # Errors
    /// It could not be done, or only a part of it: undo it.
    fn apply(&self, host: &Host) -> Result<(), HostError>;

    /// Looks at what is there of it.
    ///
    /// # Errors
    /// It could not be looked at, so nothing is known.
    fn observe(&self, host: &Host) -> io::Result<Observed>;

    /// Puts back what was there before. Idempotent.
    ///
    /// # Errors
    /// What is still there, `observe` says.
    fn undo(&self, host: &Host) -> Result<(), HostError>;

    /// What it is seen to do to its victims, from outside.
    fn effect(&self, host: &Host) -> Effect;

    /// Whether it has nothing more to do.
    fn is_done(&self, host: &Host) -> bool;
}

impl Change {
    fn as_reversible(&self) -> &dyn ReversibleChange {
        match self {
            Change::Stop(change) => change,
            Change::Kill(change) => change,
            Change::FileLimit(change) => change,
            Change::ProcessClock(change) => change,
            Change::HostClock(change) => change,
            Change::Helper(change) => change,
            Change::Replace(change) => change,
            Change::ReadOnlyMount(change) => change,
            Change::StoppedUnits(change) => change,
            Change::Plugin(change) => &**change,
            Change::Unreadable(change) => change,
        }
    }
}

impl ReversibleChange for Change {
    fn view(&self) -> ChangeView {
        self.as_reversible().view()
    }

    fn holds(&self) -> Vec<String> {
        self.as_reversible().holds()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        self.as_reversible().apply(host)
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        self.as_reversible().observe(host)
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        self.as_reversible().undo(host)
    }

    fn effect(&self, host: &Host) -> Effect {
        self.as_reversible().effect(host)
    }

    fn is_done(&self, host: &Host) -> bool {
        self.as_reversible().is_done(host)
    }
}

/// `1 process`, `3 processes`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `4711, 4712 and 7 more`.
pub(crate) fn listed(ids: &[crate::processes::ProcessId]) -> String {
    const SHOWN: usize = 8;
    let mut text = ids
        .iter()
        .take(SHOWN)
        .map(|id| id.pid.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if ids.len() > SHOWN {
        text.push_str(&format!(" and {} more", ids.len() - SHOWN));
    }
    text
}
