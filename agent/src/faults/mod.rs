//! The faults: one file each, and one list of all. A fault is a pure function from its arguments
//! and a read-only view of the host to a plan; it cannot change the host, so it cannot leave
//! anything behind. Command line, schemas, reference and the conformance suite are derived from
//! [`FAULTS`].

mod clock_skew;
mod cpu_stress;
mod disk_fill;
mod dns_fail;
mod dns_slow;
mod dns_spoof;
mod fd_exhaust;
mod file_corrupt;
mod file_error;
mod file_latency;
mod file_operations;
mod filesystem_freeze;
mod fsync_loss;
mod grpc_fail;
mod host_clock_plan;
mod host_power_plan;
mod host_reboot;
mod host_shutdown;
mod http_fail;
mod http_load;
mod io_stress;
mod memory_fill;
mod mount_point;
mod mount_read_only;
mod network_bandwidth;
mod network_corrupt;
mod network_duplicate;
mod network_latency;
mod network_loss;
mod network_partition;
mod network_reject;
mod network_reorder;
mod postgres_fail;
mod process_exhaust;
mod process_kill;
mod process_pause;
mod proxy_endpoints;
mod redis_fail;
mod request_plan;
mod service_stop;
mod syscall_calls;
mod syscall_error;
mod syscall_latency;
mod tcp_proxy;
mod unit_set;
mod whole_host;

pub use crate::plan::{Expectation, Plan, PlanContext};

use crate::processes::{Process, ProcessSelector};
use backburn_experiments::wire::{FaultDescription, Refusal, Victim};
use backburn_experiments::{Problem, schema};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// All faults, sorted by name. A new fault is its file and its line here.
pub const FAULTS: &[Fault] = &[
    Fault::of::<clock_skew::ClockSkew>(),
    Fault::of::<cpu_stress::CpuStress>(),
    Fault::of::<disk_fill::DiskFill>(),
    Fault::of::<dns_fail::DnsFail>(),
    Fault::of::<dns_slow::DnsSlow>(),
    Fault::of::<dns_spoof::DnsSpoof>(),
    Fault::of::<fd_exhaust::FdExhaust>(),
    Fault::of::<file_corrupt::FileCorrupt>(),
    Fault::of::<file_error::FileError>(),
    Fault::of::<file_latency::FileLatency>(),
    Fault::of::<filesystem_freeze::FilesystemFreeze>(),
    Fault::of::<fsync_loss::FsyncLoss>(),
    Fault::of::<grpc_fail::GrpcFail>(),
    Fault::of::<host_reboot::HostReboot>(),
    Fault::of::<host_shutdown::HostShutdown>(),
    Fault::of::<http_fail::HttpFail>(),
    Fault::of::<http_load::HttpLoad>(),
    Fault::of::<io_stress::IoStress>(),
    Fault::of::<memory_fill::MemoryFill>(),
    Fault::of::<mount_read_only::MountReadOnly>(),
    Fault::of::<network_bandwidth::NetworkBandwidth>(),
    Fault::of::<network_corrupt::NetworkCorrupt>(),
    Fault::of::<network_duplicate::NetworkDuplicate>(),
    Fault::of::<network_latency::NetworkLatency>(),
    Fault::of::<network_loss::NetworkLoss>(),
    Fault::of::<network_partition::NetworkPartition>(),
    Fault::of::<network_reject::NetworkReject>(),
    Fault::of::<network_reorder::NetworkReorder>(),
    Fault::of::<postgres_fail::PostgresFail>(),
    Fault::of::<process_exhaust::ProcessExhaust>(),
    Fault::of::<process_kill::ProcessKill>(),
    Fault::of::<process_pause::ProcessPause>(),
    Fault::of::<redis_fail::RedisFail>(),
    Fault::of::<service_stop::ServiceStop>(),
    Fault::of::<syscall_error::SyscallError>(),
    Fault::of::<syscall_latency::SyscallLatency>(),
    Fault::of::<tcp_proxy::TcpProxy>(),
];

/// The faults that hit the host as a whole, `clock-skew` where its arguments say so. Each must be named in the policy's `allow-host-faults`
/// for that.
pub const HOST_FAULTS: &[&str] = &["clock-skew", "host-reboot", "host-shutdown"];

/// Finds a fault by its name.
pub fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

/// A kind of fault: implemented by the struct of its arguments.
pub trait FaultKind: DeserializeOwned + JsonSchema {
    /// The fault's name: `noun-verb` or `noun-noun`.
    const NAME: &'static str;
    /// What the fault does: one imperative line without a full stop.
    const SUMMARY: &'static str;
    /// Whether the fault is over as soon as it is applied. Any other fault has a duration.
    const ONE_SHOT: bool = false;

    /// Arguments that make sense, for the reference. A test checks them.
    fn example() -> Value;

    /// What is wrong with the arguments beyond what their schema says. Paths start at `$`.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Plans what would be done with these arguments on the host of the context.
    ///
    /// # Errors
    /// The fault cannot or may not be injected: the refusal names the rule and what would be allowed.
    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal>;
}

/// A fault as the rest of the agent sees it.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The fault's name, e.g. `cpu-stress`.
    pub name: &'static str,
    /// What the fault does, in one line.
    pub summary: &'static str,
    /// Whether the fault is over as soon as it is applied.
    pub one_shot: bool,
    /// Makes the JSON Schema of the arguments.
    pub schema: fn() -> Value,
    /// Makes arguments that make sense.
    pub example: fn() -> Value,
    problems: fn(Value) -> Vec<Problem>,
    plan: fn(Value, &PlanContext<'_>) -> Result<Plan, Refusal>,
}

impl Fault {
    const fn of<K: FaultKind>() -> Self {
        Fault {
            name: K::NAME,
            summary: K::SUMMARY,
            one_shot: K::ONE_SHOT,
            schema: schema::of::<K>,
            example: K::example,
            problems: |arguments| match read::<K>(arguments) {
                Ok(kind) => kind.problems(),
                Err(problem) => vec![problem],
            },
            plan: |arguments, context| {
                read::<K>(arguments)
                    .map_err(|problem| wrong(vec![problem]))?
                    .plan(context)
            },
        }
    }

    /// All problems of these arguments. Paths start at their own root, `$`.
    pub fn check(&self, arguments: &Map<String, Value>) -> Vec<Problem> {
        self.accept(arguments).err().unwrap_or_default()
    }

    /// The arguments as they are meant, e.g. `tcp` for `TCP`.
    fn accept(&self, arguments: &Map<String, Value>) -> Result<Value, Vec<Problem>> {
        let arguments = Value::Object(arguments.clone());
        let arguments = schema::accept(&(self.schema)(), &arguments, "$")?;
        match (self.problems)(arguments.clone()) {
            problems if problems.is_empty() => Ok(arguments),
            problems => Err(problems),
        }
    }

    /// Plans what would be done with these arguments.
    ///
    /// # Errors
    /// The arguments are wrong, or the fault cannot or may not be injected.
    pub fn plan(
        &self,
        arguments: &Map<String, Value>,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let arguments = self.accept(arguments).map_err(wrong)?;
        (self.plan)(arguments, context)
    }

    /// Describes the fault for people and controllers.
    pub fn describe(&self) -> FaultDescription {
        FaultDescription {
            name: self.name.into(),
            summary: self.summary.into(),
            one_shot: self.one_shot,
            schema: (self.schema)(),
            example: (self.example)(),
        }
    }
}

fn read<K: DeserializeOwned>(arguments: Value) -> Result<K, Problem> {
    serde_json::from_value(arguments).map_err(|error| Problem::new("$", error.to_string()))
}

fn wrong(problems: Vec<Problem>) -> Refusal {
    Refusal {
        problems,
        ..Refusal::new("arguments", "the fault's arguments are wrong")
    }
}

/// Describes a process as a victim.
fn process_victim(process: &Process) -> Victim {
    Victim {
        kind: "process".into(),
        id: process.id.to_string(),
        name: process.to_string(),
    }
}

/// The processes that a selector finds, with notes about those that are protected.
fn select(
    selector: &ProcessSelector,
    context: &PlanContext<'_>,
) -> Result<(Vec<Process>, Vec<String>), Refusal> {
    let found = selector.find(
        "$.process",
        context.host.processes(),
        context.protection,
        context.seed,
    )?;
    let notes = found.notes();
    permit(&found.victims, context.host.user_id())?;
    Ok((found.victims, notes))
}

/// Whether the kernel would let the agent signal them: it compares users, unless the agent is root.
fn permit(victims: &[Process], own_user: u32) -> Result<(), Refusal> {
    match victims
        .iter()
        .find(|process| own_user != 0 && process.uid != own_user)
    {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            "not-permitted",
            format!(
                "{other} belongs to user {}, and the agent runs as user {own_user}",
                other.uid
            ),
        )
        .hint("run as root or as that user, or select processes of your own")),
    }
}
