//! `host-reboot`: the host restarts at once, as after a panic of its kernel.

use super::host_power_plan::{notice_problem, plan_power};
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::PowerDeed;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Restarts the host: writes out its file systems, and has the kernel restart. The policy of the host must name the fault in
/// `allow-host-faults`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostReboot {
    /// Time from the injection to the restart, in which it can be called off. Default: 2 s; at most 1 minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<HumanDuration>,
    /// Time within which the agent must be back, from when the controller loses it. Default: 5 minutes; at most 1 hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<HumanDuration>,
}

/// The longest time within which the agent must be back.
const MAX_ABSENCE: HumanDuration = HumanDuration::seconds(3600);

impl FaultKind for HostReboot {
    const NAME: &'static str = "host-reboot";
    const SUMMARY: &'static str = "Restart the host at once, and wait until its agent is back";
    const ONE_SHOT: bool = true;

    fn example() -> Value {
        json!({"within": "3m"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = notice_problem(self.after).into_iter().collect();
        if let Some(within) = self.within
            && (within.0.is_zero() || within > MAX_ABSENCE)
        {
            problems.push(
                Problem::new("$.within", format!("{within} is out of range"))
                    .hint(format!("more than 0, and at most {MAX_ABSENCE}")),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        plan_power(Self::NAME, PowerDeed::Reboot, self.after, context)
    }
}
