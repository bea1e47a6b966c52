//! Experiments that suit an agent.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What is suggested for an agent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Suggestions)]
#[serde(rename_all = "kebab-case")]
pub struct SuggestionsInfo {
    /// The name of the agent that was asked.
    pub agent: String,
    /// The experiments that the agent has planned just now and that all policies allow.
    pub suggestions: Vec<SuggestionInfo>,
    /// The others, by the reason that they are left out.
    pub left_out: Vec<LeftOutInfo>,
}

/// An experiment that suits an agent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = SuggestedExperiment)]
pub struct SuggestionInfo {
    /// A name under which it can be stored: lower case letters, digits and `-`.
    pub name: String,
    /// Why it suits the agent's host: what was seen, and what a run would tell.
    pub reason: String,
    /// The name of its fault.
    pub fault: String,
    /// The document, ready to be stored and run. Its target selects the agent.
    pub experiment: Value,
}

/// Experiments that are not suggested.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LeftOutSuggestions)]
pub struct LeftOutInfo {
    /// Why they are left out, e.g. what the agent's host cannot do.
    pub why: String,
    /// The names of the experiments that are left out.
    pub names: Vec<String>,
}
