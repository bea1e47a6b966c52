//! What a run would affect.

use crate::runner::Preview;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a run would affect now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Plan)]
pub struct RunPlan {
    /// The experiment's title.
    pub title: String,
    /// Seed of the random selection.
    pub seed: u64,
    /// The names of the agents that would take part.
    pub agents: Vec<String>,
    /// Each injection: its action, agent and fault, and either the planned changes with their undo or the reason for a refusal.
    #[schema(value_type = Vec<Value>)]
    pub injections: Vec<crate::runner::PreviewedInjection>,
    /// How often each probe of the hypothesis would be checked, and which failure rates that many successful checks would rule out.
    #[schema(value_type = Vec<Value>)]
    pub looks: Vec<backburn_experiments::forecast::ExpectedSamples>,
    /// Programs and Python functions that the controller would run and does not find. A run with any of these is not started.
    #[schema(value_type = Vec<Value>)]
    pub missing: Vec<backburn_experiments::Problem>,
    /// Warnings about the experiment, e.g. that nothing would be measured.
    pub warnings: Vec<String>,
}

impl RunPlan {
    /// The plan of an experiment with this title, selected with this seed.
    pub fn new(title: String, seed: u64, preview: Preview) -> Self {
        RunPlan {
            title,
            seed,
            agents: preview.agents,
            injections: preview.injections,
            looks: preview.looks,
            missing: preview.missing,
            warnings: preview.warnings,
        }
    }
}
