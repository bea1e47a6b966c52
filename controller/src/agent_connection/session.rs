//! An agent that takes part in a run, and those that could.

use super::AgentHandle;
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::Hello;
use std::collections::{BTreeMap, BTreeSet};

/// All agents that could take part, with their labels, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// With all labels by which they can be selected: those that are granted, and the facts that agents say of themselves.
    pub selectable: Vec<(String, Labels)>,
    /// The same agents, with the labels that are granted to them: those that a policy's conditions are about.
    pub granted: Vec<(String, Labels)>,
    /// The agents whose granted labels nobody has confirmed. They are given no secret.
    pub unconfirmed: BTreeSet<String>,
}

impl Inventory {
    /// The inventory of a local run: one agent, which its user starts and labels.
    pub fn local(agent: &str, labels: &Labels) -> Self {
        let agents = vec![(agent.to_owned(), labels.clone())];
        Inventory {
            selectable: agents.clone(),
            granted: agents,
            unconfirmed: BTreeSet::new(),
        }
    }

    /// The agents of these names, with the labels that are granted to them.
    pub fn granted_of(&self, names: &BTreeSet<String>) -> BTreeMap<String, Labels> {
        let named = self.granted.iter();
        named
            .filter(|(name, _)| names.contains(name))
            .cloned()
            .collect()
    }

    /// The agents that may be given a secret, with the labels that are granted to them.
    pub fn entitled(&self) -> Vec<(String, Labels)> {
        let granted = self.granted.iter();
        granted
            .filter(|(name, _)| !self.unconfirmed.contains(name))
            .cloned()
            .collect()
    }
}

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
