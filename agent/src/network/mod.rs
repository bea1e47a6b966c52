//! Which packets a network fault affects, and what that means on a host: flow selection, endpoints, partitions, answers of name
//! servers, and the checks before a plan. Like the faults, this reads the host through `HostView` alone.

mod dns_selector;
mod endpoint;
mod flow_location;
mod flow_owner;
mod flow_selector;
mod name_resolution;
mod partition_members;
mod partition_topology;
mod preflight;
mod shaping_backend;

pub(crate) use dns_selector::DnsSelector;
pub(crate) use endpoint::placed;
pub(crate) use flow_selector::FlowSelector;
pub(crate) use partition_topology::PartitionMembers;
pub(crate) use shaping_backend::{ShapingBackend, ShapingMethods};

use crate::changes::{Change, ProcessHelper};
use crate::helpers::HelperSpec;
use crate::packet_filter::{PacketEffect, PacketFilter};
use crate::plan::{Plan, PlanContext, kernel_refusal};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Refusal, Victim};
use preflight::Preflight;

/// Plans an effect on the packets of flows.
///
/// # Errors
/// The flows are not found, the kernel refuses, or the plan has warnings and the flows are `strict`.
pub(crate) fn plan_for_flows(
    flows: &FlowSelector,
    harm: PacketEffect,
    context: &PlanContext<'_>,
) -> Result<Plan, Refusal> {
    flows.refuse_warnings_if_strict(plan_for_filter(flows.filter(harm, context)?, context)?)
}

/// Plans the helper that owns the tables of a packet filter.
///
/// # Errors
/// The filter's namespace cannot be read.
pub(crate) fn plan_for_filter(
    filter: PacketFilter,
    context: &PlanContext<'_>,
) -> Result<Plan, Refusal> {
    let Preflight { notes, warnings } =
        Preflight::of(&filter, context.host).map_err(|error| kernel_refusal(&error))?;
    let place = filter.place();
    let id = filter.held_flows();
    Ok(Plan {
        victims: vec![Victim {
            kind: "flows".into(),
            id: id.strip_prefix("flows:").unwrap_or(&id).to_owned(),
            name: format!("{}{place}", filter.flows),
        }],
        changes: vec![Change::Helper(ProcessHelper {
            mark: context.mark(0),
            deadline: context.deadline(HumanDuration::default()),
            spec: HelperSpec::from(filter),
        })],
        notes,
        warnings,
        ..Plan::default()
    })
}
