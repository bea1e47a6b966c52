//! `network-corrupt`: flips a bit in some packets, as a bad cable does; the receiver notices by the checksum.

use super::network_loss::wrong_percent;
use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{Corrupt, Direction, PacketEffect, Shaping, Share};
use backburn_experiments::Problem;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Flips one bit in some packets of flows and leaves their checksums unchanged. Affects arriving packets unless `direction` says otherwise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkCorrupt {
    #[serde(flatten)]
    flows: FlowSelector,
    /// Chance of each packet to be corrupted, in percent.
    #[serde(deserialize_with = "percent::number")]
    #[schemars(with = "Percent")]
    percent: f64,
    /// What corrupts the packets. Without netem, only arriving packets can be corrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

impl FaultKind for NetworkCorrupt {
    const NAME: &'static str = "network-corrupt";
    const SUMMARY: &'static str = "Flip a bit in some packets of selected flows";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "percent": 1})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_percent(self.percent, "no packet would be corrupted"));
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
            note: "backend nfqueue: a helper process corrupts packets as they arrive; when it ends, packets pass unchanged",
        };
        ShapingBackend::plan(self.backend, &self.flows, ways, context)
    }
}
