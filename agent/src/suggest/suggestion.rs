//! A suggestion: a document, why it suits the host, and what has to be planned for it.

use backburn_experiments::HumanDuration;
use serde::Serialize;
use serde_json::{Map, Value};

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
