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
mod tolerance;
mod values;

pub use activity::*;
pub use limits::*;
pub(crate) use located_step::{LocatedStep, Section, located_steps};
pub use schedule::*;
pub use tolerance::*;
pub use values::*;

pub use crate::probes::{
    DnsProvider, HostMetric, HostProvider, HttpProvider, HttpTimeout, ProcessProvider,
    PrometheusProvider, PythonProvider, TcpProvider,
};

use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// An experiment: what should hold, what is done to it, to whom, and how far it may go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Document {
    /// The version of the format, `1.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the experiment claims, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// What it teaches, and why it should hold.
    #[schemars(length(min = 1))]
    pub description: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Named values that `${name}` puts in place, also in each other. All together put at the most 8 MiB in place, nested at the most
    /// 100 deep, and lead over 64 from one to the next.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, Configured>,
    /// Named values that never reach a journal, a log, a report or the API, in scopes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, BTreeMap<String, Configured>>,
    /// What must hold before, during and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_state_hypothesis: Option<Hypothesis>,
    /// Named sets of agents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Target>,
    /// The most that a run may touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<BlastRadius>,
    /// What ends a run at once. Left out: the hypothesis, each second, three failures in a row. `[]` opts out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Vec<AbortRule>>,
    /// What is done, step by step. May be empty.
    pub method: Vec<Step>,
    /// The author's own extra steps after everything is reverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Step>,
    /// How soon the hypothesis must hold again after the last revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// When it runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Strategies for the hypothesis and the rollbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What the experiment contributes to, for reports; not looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contributions: Option<Value>,
    /// Other tools' data; not looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// The Chaos Toolkit's controls. They are not played, and a document that has some is refused unless it is said in the
    /// open that they are left out: `--ignore-controls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// The Chaos Toolkit's dry mode: what is only said, not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// What a dry run leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dry {
    /// Probes are not measured.
    Probes,
    /// Actions are not done.
    Actions,
    /// Neither.
    Activities,
    /// Pauses are not waited for.
    Pause,
}

/// What must hold: named probes with tolerances.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hypothesis {
    /// What holds, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// How it is measured; each has a tolerance.
    #[serde(default)]
    pub probes: Vec<Step>,
    /// The Chaos Toolkit's controls; refused as those of the experiment are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
}

/// An activity, or the name of one that stands elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Step {
    /// The activity of this name.
    Ref(Reference),
    /// The activity itself.
    Activity(Box<Activity>),
}

/// The name of an activity that stands elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Reference {
    /// The name.
    #[schemars(length(min = 1))]
    #[serde(rename = "ref")]
    pub name: String,
}

/// Strategies; flags of the command line go before them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Runtime {
    /// When the hypothesis is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<HypothesisRuntime>,
    /// When the rollbacks are played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollbacks: Option<RollbacksRuntime>,
}

/// When the hypothesis is looked at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HypothesisRuntime {
    /// The strategy.
    pub strategy: HypothesisStrategy,
}

/// When the rollbacks are played.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RollbacksRuntime {
    /// The strategy.
    pub strategy: RollbackStrategy,
}

/// When the hypothesis is looked at. Left out: before and after and, where the method has a fault, during.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HypothesisStrategy {
    /// Before and after the method.
    Default,
    /// Only before it.
    BeforeMethodOnly,
    /// Only after it.
    AfterMethodOnly,
    /// Only while it goes on.
    DuringMethodOnly,
    /// Before, during and after.
    Continuously,
}

/// When the rollbacks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackStrategy {
    /// After a method that ran, unless the run was aborted or interrupted.
    Default,
    /// After a method that ran, whatever happened.
    Always,
    /// Never.
    Never,
    /// Only when the hypothesis failed.
    Deviated,
}

/// How soon the hypothesis must hold again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Recovery {
    /// From the last revert. The time it took is recorded.
    pub within: HumanDuration,
}

/// Keeps `null` apart from nothing at all, which `Option` alone does not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
