//! `http-load`: requests to a service at a rate, as in a peak that nobody expected.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, RequestLoad};
use backburn_experiments::probes::LoadProvider;
use backburn_experiments::probes::load::LoadPlan;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use core::net::SocketAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest ramp, and the longest time for which a request waits.
const MAX_TIME: HumanDuration = HumanDuration::seconds(3600);

/// Sends requests at a rate, whether or not earlier ones were answered. Latency counts from when a request was due. The requests are
/// real: what they ask for is done.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpLoad {
    /// The address, `http://` or `https://`, over HTTP/1.1. Redirects are not followed.
    #[schemars(length(min = 1), extend("examples" = ["http://shop.example/", "https://[fd00::1]:8443/orders?page=1"]))]
    url: String,
    /// How many requests per second.
    #[schemars(range(min = 0.01, max = 100_000.0))]
    rate: f64,
    /// The time at the beginning over which the rate rises evenly from 0. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<HumanDuration>,
    /// How many requests are due at the same moment; there is then a longer pause, and the rate stays the same. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    burst: Option<u32>,
    /// How long after it was due a request is given up, sent or not. Default: 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<HumanDuration>,
    /// The most connections at a time. Where all are busy, requests wait, and their latency counts. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    connections: Option<u32>,
    /// The method. Default: `GET`, or `POST` where there is a `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// Header fields of each request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"accept": "application/json"}]))]
    headers: BTreeMap<String, String>,
    /// The body, as it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Whether the server's certificate is checked. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify_tls: Option<bool>,
}

impl HttpLoad {
    fn request(&self) -> LoadProvider {
        let usual = self.body.as_ref().map(|_| "POST".to_owned());
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), json!(value)));
        LoadProvider {
            url: self.url.clone(),
            rate: self.rate,
            duration: None,
            ramp: self.ramp,
            burst: self.burst,
            timeout: self.timeout,
            connections: self.connections,
            method: self.method.clone().or(usual),
            headers: (!self.headers.is_empty()).then(|| headers.collect()),
            arguments: self.body.as_ref().map(|body| json!(body)),
            verify_tls: self.verify_tls,
        }
    }

    /// The addresses of the target that may be asked.
    fn addresses(
        &self,
        target: &LoadPlan,
        context: &PlanContext<'_>,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let host = target.host.trim_matches(['[', ']']);
        let written = format!("{}:{}", target.host, target.port);
        let found = context.host.socket_addresses(&written).map_err(|error| {
            let what = format!("`{host}` has no address here: {error}");
            Refusal {
                problems: vec![
                    Problem::new("$.url", what).hint("see `getent ahosts`, or give the address"),
                ],
                ..Refusal::new("no-match", "there is nothing to send requests to")
            }
        })?;
        let is_protected = context.protected_ports.contains(&target.port);
        if is_protected {
            let what = format!("this host protects port {}", target.port);
            return Err(Refusal::new("protected", what).hint(
                "name another; the owner of this host may change `protect-ports` in its policy",
            ));
        }
        let controller = context.control_connection.map(|link| link.there);
        if found.iter().any(|address| Some(*address) == controller) {
            let what = format!("{written} is the controller of this agent");
            return Err(Refusal::new("protected", what).hint("send the load to something else"));
        }
        let limits = context.request_limits;
        let not_allowed = |what| {
            let hint = "the owner of this host may change `allow-http`, `deny-http` and `max-request-rate` in its policy";
            Refusal::new("policy", what).hint(hint)
        };
        limits.check_rate(self.rate).map_err(not_allowed)?;
        limits
            .destinations
            .permitted(host, &found)
            .map_err(not_allowed)
    }
}

impl FaultKind for HttpLoad {
    const NAME: &'static str = "http-load";
    const SUMMARY: &'static str = "Send HTTP requests at a rate, as in an unexpected peak";

    fn example() -> Value {
        json!({
            "url": "http://127.0.0.1:8080/orders",
            "rate": 500,
            "ramp": "5s",
            "timeout": "2s"
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.request().request_problems("$");
        let times = [("$.ramp", self.ramp), ("$.timeout", self.timeout)];
        for (at, time) in times {
            if let Some(time) = time.filter(|time| *time > MAX_TIME) {
                problems.push(
                    Problem::new(at, format!("{time} is too long"))
                        .hint(format!("at most {MAX_TIME}")),
                );
            }
        }
        let has_none =
            |method: &String| ["GET", "HEAD"].contains(&method.to_ascii_uppercase().as_str());
        if self.body.is_some() && self.method.as_ref().is_some_and(has_none) {
            let what = "a request with this method has no body";
            problems.push(Problem::new("$.body", what).hint("`POST` has one"));
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let request = self.request();
        let target = LoadPlan::new(&request, None).map_err(|what| Refusal {
            problems: vec![Problem::new("$.url", what)],
            ..Refusal::new("arguments", "the fault's arguments are wrong")
        })?;
        let addresses = self.addresses(&target, context)?;
        let mut notes = vec![
            "the requests are real, and what they ask for is done".to_owned(),
            format!(
                "at most {} connections at a time; a request that waits for longer than {} is given up, and counted",
                request.connections(),
                request.request_timeout(None)
            ),
        ];
        if !self.headers.is_empty() || self.body.is_some() {
            notes.push("header fields and body stand in the agent's ledger and on the helper's command line while the fault lasts: give no secret".into());
        }
        Ok(Plan {
            victims: vec![Victim {
                kind: "service".into(),
                id: format!("{}:{}", target.host, target.port),
                name: format!("the service at {}:{}", target.host, target.port),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(RequestLoad { request, addresses }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
