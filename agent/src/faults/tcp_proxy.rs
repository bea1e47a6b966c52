//! `tcp-proxy`: connections go through a proxy of ours that harms them, as a bad line or a tired
//! server would. Wants no rights at all.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, Proxy, StreamEffects};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{Problem, HumanDuration};
use core::net::SocketAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Listens, passes each connection on to an upstream, and harms it on the way. Point a client to `listen`: nothing else is touched.
/// At least one of `to-upstream`, `to-client` and `reset` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TcpProxy {
    /// Where clients are to connect to while the fault lasts: an address of this host with a port, as `127.0.0.1:15432` or `[::1]:15432`.
    listen: String,
    /// Where connections are passed on to: an address or a host's name, with a port. Of several addresses, the first that answers.
    upstream: String,
    /// What is done to what clients send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_upstream: Option<StreamEffects>,
    /// What is done to what upstream sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_client: Option<StreamEffects>,
    /// Connections are reset, at both ends, so long after they were accepted. `0s`: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset: Option<HumanDuration>,
    /// The chance of each connection to be harmed, in percent, drawn from the seed; others pass unharmed. All where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    share: Option<f64>,
}

/// What is less is nothing, in percent.
const MIN_PERCENT: f64 = 0.0001;

impl TcpProxy {
    fn ways(&self) -> [(&'static str, &Option<StreamEffects>); 2] {
        [
            ("$.to-upstream", &self.to_upstream),
            ("$.to-client", &self.to_client),
        ]
    }
}

impl FaultKind for TcpProxy {
    const NAME: &'static str = "tcp-proxy";
    const SUMMARY: &'static str = "Connections through a proxy are slowed, cut or broken";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:15432",
            "upstream": "127.0.0.1:5432",
            "to-client": {"latency": "100ms", "jitter": "10ms"},
            "share": 50
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if listening(&self.listen).is_none() {
            problems.push(
                Problem::new(
                    "$.listen",
                    format!("`{}` is no address with a port", self.listen),
                )
                .hint("`127.0.0.1:15432`, `[::1]:15432`, or `0.0.0.0:15432` for every address"),
            );
        }
        if port(&self.upstream).is_none() {
            problems.push(
                Problem::new("$.upstream", format!("`{}` has no port", self.upstream))
                    .hint("`db.example:5432`, `10.0.0.7:5432` or `[fd00::1]:5432`"),
            );
        }
        if self.reset.is_none() && self.to_upstream.is_none() && self.to_client.is_none() {
            problems.push(
                Problem::new("$", "no harm is chosen")
                    .hint("at least one of `to-upstream`, `to-client` and `reset`"),
            );
        }
        for (at, harm) in self.ways() {
            problems.extend(harm.iter().flat_map(|harm| harm.problems(at)));
        }
        if self.share.is_some_and(|share| share < MIN_PERCENT) {
            problems.push(
                Problem::new("$.share", "no connection would be harmed")
                    .hint(format!("{MIN_PERCENT} at the least")),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let none = |at: &str, what: String, hint: &str| Refusal {
            problems: vec![Problem::new(at, what).hint(hint)],
            ..Refusal::new("no-match", "there is no way through a proxy here")
        };
        let listen = listening(&self.listen).ok_or_else(|| {
            none(
                "$.listen",
                format!("`{}` is no address", self.listen),
                "give an address with a port",
            )
        })?;
        let upstream: Vec<SocketAddr> = match context.host.socket_addresses(&self.upstream) {
            Ok(addresses) => addresses,
            Err(error) => {
                let what = format!("`{}` has no address here: {error}", self.upstream);
                return Err(none(
                    "$.upstream",
                    what,
                    "see `getent ahosts`, or give the address",
                ));
            }
        };
        let protected = |port: u16| context.protected_ports.contains(&port);
        if protected(listen.port()) || upstream.iter().any(|address| protected(address.port())) {
            return Err(Refusal::new(
                "protected",
                format!("this host protects a port of {listen} or {}", self.upstream),
            )
            .hint("name others; the owner of this host may change `protect-ports` in its policy"));
        }
        if upstream.iter().any(|address| meets(listen, *address)) {
            return Err(none(
                "$.upstream",
                format!("{} is where the proxy itself listens", self.upstream),
                "clients connect to `listen`, and the proxy to `upstream`",
            ));
        }
        context.host.check_listen(listen).map_err(|error| {
            none(
                "$.listen",
                format!("{listen} can't be listened on: {error}"),
                "a free port at an address of this host; `ss -ltn` shows those that are taken",
            )
        })?;
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
        let mut notes = vec![
            format!("clients must be pointed to {listen}: nothing else is touched"),
            "connections through it are reset when the fault ends".into(),
        ];
        if !listen.ip().is_loopback() {
            notes.push(format!(
                "whoever reaches {listen} is let through to {} meanwhile",
                self.upstream
            ));
        }
        Ok(Plan {
            victims: vec![Victim {
                kind: "connections".into(),
                id: listen.to_string(),
                name: format!("connections to {listen}, passed on to {}", self.upstream),
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

/// Where it is to listen, if that is an address with a port that can be named.
fn listening(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() > 0)
}

/// The port of a host with a port.
fn port(text: &str) -> Option<u16> {
    let (host, port) = text.rsplit_once(':')?;
    let whole = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    port.parse().ok().filter(|port| whole && *port > 0)
}

/// Whether what goes to `upstream` would come to `listen`.
fn meets(listen: SocketAddr, upstream: SocketAddr) -> bool {
    let every = listen.ip().is_unspecified() && upstream.ip().is_loopback();
    listen.port() == upstream.port() && (listen.ip() == upstream.ip() || every)
}
