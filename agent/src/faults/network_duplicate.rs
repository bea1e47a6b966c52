//! `network-duplicate`: sends some packets twice, as a link that repeats what had already arrived.

use super::network_loss::wrong_percent;
use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{Direction, Duplicate, PacketEffect, Shaping, Share};
use backburn_experiments::Problem;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Sends some packets of flows twice. Affects leaving packets unless `direction` says otherwise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkDuplicate {
    #[serde(flatten)]
    flows: FlowSelector,
    /// Chance of each packet to be sent twice, in percent.
    #[serde(deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    percent: f64,
    /// What duplicates the packets. Without netem, only leaving packets can be duplicated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

impl FaultKind for NetworkDuplicate {
    const NAME: &'static str = "network-duplicate";
    const SUMMARY: &'static str = "Send some packets of selected flows twice";

    fn example() -> Value {
        json!({"to": "192.0.2.10", "protocol": "udp", "percent": 5})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_percent(self.percent, "no packet would be sent twice"));
        problems.extend(ShapingBackend::problems(
            self.backend,
            &self.flows,
            Direction::Egress,
        ));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let ways = ShapingMethods {
            shape: Shaping::Duplicate(self.percent),
            other: PacketEffect::from(Duplicate {
                share: Share::percent(self.percent),
            }),
            only: Direction::Egress,
            note: "backend nftables: the kernel's packet rules send the copies as the packets leave",
        };
        ShapingBackend::plan(self.backend, &self.flows, ways, context)
    }
}
