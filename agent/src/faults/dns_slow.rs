//! `dns-slow`: answers for selected names arrive late, as from a name server that is far away or overloaded.

use super::{FaultKind, Plan, PlanContext};
use crate::dns::Alteration;
use crate::network::DnsSelector;
use crate::units::range_hint;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Delays the answers of name servers for selected names as they arrive, over UDP and TCP. A delay beyond the client's timeout, usually
/// 5 s, is like no answer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsSlow {
    #[serde(flatten)]
    answers: DnsSelector,
    /// How long each answer is delayed.
    delay: HumanDuration,
}

/// Longest delay; no client waits longer.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(60);

impl FaultKind for DnsSlow {
    const NAME: &'static str = "dns-slow";
    const SUMMARY: &'static str = "Delay the answers of name servers for selected names";

    fn example() -> Value {
        json!({"names": "db.example.org", "delay": "2s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.answers.problems();
        if self.delay.0.is_zero() || self.delay > MAX_DELAY {
            problems.push(
                Problem::new("$.delay", format!("{} is not a valid delay", self.delay))
                    .hint(range_hint(self.delay, MAX_DELAY)),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        self.answers
            .plan(Alteration::Hold { by: self.delay }, context)
    }
}
