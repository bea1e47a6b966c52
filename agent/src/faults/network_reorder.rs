//! `network-reorder`: some packets overtake others, as where a route has several ways.

use super::network_latency::{DELAY_NOTE, wrong_delay};
use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{
    Delay, DelayInQueue, Direction, Distribution, Overtake, PacketEffect, Shaping,
};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Lets some packets of flows overtake others: these are held for `delay`, those are not. At least one of `percent` and `gap` must be given.
/// What arrives is meant, unless `direction` says otherwise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkReorder {
    #[serde(flatten)]
    flows: FlowSelector,
    /// How long the others are held. More than the time between packets, or none is overtaken.
    delay: HumanDuration,
    /// The chance of each packet to overtake, in percent; with `gap`, of each packet that may. 100 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    percent: Option<f64>,
    /// How much each chance is like the one before, in percent. 0 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    correlation: Option<f64>,
    /// Only each packet of this number since the last one that overtook may do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    gap: Option<u32>,
    /// What holds them. Without netem only arriving packets can be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

impl FaultKind for NetworkReorder {
    const NAME: &'static str = "network-reorder";
    const SUMMARY: &'static str = "Some packets of chosen flows overtake others";

    fn example() -> Value {
        json!({"to": "192.0.2.10", "protocol": "udp", "delay": "10ms", "percent": 25})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_delay(self.delay));
        match (self.percent, self.gap) {
            (None, None) => problems.push(
                Problem::new("$", "neither `percent` nor `gap` is given")
                    .hint("give at least one of them"),
            ),
            (Some(0.0), _) => {
                problems.push(Problem::new("$.percent", "none would overtake").hint("more than 0"))
            }
            (Some(100.0), None) => problems.push(
                Problem::new(
                    "$.percent",
                    "all would be let through, and none is overtaken",
                )
                .hint("less than 100, or give a `gap`"),
            ),
            (None | Some(100.0), Some(_)) if self.correlation.is_some() => problems.push(
                Problem::new("$.correlation", "nothing is left to chance")
                    .hint("give a `percent`, or leave this out"),
            ),
            _ => {}
        }
        problems.extend(ShapingBackend::problems(
            self.backend,
            &self.flows,
            Direction::Ingress,
        ));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let delay = Delay {
            by: self.delay,
            jitter: HumanDuration::default(),
            correlation: 0.0,
            distribution: Distribution::default(),
            keep_order: true,
            overtake: Some(Overtake {
                percent: self.percent.unwrap_or(100.0),
                correlation: self.correlation.unwrap_or_default(),
                gap: self.gap.unwrap_or(1),
            }),
        };
        let ways = ShapingMethods {
            shape: Shaping::Delay(delay),
            other: PacketEffect::from(DelayInQueue {
                delay,
                seed: context.seed,
            }),
            only: Direction::Ingress,
            note: DELAY_NOTE,
        };
        ShapingBackend::plan(self.backend, &self.flows, ways, context)
    }
}
