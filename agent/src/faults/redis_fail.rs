//! `redis-fail`: chosen commands to a Redis server fail or wait, as from an overloaded server or one that fails over.

use super::proxy_endpoints::ProxyEndpoints;
use super::request_plan::RequestFailure;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{RedisRule, RequestRule};
use crate::processes::OneOrMany;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Listens, passes Redis commands on to an upstream, and fails those that match. Point a client to `listen`: nothing else is affected.
/// At least one of `error`, `delay` and `abort` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RedisFail {
    /// Where clients connect to while the fault lasts: an address of this host with a port, such as `127.0.0.1:16379`.
    #[schemars(extend("title" = "address with a port", "examples" = ["127.0.0.1:16379", "[::1]:16379"]))]
    listen: String,
    /// Where commands are passed on to: an address or a host name, with a port. Of several addresses, the first that answers is used.
    #[schemars(extend("title" = "host with a port", "examples" = ["cache.example:6379", "[fd00::1]:6379"]))]
    upstream: String,
    /// Only this command, such as `GET`; a list means any of them. Default: all commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<OneOrMany<String>>,
    /// Only commands whose first argument matches this regular expression, anywhere: `^session:` for the keys of a name space. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Error that a command is answered with, such as `LOADING Redis is loading the dataset in memory`. It does not reach the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How long a command waits before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<HumanDuration>,
    /// Reset the connection of the command, which does not reach the upstream. Default: false.
    #[serde(default)]
    abort: bool,
    /// Chance of each matching command to be affected, in percent, drawn from the seed. Default: all of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl RedisFail {
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

    fn rule(&self) -> RedisRule {
        let commands = self.command.iter().flat_map(OneOrMany::as_slice);
        RedisRule {
            commands: commands.map(|command| command.to_uppercase()).collect(),
            key: self.key.clone(),
            error: self.error.clone(),
        }
    }
}

impl FaultKind for RedisFail {
    const NAME: &'static str = "redis-fail";
    const SUMMARY: &'static str = "Fail or delay Redis commands that pass through a proxy";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:16379",
            "upstream": "127.0.0.1:6379",
            "command": ["GET", "MGET"],
            "key": "^session:",
            "error": "LOADING Redis is loading the dataset in memory",
            "percent": 10
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoints().problems();
        problems.extend(self.rule().problems());
        problems.extend(self.failure().problems(&["error"], self.error.is_some()));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let rule = RequestRule::Redis(self.rule());
        let limits = "subscriptions and connections with TLS pass unchanged; of commands that are sent in one go, each waits for the reply to the one before";
        self.failure()
            .plan(&self.endpoints(), rule, limits, context)
    }
}
