//! `network-loss`: drops some packets, as bad radio or a congested link does.

use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::plan_for_flows;
use crate::packet_filter::{BurstLoss, Lose, LoseInBursts, PacketEffect, Share};
use backburn_experiments::Problem;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Drops some packets of flows. Give exactly one of `percent`, `every-nth` and `gilbert-elliott`; each direction counts separately.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkLoss {
    #[serde(flatten)]
    flows: FlowSelector,
    /// Chance of each packet to be dropped, in percent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
    /// Drops exactly every n-th packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    every_nth: Option<u32>,
    /// Drops packets in bursts, which the seed determines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gilbert_elliott: Option<BurstLoss>,
}

/// Smallest chance that the kernel can tell from zero, in percent.
const MIN_PERCENT: f64 = 0.0001;

impl FaultKind for NetworkLoss {
    const NAME: &'static str = "network-loss";
    const SUMMARY: &'static str = "Drop some packets of selected flows";

    fn example() -> Value {
        json!({"to": "192.0.2.0/24", "percent": 30})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        let given = [
            self.percent.is_some(),
            self.every_nth.is_some(),
            self.gilbert_elliott.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let what = match given {
                [false, false, false] => {
                    "none of `percent`, `every-nth` and `gilbert-elliott` is given"
                }
                _ => "more than one of `percent`, `every-nth` and `gilbert-elliott` is given",
            };
            problems.push(Problem::new("$", what).hint("give one of them"));
        }
        if let Some(percent) = self.percent {
            problems.extend(wrong_percent(percent, "no packet would be dropped"));
        }
        if let Some(bursts) = self.gilbert_elliott {
            for (key, chance) in [("p", bursts.p), ("r", bursts.r)] {
                if chance < MIN_PERCENT {
                    problems.push(
                        Problem::new(
                            format!("$.gilbert-elliott.{key}"),
                            "the path would never change its state",
                        )
                        .hint(format!("give at least {MIN_PERCENT}")),
                    );
                }
            }
            if bursts.loss_when_bad <= bursts.loss_when_good {
                problems.push(
                    Problem::new(
                        "$.gilbert-elliott.loss-when-bad",
                        "the bad state would lose no more packets than the good one",
                    )
                    .hint(
                        "give more than `loss-when-good`, or `percent` for losses without bursts",
                    ),
                );
            }
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let harm = match (self.gilbert_elliott, self.percent, self.every_nth) {
            (Some(bursts), _, _) => PacketEffect::from(LoseInBursts {
                bursts,
                seed: context.seed,
            }),
            (_, Some(percent), _) => PacketEffect::from(Lose {
                share: Share::percent(percent),
            }),
            (_, None, nth) => PacketEffect::from(Lose {
                share: Share::EveryNth(nth.unwrap_or(1)),
            }),
        };
        plan_for_flows(&self.flows, harm, context)
    }
}

/// The problem of a percentage that is too small to have an effect.
pub(super) fn wrong_percent(percent: f64, what: &str) -> Option<Problem> {
    (percent < MIN_PERCENT)
        .then(|| Problem::new("$.percent", what).hint(format!("give at least {MIN_PERCENT}")))
}
