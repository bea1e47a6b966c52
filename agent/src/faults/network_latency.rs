//! `network-latency`: packets take longer, as from another continent or through a crowded router.

use super::flows::Flows;
use super::{FaultKind, Look, Plan, filtering};
use crate::filter::Harm;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Delays packets of flows. They are held as they arrive, so that the time from a request to its answer grows by the delay.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkLatency {
    #[serde(flatten)]
    flows: Flows,
    /// How long each packet is held.
    delay: Span,
}

/// What is longer is a partition.
const LONGEST: Span = Span::seconds(60);

impl FaultKind for NetworkLatency {
    const NAME: &'static str = "network-latency";
    const SUMMARY: &'static str = "Packets of chosen flows arrive later";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "delay": "100ms"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        if self.delay.0.is_zero() || self.delay > LONGEST {
            problems.push(
                Problem::new("$.delay", format!("{} is no delay for packets", self.delay))
                    .hint(format!("more than nothing, and {LONGEST} at the most")),
            );
        }
        if self.flows.only_leave() {
            problems.push(
                Problem::new("$.direction", "only arriving packets are held")
                    .hint("leave it out, or `ingress`"),
            );
        }
        problems
    }

    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal> {
        let mut plan = filtering(&self.flows, Harm::Delay { by: self.delay }, look)?;
        plan.notes.push(
            "backend nfqueue: a process of ours holds the packets as they arrive; those it holds when it ends are lost, and later ones flow".into(),
        );
        Ok(plan)
    }
}
