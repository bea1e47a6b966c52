//! By what packets are shaped: by netem, on a device of ours, where the kernel has it; else by what is left without it,
//! which sees packets of one direction only.

use super::flow_selector::FlowSelector;
use super::plan_for_flows;
use crate::packet_filter::{Direction, PacketEffect, Shape, Shaping};
use crate::plan::{Plan, PlanContext};
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What shapes packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShapingBackend {
    /// netem where the kernel has it, else what works without.
    #[default]
    Auto,
    /// The kernel's netem, on a device of ours.
    Netem,
    /// Without netem: a process of ours, by a packet queue; for duplicates the kernel's packet rules.
    Nfqueue,
}

/// A fault that netem does, and something else as well for one direction.
pub(crate) struct ShapingMethods {
    /// With netem.
    pub shape: Shaping,
    /// Without it.
    pub other: PacketEffect,
    /// The direction that can be had without it; meant where none is said.
    pub only: Direction,
    /// What does it without, for people.
    pub note: &'static str,
}

impl ShapingBackend {
    /// What contradicts itself, whatever the kernel has.
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

    /// Plans it by what this host has.
    ///
    /// # Errors
    /// It has not what is wanted.
    pub(crate) fn plan(
        backend: Option<Self>,
        flows: &FlowSelector,
        ways: ShapingMethods,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let direction = flows.direction().unwrap_or(ways.only);
        let left_out = flows.direction().is_none().then(|| {
            format!(
                "only {} packets, as `direction` is left out",
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
                        "backend netem: on a device of ours that the packets are forwarded to; the interfaces keep their disciplines".into(),
                    );
                        return Ok(plan);
                    }
                    Err(error) => Some(error),
                }
            }
        };
        let hint = "`backburn-agent doctor` tells what this kernel has; the `sch_netem` and `ifb` modules are wanted";
        match (backend, missing) {
            (Some(ShapingBackend::Netem), Some(error)) => Err(Refusal {
                problems: vec![
                    Problem::new("$.backend", format!("netem can't be had: {error}")).hint(hint),
                ],
                ..Refusal::new("no-backend", "this kernel can't do it by netem")
            }),
            (_, Some(error)) if direction != ways.only => Err(Refusal {
                problems: vec![one_way(ways.only)],
                ..Refusal::new("no-backend", format!("netem can't be had here: {error}")).hint(hint)
            }),
            (_, missing) => {
                let mut plan = plan_for_flows(&flows, ways.other, context)?;
                plan.notes.extend(left_out);
                plan.notes.push(ways.note.into());
                plan.warnings.extend(missing.map(|error| {
                    format!(
                        "netem is not available on this kernel ({error}): only {} packets are had, and not by netem; another kernel may do another harm",
                        which(ways.only).0
                    )
                }));
                flows.refuse_warnings_if_strict(plan)
            }
        }
    }
}

/// Which packets, and what `direction` calls them.
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
        format!("without netem only {which} packets can be had"),
    )
    .hint(format!(
        "leave it out, or `{word}`; the other way round, inject at the other side"
    ))
}
