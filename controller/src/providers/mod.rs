//! The transports of probes and actions that the controller measures or does itself: one file for each kind. What is sent and what an
//! answer is worth stands in `backburn_experiments::probes`.
//!
//! Nothing here blocks the runtime, and whatever is started is gone when its future is dropped.

mod capture;
mod dns;
mod dns_message;
mod host_access;
mod http;
mod load;
mod preflight;
mod process;
mod python;
mod tcp;
mod tls;

use crate::agent_connection::AgentHandle;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{
    HostProvider, MAX_OUTPUT_BYTES, ProbeError, ProbeResult, Transport, io_error_text, value_text,
};
use backburn_experiments::redact::Redactor;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::future::Future;

use backburn_experiments::wire::ProbeOutcome;
pub use host_access::{EnvironmentAccess, HostAccess};
pub use preflight::missing;
pub(crate) use tcp::connect as connect_tcp;
pub(crate) use tls::connect_trusting as connect_tls;

/// What providers need besides their own arguments.
#[derive(Debug, Clone, Default)]
pub struct ProbeContext {
    /// The experiment's configuration, for `python`.
    pub configuration: Map<String, Value>,
    /// The experiment's secrets by scope, for `python`.
    pub secrets: Map<String, Value>,
    /// What the activity itself says of secrets: the scopes that it may see, or its own as they are.
    pub own_secrets: Option<Value>,
    /// The agents that take part, by name, for `host`.
    pub agents: BTreeMap<String, AgentHandle>,
    /// Who was picked for each target, for `from`.
    pub picks: BTreeMap<String, Vec<String>>,
    /// Whether the agents are a fleet's, on other hosts than this.
    pub is_fleet: bool,
    /// What probes may use of this host.
    pub access: HostAccess,
    /// Takes the secrets out of reasons, before they are cut short.
    pub redactor: Redactor,
}

/// Measures the provider, or does what it says. `timeout` is the activity's, for a provider that has none of its own.
pub async fn measure(
    provider: &Provider,
    timeout: Option<HumanDuration>,
    context: &ProbeContext,
) -> ProbeOutcome {
    let probe = match provider.measured() {
        Ok(probe) => probe,
        Err(why) => return ProbeOutcome::Broken(why),
    };
    let measured = async {
        match probe.transport(timeout) {
            Transport::Http(http) => {
                http::measure(&http, timeout, &context.access.destinations).await
            }
            Transport::Process(process) => {
                process::measure(process, &context.access.environment).await
            }
            Transport::Python(python) => python::measure(python, context).await,
            Transport::Tcp(tcp) => tcp::measure(tcp, &context.access.destinations).await,
            Transport::Dns(dns) => dns::measure(dns, &context.access.destinations).await,
            Transport::Load(load) => {
                load::measure(load, timeout, &context.access.destinations).await
            }
            Transport::Host(host) => host_metric(host, context).await,
        }
    };
    let answer = within(probe.time_limit(timeout), measured).await;
    probe.judge(answer.and_then(|answer| answer)).into()
}

/// Has the only agent that takes part read a metric of its host.
async fn host_metric(host: &HostProvider, context: &ProbeContext) -> ProbeResult {
    let mut agents = context.agents.values();
    match (agents.next(), agents.next()) {
        (Some(agent), None) => {
            let value = agent.measure(host.clone()).await;
            value.map(Value::from).map_err(ProbeError::Broken)
        }
        (Some(_), Some(_)) => Err(ProbeError::Broken(
            "several agents take part, and the probe does not name one in `from`".into(),
        )),
        (None, _) => Err(ProbeError::Broken(
            "no agent takes part that could read a metric of its host".into(),
        )),
    }
}

/// The answer, unless it takes longer than the limit.
async fn within<T>(
    limit: Option<HumanDuration>,
    answer: impl Future<Output = T>,
) -> Result<T, ProbeError> {
    match limit {
        Some(HumanDuration(limit)) => tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| ProbeError::timed_out(HumanDuration(limit))),
        None => Ok(answer.await),
    }
}
