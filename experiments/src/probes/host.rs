//! A metric of a host, which agents read.

use super::{ProbeProvider, Transport};
use crate::problem::at_key;
use crate::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric of the agent's host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostProvider {
    /// The metric.
    pub metric: HostMetric,
    /// The file system's path, for `disk-free-percent`. `/` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The metrics that an agent knows of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostMetric {
    /// Busy share of all processors since the metric was last read, in percent (from `/proc/stat`).
    CpuBusyPercent,
    /// The load average over one minute.
    Load1,
    /// `MemAvailable` of `MemTotal`, in percent.
    MemoryAvailablePercent,
    /// Blocks free to everyone of all blocks of the file system at `path`, in percent.
    DiskFreePercent,
    /// Share of the last 10 s in which some task waited for a processor, in percent (pressure stall information).
    CpuPressurePercent,
    /// Share of the last 10 s in which some task waited for memory, in percent (pressure stall information).
    MemoryPressurePercent,
    /// Share of the last 10 s in which some task waited for storage, in percent (pressure stall information).
    IoPressurePercent,
    /// The number of processes.
    Processes,
}

impl HostMetric {
    /// Whether it is read from a path that the document names, which may hang; every other one is the kernel's own.
    pub fn is_read_from_a_path(self) -> bool {
        matches!(self, HostMetric::DiskFreePercent)
    }
}

impl ProbeProvider for HostProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Host(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        timeout
    }

    fn refused_by_agents(&self) -> Option<&'static str> {
        Some("a metric of the host is not a probe: agents have a request of its own for it")
    }

    fn problems(&self, at: &str) -> Vec<Problem> {
        let is_odd = self.path.is_some() && !self.metric.is_read_from_a_path();
        let odd =
            is_odd.then(|| Problem::new(at_key(at, "path"), "only `disk-free-percent` has a path"));
        odd.into_iter().collect()
    }
}
