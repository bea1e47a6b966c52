//! A suggestion: a document, why it suits the host, and what has to be planned for it.

use crate::HumanDuration;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// An experiment that suits a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suggestion {
    /// A name under which it can be stored: lower case letters, digits and `-`.
    pub name: String,
    /// Why it suits this host: what was seen, and what it would tell.
    pub reason: String,
    /// The document, ready to run.
    pub experiment: Value,
    /// The fault, to be planned.
    #[serde(skip)]
    pub fault: &'static str,
    /// The arguments of the fault.
    #[serde(skip)]
    pub arguments: Map<String, Value>,
    /// How long the fault lasts.
    #[serde(skip)]
    pub duration: HumanDuration,
}

/// The name of the target in a suggestion for an agent of a fleet.
const TARGET: &str = "agent";

impl Suggestion {
    /// The same for the agents with these labels: they are hit, and the probes ask from their hosts.
    #[must_use]
    pub fn for_agent(mut self, labels: &BTreeMap<String, String>) -> Self {
        let document = &mut self.experiment;
        document["targets"] = json!({TARGET: {"labels": labels, "select": "all"}});
        for action in list(&mut document["method"]) {
            action["provider"]["targets"] = TARGET.into();
        }
        if let Some(hypothesis) = document.get_mut("steady-state-hypothesis") {
            for probe in list(&mut hypothesis["probes"]) {
                probe["from"] = TARGET.into();
            }
        }
        self
    }
}

fn list(value: &mut Value) -> &mut [Value] {
    value
        .as_array_mut()
        .map(Vec::as_mut_slice)
        .unwrap_or_default()
}
