//! `network-reject`: packets are not let through and their sender is told, as by a service that
//! is down or a firewall that rejects. Whoever is this side hears of what leaves, whoever is the
//! other side of what arrives.

use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::plan_for_flows;
use crate::packet_filter::{PacketEffect, Reject, RejectWith};
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
    flows: FlowSelector,
    /// What the sender hears. A TCP reset where left out; for what is not TCP, that the port is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<RejectWith>,
    /// What becomes of TCP connections that are live already. Their packets are rejected where left out, so that one that says nothing
    /// lives on. With `kill` they are closed at once, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    established: Option<Established>,
}

/// What becomes of live connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Established {
    /// Their packets are rejected.
    Keep,
    /// They are closed; whoever holds one is told that it was aborted. That is not undone.
    Kill,
}

impl FaultKind for NetworkReject {
    const NAME: &'static str = "network-reject";
    const SUMMARY: &'static str = "Packets of chosen flows are rejected, by TCP reset or ICMP";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432", "with": "reset"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.flows.problems();
        if self.established == Some(Established::Kill) {
            problems.extend(self.flows.connection_problem("$.established"));
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let harm = PacketEffect::from(Reject {
            with: self.with.unwrap_or_default(),
            close_established: self.established == Some(Established::Kill),
        });
        plan_for_flows(&self.flows, harm, context)
    }
}
