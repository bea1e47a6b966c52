//! What every helper must tell about itself.

use super::HelperError;
use super::bootstrap::HelperProcess;
use crate::netlink::Namespace;
use crate::processes::ProcessTable;
use backburn_experiments::wire::Effect;
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

    /// The helper that takes the place of this one where some of its arguments cannot be read, since another version of this program
    /// wrote them.
    type Substitute
    where
        Self: Sized;

    /// A helper that leaves behind all that this one may leave, from arguments of which some cannot be read. None if too much of them
    /// cannot be read.
    fn substitute(written: &Value) -> Option<Self::Substitute>
    where
        Self: Sized;

    /// What ends it when the agent dies, for people, where that is more than that the kernel kills the helper.
    fn describe_agent_death(&self) -> Option<String> {
        None
    }

    /// Whether it has nothing left to act on, e.g. since all victims have ended.
    fn is_idle(&self, _: &ProcessTable) -> bool {
        false
    }

    /// Whether it gives back what it has taken sooner when it is asked to end (SIGTERM) than when it is killed.
    fn ends_on_sigterm(&self) -> bool {
        false
    }

    /// What the present boot of the host proves of it, where an earlier one began it. Nothing, for all that ends with its boot.
    fn restart_evidence(&self) -> Option<Effect> {
        None
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
    /// In this folder, as the mount namespace of the agent shows it.
    Folder(&'a Path),
    /// In this network namespace; in the agent's own if none is given.
    Network(Option<&'a Namespace>),
    /// In the mount namespace of the agent: no path shows a mount of another one.
    Mounts,
}
