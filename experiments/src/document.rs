//! The experiment document, as data. Every field's comment here is its description in the JSON
//! Schema and in the reference, so it is written for the person who writes an experiment.
//!
//! The shape is the Chaos Toolkit's experiment format plus what that lacks: targets, blast
//! radius, abort rules, recovery, schedule, and faults that agents inject. Reading a document
//! (substitution, all problems at once) is `check`'s room; this one only says what there is.

use crate::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// An experiment: what should hold, what is done to it, to whom, and how far it may go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Document {
    /// The version of the format, `1.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the experiment claims, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// What it teaches, and why it should hold.
    #[schemars(length(min = 1))]
    pub description: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Named values that `${name}` puts in place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, Configured>,
    /// Named values that never reach a journal, a log, a report or the API, in scopes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, BTreeMap<String, Configured>>,
    /// What must hold before, during and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_state_hypothesis: Option<Hypothesis>,
    /// Named sets of agents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Target>,
    /// The most that a run may touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<BlastRadius>,
    /// What ends a run at once. Left out: the hypothesis, each second, three failures in a row. `[]` opts out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Vec<AbortRule>>,
    /// What is done, step by step. May be empty.
    pub method: Vec<Step>,
    /// The author's own extra steps after everything is reverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Step>,
    /// How soon the hypothesis must hold again after the last revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// When it runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Strategies for the hypothesis and the rollbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What the experiment contributes to, for reports; not looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contributions: Option<Value>,
    /// Other tools' data; not looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// The Chaos Toolkit's controls; kept, not played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Value>,
    /// The Chaos Toolkit's dry mode: what is only said, not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Dry>,
}

/// What a dry run leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dry {
    /// Probes are not measured.
    Probes,
    /// Actions are not done.
    Actions,
    /// Neither.
    Activities,
    /// Pauses are not waited for.
    Pause,
}

/// A configured value: a literal, or where to find it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Configured {
    /// Where to find it: an environment variable or a file.
    From(Source),
    /// The value itself.
    Literal(Value),
}

/// Where a configured value comes from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// An environment variable of the process that runs the experiment.
    Env(FromEnvironment),
    /// A file's content, without the line end at its end.
    File(FromFile),
}

/// A value from the environment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FromEnvironment {
    /// The variable's name.
    pub key: String,
    /// The value where the variable is not set. Left out, a missing variable is an error.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What the text becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var_type: Option<VariableType>,
}

/// What an environment variable's text becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum VariableType {
    Str,
    String,
    Bytes,
    Int,
    Integer,
    Float,
    Number,
    Bool,
    Json,
}

/// A value from a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FromFile {
    /// The file's path.
    pub path: String,
}

/// What must hold: named probes with tolerances.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hypothesis {
    /// What holds, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// How it is measured; each has a tolerance.
    #[serde(default)]
    pub probes: Vec<Step>,
}

/// An activity, or the name of one that stands elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Step {
    /// The activity of this name.
    Ref(Reference),
    /// The activity itself.
    Activity(Box<Activity>),
}

/// The name of an activity that stands elsewhere in the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Reference {
    /// The name.
    #[schemars(length(min = 1))]
    #[serde(rename = "ref")]
    pub name: String,
}

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
    pub timeout: Option<Span>,
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
    /// The Chaos Toolkit's controls; kept, not played.
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
    pub before: Option<Span>,
    /// After it; in the background, after it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
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
    /// The query of a GET; the body of anything else (JSON for an object, unless the content type says form; text as it is).
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
    Whole(Span),
    /// For connecting, then for the answer.
    ConnectThenRead(Span, Span),
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
    pub timeout: Option<Span>,
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
    pub port: u16,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
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
    pub timeout: Option<Span>,
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
    pub timeout: Option<Span>,
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
    pub duration: Option<Span>,
    /// Repeats a one-shot fault this often for its duration; each time the host is looked at afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
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

/// A named set of agents, chosen by labels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Target {
    /// All must match; a list means any of its values.
    pub labels: BTreeMap<String, LabelMatch>,
    /// How many of those that match. One where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// A label over which the pick is spread evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelMatch {
    /// This.
    Is(String),
    /// Any of these.
    AnyOf(Vec<String>),
}

/// How many of a set are picked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Every one.
    All,
    /// This many; fewer than that is an error.
    Count(#[schemars(range(min = 1))] u32),
    /// This share in percent, rounded down; none left is an error.
    Percent(#[schemars(range(min = 0, max = 100))] f64),
    /// A share drawn evenly between nothing and this many percent, rounded down, but one at the least.
    RandomMaxPercent(#[schemars(range(min = 0, max = 100))] f64),
}

/// The most that a run may touch. Passing one is a refusal before anything is injected.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct BlastRadius {
    /// The most agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCeiling>,
    /// The most victims on one agent, for one fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victims_per_agent: Option<u32>,
    /// The most faults at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_faults: Option<u32>,
    /// The longest from the first injection to the last revert; then the run is aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
}

/// The most agents that a run may touch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AgentCeiling {
    /// In number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// In percent of the target's matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
}

/// A condition that ends a run at once. Exactly one of `probe` and `host`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AbortRule {
    /// What it means when it strikes, in a few words.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A hypothesis probe by its name, or a probe with a tolerance in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeOf>,
    /// A figure that the agent itself watches, so that it works when the controller cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRule>,
    /// How often it is looked at. Each second where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// How many failures in a row end the run. One where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
}

/// A hypothesis probe by its name, or a probe in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ProbeOf {
    /// The name of a hypothesis probe.
    Name(String),
    /// The probe itself, with a tolerance.
    Probe(Box<Activity>),
}

/// A figure of the host and the side of a limit on which it is a failure. Exactly one of `below` and `above`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostRule {
    /// Which figure.
    pub metric: HostMetric,
    /// The file system's path, for `disk-free-percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A failure below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// A failure above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
}

/// How soon the hypothesis must hold again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Recovery {
    /// From the last revert. The time it took is recorded.
    pub within: Span,
}

/// When an experiment runs by itself. Exactly one of `cron`, `at` and `random`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The zone of every time here, e.g. `Europe/Amsterdam`. `UTC` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Once, at this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// At random, the Chaos Monkey's way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomSchedule>,
    /// Only in these days and hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Never on these dates: `2026-12-24` or `2026-12-24/2027-01-01`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
    /// Up to this much later, at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// What to do when the last run still goes on. `skip` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// What to do about times missed while no controller ran. `skip` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// A probe that must pass before a run; what cannot be measured does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Activity>>,
}

/// Runs at random.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct RandomSchedule {
    /// The mean time from one run to the next.
    pub mean_time_between: Span,
    /// Only in these days and hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// Days and hours.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Window {
    /// Days, e.g. `["MON", "TUE"]` or `["MON-FRI"]`. Every day where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Hours, e.g. `"09:00-17:00"`. All day where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
}

/// What to do when the last run still goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Leave this time out.
    Skip,
    /// Wait for it.
    Queue,
}

/// What to do about times missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// Leave them out.
    Skip,
    /// Run once for all of them.
    Once,
}

/// Strategies; flags of the command line go before them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Runtime {
    /// When the hypothesis is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<HypothesisRuntime>,
    /// When the rollbacks are played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollbacks: Option<RollbacksRuntime>,
}

/// When the hypothesis is looked at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HypothesisRuntime {
    /// The strategy.
    pub strategy: HypothesisStrategy,
}

/// When the rollbacks are played.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RollbacksRuntime {
    /// The strategy.
    pub strategy: RollbackStrategy,
}

/// When the hypothesis is looked at. Left out: before and after and, where the method has a fault, during.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HypothesisStrategy {
    /// Before and after the method.
    Default,
    /// Only before it.
    BeforeMethodOnly,
    /// Only after it.
    AfterMethodOnly,
    /// Only while it goes on.
    DuringMethodOnly,
    /// Before, during and after.
    Continuously,
}

/// When the rollbacks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackStrategy {
    /// After a method that ran, unless the run was aborted or interrupted.
    Default,
    /// After a method that ran, whatever happened.
    Always,
    /// Never.
    Never,
    /// Only when the hypothesis failed.
    Deviated,
}

/// What a probe's value is judged by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tolerance {
    /// The value is this.
    Boolean(bool),
    /// The value is this; where it has a `status`, that is.
    Integer(i64),
    /// The value is this text.
    Text(String),
    /// The value's `status` is one of these; else it lies between two numbers; else it is one of these.
    AnyOf(Vec<Value>),
    /// A rule.
    Rule(Box<ToleranceRule>),
}

/// A rule that a value is judged by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToleranceRule {
    /// Text matches a regular expression somewhere.
    Regex(RegexTolerance),
    /// A JSONPath finds something.
    Jsonpath(JsonpathTolerance),
    /// A number lies between two, both included.
    Range(RangeTolerance),
    /// A number or text compares.
    Compare(CompareTolerance),
    /// Another probe judges: its provider is given the value as `value`.
    Probe(Box<ProbeTolerance>),
}

/// Text matches a regular expression.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RegexTolerance {
    /// The expression (Rust's `regex` syntax).
    pub pattern: String,
    /// The part of the value that is looked at: `status`, `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A JSONPath finds something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JsonpathTolerance {
    /// The path (RFC 9535, and what of the Chaos Toolkit's dialect differs).
    pub path: String,
    /// The part of the value that is looked at: `body`, `stdout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What must be found: exactly this, or exactly these in this order.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expect: Option<Value>,
    /// How many must be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A number lies between two, both included.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RangeTolerance {
    /// The lowest and the highest.
    pub range: (f64, f64),
    /// The part of the value that is looked at: `status`, `body`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A value compares.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CompareTolerance {
    /// A JSONPath to what is compared. The whole value where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How.
    pub op: CompareOp,
    /// With what.
    pub value: Value,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum CompareOp {
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = ">=")]
    GreaterOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = "contains")]
    Contains,
}

/// Another probe judges.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProbeTolerance {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Who does the work; its arguments get the value as `value`.
    pub provider: Provider,
    /// What its own answer is judged by. Left out, the answer itself must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
}

/// Keeps `null` apart from nothing at all, which `Option` alone does not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn is_false(value: &bool) -> bool {
    !value
}
