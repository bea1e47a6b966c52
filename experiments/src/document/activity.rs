//! Probes and actions, and who does their work.

use super::{Configured, Dry, Target, Tolerance};
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Whether an activity measures or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It measures.
    Probe,
    /// It does something.
    Action,
}

/// A probe or an action.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Activity {
    /// `probe` measures, `action` does.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its name, in the journal and for `ref`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Who does the work.
    pub provider: Provider,
    /// What the value is judged by. A hypothesis probe must have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// Whether the method goes on without waiting for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub background: bool,
    /// Waits around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pauses: Option<Pauses>,
    /// The longest it may take; the provider's own `timeout` goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Values of its own that go before the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<BTreeMap<String, Configured>>,
    /// The scopes of `secrets` that it may see, or literal secrets for a `python` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Value>,
    /// The target whose agents measure it, from where the harm is. Every one of them must be in tolerance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many of the agents in `from` must be in tolerance, instead of every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub quorum: Option<u32>,
    /// The Chaos Toolkit's controls; refused as those of the experiment are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// The dry mode of this activity alone; goes before the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// Waits before and after an activity.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pauses {
    /// Before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<HumanDuration>,
    /// After it; of an activity in the background, there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HumanDuration>,
}

/// Who does the work of an activity.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Provider {
    /// An HTTP request: `{status, headers, body}`.
    Http(HttpProvider),
    /// A program: `{status, stdout, stderr}`.
    Process(ProcessProvider),
    /// A Python function, as the Chaos Toolkit's extensions are, run by your own `python3`.
    Python(PythonProvider),
    /// Whether a TCP connection can be made: `{connected, took}`.
    Tcp(TcpProvider),
    /// A DNS question: the answers.
    Dns(DnsProvider),
    /// A Prometheus query: a number.
    Prometheus(PrometheusProvider),
    /// A figure of the agent's host: a number.
    Host(HostProvider),
    /// A fault, injected by agents.
    Fault(FaultProvider),
}

/// An HTTP request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpProvider {
    /// Where to, `http://` or `https://`.
    #[schemars(length(min = 1))]
    pub url: String,
    /// `GET` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Value>>,
    /// The query of a GET; the body of anything else: fields of a form for an object, JSON where the `Content-Type` says so, text as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The longest it may take: one figure, or two for connecting and for the answer. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
    /// Whether the server's certificate is checked. True where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_tls: Option<bool>,
    /// How often a connection that failed is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// How long an HTTP request may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HttpTimeout {
    /// For all of it.
    Whole(HumanDuration),
    /// For connecting, then for the answer.
    ConnectThenRead(HumanDuration, HumanDuration),
}

/// A program that is run. Never through a shell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProcessProvider {
    /// The program: a path, or a name found along `PATH`.
    #[schemars(length(min = 1))]
    pub path: String,
    /// A list is argv; an object is its keys and values in turn; a string is split into words, never given to a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The longest it may take; then it is killed with its children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Environment variables besides those there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, Value>>,
}

/// A function of a Python module.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PythonProvider {
    /// The module, as in `import`.
    #[schemars(length(min = 1))]
    pub module: String,
    /// The function in it.
    #[schemars(length(min = 1))]
    pub func: String,
    /// Keyword arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// Scopes of `secrets` that the function gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
}

/// A TCP connection.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TcpProvider {
    /// The host's name or address.
    pub host: String,
    /// The port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// A DNS question.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DnsProvider {
    /// Who is asked, `host` or `host:port`. The system's resolver where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The name asked for.
    pub name: String,
    /// The record's type, `A` where left out.
    #[serde(rename = "record", default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// A Prometheus query with one number as its answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PrometheusProvider {
    /// The server, e.g. `http://127.0.0.1:9090`.
    pub url: String,
    /// The query, in PromQL.
    pub query: String,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// A figure of the agent's host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostProvider {
    /// Which figure.
    pub metric: HostMetric,
    /// The file system's path, for `disk-free-percent`. `/` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The figures that an agent knows of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostMetric {
    /// Busy share of all processors since the last look, in percent (from `/proc/stat`).
    CpuBusyPercent,
    /// The load average over one minute.
    Load1,
    /// `MemAvailable` of `MemTotal`, in percent.
    MemoryAvailablePercent,
    /// Blocks free to everyone of all blocks of the file system at `path`, in percent.
    DiskFreePercent,
    /// Share of the last 10 s in which some task waited for a processor, in percent (pressure stall information).
    CpuPressurePercent,
    /// The same for memory.
    MemoryPressurePercent,
    /// The same for storage.
    IoPressurePercent,
    /// How many processes there are.
    Processes,
}

impl HostMetric {
    /// Whether it is read from a path that the document names, which may hang; every other one is the kernel's own.
    pub fn is_read_from_a_path(self) -> bool {
        matches!(self, HostMetric::DiskFreePercent)
    }
}

/// A fault: one kind of harm, on the agents of a target, for a limited time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FaultProvider {
    /// The fault's name, e.g. `process-pause`; `backburn faults` lists them.
    pub fault: String,
    /// A name from `targets`, or labels in place. Left out, a local run hits this host; a fleet refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetOf>,
    /// How long it lasts. Mandatory unless the fault is one-shot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Repeats a one-shot fault this often for its duration; each time the host is looked at afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// The fault's own arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

/// A target by its name, or in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetOf {
    /// The name of one in `targets`.
    Name(String),
    /// The target itself.
    Target(Target),
}

fn is_false(value: &bool) -> bool {
    !value
}
