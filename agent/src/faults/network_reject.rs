//! `network-reject`: rejects packets and tells their sender, as a service that is down or a rejecting
//! firewall does. Programs on this host are told of leaving packets, the other side of arriving ones.

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
    /// What the sender is told. Default: a TCP reset; for protocols other than TCP, that the port is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<RejectWith>,
    /// What happens to TCP connections that exist already. Default: their packets are rejected, so that an idle connection
    /// survives. With `kill`, they are closed at once, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    established: Option<Established>,
}

/// What happens to TCP connections that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Established {
    /// Their packets are rejected like all others.
    Keep,
    /// They are closed; their programs see them as aborted. This is not reverted.
    Kill,
}

impl FaultKind for NetworkReject {
    const NAME: &'static str = "network-reject";
    const SUMMARY: &'static str = "Reject packets of selected flows, by TCP reset or ICMP";

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
