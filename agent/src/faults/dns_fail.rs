//! `dns-fail`: some names are not found, as when a name server is broken, forgetful, forbidding or dead.

use super::{FaultKind, Plan, PlanContext};
use crate::dns::{Alteration, AnswerFailure};
use crate::network::DnsSelector;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Turns the answers of name servers for some names into failures as they arrive over UDP, or loses them, over UDP and TCP. The failures
/// have nothing in them that says how long they may be kept.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsFail {
    #[serde(flatten)]
    answers: DnsSelector,
    /// How they fail. `servfail` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<AnswerFailure>,
}

impl FaultKind for DnsFail {
    const NAME: &'static str = "dns-fail";
    const SUMMARY: &'static str = "Name servers fail to answer for chosen names";

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
