//! `http-fail`: chosen HTTP requests fail, wait or get other answers, as from an overloaded or broken service.

use super::proxy_endpoints::ProxyEndpoints;
use super::request_plan::RequestFailure;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{HttpRule, RequestRule};
use crate::processes::OneOrMany;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Listens, passes HTTP/1 requests on to an upstream, and fails those that match. Point a client to `listen`: nothing else is affected.
/// At least one of `status`, `body`, `response-headers`, `delay` and `abort` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpFail {
    /// Where clients connect to while the fault lasts: an address of this host with a port, such as `127.0.0.1:18080`.
    #[schemars(extend("title" = "address with a port", "examples" = ["127.0.0.1:18080", "[::1]:18080"]))]
    listen: String,
    /// Where requests are passed on to: an address or a host name, with a port. Of several addresses, the first that answers is used.
    #[schemars(extend("title" = "host with a port", "examples" = ["web.example:80", "[fd00::1]:8080"]))]
    upstream: String,
    /// Only requests with this method, such as `GET`; a list means any of them. Default: all methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<OneOrMany<String>>,
    /// Only requests whose path with its query matches this regular expression, anywhere: `^/api/` for all below that path. Default: all paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Only requests with these headers, each with a regular expression that matches anywhere in its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"user-agent": "curl"}]))]
    header: BTreeMap<String, String>,
    /// Status that a request is answered with. It does not reach the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// Body of the answer. Without `status`, the upstream's answer gets this body instead of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Headers of the answer to set, or with `null` to remove.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"retry-after": "30", "etag": null}]))]
    response_headers: BTreeMap<String, Option<String>>,
    /// How long a request waits before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<HumanDuration>,
    /// Reset the connection of the request, which does not reach the upstream. Default: false.
    #[serde(default)]
    abort: bool,
    /// Chance of each matching request to be affected, in percent, drawn from the seed. Default: all of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl HttpFail {
    fn endpoints(&self) -> ProxyEndpoints<'_> {
        ProxyEndpoints {
            listen: &self.listen,
            upstream: &self.upstream,
        }
    }

    fn failure(&self) -> RequestFailure {
        RequestFailure {
            delay: self.delay,
            abort: self.abort,
            percent: self.percent,
        }
    }

    fn rule(&self) -> HttpRule {
        let methods = self.method.iter().flat_map(OneOrMany::as_slice);
        HttpRule {
            methods: methods.map(|method| method.to_uppercase()).collect(),
            path: self.path.clone(),
            headers: self.header.clone(),
            status: self.status,
            body: self.body.clone(),
            response_headers: self.response_headers.clone(),
        }
    }
}

impl FaultKind for HttpFail {
    const NAME: &'static str = "http-fail";
    const SUMMARY: &'static str = "Fail, delay or change HTTP requests that pass through a proxy";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:18080",
            "upstream": "127.0.0.1:8080",
            "method": "GET",
            "path": "^/api/orders",
            "status": 503,
            "response-headers": {"retry-after": "30"},
            "percent": 20
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoints().problems();
        problems.extend(self.rule().problems());
        let is_answered =
            self.status.is_some() || self.body.is_some() || !self.response_headers.is_empty();
        let answers = ["status", "body", "response-headers"];
        problems.extend(self.failure().problems(&answers, is_answered));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let rule = RequestRule::Http(self.rule());
        let limits = "connections with TLS or HTTP/2 pass unchanged; headers such as `host` reach the upstream as the client wrote them";
        self.failure()
            .plan(&self.endpoints(), rule, limits, context)
    }
}
