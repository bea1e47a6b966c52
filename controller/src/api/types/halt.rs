//! The halt: its status, and what it did on each agent.

use super::agents::OwedInjection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a halt is in force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HaltStatus {
    /// Whether a halt is in force, so that no run starts.
    pub halted: bool,
    /// The name of the token that ordered the halt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// When the halt was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The reason that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The halts of teams in force: no run may target the agents of these teams.
    #[serde(default)]
    pub teams: Vec<TeamHalt>,
    /// How long the last halt since the controller's start took until everything was observed to be gone, or until the controller stopped
    /// waiting, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_took_ms: Option<f64>,
    /// Whether everything was observed to be gone in that halt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_clean: Option<bool>,
}

/// The halt of a team.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TeamHalt {
    /// The name of the team.
    pub team: String,
    /// The name of the token that ordered the halt.
    pub who: String,
    /// When the halt was ordered.
    pub at: String,
    /// The reason that was given.
    pub why: Option<String>,
}

/// An order to halt.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HaltRequest {
    /// The reason, for people.
    #[serde(default)]
    pub why: Option<String>,
    /// Halt only the agents of this team, and the runs that target one of them. By default the whole fleet is halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

/// What a halt did.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = HaltReport)]
#[serde(rename_all = "kebab-case")]
pub struct HaltResult {
    /// The ids of the runs that were ended.
    pub runs: Vec<String>,
    /// What each agent did, the slowest first.
    pub agents: Vec<AgentHaltResult>,
    /// The time from the order until everything was observed to be gone, or until the controller stopped waiting, in milliseconds.
    pub took_ms: f64,
    /// Whether everything was observed to be gone.
    pub clean: bool,
    /// The ids of runs with faults that are not known to be over.
    pub unknown: Vec<String>,
    /// Whether the halt was stored. If it was not, a restart of the controller ends the halt.
    pub remembered: bool,
}

/// What one agent did at a halt.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = HaltedAgent)]
#[serde(rename_all = "kebab-case")]
pub struct AgentHaltResult {
    /// The agent's name.
    pub agent: String,
    /// The time from the order until the agent reported that everything was observed to be gone, in milliseconds; null if it has not.
    pub took_ms: Option<f64>,
    /// Injections that the agent could not revert.
    pub owed: Vec<OwedInjection>,
    /// Whether the agent is connected but does not answer, so that its faults may still act.
    pub unresponsive: bool,
    /// Injections that the agent's guardian ended because its worker died or hung.
    pub guardian: Vec<GuardianRevert>,
}

/// An injection that a guardian ended for a worker that died or hung.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GuardianRevert {
    /// The id of the injection.
    pub injection: String,
    /// Whether the injection was observed to be gone.
    pub clean: bool,
    /// What is still present on the host if the injection is not gone, one line for each thing.
    pub residue: Vec<String>,
}
