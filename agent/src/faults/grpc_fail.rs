//! `grpc-fail`: chosen calls of gRPC fail or wait, as from an overloaded or broken service, while others on the same connection pass.

use super::proxy_endpoints::ProxyEndpoints;
use super::request_plan::RequestFailure;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{GrpcRule, RequestRule};
use crate::processes::OneOrMany;
use crate::units::{GRPC_STATUSES, GrpcStatus};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Listens, passes calls of gRPC on to an upstream, and fails those that match. Point a client to `listen`: nothing else is affected.
/// At least one of `status`, `delay` and `abort` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GrpcFail {
    /// Where clients connect to while the fault lasts: an address of this host with a port, such as `127.0.0.1:12379`.
    #[schemars(extend("title" = "address with a port", "examples" = ["127.0.0.1:12379", "[::1]:12379"]))]
    listen: String,
    /// Where calls are passed on to: an address or a host name, with a port. Of several addresses, the first that answers is used.
    #[schemars(extend("title" = "host with a port", "examples" = ["etcd.example:2379", "[fd00::1]:50051"]))]
    upstream: String,
    /// Only calls of this service, by its name with the package, such as `etcdserverpb.KV`; a list means any of them. Default: all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<OneOrMany<String>>,
    /// Only calls of this method, such as `Range`; a list means any of them. Default: all methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<OneOrMany<String>>,
    /// Only calls with these header fields (what gRPC sends besides messages), each with a regular expression that matches anywhere in its
    /// value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"user-agent": "grpc-go"}]))]
    header: BTreeMap<String, String>,
    /// Status that a call is answered with, by its name or code. It does not reach the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<GrpcStatus>,
    /// Message of that status. Default: `failed by an experiment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How long a call waits before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<HumanDuration>,
    /// Reset the call (`RST_STREAM`), which does not reach the upstream; the connection stays. Default: false.
    #[serde(default)]
    abort: bool,
    /// Chance of each matching call to be affected, in percent, drawn from the seed. Default: all of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl GrpcFail {
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

    fn rule(&self) -> GrpcRule {
        let all = |names: &Option<OneOrMany<String>>| {
            let names = names.iter().flat_map(OneOrMany::as_slice);
            names.cloned().collect()
        };
        GrpcRule {
            services: all(&self.service),
            methods: all(&self.method),
            headers: self.header.clone(),
            status: self.status.as_ref().and_then(GrpcStatus::code),
            message: self.message.clone(),
        }
    }
}

impl FaultKind for GrpcFail {
    const NAME: &'static str = "grpc-fail";
    const SUMMARY: &'static str = "Fail or delay gRPC calls that pass through a proxy";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:12379",
            "upstream": "127.0.0.1:2379",
            "service": "etcdserverpb.KV",
            "method": ["Range", "Txn"],
            "status": "UNAVAILABLE",
            "percent": 20
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoints().problems();
        problems.extend(self.rule().problems());
        if let Some(status) = &self.status
            && status.code().is_none_or(|code| code == 0)
        {
            let what = format!("`{}` is not a status of a call that fails", status.0);
            let hint = format!("one of {}", GRPC_STATUSES[1..].join(", "));
            problems.push(Problem::new("$.status", what).hint(hint));
        }
        if self.message.is_some() && self.status.is_none() {
            let what = "a message without a status";
            problems.push(Problem::new("$.message", what).hint("give `status` as well"));
        }
        problems.extend(self.failure().problems(&["status"], self.status.is_some()));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let rule = RequestRule::Grpc(self.rule());
        let limits = "connections with TLS, or of another protocol than HTTP/2, pass unchanged; header fields are compressed anew, and are otherwise those that were sent";
        let mut plan = self
            .failure()
            .plan(&self.endpoints(), rule, limits, context)?;
        if self.delay.is_some() && self.status.is_none() && !self.abort {
            plan.notes.push("the upstream learns of a call that waits at once, and gets its first message after the delay".into());
        }
        Ok(plan)
    }
}
