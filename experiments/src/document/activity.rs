//! Probes and actions, and the providers that do their work.

use super::{Configured, Dry, Target, Tolerance};
use crate::HumanDuration;
use crate::probes::{
    DEFAULT_PROGRAM_TIMEOUT, DnsProvider, HostProvider, HttpProvider, LoadProvider, ProbeProvider,
    ProcessProvider, PrometheusProvider, PythonProvider, TcpProvider, probe_providers,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Kind of an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActivityKind {
    /// The activity measures something.
    Probe,
    /// The activity does something.
    Action,
}

/// A probe or an action.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Activity {
    /// `probe` measures something, `action` does something.
    #[serde(rename = "type")]
    pub kind: ActivityKind,
    /// Name of the activity, in the journal and for `ref`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What does the work.
    pub provider: Provider,
    /// How the value is judged. Required for a hypothesis probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// Whether the method continues without waiting for this activity.
    #[serde(default, skip_serializing_if = "is_false")]
    pub background: bool,
    /// Pauses before and after the activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pauses: Option<Pauses>,
    /// Longest time the activity may take. The provider's own `timeout` overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Configuration values of this activity, which override the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<BTreeMap<String, Configured>>,
    /// Scopes of `secrets` that the activity may use, or literal secrets for a `python` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Value>,
    /// Target whose agents measure the probe, each from its own host. Every one of them must be in tolerance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many of the agents in `from` must be in tolerance. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub quorum: Option<u32>,
    /// The Chaos Toolkit's controls. They are refused like those of the experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// Dry mode of this activity, which overrides the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// Pauses before and after an activity.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pauses {
    /// Pause before the activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<HumanDuration>,
    /// Pause after the activity; if it runs in the background, that pause does too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HumanDuration>,
}

/// Declares [`Provider`] by the list of [`crate::probes`].
macro_rules! provider {
    ($($(#[$doc:meta])* $variant:ident($arguments:ident),)*) => {
        /// What does the work of an activity.
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "type", rename_all = "lowercase")]
        pub enum Provider {
            $($(#[$doc])* $variant($arguments),)*
            /// A fault that agents inject.
            Fault(FaultProvider),
        }

        impl Provider {
            /// The provider as one that measures; none for a fault.
            pub fn probe(&self) -> Option<&dyn ProbeProvider> {
                self.measured().ok()
            }

            /// The provider as one that measures.
            ///
            /// # Errors
            /// It is a fault; the text says which.
            pub fn measured(&self) -> Result<&dyn ProbeProvider, String> {
                match self {
                    $(Provider::$variant(probe) => Ok(probe),)*
                    Provider::Fault(fault) => Err(format!("`{}` is a fault: it is injected, not measured", fault.fault)),
                }
            }

            /// The same, to be changed.
            pub(crate) fn probe_mut(&mut self) -> Option<&mut dyn ProbeProvider> {
                match self {
                    $(Provider::$variant(probe) => Some(probe),)*
                    Provider::Fault(_) => None,
                }
            }

            /// What is wrong with an address that the document itself writes, and under which key: see
            /// [`ProbeProvider::written_address_problem`].
            pub(crate) fn written_address_problem(written: &Map<String, Value>) -> Option<(&'static str, String)> {
                let kind = written.get("type")?.as_str()?;
                $(if kind == stringify!($variant).to_ascii_lowercase() {
                    return $arguments::written_address_problem(written);
                })*
                None
            }
        }
    };
}
probe_providers!(provider);

/// A fault: one kind of harm, injected by the agents of a target for a limited time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FaultProvider {
    /// Name of the fault, e.g. `process-pause`. `backburn faults` lists them.
    pub fault: String,
    /// A name from `targets`, or an inline target. Without it, a local run uses this host, and a fleet refuses the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetRef>,
    /// How long the fault lasts. Required unless the fault is one-shot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Interval at which a one-shot fault is repeated for its duration. Its victims are selected again each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// Arguments of the fault.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

/// A target by its name, or inline.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetRef {
    /// A name from `targets`.
    Name(String),
    /// An inline target.
    Target(Target),
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Provider {
    /// The longest that a probe of this provider may take if nothing else is said; none where the provider knows one itself.
    pub fn usual_time_limit(&self) -> Option<HumanDuration> {
        matches!(self, Provider::Process(_)).then_some(DEFAULT_PROGRAM_TIMEOUT)
    }
}

impl Activity {
    /// The longest that measuring it may take, unless its provider has a time-out of its own or one that is usual for its kind. A program
    /// that measures has a limit, so that one that hangs is noticed; a program that acts may run until it ends by itself.
    pub fn time_limit(&self) -> Option<HumanDuration> {
        let usual = (self.kind == ActivityKind::Probe).then(|| self.provider.usual_time_limit());
        self.timeout.or_else(|| usual.flatten())
    }
}
