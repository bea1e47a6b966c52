//! `network-loss`: some packets are lost, as over bad radio or a crowded link.

use super::flows::Flows;
use super::{FaultKind, Look, Plan, filtering};
use crate::filter::{Harm, Share};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Loses some packets of flows. Exactly one of `percent` and `every-nth`; each counts for each direction by itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkLoss {
    #[serde(flatten)]
    flows: Flows,
    /// The chance of each packet to be lost, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    percent: Option<f64>,
    /// Each n-th packet is lost, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    every_nth: Option<u32>,
}

/// What the kernel can still tell from nothing, in percent.
const LEAST: f64 = 0.0001;

impl FaultKind for NetworkLoss {
    const NAME: &'static str = "network-loss";
    const SUMMARY: &'static str = "Some packets of chosen flows are lost";

    fn example() -> Value {
        json!({"to": "192.0.2.0/24", "percent": 30})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        match (self.percent, self.every_nth) {
            (Some(_), Some(_)) => problems.push(
                Problem::new("$", "both `percent` and `every-nth` are given")
                    .hint("give one of them"),
            ),
            (None, None) => problems.push(
                Problem::new("$", "neither `percent` nor `every-nth` is given")
                    .hint("give one of them"),
            ),
            (Some(percent), None) if percent < LEAST => problems.push(
                Problem::new("$.percent", "nothing would be lost")
                    .hint(format!("{LEAST} at the least")),
            ),
            _ => {}
        }
        problems
    }

    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal> {
        let share = match (self.percent, self.every_nth) {
            (Some(percent), _) if percent >= 100.0 => Share::All,
            (Some(percent), _) => Share::Percent(percent),
            (None, nth) => Share::EveryNth(nth.unwrap_or(1)),
        };
        filtering(&self.flows, Harm::Lose { share }, look)
    }
}
