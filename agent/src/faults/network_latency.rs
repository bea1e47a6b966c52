//! `network-latency`: packets take longer, as from another continent or through a crowded router.

use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{Delay, DelayInQueue, Direction, Distribution, PacketEffect, Shaping};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Delays packets of flows. They are held as they arrive, unless `direction` says otherwise, so that the time from a request to its
/// answer grows by the delay; with `both` it grows by twice that.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkLatency {
    #[serde(flatten)]
    flows: FlowSelector,
    /// How long each packet is held; the mean where it varies.
    delay: HumanDuration,
    /// How much it varies: the most of it where uniform, else the standard deviation. Not above `delay`; what would be below nothing is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter: Option<HumanDuration>,
    /// How much each delay is like the one before, in percent. 0 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    correlation: Option<f64>,
    /// How it varies. Uniform where left out. None goes beyond four times the jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distribution: Option<Distribution>,
    /// Whether a packet waits for those before it, as in a router's queue. True where left out; false lets packets overtake each other,
    /// as netem by itself does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_order: Option<bool>,
    /// What holds them. Without netem only arriving packets can be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

/// What is longer is a partition.
pub(super) const MAX_DELAY: HumanDuration = HumanDuration::seconds(60);
pub(super) const DELAY_NOTE: &str = "backend nfqueue: a process of ours holds the packets as they arrive; those it holds when it ends are lost, and later ones flow";

/// What is wrong with a delay.
pub(super) fn wrong_delay(delay: HumanDuration) -> Option<Problem> {
    (delay.0.is_zero() || delay > MAX_DELAY).then(|| {
        Problem::new("$.delay", format!("{delay} is no delay for packets"))
            .hint(format!("more than nothing, and {MAX_DELAY} at the most"))
    })
}

impl FaultKind for NetworkLatency {
    const NAME: &'static str = "network-latency";
    const SUMMARY: &'static str = "Packets of chosen flows arrive later";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "delay": "100ms", "jitter": "20ms", "distribution": "normal"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_delay(self.delay));
        match self.jitter {
            Some(jitter) if jitter.0.is_zero() => problems.push(
                Problem::new("$.jitter", "it would not vary")
                    .hint("leave it out, or more than nothing"),
            ),
            Some(jitter) if jitter > self.delay => problems.push(
                Problem::new("$.jitter", format!("{jitter} is more than the delay")).hint(format!(
                    "{} at the most: no packet arrives before it was sent",
                    self.delay
                )),
            ),
            Some(_) => {}
            None => {
                let without = [
                    ("correlation", self.correlation.is_some()),
                    ("distribution", self.distribution.is_some()),
                    ("keep-order", self.keep_order.is_some()),
                ];
                for (key, _) in without.iter().filter(|(_, given)| *given) {
                    problems.push(
                        Problem::new(format!("$.{key}"), "without `jitter` all delays are alike")
                            .hint("give a `jitter`, or leave this out"),
                    );
                }
            }
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
            jitter: self.jitter.unwrap_or_default(),
            correlation: self.correlation.unwrap_or_default(),
            distribution: self.distribution.unwrap_or_default(),
            keep_order: self.keep_order.unwrap_or(true),
            overtake: None,
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
