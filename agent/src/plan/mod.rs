//! What a fault comes to on a host: the plan, and what it is made from. A plan is data; making one changes nothing.

mod host_view;
mod kernel_refusal;
mod local_host;
mod plan_context;

pub use host_view::{FileSystem, HostView, Memory, NameResolver, NetworkSnapshot};
pub(crate) use kernel_refusal::kernel_refusal;
pub use local_host::LocalHost;
pub use plan_context::PlanContext;

pub use crate::netlink::{ForeignChain, Interface, ListeningSocket, NAMED_NAMESPACES, Namespace};

use crate::changes::{Change, ReversibleChange as _};
use crate::processes::{ProcessId, ProcessSelector};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{PlanView, Victim};
use serde::{Deserialize, Serialize};

/// What would be done, exactly, with its undo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Who is hit.
    pub victims: Vec<Victim>,
    /// What is done, in order; undone in the opposite order.
    pub changes: Vec<Change>,
    /// What people should know.
    pub notes: Vec<String>,
    /// Where the host would do another harm than the arguments ask for.
    pub warnings: Vec<String>,
    /// What should come after a one-shot fault.
    pub expect: Option<Expectation>,
}

/// That a supervisor brings processes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// How many should come back.
    pub number: usize,
    /// Who would be seen as having come back.
    pub selector: ProcessSelector,
    /// Those that matched before: they are not newcomers.
    pub known: Vec<ProcessId>,
    /// How soon.
    pub within: HumanDuration,
}

impl Plan {
    /// The plan, for people and controllers.
    pub fn view(&self) -> PlanView {
        PlanView {
            victims: self.victims.clone(),
            changes: self.changes.iter().map(|change| change.view()).collect(),
            notes: self.notes.clone(),
            warnings: self.warnings.clone(),
        }
    }
}
