//! `network-corrupt`: a bit of some packets is turned, as by a bad cable; whoever gets them finds it out by their sums.

use super::network_loss::wrong_percent;
use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{Corrupt, Direction, PacketEffect, Shaping, Share};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Turns one bit of some packets of flows and leaves their sums as they were. What arrives is meant, unless `direction` says otherwise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkCorrupt {
    #[serde(flatten)]
    flows: FlowSelector,
    /// The chance of each packet to have a bit turned, in percent.
    #[schemars(range(min = 0, max = 100))]
    percent: f64,
    /// What turns it. Without netem only arriving packets can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

impl FaultKind for NetworkCorrupt {
    const NAME: &'static str = "network-corrupt";
    const SUMMARY: &'static str = "A bit of some packets of chosen flows is turned";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "percent": 1})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_percent(self.percent, "nothing would be turned"));
        problems.extend(ShapingBackend::problems(
            self.backend,
            &self.flows,
            Direction::Ingress,
        ));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let ways = ShapingMethods {
            shape: Shaping::Corrupt(self.percent),
            other: PacketEffect::from(Corrupt {
                share: Share::percent(self.percent),
                seed: context.seed,
            }),
            only: Direction::Ingress,
            note: "backend nfqueue: a process of ours turns the bits as the packets arrive; when it ends, all flow as they are",
        };
        ShapingBackend::plan(self.backend, &self.flows, ways, context)
    }
}
