//! The plan of a fault on a host, and the read-only view of the host that it is made from. A plan is data; making one changes nothing.

mod host_fault_rules;
mod host_view;
mod kernel_refusal;
mod local_host;
mod overlap;
mod plan_context;
mod protected_paths;
mod request_limits;

pub use host_fault_rules::HostFaultRules;
pub use host_view::{
    FileSystem, FoundFile, FoundMount, HostFacts, HostView, NameResolver, NetworkSnapshot,
};
pub(crate) use kernel_refusal::kernel_refusal;
pub use local_host::LocalHost;
pub(crate) use overlap::resources_overlap;
pub use plan_context::PlanContext;
pub use protected_paths::ProtectedPaths;
pub use request_limits::RequestLimits;

pub use crate::netlink::{ForeignChain, Interface, ListeningSocket, NAMED_NAMESPACES, Namespace};
pub use crate::systemd::{FoundUnit, NoServiceManager};

use crate::changes::{Change, ReversibleChange as _};
use crate::processes::{ProcessId, ProcessSelector};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{PlanView, Victim};
use serde::{Deserialize, Serialize};

/// What exactly a fault would do, with its undo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The victims: processes, flows, a file system, ...
    pub victims: Vec<Victim>,
    /// The changes in the order in which they are applied; they are undone in the opposite order.
    pub changes: Vec<Change>,
    /// Notes for people on what the fault does and does not do.
    pub notes: Vec<String>,
    /// Where this host would do something else than the arguments ask for.
    pub warnings: Vec<String>,
    /// What a supervisor is expected to do after a one-shot fault.
    pub expect: Option<Expectation>,
}

/// The restart of processes that is expected of a supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// Number of processes that should be restarted.
    pub number: usize,
    /// Selects the processes that count as restarted.
    pub selector: ProcessSelector,
    /// The processes that matched before the fault: they do not count as restarted.
    pub known: Vec<ProcessId>,
    /// Time within which they should be restarted.
    pub within: HumanDuration,
}

impl Plan {
    /// Describes the plan for people and controllers.
    pub fn view(&self) -> PlanView {
        PlanView {
            victims: self.victims.clone(),
            changes: self.changes.iter().map(|change| change.view()).collect(),
            notes: self.notes.clone(),
            warnings: self.warnings.clone(),
        }
    }
}
