//! Who may be touched, how many, and what ends it: targets, blast radius, abort rules.

use super::{Activity, HostMetric};
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A named set of agents, chosen by labels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Target {
    /// All must match; a list means any of its values.
    pub labels: BTreeMap<String, LabelMatch>,
    /// How many of those that match. One where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// A label over which the pick is spread evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelMatch {
    /// This.
    Is(String),
    /// Any of these.
    AnyOf(Vec<String>),
}

/// How many of a set are picked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Every one.
    All,
    /// This many; fewer than that is an error.
    Count(#[schemars(range(min = 1))] u32),
    /// This share in percent, rounded down; none left is an error.
    Percent(#[schemars(range(min = 0, max = 100))] f64),
    /// A share drawn evenly between nothing and this many percent, rounded down, but one at the least.
    RandomMaxPercent(#[schemars(range(min = 0, max = 100))] f64),
}

/// The most that a run may touch. Passing one is a refusal before anything is injected.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct BlastRadius {
    /// The most agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCeiling>,
    /// The most victims on one agent, for one fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victims_per_agent: Option<u32>,
    /// The most faults at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_faults: Option<u32>,
    /// The longest from the first injection to the last revert; then the run is aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Whether other runs that say so too may hold the same agents of a fleet at the same time; never the same victims.
    /// No where left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// The most agents that a run may touch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AgentCeiling {
    /// In number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// In percent of the target's matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
}

/// A condition that ends a run at once. Exactly one of `probe` and `host`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AbortRule {
    /// What it means when it strikes, in a few words.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A hypothesis probe by its name, or a probe with a tolerance in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeRef>,
    /// A figure that the agent itself watches, so that it works when the controller cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRule>,
    /// How often it is looked at. Each second where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// How many failures in a row end the run. One where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
}

/// A hypothesis probe by its name, or a probe in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ProbeRef {
    /// The name of a hypothesis probe.
    Name(String),
    /// The probe itself, with a tolerance.
    Probe(Box<Activity>),
}

/// A figure of the host and the side of a limit on which it is a failure. Exactly one of `below` and `above`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostRule {
    /// Which figure.
    pub metric: HostMetric,
    /// The file system's path, for `disk-free-percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A failure below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// A failure above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
}
