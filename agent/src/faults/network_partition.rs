//! `network-partition`: packets are lost without a word, as over a cut cable or a firewall that drops.

use super::flows::Flows;
use super::{FaultKind, Look, Plan, filtering};
use crate::filter::{Harm, Share};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Loses all packets of flows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkPartition {
    #[serde(flatten)]
    flows: Flows,
}

impl FaultKind for NetworkPartition {
    const NAME: &'static str = "network-partition";
    const SUMMARY: &'static str = "Packets of chosen flows are lost without a word";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432"})
    }

    fn problems(&self) -> Vec<Problem> {
        self.flows.problems()
    }

    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal> {
        filtering(&self.flows, Harm::Lose { share: Share::All }, look)
    }
}
