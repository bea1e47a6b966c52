//! `tcp-proxy`: connections pass through a proxy of the agent that degrades them, as a bad line or an
//! overloaded server would. It needs no privileges.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, Proxy, StreamEffects};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use core::net::SocketAddr;
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
        let mut problems = Vec::new();
        if listening(&self.listen).is_none() {
            problems.push(
                Problem::new(
                    "$.listen",
                    format!("`{}` is not an address with a port", self.listen),
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
        let none = |at: &str, what: String, hint: &str| Refusal {
            problems: vec![Problem::new(at, what).hint(hint)],
            ..Refusal::new("no-match", "the proxy cannot run here")
        };
        let listen = listening(&self.listen).ok_or_else(|| {
            none(
                "$.listen",
                format!("`{}` is not an address", self.listen),
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
                format!("cannot listen on {listen}: {error}"),
                "give a free port at an address of this host; `ss -ltn` shows those that are taken",
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
            format!("point clients to {listen}: nothing else is affected"),
            "connections through the proxy are reset when the fault ends".into(),
        ];
        if !listen.ip().is_loopback() {
            notes.push(format!(
                "meanwhile, whoever can reach {listen} can reach {} through it",
                self.upstream
            ));
        }
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

/// The address to listen at; none where the text is not one with a port above 0.
fn listening(text: &str) -> Option<SocketAddr> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric
        .parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() > 0)
}

/// The port of `host:port`; none where there is none.
fn port(text: &str) -> Option<u16> {
    let (host, port) = text.rsplit_once(':')?;
    let whole = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    port.parse().ok().filter(|port| whole && *port > 0)
}

/// Whether a connection to `upstream` would arrive at `listen`.
fn meets(listen: SocketAddr, upstream: SocketAddr) -> bool {
    let every = listen.ip().is_unspecified() && upstream.ip().is_loopback();
    listen.port() == upstream.port() && (listen.ip() == upstream.ip() || every)
}
