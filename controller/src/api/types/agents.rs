//! Agents, the faults that they can inject, and what their hosts offer.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An agent that has joined the fleet, connected or not.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentInfo {
    /// The agent's name, unique in the fleet.
    pub name: String,
    /// Whether the agent is connected now.
    pub connected: bool,
    /// Whether the agent is connected but does not answer: it has sent nothing for the length of a lease although it was asked.
    pub unresponsive: bool,
    /// The labels that the agent is granted, by its join token or by an admin. Policies and secrets go by these only.
    pub labels: BTreeMap<String, String>,
    /// The name of the token that granted the labels last; null if they are the agent's own words of a time before labels were granted.
    #[serde(default)]
    pub labels_by: Option<String>,
    /// What the agent says of its host, and the address that it connects from; empty while it is not connected. Targets may be selected by
    /// these, too, but they grant nothing.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// When the agent joined.
    pub joined: String,
    /// When the agent was revoked; null while it is not.
    pub revoked: Option<String>,
    /// The version of the agent's program; null while it is not connected.
    pub version: Option<String>,
    /// The address that the agent connects from; null while it is not connected.
    pub address: Option<String>,
    /// When the agent connected; null while it is not connected.
    pub since: Option<String>,
    /// When the agent was last heard; null if it never was connected. Of one that is not connected this may be up to 5 minutes too early after a
    /// crash of the controller.
    #[serde(default)]
    pub heard: Option<String>,
    /// The version of the protocol that the agent speaks; null while it is not connected.
    #[serde(default)]
    pub protocol: Option<u32>,
    /// An alert that two hosts use the agent's identity; null while there is none. The second host is refused.
    #[serde(default)]
    pub duplicate: Option<DuplicateInfo>,
    /// The ids of the runs that use the agent. There are several only if all of them share it.
    pub runs: Vec<String>,
    /// The names of the faults that the agent can inject.
    pub faults: Vec<String>,
    /// Injections that the agent could not revert. They need a person's attention.
    pub owed: Vec<OwedInjection>,
}

/// Two hosts that use one identity.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Duplicate)]
pub struct DuplicateInfo {
    /// The address of the host that was refused.
    pub address: String,
    /// When it was refused last.
    pub at: String,
}

/// A change of the labels that an agent is granted. Labels that it does not name stay as they are, and are confirmed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsRequest {
    /// The labels to set, by name. A name has 1 to 64 letters, digits, `.`, `-`, `_` and `/`, a letter or digit first; a value has 1 to 256
    /// bytes, none of them of a control character or an invisible one.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub set: BTreeMap<String, String>,
    /// The names of the labels to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// An injection that could not be reverted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OwedInjection {
    /// The id of the injection.
    pub injection: String,
    /// The name of its fault.
    pub fault: String,
    /// What is still present on the host, one line for each thing.
    pub residue: Vec<String>,
}

/// A fault, with the schema of its arguments.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Fault)]
#[serde(rename_all = "kebab-case")]
pub struct FaultInfo {
    /// The fault's name.
    pub name: String,
    /// What the fault does, in one sentence.
    pub summary: String,
    /// Whether the fault happens once and has no duration. Any other fault needs a duration.
    pub one_shot: bool,
    /// The JSON Schema of the fault's arguments.
    pub schema: Value,
    /// An example of the fault's arguments.
    pub example: Value,
}

/// One feature that an agent's host was examined for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Finding)]
pub struct DoctorFinding {
    /// The feature's name.
    pub name: String,
    /// Whether the feature is available: `yes`, `no` or `partly`.
    pub ok: String,
    /// What the examination found.
    pub seen: String,
    /// Which faults are affected and what would help; null if the feature is fully available.
    pub hint: Option<String>,
}
