//! Probes and actions, and who does their work.

use super::{Configured, Dry, Target, Tolerance};
use crate::HumanDuration;
use crate::probes::{
    DnsProvider, HostProvider, HttpProvider, ProbeProvider, ProcessProvider, PrometheusProvider,
    PythonProvider, TcpProvider, probe_providers,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Whether an activity measures or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActivityKind {
    /// It measures.
    Probe,
    /// It does something.
    Action,
}

/// A probe or an action.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Activity {
    /// `probe` measures, `action` does.
    #[serde(rename = "type")]
    pub kind: ActivityKind,
    /// Its name, in the journal and for `ref`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Who does the work.
    pub provider: Provider,
    /// What the value is judged by. A hypothesis probe must have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// Whether the method goes on without waiting for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub background: bool,
    /// Waits around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pauses: Option<Pauses>,
    /// The longest it may take; the provider's own `timeout` goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Values of its own that go before the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<BTreeMap<String, Configured>>,
    /// The scopes of `secrets` that it may see, or literal secrets for a `python` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Value>,
    /// The target whose agents measure it, from where the harm is. Every one of them must be in tolerance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many of the agents in `from` must be in tolerance, instead of every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub quorum: Option<u32>,
    /// The Chaos Toolkit's controls; refused as those of the experiment are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// The dry mode of this activity alone; goes before the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// Waits before and after an activity.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pauses {
    /// Before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<HumanDuration>,
    /// After it; of an activity in the background, there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HumanDuration>,
}

/// Declares [`Provider`] by the list of [`crate::probes`].
macro_rules! provider {
    ($($(#[$doc:meta])* $variant:ident($arguments:ident),)*) => {
        /// Who does the work of an activity.
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "type", rename_all = "lowercase")]
        pub enum Provider {
            $($(#[$doc])* $variant($arguments),)*
            /// A fault, injected by agents.
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

/// A fault: one kind of harm, on the agents of a target, for a limited time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FaultProvider {
    /// The fault's name, e.g. `process-pause`; `backburn faults` lists them.
    pub fault: String,
    /// A name from `targets`, or labels in place. Left out, a local run hits this host; a fleet refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetRef>,
    /// How long it lasts. Mandatory unless the fault is one-shot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Repeats a one-shot fault this often for its duration; each time the host is looked at afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// The fault's own arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

/// A target by its name, or in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetRef {
    /// The name of one in `targets`.
    Name(String),
    /// The target itself.
    Target(Target),
}

fn is_false(value: &bool) -> bool {
    !value
}
