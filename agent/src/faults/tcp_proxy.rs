//! `tcp-proxy`: connections pass through a proxy of the agent that degrades them, as a bad line or an
//! overloaded server would. It needs no privileges.

use super::proxy_endpoints::{ProxyAddresses, ProxyEndpoints};
use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, Proxy, StreamEffects};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Listens, forwards each connection to an upstream, and degrades it on the way. Point a client to `listen`: nothing else is affected.
/// At least one of `to-upstream`, `to-client` and `reset` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TcpProxy {
    /// Where clients connect to while the fault lasts: an address of this host with a port, such as `127.0.0.1:15432` or `[::1]:15432`.
    /// `localhost:15432` means `127.0.0.1:15432`.
    #[schemars(extend("title" = "address with a port", "examples" = ["127.0.0.1:15432", "[::1]:15432"]))]
    listen: String,
    /// Where connections are forwarded to: an address or a host name, with a port. Of several addresses, the first that answers is used.
    #[schemars(extend("title" = "host with a port", "examples" = ["db.example:5432", "[fd00::1]:5432"]))]
    upstream: String,
    /// Effects on the data that clients send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_upstream: Option<StreamEffects>,
    /// Effects on the data that the upstream sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_client: Option<StreamEffects>,
    /// Time after which an accepted connection is reset, at both ends. `0s` resets it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset: Option<HumanDuration>,
    /// Chance of each connection to be affected, in percent, drawn from the seed; the others pass unchanged. Default: all connections.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    share: Option<f64>,
}

/// Smallest share that has an effect, in percent.
const MIN_PERCENT: f64 = 0.0001;

impl TcpProxy {
    fn endpoints(&self) -> ProxyEndpoints<'_> {
        ProxyEndpoints {
            listen: &self.listen,
            upstream: &self.upstream,
        }
    }

    fn ways(&self) -> [(&'static str, &Option<StreamEffects>); 2] {
        [
            ("$.to-upstream", &self.to_upstream),
            ("$.to-client", &self.to_client),
        ]
    }
}

impl FaultKind for TcpProxy {
    const NAME: &'static str = "tcp-proxy";
    const SUMMARY: &'static str = "Slow down, cut or break connections that pass through a proxy";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:15432",
            "upstream": "127.0.0.1:5432",
            "to-client": {"latency": "100ms", "jitter": "10ms"},
            "share": 50
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoints().problems();
        if self.reset.is_none() && self.to_upstream.is_none() && self.to_client.is_none() {
            problems.push(
                Problem::new("$", "no effect is given")
                    .hint("give at least one of `to-upstream`, `to-client` and `reset`"),
            );
        }
        for (at, harm) in self.ways() {
            problems.extend(harm.iter().flat_map(|harm| harm.problems(at)));
        }
        if self.share.is_some_and(|share| share < MIN_PERCENT) {
            problems.push(
                Problem::new("$.share", "no connection would be affected")
                    .hint(format!("give at least {MIN_PERCENT}")),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let ProxyAddresses {
            listen,
            upstream,
            notes,
        } = self.endpoints().find(context)?;
        let proxy = Proxy {
            listen,
            upstream_name: self.upstream.clone(),
            upstream,
            to_upstream: self.to_upstream.clone().unwrap_or_default(),
            to_client: self.to_client.clone().unwrap_or_default(),
            reset: self.reset,
            share: self.share.unwrap_or(100.0),
            seed: context.seed,
        };
        Ok(Plan {
            victims: vec![Victim {
                kind: "connections".into(),
                id: listen.to_string(),
                name: format!("connections to {listen}, forwarded to {}", self.upstream),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(proxy),
            })],
            notes,
            ..Plan::default()
        })
    }
}
