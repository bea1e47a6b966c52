//! The providers of probes: their arguments in a document, what they send, how long they may take, and what an answer is worth.
//!
//! Controller and agents measure the same probes, so everything that needs no machine is here. What connects, sends and starts
//! programs is a transport: `controller/src/providers` and `agent/src/probes` have one of each kind, see [`Transport`].
//!
//! A new provider is a file here, which implements [`ProbeProvider`], and a line in the list below.

pub mod address;
mod dns;
mod host;
mod http;
mod http_body;
pub mod load;
mod process;
mod prometheus;
mod python;
mod tcp;
pub mod tls;

pub use dns::{DnsProvider, dns_answers};
pub use host::{HostMetric, HostProvider};
pub use http::{HttpError, HttpExchange, HttpProvider, HttpRequest, HttpTimeout, NextStep};
pub use load::LoadProvider;
pub(crate) use process::DEFAULT_PROGRAM_TIMEOUT;
pub use process::{ProcessProvider, exit_value, output_too_long, variable_name_problem};
pub use prometheus::PrometheusProvider;
pub use python::PythonProvider;
pub use tcp::{TcpProvider, no_address, not_resolved};

/// Every provider of probes. `$with` is a macro that is given the list: each entry is the description, which the JSON Schema and the
/// reference show, the variant, whose name in lower case is the provider's `type`, and the type of its arguments.
macro_rules! probe_providers {
    ($with:ident) => {
        $with! {
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
            /// A metric of the agent's host: a number.
            Host(HostProvider),
            /// HTTP requests at a rate: their latencies in milliseconds (`p50`, `p90`, `p95`, `p99`, `p999`, `mean`, `max`), the share that failed
            /// (`error_rate`, from 0 to 1), `errors` by kind, `statuses`, and the answers per second (`rate`).
            Load(LoadProvider),
        }
    };
}
pub(crate) use probe_providers;

use crate::{HumanDuration, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::io;

/// The most bytes of a body or of a program's output that are kept. More makes the check broken: a probe is no download, and a
/// document must not fill the runner's memory.
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// How long an answer over the network is waited for where neither the provider nor the activity has a time-out.
const DEFAULT_NETWORK_TIMEOUT: HumanDuration = HumanDuration::seconds(5);

/// What measuring a probe gives: its value, or why there is none.
pub type ProbeResult = Result<Value, ProbeError>;

/// Why a probe has no value.
#[derive(Debug)]
pub enum ProbeError {
    /// What is measured did not answer: the sample is outside of its tolerance.
    NoAnswer(String),
    /// The check itself is broken: the sample is unknown.
    Broken(String),
}

/// What measuring a probe gave, as agents send it and the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeOutcome {
    /// The value.
    Output(Value),
    /// What is measured did not answer, and how that was seen: judged outside of the tolerance.
    NoAnswer(String),
    /// The check itself is broken: judged unknown.
    Broken(String),
}

/// What measures a provider. Each kind is implemented once by the controller and once by agents.
#[derive(Debug)]
pub enum Transport<'p> {
    /// An HTTP exchange.
    Http(Cow<'p, HttpProvider>),
    /// A TCP connection.
    Tcp(&'p TcpProvider),
    /// A DNS question.
    Dns(&'p DnsProvider),
    /// A program.
    Process(&'p ProcessProvider),
    /// A Python function, on the controller only.
    Python(&'p PythonProvider),
    /// A metric that agents read of their hosts.
    Host(&'p HostProvider),
    /// HTTP requests at a rate.
    Load(&'p LoadProvider),
}

/// A provider of probes.
pub trait ProbeProvider: Send + Sync {
    /// What measures it. `timeout` is the activity's.
    fn transport(&self, timeout: Option<HumanDuration>) -> Transport<'_>;

    /// The value in what the transport came back with.
    ///
    /// # Errors
    /// There is no value in it.
    fn judge(&self, answer: ProbeResult) -> ProbeResult {
        answer
    }

    /// How long all of it may take: the provider's own time-out, else the activity's, else what is usual for its kind. None where the
    /// controller waits until it ends by itself.
    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration>;

    /// How long all of it may take on an agent, which never waits without a limit: the controller that asked may have gone.
    fn time_limit_on_agent(&self, timeout: Option<HumanDuration>) -> HumanDuration {
        self.time_limit(timeout).unwrap_or(DEFAULT_NETWORK_TIMEOUT)
    }

    /// Why agents do not measure it, where they do not.
    fn refused_by_agents(&self) -> Option<&'static str> {
        None
    }

    /// Whether it runs a program on the host that measures it.
    fn runs_program(&self) -> bool {
        false
    }

    /// What is wrong with its arguments that no schema can say, once variables are in place. `at` is the provider's JSON path.
    fn problems(&self, _at: &str) -> Vec<Problem> {
        Vec::new()
    }

    /// What is wrong with an address that the document itself writes: the key, and what it is. An address that a variable has a part in
    /// may be another at the next run, and is judged when it is used.
    fn written_address_problem(_written: &Map<String, Value>) -> Option<(&'static str, String)>
    where
        Self: Sized,
    {
        None
    }

    /// Takes the value of another probe as its argument `value`, to judge it. None where the provider cannot judge a value.
    ///
    /// # Errors
    /// Its arguments leave no room for the value.
    fn take_value(&mut self, _value: &Value) -> Option<Result<(), String>> {
        None
    }
}

/// Puts a value under the key `value` of arguments that may be any JSON.
fn put_value(arguments: &mut Option<Value>, value: &Value) -> Result<(), String> {
    match arguments {
        None | Some(Value::Null) => {
            *arguments = Some(serde_json::json!({"value": value}));
            Ok(())
        }
        Some(Value::Object(fields)) => {
            fields.insert("value".into(), value.clone());
            Ok(())
        }
        Some(_) => Err("the probe's arguments must be an object, to take the `value`".to_owned()),
    }
}

/// The address under this key, where the document writes it without a variable.
fn written_address<'w>(written: &'w Map<String, Value>, key: &str) -> Option<&'w str> {
    let text = written.get(key)?.as_str()?;
    (!text.is_empty() && !text.contains('$')).then_some(text)
}

/// The provider's own time-out, else the activity's, else the usual one of the network.
fn network_limit(own: Option<HumanDuration>, timeout: Option<HumanDuration>) -> HumanDuration {
    own.or(timeout).unwrap_or(DEFAULT_NETWORK_TIMEOUT)
}

impl ProbeError {
    /// The meaning of an error of the network: a peer that refuses, resets or cannot be reached did not answer. `doing` says in a
    /// message what failed.
    pub fn from_network(error: &io::Error, doing: &str) -> Self {
        use io::ErrorKind;
        let why = format!("{doing}: {}", io_error_text(error));
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            // A local packet filter that drops what is sent answers so.
            | ErrorKind::PermissionDenied => ProbeError::NoAnswer(why),
            _ => ProbeError::Broken(why),
        }
    }

    /// There was no answer within this time.
    pub fn timed_out(limit: HumanDuration) -> Self {
        ProbeError::NoAnswer(format!("no answer within {limit}"))
    }
}

impl From<ProbeResult> for ProbeOutcome {
    fn from(outcome: ProbeResult) -> Self {
        match outcome {
            Ok(output) => ProbeOutcome::Output(output),
            Err(ProbeError::NoAnswer(why)) => ProbeOutcome::NoAnswer(why),
            Err(ProbeError::Broken(why)) => ProbeOutcome::Broken(why),
        }
    }
}

/// An operating system's error in words, without its number.
pub fn io_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// A value as the text that it stands for: text as it is, anything else as JSON.
pub fn value_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
