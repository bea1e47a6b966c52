//! Who may be touched, how many, and what ends it: targets, blast radius, abort rules.

use super::{Activity, HostMetric, Select};
use crate::HumanDuration;
use crate::percent::{self, Percent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A set of agents, selected by labels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Target {
    /// Labels that an agent must have, all of them. A list means any of its values.
    pub labels: BTreeMap<String, LabelMatch>,
    /// How many of the matching agents to select. Default: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Label over whose values the selection is spread evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

/// Required value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelMatch {
    /// Exactly this value.
    Is(String),
    /// Any of these values.
    AnyOf(Vec<String>),
}

/// The most that a run may touch. A plan that exceeds a limit is refused before anything is injected.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct BlastRadius {
    /// Maximum number of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCeiling>,
    /// Maximum number of victims of one fault on one agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victims_per_agent: Option<u32>,
    /// Maximum number of faults that act at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_faults: Option<u32>,
    /// Longest time from the first injection to the last revert. A run that takes longer is aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Whether other runs with `shared` may use the same agents of a fleet at the same time, though never the same victims.
    /// Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// Maximum number of agents that a run may touch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AgentCeiling {
    /// As a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// As a percentage of the agents that match the target.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    pub percent: Option<f64>,
}

/// A condition that ends a run at once. Exactly one of `probe` and `host`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AbortRule {
    /// What it means when the rule triggers, in a few words.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Name of a hypothesis probe, or an inline probe with a tolerance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeRef>,
    /// Host metric that the agent itself watches, so that the rule works even when the agent cannot reach the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRule>,
    /// How often the rule is evaluated. Default: every second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// How many failures in a row end the run. Default: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
}

/// Name of a hypothesis probe, or an inline probe.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ProbeRef {
    /// Name of a hypothesis probe.
    Name(String),
    /// An inline probe with a tolerance.
    Probe(Box<Activity>),
}

/// A host metric and the limit beyond which it counts as a failure. Exactly one of `below` and `above`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostRule {
    /// The metric to watch.
    pub metric: HostMetric,
    /// Path on the file system to watch, for `disk-free-percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Values below this limit are failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Values above this limit are failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
}
