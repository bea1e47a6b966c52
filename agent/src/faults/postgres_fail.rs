//! `postgres-fail`: chosen statements to a PostgreSQL server fail or wait, as from one that is overloaded, runs out of connections or
//! cannot serialize transactions.

use super::proxy_endpoints::ProxyEndpoints;
use super::request_plan::RequestFailure;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{PostgresRule, RequestRule};
use crate::processes::OneOrMany;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Listens, passes connections on to a PostgreSQL server, and fails the statements that match. Point a client to `listen`: nothing else is
/// affected. At least one of `code`, `delay` and `abort` must be given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PostgresFail {
    /// Where clients connect to while the fault lasts: an address of this host with a port, such as `127.0.0.1:15432`.
    #[schemars(extend("title" = "address with a port", "examples" = ["127.0.0.1:15432", "[::1]:15432"]))]
    listen: String,
    /// Where statements are passed on to: an address or a host name, with a port. Of several addresses, the first that answers is used.
    #[schemars(extend("title" = "host with a port", "examples" = ["db.example:5432", "[fd00::1]:5432"]))]
    upstream: String,
    /// Only statements that begin with this word, such as `UPDATE`; a list means any of them. Default: all statements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<OneOrMany<String>>,
    /// Only statements whose text matches this regular expression, anywhere: `(?i)\borders\b` for those that name a table. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    /// Code (SQLSTATE) of the error that a statement is answered with, such as `40001`. The statement does not reach the upstream, and its
    /// transaction fails there as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Message of that error. Default: `failed by an experiment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How long a statement waits before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<HumanDuration>,
    /// Reset the connection of the statement, which does not reach the upstream. Default: false.
    #[serde(default)]
    abort: bool,
    /// Answer requests for TLS with a refusal, so that clients that only prefer it connect without. Default: false, connections with TLS
    /// pass unchanged.
    #[serde(default)]
    refuse_tls: bool,
    /// Chance of each matching statement to be affected, in percent, drawn from the seed. Default: all of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl PostgresFail {
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

    fn rule(&self) -> PostgresRule {
        let commands = self.command.iter().flat_map(OneOrMany::as_slice);
        PostgresRule {
            commands: commands.map(|command| command.to_uppercase()).collect(),
            statement: self.statement.clone(),
            code: self.code.clone(),
            message: self.message.clone(),
            refuse_tls: self.refuse_tls,
        }
    }
}

impl FaultKind for PostgresFail {
    const NAME: &'static str = "postgres-fail";
    const SUMMARY: &'static str = "Fail or delay PostgreSQL statements that pass through a proxy";

    fn example() -> Value {
        json!({
            "listen": "127.0.0.1:15432",
            "upstream": "127.0.0.1:5432",
            "command": ["INSERT", "UPDATE"],
            "statement": "(?i)\\borders\\b",
            "code": "40001",
            "message": "could not serialize access due to concurrent update",
            "percent": 10
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoints().problems();
        problems.extend(self.rule().problems());
        problems.extend(self.failure().problems(&["code"], self.code.is_some()));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let rule = RequestRule::Postgres(self.rule());
        let tls = match self.refuse_tls {
            true => "requests for TLS are refused: clients that require it cannot connect",
            false => {
                "connections with TLS pass unchanged: have clients connect by `sslmode=disable`, or set `refuse-tls`"
            }
        };
        let mut plan = self.failure().plan(&self.endpoints(), rule, tls, context)?;
        if self.code.is_some() {
            plan.notes.push("the upstream gets a statement that must fail in place of each that is to fail, and logs an error for it".into());
        }
        Ok(plan)
    }
}
