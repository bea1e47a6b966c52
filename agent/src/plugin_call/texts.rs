//! A plug-in's change in words.

use serde::{Deserialize, Serialize};

/// A change, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginTexts {
    /// What is done to the host.
    pub apply: String,
    /// What reverts it: also what a person does where the plug-in cannot.
    pub undo: String,
    /// What ends it when every process of Backburn is dead.
    pub if_agent_dies: String,
}
