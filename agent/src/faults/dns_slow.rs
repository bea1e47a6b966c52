//! `dns-slow`: answers for some names come late, as from a name server that is far away or crowded.

use super::{FaultKind, Plan, PlanContext};
use crate::dns::Alteration;
use crate::network::DnsSelector;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Holds the answers of name servers for some names as they arrive, over UDP and TCP. What is longer than an asker's patience, mostly
/// 5 s, is no answer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsSlow {
    #[serde(flatten)]
    answers: DnsSelector,
    /// How long each answer is held.
    delay: HumanDuration,
}

/// Nobody waits longer.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(60);

impl FaultKind for DnsSlow {
    const NAME: &'static str = "dns-slow";
    const SUMMARY: &'static str = "Answers of name servers for chosen names come late";

    fn example() -> Value {
        json!({"names": "db.example.org", "delay": "2s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.answers.problems();
        if self.delay.0.is_zero() || self.delay > MAX_DELAY {
            problems.push(
                Problem::new("$.delay", format!("{} is no delay for answers", self.delay))
                    .hint(format!("more than nothing, and {MAX_DELAY} at the most")),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        self.answers
            .plan(Alteration::Hold { by: self.delay }, context)
    }
}
