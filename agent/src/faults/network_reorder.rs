//! `network-reorder`: lets some packets overtake others, as a route with several paths does.

use super::network_latency::{DELAY_NOTE, wrong_delay};
use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{
    Delay, DelayInQueue, Direction, Distribution, Overtake, PacketEffect, Shaping,
};
use crate::units::long_delay_note;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Delays packets of flows by `delay`, except some, which overtake the others. At least one of `percent` and `gap` must be given.
/// Affects arriving packets unless `direction` says otherwise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkReorder {
    #[serde(flatten)]
    flows: FlowSelector,
    /// How long the other packets are delayed. Must be longer than the time between packets, or none is overtaken.
    delay: HumanDuration,
    /// Chance of each packet to overtake, in percent; with `gap`, of each packet that may. Default: 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
    /// How much each chance depends on the one before, in percent. Default: 0.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>", range(min = 0, max = 99))]
    correlation: Option<f64>,
    /// Only every packet of this number, counted from the last one that overtook, may overtake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    gap: Option<u32>,
    /// What delays the packets. Without netem, only arriving packets can be delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

impl FaultKind for NetworkReorder {
    const NAME: &'static str = "network-reorder";
    const SUMMARY: &'static str = "Let some packets of selected flows overtake others";

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
            (Some(0.0), _) => problems.push(
                Problem::new("$.percent", "no packet would overtake").hint("give more than 0"),
            ),
            (Some(100.0), None) => problems.push(
                Problem::new(
                    "$.percent",
                    "all packets would pass at once, and none would be overtaken",
                )
                .hint("give less than 100, or a `gap`"),
            ),
            (None | Some(100.0), Some(_)) if self.correlation.is_some() => problems.push(
                Problem::new(
                    "$.correlation",
                    "it has no effect where nothing is left to chance",
                )
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
        let mut plan = ShapingBackend::plan(self.backend, &self.flows, ways, context)?;
        plan.notes.extend(long_delay_note(self.delay));
        Ok(plan)
    }
}
