//! `network-bandwidth`: flows get only so much of their link, as over a slow line.

use super::flows::Flows;
use super::rate::Rate;
use super::{FaultKind, Look, Plan, Size, filtering};
use crate::filter::{Harm, Shape};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Sends packets of flows no faster than a rate, which all of them share; each direction has it by itself. What comes faster waits, and
/// is lost where too much waits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkBandwidth {
    #[serde(flatten)]
    flows: Flows,
    /// How fast, with the packets' headers.
    rate: Rate,
    /// How much is sent at once after a pause. What comes in 10 ms where left out, and 10 kB at the least. Longer packets are lost, but for TCP's, which are cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Size>,
    /// How much may wait. What is sent in 100 ms where left out, and 30 kB at the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Size>,
}

/// The slowest and the fastest, in bytes a second.
const SLOWEST: Rate = Rate(125);
const FASTEST: Rate = Rate(125_000_000_000);
/// The least burst: a packet of Ethernet with its header.
const PACKET: Size = Size(1514);
/// What the kernel takes for a burst and for a queue.
const MOST: Size = Size(1 << 30);

impl FaultKind for NetworkBandwidth {
    const NAME: &'static str = "network-bandwidth";
    const SUMMARY: &'static str = "Chosen flows get only so much of their link";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "rate": "10Mbit/s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        if self.rate < SLOWEST || self.rate > FASTEST {
            problems.push(
                Problem::new("$.rate", format!("{} is no rate for packets", self.rate)).hint(
                    format!(
                        "from {SLOWEST} to {FASTEST}; `network-partition` lets nothing through"
                    ),
                ),
            );
        }
        for (key, size) in [("burst", self.burst), ("queue", self.queue)] {
            if size.is_some_and(|size| size < PACKET || size > MOST) {
                problems.push(
                    Problem::new(format!("$.{key}"), "that is no size for it")
                        .hint(format!("from {PACKET}, one packet, to {MOST}")),
                );
            }
        }
        problems
    }

    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal> {
        // Both are below `MOST`.
        let bytes = |given: Option<Size>, share: u64, least: u64| {
            let size = given.map_or((self.rate.0 / share).clamp(least, MOST.0), |size| size.0);
            u32::try_from(size).unwrap_or(u32::MAX)
        };
        let shape = Shape::Bandwidth {
            rate: self.rate.0,
            burst: bytes(self.burst, 100, 10_000),
            queue: bytes(self.queue, 10, 30_000),
        };
        let mut plan = filtering(&self.flows, Harm::Shape { shape }, look)?;
        plan.notes.push(
            "backend tbf: on a device of ours that the packets are forwarded to; the interfaces keep their disciplines".into(),
        );
        Ok(plan)
    }
}
