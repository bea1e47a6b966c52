//! The list of helpers, and what each of them must tell about itself. A new helper is a file beside this one and a line in the list.

use super::{
    AnswerFilter, CpuLoad, DiskBallast, Freeze, HelperError, HelperProcess, MemoryBallast,
    PacketFilter, Proxy, Terminate,
};
use crate::netlink::Namespace;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::Path;

/// A small process of the agent's that acts on the host as long as it lives, described by its arguments: they stand on the helper's
/// command line, in the plan and in the ledger.
///
/// Whatever cannot be forgotten without harm has no default here.
pub trait Helper {
    /// Does the work, in the helper's own process. Reports once by [`HelperProcess::ready`] that it acts; most helpers then act until
    /// they are killed.
    ///
    /// # Errors
    /// The work could not be begun, or cannot go on.
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError>;

    /// What it does, for people.
    fn describe(&self) -> String;

    /// What the kernel does when the helper dies, for people.
    fn describe_end(&self) -> &'static str;

    /// What it holds exclusively, as `kind:name`.
    fn holds(&self) -> Vec<String>;

    /// Where it may leave something behind that only those who see that place can observe or remove.
    fn altered_place(&self) -> AlteredPlace<'_>;

    /// Its effect, observed from outside; never what it says about itself. `helper` is its process id, 0 if it is gone.
    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect;

    /// What others have changed of the things that it made, so that it no longer does its work; empty if that is not known. Meant
    /// to be asked while it lives.
    fn drift(&self) -> Vec<String>;

    /// What is left of it after its death, for people.
    ///
    /// # Errors
    /// That cannot be observed.
    fn residue(&self, table: &ProcessTable) -> io::Result<Option<String>>;

    /// Removes what its death may leave. Idempotent.
    ///
    /// # Errors
    /// It could not be removed.
    fn remove_leftovers(&self) -> io::Result<()>;

    /// A helper that leaves behind all that this one may leave, from arguments of which some cannot be read: another version of this
    /// program wrote them. None if too much of them cannot be read.
    fn substitute(written: &Value) -> Option<HelperSpec>
    where
        Self: Sized;

    /// Whether it has nothing left to act on, e.g. since all victims have ended.
    fn is_idle(&self, _: &ProcessTable) -> bool {
        false
    }

    /// Whether it gives back what it has taken sooner when it is asked to end (SIGTERM) than when it is killed.
    fn ends_on_sigterm(&self) -> bool {
        false
    }

    /// Whether its effect stays after it has ended.
    fn effect_outlasts_helper(&self) -> bool {
        false
    }
}

/// Where a helper may leave something behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AlteredPlace<'a> {
    /// Nowhere: the kernel takes everything back.
    Nowhere,
    /// In this folder.
    Folder(&'a Path),
    /// In this network namespace; in the agent's own if none is given.
    Network(Option<&'a Namespace>),
}

/// Makes the list: the enum with one variant for each helper, and what goes from a variant to the helper's own code.
macro_rules! helpers {
    ($($(#[doc = $doc:literal])+ $helper:ident = $tag:tt,)+) => {
        /// What a helper does, as data: on its command line, in the plan and in the ledger.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "role")]
        pub enum HelperSpec {
            $($(#[doc = $doc])+ #[serde(rename = $tag)] $helper(Box<$helper>),)+
        }

        impl HelperSpec {
            /// How the helpers are called on command lines and in ledgers.
            pub const TAGS: &'static [&'static str] = &[$($tag),+];

            /// The helper's own code.
            pub fn helper(&self) -> &dyn Helper {
                match self {
                    $(HelperSpec::$helper(helper) => &**helper,)+
                }
            }

            /// A helper that leaves behind all that the one may leave of which this was written, although it cannot be read in full.
            pub fn substitute(written: &Value) -> Option<HelperSpec> {
                match field::<String>(written, "role")?.as_str() {
                    $($tag => $helper::substitute(written),)+
                    _ => None,
                }
            }
        }

        $(impl From<$helper> for HelperSpec {
            fn from(helper: $helper) -> Self {
                HelperSpec::$helper(Box::new(helper))
            }
        })+
    };
}

helpers! {
    /// Freezes processes by tracing them.
    Freeze = "hold",
    /// Keeps processors busy.
    CpuLoad = "cpu",
    /// Takes memory.
    MemoryBallast = "memory",
    /// Fills a file system.
    DiskBallast = "disk",
    /// Asks processes to end, and kills those that do not.
    Terminate = "terminate",
    /// Owns the nf_tables tables that act on packets.
    PacketFilter = "filter",
    /// Alters answers of name servers.
    AnswerFilter = "answers",
    /// Passes TCP connections on, and disturbs them.
    Proxy = "proxy",
}

impl HelperSpec {
    /// A helper that leaves nothing behind.
    pub fn leaves_nothing() -> Self {
        MemoryBallast {
            bytes: 0,
            reserve_bytes: 0,
            ramp: None,
        }
        .into()
    }
}

/// A field of what was written, if it can be read.
pub(crate) fn field<T: DeserializeOwned>(written: &Value, name: &str) -> Option<T> {
    serde_json::from_value(written.get(name)?.clone()).ok()
}

/// Processes, for people.
pub(super) fn listed(victims: &[ProcessId]) -> String {
    let pids: Vec<String> = victims.iter().map(|id| id.pid.to_string()).collect();
    match pids.as_slice() {
        [pid] => format!("process {pid}"),
        pids => format!("processes {}", pids.join(", ")),
    }
}

/// The time over which something grows, for people.
pub(super) fn growing(ramp: Option<HumanDuration>) -> String {
    ramp.map(|ramp| format!(", growing over {ramp}"))
        .unwrap_or_default()
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && amount.fract() > 0.049);
    format!("{amount:.places$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_helper_has_no_substitute_and_every_known_one_is_named_once() {
        assert_eq!(HelperSpec::substitute(&json!({"role": "new"})), None);
        let tags: std::collections::BTreeSet<_> = HelperSpec::TAGS.iter().collect();
        assert_eq!(tags.len(), HelperSpec::TAGS.len());
    }

    #[test]
    fn every_helper_has_an_entry_of_an_old_ledger() {
        let entries = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger_entries");
        let entries: Vec<String> = std::fs::read_dir(entries)
            .expect("the folder of entries")
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
            .collect();
        let missing: Vec<_> = HelperSpec::TAGS
            .iter()
            .filter(|tag| {
                !entries
                    .iter()
                    .any(|entry| entry.contains(&format!("\"role\": \"{tag}\"")))
            })
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
