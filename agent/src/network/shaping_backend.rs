//! What shapes packets: netem, on a device that Backburn adds, where the kernel has it; else something
//! that affects packets of one direction only.

use super::flow_selector::FlowSelector;
use super::plan_for_flows;
use crate::packet_filter::{Direction, PacketEffect, Shape, Shaping};
use crate::plan::{Plan, PlanContext};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What shapes packets: the kernel's netem, or what works without it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShapingBackend {
    /// netem where the kernel has it, else what works without it.
    #[default]
    Auto,
    /// The kernel's netem, on a device that Backburn adds.
    Netem,
    /// Without netem: a helper process that reads a packet queue; for duplicates, the kernel's packet rules.
    Nfqueue,
}

/// The ways to cause an effect: by netem, and by something else for one direction.
pub(crate) struct ShapingMethods {
    /// The effect by netem.
    pub shape: Shaping,
    /// The effect without netem.
    pub other: PacketEffect,
    /// The only direction without netem, which is also the default.
    pub only: Direction,
    /// What people should know of the way without netem.
    pub note: &'static str,
}

impl ShapingBackend {
    /// The contradictions in the arguments, whatever the kernel supports.
    pub(crate) fn problems(
        backend: Option<Self>,
        flows: &FlowSelector,
        only: Direction,
    ) -> Vec<Problem> {
        let other = flows.direction().is_some_and(|direction| direction != only);
        match backend {
            Some(ShapingBackend::Nfqueue) if other => vec![one_way(only)],
            _ => Vec::new(),
        }
    }

    /// Plans the effect by what this host supports.
    ///
    /// # Errors
    /// The host does not support what is asked for, or the flows are refused.
    pub(crate) fn plan(
        backend: Option<Self>,
        flows: &FlowSelector,
        ways: ShapingMethods,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let direction = flows.direction().unwrap_or(ways.only);
        let left_out = flows.direction().is_none().then(|| {
            format!(
                "only {} packets are affected, since `direction` is left out",
                which(ways.only).0
            )
        });
        let flows = flows.with_direction(direction);
        let missing = match backend.unwrap_or_default() {
            ShapingBackend::Nfqueue => None,
            ShapingBackend::Auto | ShapingBackend::Netem => {
                match context.host.check_shaping(&ways.shape) {
                    Ok(()) => {
                        let mut plan = plan_for_flows(
                            &flows,
                            PacketEffect::from(Shape { shape: ways.shape }),
                            context,
                        )?;
                        plan.notes.extend(left_out);
                        plan.notes.push(
                        "backend netem: packets pass through a device that Backburn adds; the interfaces keep their queueing disciplines".into(),
                    );
                        return Ok(plan);
                    }
                    Err(error) => Some(error),
                }
            }
        };
        let hint = "`backburn-agent doctor` shows what this kernel supports; netem needs the modules `sch_netem` and `ifb`";
        match (backend, missing) {
            (Some(ShapingBackend::Netem), Some(error)) => Err(Refusal {
                problems: vec![
                    Problem::new("$.backend", format!("netem is not available: {error}"))
                        .hint(hint),
                ],
                ..Refusal::new("no-backend", "netem is not available on this kernel")
            }),
            (_, Some(error)) if direction != ways.only => Err(Refusal {
                problems: vec![one_way(ways.only)],
                ..Refusal::new(
                    "no-backend",
                    format!("netem is not available on this kernel: {error}"),
                )
                .hint(hint)
            }),
            (_, missing) => {
                let mut plan = plan_for_flows(&flows, ways.other, context)?;
                plan.notes.extend(left_out);
                plan.notes.push(ways.note.into());
                plan.warnings.extend(missing.map(|error| {
                    format!(
                        "netem is not available on this kernel ({error}): only {} packets are affected, without netem; the effect may differ from that of another kernel",
                        which(ways.only).0
                    )
                }));
                flows.refuse_warnings_if_strict(plan)
            }
        }
    }
}

/// What the packets of a direction are called, and its name as an argument.
fn which(only: Direction) -> (&'static str, &'static str) {
    match only {
        Direction::Egress => ("leaving", "egress"),
        Direction::Ingress | Direction::Both => ("arriving", "ingress"),
    }
}

fn one_way(only: Direction) -> Problem {
    let (which, word) = which(only);
    Problem::new(
        "$.direction",
        format!("without netem, only {which} packets can be affected"),
    )
    .hint(format!(
        "leave it out, or give `{word}`; for the other direction, inject the fault at the other side"
    ))
}
