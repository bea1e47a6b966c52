//! `network-partition`: silently drops packets, as a cut cable or a dropping firewall does.

use super::{FaultKind, Plan, PlanContext};
use crate::network::FlowSelector;
use crate::network::PartitionMembers;
use crate::network::plan_for_flows;
use crate::packet_filter::{Lose, PacketEffect, Share};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Silently drops all packets of flows, or those between the parts of a set of members.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct NetworkPartition {
    #[serde(flatten)]
    flows: FlowSelector,
    /// Partitions a set of members: packets between its parts are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    between: Option<PartitionMembers>,
}

impl FaultKind for NetworkPartition {
    const NAME: &'static str = "network-partition";
    const SUMMARY: &'static str = "Silently drop packets of selected flows";

    fn example() -> Value {
        json!({"to": "192.0.2.10:5432"})
    }

    fn problems(&self) -> Vec<Problem> {
        match &self.between {
            None => self.flows.problems(),
            Some(between) => {
                let mut problems = between.problems();
                problems.extend(self.flows.problems_between(&between.members));
                problems
            }
        }
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let harm = PacketEffect::from(Lose { share: Share::All });
        let Some(between) = &self.between else {
            return plan_for_flows(&self.flows, harm, context);
        };
        let place = self.flows.position_among(&between.members, context)?;
        let (cut, lost) = between.cut(place);
        if cut.is_empty() {
            return Err(Refusal::new(
                "no-match",
                format!(
                    "{} is the bridge between the parts, and is not cut off from any member",
                    between.members[place]
                ),
            )
            .hint("leave its agent out of the targets: the others cut themselves off"));
        }
        let others: Vec<String> = cut
            .iter()
            .map(|other| between.members[*other].clone())
            .collect();
        let mut plan = plan_for_flows(&self.flows.narrowed_to(others, lost), harm, context)?;
        plan.notes.push(format!(
            "this host is {}, the {} of {} members",
            between.members[place],
            ordinal(place + 1),
            between.members.len()
        ));
        Ok(plan)
    }
}

/// A number as an English ordinal: `1st`, `2nd`, `3rd`, `11th`.
fn ordinal(number: usize) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
