//! Which answers of name servers a DNS fault affects, as people write it, and the plan for them.

use super::endpoint::{placed, read};
use super::flow_selector::FlowSelector;
use super::name_resolution::NameResolution;
use crate::changes::{Change, ProcessHelper};
use crate::dns::{Alteration, NamePattern};
use crate::helpers::{AnswerFilter, HelperSpec};
use crate::packet_filter::{PacketEffect, Protocol, ReadAnswers};
use crate::plan::{Plan, PlanContext};
use crate::processes::{OneOrMany, ProcessSelector};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use core::net::IpAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most names; a longer list would not fit on a helper's command line.
const MAX_NAMES: usize = 256;
/// Port at which name servers listen by default.
const DNS_PORT: u16 = 53;

/// Which answers to affect: those that name servers give to this host, or to a network namespace, for selected names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DnsSelector {
    /// The names that clients ask for: `db.example.org`; `*.example.org` for all names below that one; `*` for all names. A list means any
    /// of them. The full name in the question counts, not a short one that a `search` domain completes, nor an alias that it leads to.
    names: OneOrMany<String>,
    /// Only answers of these name servers: addresses, networks such as `10.0.0.0/8`, or host names. Default: where `resolv.conf`
    /// names a resolver on the loopback, the servers that it names, so that the questions and the cache of that resolver are not affected;
    /// else all servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<OneOrMany<String>>,
    /// Port of the name servers. Default: 53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// Only answers to the network namespace of this process, e.g. of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<ProcessSelector>,
    /// Only answers to this network namespace: a name as `ip netns` knows it, or a path such as `/proc/4711/ns/net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Chance of each answer to be affected, in percent. Default: all answers.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl DnsSelector {
    fn flows(&self, servers: Option<OneOrMany<String>>, protocol: Protocol) -> FlowSelector {
        let port = self.port.unwrap_or(DNS_PORT);
        let (of, namespace) = (self.of.clone(), self.namespace.clone());
        FlowSelector::answers(servers, port, protocol, of, namespace)
    }

    /// All problems that show without a look at the host.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let names = Some(self.names.clone());
        let names = placed("names", &names);
        let mut problems = Vec::new();
        if names.is_empty() {
            problems.push(
                Problem::new(
                    "$.names",
                    "no name is given: no fault affects everything by default",
                )
                .hint("give a name, or `*` for all"),
            );
        }
        if names.len() > MAX_NAMES {
            problems.push(
                Problem::new("$.names", format!("more than {MAX_NAMES} names"))
                    .hint("use `*.example.org` for all names below that one"),
            );
        }
        for (at, name) in names {
            if let Err(what) = name.parse::<NamePattern>() {
                problems.push(Problem::new(at, what).hint(
                    "write `db.example.org`, `*.example.org` or `*`; other letters as in DNS, `xn--…`",
                ));
            }
        }
        let flows = self.flows(self.server.clone(), Protocol::Udp);
        problems.extend(flows.problems().into_iter().map(of_server));
        for (at, server) in placed("server", &self.server) {
            if read(server).is_ok_and(|server| server.port.is_some()) {
                problems.push(
                    Problem::new(at, format!("`{server}` has a port")).hint("give it as `port`"),
                );
            }
        }
        if self.percent == Some(0.0) {
            problems.push(
                Problem::new("$.percent", "no answer would be affected")
                    .hint("give a percentage above zero"),
            );
        }
        problems
    }

    /// Plans an alteration of these answers.
    ///
    /// # Errors
    /// The servers or the namespace are not found, or the kernel refuses.
    pub(crate) fn plan(
        &self,
        change: Alteration,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let mut notes = Vec::new();
        let namespace = self.flows(None, Protocol::Udp).find_namespace(context)?;
        let names: Vec<NamePattern> = placed("names", &Some(self.names.clone()))
            .into_iter()
            .filter_map(|(_, name)| name.parse().ok())
            .collect();
        let resolution = NameResolution::of(namespace.as_ref(), context.host);
        notes.extend(resolution.notes(&names));
        let servers = match &self.server {
            Some(servers) => Some(servers.clone()),
            None => resolution.local_resolver().map(|servers| {
                let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
                notes.push(format!(
                    "only answers of {}, as in resolv.conf: the questions of a resolver on the loopback are not affected unless `server` names its servers",
                    servers.join(", ")
                ));
                OneOrMany::Many(servers)
            }),
        };
        let protocol = if change.has_tcp() {
            Protocol::Any
        } else {
            Protocol::Udp
        };
        let harm = PacketEffect::from(ReadAnswers {
            lost: change.loses(),
        });
        let filter = self
            .flows(servers, protocol)
            .filter(harm, context)
            .map_err(|mut refusal| {
                refusal.problems = refusal.problems.into_iter().map(of_server).collect();
                refusal
            })?;
        notes.push(format!(
            "backend nfqueue: a helper process reads the answers as they arrive{}",
            match change {
                Alteration::Hold { .. } =>
                    "; when it ends, the answers that it holds are lost and later ones pass",
                _ => "; when it ends, answers pass unchanged",
            }
        ));
        notes.push(format!(
            "not affected: answers over {}TLS or HTTPS, and names that a cache already knows",
            if change.has_tcp() { "" } else { "TCP, " }
        ));
        let place = filter.place();
        let victims = names.iter().map(|name| Victim {
            kind: "name".into(),
            id: name.to_string(),
            name: format!("{name}{place}"),
        });
        Ok(Plan {
            victims: victims.collect(),
            notes,
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(AnswerFilter {
                    filter,
                    names,
                    change,
                    percent: self.percent.filter(|percent| *percent < 100.0),
                    seed: context.seed,
                }),
            })],
            ..Plan::default()
        })
    }
}

/// Names `server` in a problem of the flows' endpoint `to`.
fn of_server(mut problem: Problem) -> Problem {
    if let Some(rest) = problem.at.strip_prefix("$.to") {
        problem.at = format!("$.server{rest}");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dns_selector_problems_have_their_path() {
        let problems = |json: serde_json::Value| -> Vec<String> {
            let answers: DnsSelector = serde_json::from_value(json).expect("it has the form");
            let problems = answers.problems().into_iter();
            problems.map(|problem| problem.at).collect()
        };
        assert_eq!(problems(json!({"names": []})), ["$.names"]);
        assert_eq!(
            problems(json!({"names": ["a.b", "a..b", "*c"]})),
            ["$.names[1]", "$.names[2]"]
        );
        assert_eq!(
            problems(json!({"names": "*", "server": ["::1", "10.0.0.300"]})),
            ["$.server[1]"]
        );
        assert_eq!(
            problems(json!({"names": "*", "server": "10.0.0.1:53"})),
            ["$.server"]
        );
        assert_eq!(problems(json!({"names": "*", "percent": 0})), ["$.percent"]);
        assert_eq!(
            problems(json!({"names": "*", "of": {"name": "x"}, "namespace": "y"})),
            ["$.namespace"]
        );
        assert!(problems(json!({"names": "*", "server": "fd00::/8", "percent": 100})).is_empty());
    }
}
