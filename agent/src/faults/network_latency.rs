//! `network-latency`: delays packets, as a distant continent or a congested router does.

use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::{ShapingBackend, ShapingMethods};
use crate::packet_filter::{Delay, DelayInQueue, Direction, Distribution, PacketEffect, Shaping};
use crate::units::{long_delay_note, range_hint};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Delays packets of flows as they arrive, unless `direction` says otherwise, so that a round trip takes longer by the delay; with `both`,
/// by twice the delay.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkLatency {
    #[serde(flatten)]
    flows: FlowSelector,
    /// How long each packet is delayed; the mean where the delay varies.
    delay: HumanDuration,
    /// How much the delay varies: the largest deviation where uniform, else the standard deviation. At most `delay`; a negative delay counts as zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter: Option<HumanDuration>,
    /// How much each delay depends on the one before, in percent. Default: 0.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>", range(min = 0, max = 99))]
    correlation: Option<f64>,
    /// Distribution of the delay. Default: uniform. None deviates by more than four times the jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distribution: Option<Distribution>,
    /// Whether packets keep their order, as in a router's queue. Default: true. With false, packets may overtake each other,
    /// as with plain netem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_order: Option<bool>,
    /// What delays the packets. Without netem, only arriving packets can be delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<ShapingBackend>,
}

/// Longest delay; anything longer is a partition.
pub(super) const MAX_DELAY: HumanDuration = HumanDuration::seconds(60);
/// What people should know of a delay by a packet queue.
pub(super) const DELAY_NOTE: &str = "backend nfqueue: a helper process delays packets as they arrive; when it ends, the packets that it holds are lost and later ones pass";

/// The problem of a delay that is out of range.
pub(super) fn wrong_delay(delay: HumanDuration) -> Option<Problem> {
    (delay.0.is_zero() || delay > MAX_DELAY).then(|| {
        Problem::new("$.delay", format!("{delay} is not a valid delay"))
            .hint(range_hint(delay, MAX_DELAY))
    })
}

impl FaultKind for NetworkLatency {
    const NAME: &'static str = "network-latency";
    const SUMMARY: &'static str = "Delay packets of selected flows";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "delay": "100ms", "jitter": "20ms", "distribution": "normal"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        problems.extend(wrong_delay(self.delay));
        match self.jitter {
            Some(jitter) if jitter.0.is_zero() => problems.push(
                Problem::new("$.jitter", "a jitter of zero has no effect")
                    .hint("leave it out, or give more than zero"),
            ),
            Some(jitter) if jitter > self.delay => problems.push(
                Problem::new("$.jitter", format!("{jitter} is longer than the delay")).hint(
                    format!(
                        "give at most {}: no packet arrives before it was sent",
                        self.delay
                    ),
                ),
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
                        Problem::new(format!("$.{key}"), "it has no effect without `jitter`")
                            .hint("give `jitter`, or leave this out"),
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
        let mut plan = ShapingBackend::plan(self.backend, &self.flows, ways, context)?;
        plan.notes.extend(long_delay_note(self.delay));
        Ok(plan)
    }
}
