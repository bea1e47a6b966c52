//! The faults: one file each, one list of them all. A fault is a pure function from its
//! arguments and a look at the host to a plan; it cannot touch the host, so whoever writes one
//! cannot leave anything behind. Command line, schemas, reference and the conformance suite are
//! derived from `FAULTS`.

mod answers;
mod backend;
mod cpu_stress;
mod disk_fill;
mod dns_fail;
mod dns_slow;
mod dns_spoof;
mod flow_ends;
mod flow_notes;
mod flow_process;
mod flows;
mod look;
mod memory_fill;
mod network_bandwidth;
mod network_corrupt;
mod network_duplicate;
mod network_latency;
mod network_loss;
mod network_partition;
mod network_reject;
mod network_reorder;
mod parts;
mod process_kill;
mod process_pause;
mod rate;
mod resolution;
mod size;
mod tcp_proxy;

pub use look::{FileSystem, Look, Memory};
pub use size::Size;

use crate::changes::{ReversibleChange as _, Change, ProcessHelper};
use crate::packet_filter::{PacketFilter, PacketEffect};
use crate::helpers::HelperSpec;
use crate::processes::{Process, ProcessId, ProcessSelector};
use backburn_experiments::wire::{FaultDescription, PlanView, Refusal, Victim};
use backburn_experiments::{Problem, HumanDuration, schema};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Every fault that there is. Adding one is adding its file and its line here.
pub const FAULTS: &[Fault] = &[
    Fault::of::<cpu_stress::CpuStress>(),
    Fault::of::<disk_fill::DiskFill>(),
    Fault::of::<dns_fail::DnsFail>(),
    Fault::of::<dns_slow::DnsSlow>(),
    Fault::of::<dns_spoof::DnsSpoof>(),
    Fault::of::<memory_fill::MemoryFill>(),
    Fault::of::<network_bandwidth::NetworkBandwidth>(),
    Fault::of::<network_corrupt::NetworkCorrupt>(),
    Fault::of::<network_duplicate::NetworkDuplicate>(),
    Fault::of::<network_latency::NetworkLatency>(),
    Fault::of::<network_loss::NetworkLoss>(),
    Fault::of::<network_partition::NetworkPartition>(),
    Fault::of::<network_reject::NetworkReject>(),
    Fault::of::<network_reorder::NetworkReorder>(),
    Fault::of::<process_kill::ProcessKill>(),
    Fault::of::<process_pause::ProcessPause>(),
    Fault::of::<tcp_proxy::TcpProxy>(),
];

/// The fault of this name.
pub fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

/// What somebody writes to make a new fault. Implemented by its arguments.
pub trait FaultKind: DeserializeOwned + JsonSchema {
    /// Its name: `noun-verb` or `noun-noun`.
    const NAME: &'static str;
    /// What it does, in one line.
    const SUMMARY: &'static str;
    /// Whether it is over once done. Else it has a duration.
    const ONE_SHOT: bool = false;

    /// Arguments that make sense, for the reference; checked by a test.
    fn example() -> Value;

    /// What is wrong with them beyond what their schema says; paths start at `$`.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What would be done with these arguments on the host that is looked at.
    ///
    /// # Errors
    /// It can't or may not be done: which rule, and what would do.
    fn plan(&self, look: &Look<'_>) -> Result<Plan, Refusal>;
}

/// A fault, as the rest of the agent sees it.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Whether it is over once done.
    pub one_shot: bool,
    /// The JSON Schema of its arguments.
    pub schema: fn() -> Value,
    /// Arguments that make sense.
    pub example: fn() -> Value,
    problems: fn(Value) -> Vec<Problem>,
    plan: fn(Value, &Look<'_>) -> Result<Plan, Refusal>,
}

/// What would be done, exactly, with its undo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Who is hit.
    pub victims: Vec<Victim>,
    /// What is done, in order; undone in the opposite order.
    pub changes: Vec<Change>,
    /// What people should know.
    pub notes: Vec<String>,
    /// Where the host would do another harm than the arguments ask for.
    pub warnings: Vec<String>,
    /// What should come after a one-shot fault.
    pub expect: Option<Expectation>,
}

/// That a supervisor brings processes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// How many should come back.
    pub number: usize,
    /// Who would be seen as having come back.
    pub selector: ProcessSelector,
    /// Those that matched before: they are not newcomers.
    pub known: Vec<ProcessId>,
    /// How soon.
    pub within: HumanDuration,
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
            plan: |arguments, look| {
                read::<K>(arguments)
                    .map_err(|problem| wrong(vec![problem]))?
                    .plan(look)
            },
        }
    }

    /// All that is wrong with these arguments; paths start at their own root, `$`.
    pub fn check(&self, arguments: &Map<String, Value>) -> Vec<Problem> {
        let arguments = Value::Object(arguments.clone());
        let problems = schema::check(&(self.schema)(), &arguments, "$");
        if problems.is_empty() {
            (self.problems)(arguments)
        } else {
            problems
        }
    }

    /// What would be done.
    ///
    /// # Errors
    /// The arguments are wrong, or it can't or may not be done.
    pub fn plan(&self, arguments: &Map<String, Value>, look: &Look<'_>) -> Result<Plan, Refusal> {
        let problems = self.check(arguments);
        if problems.is_empty() {
            (self.plan)(Value::Object(arguments.clone()), look)
        } else {
            Err(wrong(problems))
        }
    }

    /// The fault, for people and controllers.
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

impl Plan {
    /// The plan, for people and controllers.
    pub fn view(&self) -> PlanView {
        PlanView {
            victims: self.victims.clone(),
            changes: self.changes.iter().map(|change| change.view()).collect(),
            notes: self.notes.clone(),
            warnings: self.warnings.clone(),
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

/// A process as a victim.
fn process_victim(process: &Process) -> Victim {
    Victim {
        kind: "process".into(),
        id: process.id.to_string(),
        name: process.to_string(),
    }
}

/// The processes that a selector means, with notes about those that were spared.
fn select(
    selector: &ProcessSelector,
    look: &Look<'_>,
) -> Result<(Vec<Process>, Vec<String>), Refusal> {
    let found = selector.find("$.process", look.table, look.protection, look.seed)?;
    let notes = found.notes();
    permit(&found.victims)?;
    Ok((found.victims, notes))
}

/// Whether the kernel would let us signal them: it compares users, unless we are root.
fn permit(victims: &[Process]) -> Result<(), Refusal> {
    let us = rustix::process::geteuid();
    match victims
        .iter()
        .find(|process| !us.is_root() && process.uid != us.as_raw())
    {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            "not-permitted",
            format!(
                "{other} is of user {}, and we are user {}",
                other.uid,
                us.as_raw()
            ),
        )
        .hint("run as root or as that user, or select processes of your own")),
    }
}

/// The plan of a fault that is done to packets by a helper's tables.
fn filtering(flows: &flows::Flows, harm: PacketEffect, look: &Look<'_>) -> Result<Plan, Refusal> {
    flows.settled(planned(flows.filter(harm, look)?, look)?)
}

/// The plan of a helper that owns a filter's tables.
fn planned(filter: PacketFilter, look: &Look<'_>) -> Result<Plan, Refusal> {
    let (notes, warnings) = flows::told(&filter)?;
    let place = filter.place();
    let id = filter.holds();
    Ok(Plan {
        victims: vec![Victim {
            kind: "flows".into(),
            id: id.strip_prefix("flows:").unwrap_or(&id).to_owned(),
            name: format!("{}{place}", filter.flows),
        }],
        changes: vec![Change::Helper(ProcessHelper {
            mark: look.mark(0),
            deadline: look.deadline(HumanDuration::default()),
            role: HelperSpec::PacketFilter(Box::new(filter)),
        })],
        notes,
        warnings,
        ..Plan::default()
    })
}

/// What is wrong with a size and a share of which one is to be given, or neither where that means something.
fn one_of(size: Option<Size>, percent: Option<f64>, or_neither: bool) -> Vec<Problem> {
    let problem = match (size, percent) {
        (Some(_), Some(_)) => {
            Problem::new("$", "both `size` and `percent` are given").hint("give one of them")
        }
        (None, None) if !or_neither => {
            Problem::new("$", "neither `size` nor `percent` is given").hint("give one of them")
        }
        (Some(Size(0)), _) => {
            Problem::new("$.size", "nothing would be taken").hint("a size above zero")
        }
        (_, Some(0.0)) => {
            Problem::new("$.percent", "nothing would be taken").hint("a share above zero")
        }
        _ => return Vec::new(),
    };
    vec![problem]
}

/// How many bytes are meant by a size or a share of a whole.
fn amount(size: Option<Size>, percent: Option<f64>, whole: u64, neither: u64) -> u64 {
    match (size, percent) {
        (Some(size), _) => size.0,
        (None, Some(percent)) => (whole as f64 * percent / 100.0) as u64,
        (None, None) => neither,
    }
}
