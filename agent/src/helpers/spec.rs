//! The list of helpers. A new helper is a file beside this one and a line in the list.

use super::helper::Helper;
use super::written::field;
use super::{
    AnswerFilter, CpuLoad, DiskBallast, DiskLoad, FileTamper, Freeze, FrozenMount, HostPower,
    MemoryBallast, PacketFilter, PluginHolder, Proxy, RequestLoad, RequestProxy, Tamper, Terminate,
    ThreadBallast,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
                    $($tag => $helper::substitute(written).map(HelperSpec::from),)+
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
    /// Keeps processors busy for a share of their time.
    CpuLoad = "cpu",
    /// Takes memory as long as the helper lives.
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
    /// Takes the room for processes.
    ThreadBallast = "threads",
    /// Keeps a disk busy.
    DiskLoad = "disk-load",
    /// Alters system calls of processes by tracing them.
    Tamper = "tamper",
    /// Delays or denies operations on files.
    FileTamper = "files",
    /// Passes requests on, and fails or delays some.
    RequestProxy = "requests",
    /// Freezes a file system.
    FrozenMount = "frozen-mount",
    /// Sends requests at a rate.
    RequestLoad = "load",
    /// Holds a plug-in's process.
    PluginHolder = "plug-in",
    /// Restarts the host, or switches it off.
    HostPower = "host-power",
}

impl HelperSpec {
    /// A helper that leaves nothing behind.
    pub fn leaves_nothing() -> Self {
        MemoryBallast::NONE.into()
    }
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
