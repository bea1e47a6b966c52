//! The experiment document, as data. Every field's comment here is its description in the JSON
//! Schema and in the reference, so it is written for the person who writes an experiment.
//!
//! The shape is the Chaos Toolkit's experiment format plus what that lacks: targets, blast
//! radius, abort rules, recovery, schedule, and faults that agents inject. Reading a document
//! (substitution, all problems at once) is `check`'s room; this one only says what there is.

mod activity;
mod limits;
mod located_step;
mod schedule;
mod select;
mod size_limits;
mod tolerance;
mod values;

pub use activity::*;
pub use limits::*;
pub(crate) use located_step::{LocatedStep, Section, located_steps};
pub use schedule::*;
pub use select::Select;
pub use size_limits::*;
pub use tolerance::*;
pub use values::*;

pub use crate::probes::{
    DnsProvider, HostMetric, HostProvider, HttpProvider, HttpTimeout, LoadProvider,
    ProcessProvider, PrometheusProvider, PythonProvider, TcpProvider,
};

use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// An experiment: what should hold, what is done to it, on which agents, and how far it may go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Document {
    /// Version of the document format: `1.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The experiment's claim, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// What the experiment teaches, and why the claim should hold.
    #[schemars(length(min = 1))]
    pub description: String,
    /// Keywords for finding the experiment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Named values that `${name}` inserts, also into each other. All together they insert at most 8 MiB, nested at most 100 deep,
    /// in chains of at most 64 variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, Configured>,
    /// Named values, grouped in scopes, that are redacted from journals, logs, reports and the API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, BTreeMap<String, Configured>>,
    /// What must hold before, during and after the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_state_hypothesis: Option<Hypothesis>,
    /// Named sets of agents, for faults and for probes with `from`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Target>,
    /// The most that a run may touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<BlastRadius>,
    /// Conditions that end the run at once. Default: each probe of the hypothesis, checked every second, with three failures in a row. `[]` disables that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Vec<AbortRule>>,
    /// The steps of the experiment, in order. May be empty.
    pub method: Vec<Step>,
    /// Extra steps that the author wants after everything is reverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Step>,
    /// How soon the hypothesis must hold again after the last revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// When a controller runs the experiment automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// When the hypothesis is checked and when rollbacks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What the experiment contributes to, for reports. Kept and not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contributions: Option<Value>,
    /// Data of other tools. Kept and not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// The Chaos Toolkit's controls. Backburn does not run them, so a document that has some is refused unless
    /// `--ignore-controls` leaves them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// The Chaos Toolkit's dry mode: what is reported instead of done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// What a dry run skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dry {
    /// Skip probes.
    Probes,
    /// Skip actions.
    Actions,
    /// Skip probes and actions.
    Activities,
    /// Skip pauses.
    Pause,
}

/// The steady-state hypothesis: named probes with tolerances.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hypothesis {
    /// The hypothesis, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// The probes that measure it; each requires a tolerance.
    #[serde(default)]
    pub probes: Vec<Step>,
    /// The Chaos Toolkit's controls. They are refused like those of the experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
}

/// An activity, or a reference to an activity elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Step {
    /// A reference to an activity by its name.
    Ref(Reference),
    /// An inline activity.
    Activity(Box<Activity>),
}

/// A reference to an activity elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Reference {
    /// Name of the activity.
    #[schemars(length(min = 1))]
    #[serde(rename = "ref")]
    pub name: String,
}

/// Strategies of a run. Flags of the command line override them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Runtime {
    /// When the hypothesis is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<HypothesisRuntime>,
    /// When the rollbacks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollbacks: Option<RollbacksRuntime>,
}

/// When the hypothesis is checked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HypothesisRuntime {
    /// The strategy to use.
    pub strategy: HypothesisStrategy,
}

/// When the rollbacks run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RollbacksRuntime {
    /// The strategy to use.
    pub strategy: RollbackStrategy,
}

/// When the hypothesis is checked. Default: before and after the method and, if the method has a fault, during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HypothesisStrategy {
    /// Before and after the method.
    Default,
    /// Only before the method.
    BeforeMethodOnly,
    /// Only after the method.
    AfterMethodOnly,
    /// Only during the method.
    DuringMethodOnly,
    /// Before, during and after the method.
    Continuously,
}

/// When the rollbacks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackStrategy {
    /// After a method that ran, unless the run was aborted or interrupted.
    Default,
    /// After a method that ran, whatever happened.
    Always,
    /// In no case.
    Never,
    /// Only if the hypothesis failed.
    Deviated,
}

/// How soon the hypothesis must hold again after the faults are reverted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Recovery {
    /// Longest time from the last revert until the hypothesis holds. The actual time is recorded.
    pub within: HumanDuration,
}

/// Tells `null` from a missing key, which `Option` alone does not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
