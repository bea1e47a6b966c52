//! Which faults services have been shown to survive.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is known of the agents with one value of a label.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageInfo {
    /// The value of the label.
    pub service: String,
    /// The names of the agents that have it today.
    pub agents: Vec<String>,
    /// The faults that were seen to act on one of them.
    pub tried: Vec<TriedFault>,
    /// The faults that were never seen to act on one of them.
    pub never: Vec<String>,
}

/// What is known of a fault on the agents of a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TriedFault {
    /// The name of the fault, e.g. `process-kill`.
    pub fault: String,
    /// Whether the latest run that says something held.
    pub survived: bool,
    /// How far that is trusted, from 0 to 1: in full for 30 days after the run, and not at all after 180.
    pub trust: f64,
    /// In how many runs the fault was seen to act.
    pub runs: usize,
    /// The latest run in which it acted and the hypothesis held.
    pub held_in: Option<String>,
    /// When that run started.
    pub held_at: Option<String>,
    /// The latest run in which it acted and the hypothesis did not hold.
    pub deviated_in: Option<String>,
    /// When that run started.
    pub deviated_at: Option<String>,
}
