//! What measuring comes to, whoever measures: the controller, or an agent from where it is. Only
//! what needs no machine is here; sending, connecting and starting are theirs.

pub mod address;
pub mod http;
pub mod prometheus;

use crate::HumanDuration;
use crate::document::Provider;
use crate::wire::ProbeOutcome;
use serde_json::Value;
use std::io;

/// The most that is kept of a body or a program's output, in bytes. More is a broken check:
/// a probe is no download, and the runner's memory is not the document's to fill.
pub const MOST: usize = 16 << 20;

/// How long an answer over the network is waited for where nothing is said.
const DEFAULT_TIMEOUT: HumanDuration = HumanDuration::seconds(5);

/// How long an agent lets a program run where nothing is said.
const PROGRAM_WITHIN: HumanDuration = HumanDuration::seconds(60);

/// Why there is no value.
#[derive(Debug)]
pub enum NoValue {
    /// What is measured did not answer.
    NoAnswer(String),
    /// The check itself is broken.
    Broken(String),
}

impl NoValue {
    /// From an error of the network: whoever refuses, resets or cannot be reached did not answer.
    pub fn from_network(error: &io::Error, doing: &str) -> Self {
        use io::ErrorKind as Kind;
        let why = format!("{doing}: {}", plain(error));
        match error.kind() {
            Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::NotConnected
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::AddrNotAvailable
            // What a local packet filter answers when it drops what we send.
            | Kind::PermissionDenied => NoValue::NoAnswer(why),
            _ => NoValue::Broken(why),
        }
    }
}

impl From<Result<Value, NoValue>> for ProbeOutcome {
    fn from(outcome: Result<Value, NoValue>) -> Self {
        match outcome {
            Ok(output) => ProbeOutcome::Output(output),
            Err(NoValue::NoAnswer(why)) => ProbeOutcome::NoAnswer(why),
            Err(NoValue::Broken(why)) => ProbeOutcome::Broken(why),
        }
    }
}

/// An operating system's error in words, without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// That there was no answer in time.
pub fn late(longest: HumanDuration) -> NoValue {
    NoValue::NoAnswer(format!("no answer within {longest}"))
}

/// The provider's own time-out, else the activity's, else 5 s: never none over a network.
pub fn limit(own: Option<HumanDuration>, longest: Option<HumanDuration>) -> HumanDuration {
    own.or(longest).unwrap_or(DEFAULT_TIMEOUT)
}

/// How long an agent may take for it: the provider's own time-out, else the activity's, else one that depends on the
/// kind. Never none: who is asked over a network may be asked by somebody who has gone.
pub fn within(provider: &Provider, longest: Option<HumanDuration>) -> HumanDuration {
    match provider {
        Provider::Http(http) => http::limits(http, longest).1,
        Provider::Prometheus(query) => limit(query.timeout, longest),
        Provider::Tcp(tcp) => limit(tcp.timeout, longest),
        Provider::Dns(dns) => limit(dns.timeout, longest),
        Provider::Process(process) => process.timeout.or(longest).unwrap_or(PROGRAM_WITHIN),
        Provider::Python(_) | Provider::Host(_) | Provider::Fault(_) => limit(None, longest),
    }
}

/// A value as the text that it stands for: text as it is, anything else as JSON.
pub fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
