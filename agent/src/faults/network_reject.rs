//! `network-reject`: packets are not let through and their sender is told, as by a service that
//! is down or a firewall that rejects. Whoever is this side hears of what leaves, whoever is the
//! other side of what arrives.

use super::flows::Flows;
use super::{FaultKind, Look, Plan, filtering};
use crate::filter::{Harm, With};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Rejects packets of flows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkReject {
    #[serde(flatten)]
    flows: Flows,
    /// What the sender hears. A TCP reset where left out; for what is not TCP, that the port is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<With>,
}

impl FaultKind for NetworkReject {
    const NAME: &'static str = "network-reject";
    const SUMMARY: &'static str = "Packets of chosen flows are rejected, by TCP reset or ICMP";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "with": "reset"})
    }

    fn problems(&self) -> Vec<Problem> {
        self.flows.problems()
    }

    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal> {
        let with = self.with.unwrap_or_default();
        filtering(&self.flows, Harm::Reject { with }, look)
    }
}
