//! A DNS question, and what its answer is worth.

use super::{ProbeProvider, Transport, address, network_limit, written_address};
use crate::HumanDuration;
use core::net::IpAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A DNS question.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DnsProvider {
    /// The name server, `host` or `host:port`. The system's resolver where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The name to look up.
    pub name: String,
    /// The record's type, `A` where left out.
    #[serde(rename = "record", default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The longest it may take. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

impl DnsProvider {
    /// The type of the record in capital letters, e.g. `AAAA`.
    pub fn record_type(&self) -> String {
        self.record.as_deref().unwrap_or("A").to_ascii_uppercase()
    }

    /// Whether the system's own resolver answers it, which knows addresses only.
    pub fn is_for_system(&self) -> bool {
        self.server.is_none() && matches!(self.record_type().as_str(), "A" | "AAAA")
    }

    /// The value where the system's resolver found these addresses.
    pub fn system_value(&self, found: impl Iterator<Item = IpAddr>) -> Value {
        let is_v4 = self.record_type() == "A";
        let wanted = found.filter(|ip| ip.is_ipv4() == is_v4);
        dns_answers("No Error", wanted.map(|ip| ip.to_string()).collect())
    }
}

/// The value of an answer: `{code, answers}`, the response code in words and each record's data as text.
pub fn dns_answers(code: &str, answers: Vec<String>) -> Value {
    json!({"code": code, "answers": answers})
}

impl ProbeProvider for DnsProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Dns(self)
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        Some(network_limit(self.timeout, timeout))
    }

    fn refused_by_agents(&self) -> Option<&'static str> {
        // Anything else takes a parser of DNS messages, which agents do not carry.
        (!self.is_for_system()).then_some(
            "an agent resolves `A` and `AAAA` through its system only, without `server`: leave out `from`, and the controller measures \
             it; or use a `process` probe that runs e.g. `dig`",
        )
    }

    fn written_address_problem(written: &Map<String, Value>) -> Option<(&'static str, String)> {
        let server = written_address(written, "server")?;
        Some(("server", address::of_name_server(server).err()?))
    }
}
