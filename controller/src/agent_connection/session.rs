//! An agent that takes part in a run, and those that could.

use super::AgentHandle;
use backburn_experiments::wire::Hello;
use std::collections::BTreeMap;

/// The label with the address of an agent's host. An agent that does not give it one has the address that it calls from.
pub const ADDRESS_LABEL: &str = "address";

/// The names and labels of all agents that could take part, in the order of their names.
pub type Inventory = Vec<(String, BTreeMap<String, String>)>;

/// An agent that takes part in a run. Its events go to whoever reserved it.
pub struct AgentSession {
    /// The introduction that it sent first.
    pub hello: Hello,
    /// The handle that sends it commands.
    pub handle: AgentHandle,
    /// The number of the connection over which its events come.
    pub connection: u64,
    /// Whether it is a child process, whose end is reported, too.
    pub has_process: bool,
}
