//! What a fault is planned from, besides its arguments.

use super::{HostFaultRules, HostView, ProtectedPaths, RequestLimits, resources_overlap};
use crate::packet_filter::ControlConnection;
use crate::processes::{ProcessId, Protection};
use backburn_experiments::HumanDuration;

/// The host, for reading, and what is known of the injection that is planned.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// The host, for reading.
    pub host: &'a dyn HostView,
    /// Which processes are never victims.
    pub protection: &'a Protection,
    /// Ports whose packets no fault touches, at either end.
    pub protected_ports: &'a [u16],
    /// Paths that no fault alters.
    pub protected_paths: &'a ProtectedPaths,
    /// What the owner of the host says of faults that hit it as a whole.
    pub host_rules: &'a HostFaultRules,
    /// Where requests may be sent, and how many.
    pub request_limits: &'a RequestLimits,
    /// The TCP connection to the controller, if there is one: no fault touches it.
    pub control_connection: Option<ControlConnection>,
    /// The injection's id: whatever is made for the injection has a name that begins with it.
    pub injection: &'a str,
    /// The number of the first thing that this plan makes; more than 0 where the plan becomes a part of another.
    pub first_mark: usize,
    /// What other injections hold, as their changes name it, each with the injection's id.
    pub held: &'a [(String, String)],
    /// How long the fault lasts; none for a one-shot fault.
    pub duration: Option<HumanDuration>,
    /// Seed for random selection.
    pub seed: u64,
}

impl PlanContext<'_> {
    /// The name of the n-th thing that is made for the injection, counting from 0.
    pub fn mark(&self, number: usize) -> String {
        format!("{}-{}", self.injection, self.first_mark + number)
    }

    /// Whether another injection holds this process.
    pub fn is_held(&self, process: ProcessId) -> bool {
        let name = format!("process:{process}");
        self.held.iter().any(|(thing, _)| *thing == name)
    }

    /// Whether another injection holds this, or a part of it. Such a plan is refused once it is made, and the refusal says who that is.
    pub fn is_resource_held(&self, resource: &str) -> bool {
        let mut held = self.held.iter();
        held.any(|(held, _)| resources_overlap(held, resource))
    }

    /// The time after which a helper ends by itself: a little after the agent should have ended it. `takes` counts where the fault has no
    /// duration.
    pub fn deadline(&self, takes: HumanDuration) -> HumanDuration {
        const GRACE: HumanDuration = HumanDuration::seconds(2);
        let takes = self.duration.unwrap_or(takes).0;
        // A longer one could not be read back from the ledger.
        HumanDuration(takes.saturating_add(GRACE.0).min(HumanDuration::MAX.0))
    }
}
