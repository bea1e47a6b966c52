//! Who does the work of an activity: one file for each kind. A provider measures or does and
//! says what came back; it never judges. What it measures not answering is told apart from the
//! check itself being broken, because the first is a finding and the second is none.
//!
//! Nothing here blocks the runtime, and whatever is started is gone when its future is dropped.

mod capture;
mod dns;
mod http;
mod preflight;
mod process;
mod prometheus;
mod python;
mod tcp;
mod tls;

use crate::agent_connection::AgentHandle;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::probes::{MOST, NoValue, late, limit, plain, text_of};
use backburn_experiments::redact::Redactor;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::future::Future;

pub use backburn_experiments::wire::ProbeOutcome as Measured;
pub use preflight::missing;

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
    /// Takes the secrets out of reasons, before they are cut short.
    pub redactor: Redactor,
}

/// Asks the provider. `longest` holds where the provider has no time-out of its own.
pub async fn measure(
    provider: &Provider,
    longest: Option<HumanDuration>,
    context: &ProbeContext,
) -> Measured {
    let outcome = match provider {
        Provider::Http(http) => http::measure(http, longest).await,
        Provider::Process(process) => process::measure(process, longest).await,
        Provider::Python(python) => python::measure(python, longest, context).await,
        Provider::Tcp(tcp) => tcp::measure(tcp, longest).await,
        Provider::Dns(dns) => dns::measure(dns, longest).await,
        Provider::Prometheus(prometheus) => prometheus::measure(prometheus, longest).await,
        Provider::Host(host) => {
            let mut agents = context.agents.values();
            match (agents.next(), agents.next()) {
                (Some(agent), None) => within(longest, agent.measure(host.clone()))
                    .await
                    .and_then(|figure| figure.map(Value::from).map_err(NoValue::Broken)),
                (Some(_), Some(_)) => Err(NoValue::Broken(
                    "several agents take part, and the probe does not say `from` which of them"
                        .into(),
                )),
                (None, _) => Err(NoValue::Broken(
                    "no agent takes part that could be asked for a figure of its host".into(),
                )),
            }
        }
        Provider::Fault(fault) => Err(NoValue::Broken(format!(
            "`{}` is a fault: agents inject it, nobody measures it",
            fault.fault
        ))),
    };
    outcome.into()
}

/// The answer, or that there was none in time. No limit where there is none.
async fn within<T>(
    longest: Option<HumanDuration>,
    answer: impl Future<Output = T>,
) -> Result<T, NoValue> {
    match longest {
        Some(HumanDuration(longest)) => tokio::time::timeout(longest, answer)
            .await
            .map_err(|_| late(HumanDuration(longest))),
        None => Ok(answer.await),
    }
}
