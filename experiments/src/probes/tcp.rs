//! A TCP connection: whether one can be made, and how long that takes.

use super::{ProbeError, ProbeProvider, Transport, io_error_text, network_limit};
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

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

impl TcpProvider {
    /// The value of a connection that took this long to be made: `{connected: true, took}`, in seconds.
    pub fn connected(took: Duration) -> Value {
        json!({"connected": true, "took": took.as_secs_f64()})
    }
}

impl ProbeProvider for TcpProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Tcp(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        Some(network_limit(self.timeout, timeout))
    }
}

/// A name that does not resolve is a host that does not answer: for its users that is an outage.
pub fn not_resolved(host: &str, error: &io::Error) -> ProbeError {
    ProbeError::NoAnswer(format!(
        "`{host}` could not be resolved: {}",
        io_error_text(error)
    ))
}

/// The name resolved, and to no address.
pub fn no_address(host: &str) -> ProbeError {
    ProbeError::NoAnswer(format!("`{host}` has no address"))
}
