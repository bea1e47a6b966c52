//! `host-shutdown`: the host is switched off at once, and stays off.

use super::host_power_plan::{notice_problem, plan_power};
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::PowerDeed;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Switches the host off: writes out its file systems, and has the kernel power off. Nobody here switches it on again. The policy of
/// the host must name the fault in `allow-host-faults`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostShutdown {
    /// Time from the injection to the end, in which it can be called off. Default: 2 s; at most 1 minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<HumanDuration>,
}

impl FaultKind for HostShutdown {
    const NAME: &'static str = "host-shutdown";
    const SUMMARY: &'static str = "Switch the host off at once, for somebody to switch it on again";
    const ONE_SHOT: bool = true;

    fn example() -> Value {
        json!({"after": "5s"})
    }

    fn problems(&self) -> Vec<Problem> {
        notice_problem(self.after).into_iter().collect()
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        plan_power(Self::NAME, PowerDeed::PowerOff, self.after, context)
    }
}
