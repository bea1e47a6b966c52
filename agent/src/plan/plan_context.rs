//! What a fault is planned from, besides its arguments.

use super::HostView;
use crate::packet_filter::ControlConnection;
use crate::processes::{ProcessId, Protection};
use backburn_experiments::HumanDuration;

/// The host, for reading, and what is known of the injection that is planned.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// The host, for reading.
    pub host: &'a dyn HostView,
    /// Which processes are never victims.
    pub protection: &'a Protection,
    /// Ports whose packets are never touched, at either end.
    pub protected_ports: &'a [u16],
    /// The connection over which the agent hears its controller, where that is one: never touched either.
    pub control_connection: Option<ControlConnection>,
    /// The injection's id: what is made for it bears a name that begins with it.
    pub injection: &'a str,
    /// What other injections hold, as changes name it, each with the injection's id.
    pub held: &'a [(String, String)],
    /// How long it lasts; nothing for a one-shot fault.
    pub duration: Option<HumanDuration>,
    /// What random picks come from.
    pub seed: u64,
}

impl PlanContext<'_> {
    /// The name of the n-th thing that is made for the injection.
    pub fn mark(&self, number: usize) -> String {
        format!("{}-{number}", self.injection)
    }

    /// Whether another injection holds this process.
    pub fn is_held(&self, process: ProcessId) -> bool {
        let name = format!("process:{process}");
        self.held.iter().any(|(thing, _)| *thing == name)
    }

    /// When the kernel ends a helper: a little after the agent should have.
    pub fn deadline(&self, takes: HumanDuration) -> HumanDuration {
        const GRACE: HumanDuration = HumanDuration::seconds(2);
        let takes = self.duration.unwrap_or(takes).0;
        // A longer one could not be read back from the ledger.
        HumanDuration(takes.saturating_add(GRACE.0).min(HumanDuration::LONGEST.0))
    }
}
