//! `dns-fail`: name servers fail to answer for selected names, as when they are broken, misconfigured, closed to the client or down.

use super::{FaultKind, Plan, PlanContext};
use crate::dns::{Alteration, AnswerFailure};
use crate::network::DnsSelector;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Turns the answers of name servers for selected names into failures as they arrive over UDP, or drops them, over UDP and TCP. The failures
/// do not say how long they may be cached.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsFail {
    #[serde(flatten)]
    answers: DnsSelector,
    /// How the answers fail. Default: `servfail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<AnswerFailure>,
}

impl FaultKind for DnsFail {
    const NAME: &'static str = "dns-fail";
    const SUMMARY: &'static str = "Make name servers fail to answer for selected names";

    fn example() -> Value {
        json!({"names": ["db.example.org", "*.cache.example.org"], "with": "servfail"})
    }

    fn problems(&self) -> Vec<Problem> {
        self.answers.problems()
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let with = self.with.unwrap_or_default();
        self.answers.plan(Alteration::Fail { with }, context)
    }
}
