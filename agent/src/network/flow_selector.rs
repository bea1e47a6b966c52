//! Which packets a network fault is about, as people write it, and what that comes to on this
//! host: names become addresses, a process becomes its network namespace.

use super::endpoint::{MAX_NETWORKS, ends, names, placed, read};
use super::flow_location::FlowLocation;
use super::flow_owner::{FlowOwner, flow_owner};
use crate::packet_filter::{
    Direction, Endpoint, FlowMatch, PacketEffect, PacketFilter, PortRange, Protocol, marks_held,
};
use crate::plan::{Interface, NAMED_NAMESPACES, Namespace, Plan, PlanContext, kernel_refusal};
use crate::processes::{OneOrMany, ProcessSelector};
use backburn_experiments::Problem;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which packets: those of flows from here to there, and their answers. At least one of `to`, `from`, `ports`, `interface`, `of` and
/// `namespace` must be given. ARP, the finding of neighbours and the policy's protected ports are never touched.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FlowSelector {
    /// Where the flows go: an address, a network as `10.0.0.0/8`, or a host's name, of which all addresses are meant; each with its
    /// `:port`, if any. Names are found as whoever is hit finds them: by the hosts file and the name servers of the namespace or process. IPv6 with a port is written `[fd00::1]:443`. A list means any of them. A fault of more than 30 seconds looks
    /// names up again every ten, and means the addresses that they come to then as well. On a fleet `@TARGET`, with a port if any, means the
    /// agents that were picked for a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<OneOrMany<String>>,
    /// Where the flows come from, written as `to`; a port is the one they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<OneOrMany<String>>,
    /// The ports that the flows go to: `5432`, `"8000-8010"`, or a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<OneOrMany<Port>>,
    /// Any where left out; with a port, TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    /// Which of their packets, as seen from the host or namespace. Where left out: what arrives, of latency, reordering and corruption;
    /// what leaves, of duplicates; both, of all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<Direction>,
    /// Only over this interface. The loopback is only meant where it, or one of its addresses, is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<String>,
    /// The flows of this process: of its network namespace, e.g. a container's; where that is the host's own, of the sockets made
    /// in its control group (version 2), in which nobody else may be. What other processes handed to it, as a socket that
    /// systemd listens on for it, is not meant; nor is ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<ProcessSelector>,
    /// The flows of this network namespace: a name as `ip netns` knows it, or a path such as `/proc/4711/ns/net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    /// Not the flows with one of these ends, written as `to`; names are looked up once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) except: Option<OneOrMany<String>>,
    /// Whether the fault is refused where this host would do another harm than is asked for, e.g. because its kernel has no netem. Where
    /// left out, or false, the plan warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

/// A port, or ports from one to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Port {
    /// By number.
    Number(u16),
    /// From one to another: `8000-8010`.
    Text(String),
}

impl Port {
    fn range(&self) -> Result<PortRange, String> {
        match self {
            Port::Number(port) => port.to_string().parse(),
            Port::Text(text) => text.parse(),
        }
    }
}

impl FlowSelector {
    /// What comes back from this port of these servers, or of any, to the host, or to a namespace told in one of two ways.
    pub(crate) fn answers(
        servers: Option<OneOrMany<String>>,
        port: u16,
        protocol: Protocol,
        of: Option<ProcessSelector>,
        namespace: Option<String>,
    ) -> Self {
        FlowSelector {
            to: servers,
            ports: Some(OneOrMany::One(Port::Number(port))),
            protocol: Some(protocol),
            direction: Some(Direction::Ingress),
            of,
            namespace,
            ..FlowSelector::default()
        }
    }

    /// Every problem that shows without a look at the host.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let chosen = self.to.is_some()
            || self.from.is_some()
            || self.ports.is_some()
            || self.interface.is_some()
            || self.of.is_some()
            || self.namespace.is_some();
        if !chosen {
            problems.push(
                Problem::new("$", "no flows are chosen: nothing is everything by default").hint(
                    "give at least one of `to`, `from`, `ports`, `interface`, `of` and `namespace`",
                ),
            );
        }
        problems.extend(self.problems_of_given_keys());
        problems
    }

    pub(super) fn problems_of_given_keys(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, ends) in [
            ("to", &self.to),
            ("from", &self.from),
            ("except", &self.except),
        ] {
            for (at, end) in placed(key, ends) {
                if let Err(what) = read(end) {
                    problems.push(Problem::new(at, what).hint(
                        "`10.0.0.7`, `10.0.0.0/8`, `db.example:5432`, `fd00::1` or `[fd00::1]:443`",
                    ));
                }
            }
        }
        for (at, port) in placed("ports", &self.ports) {
            if let Err(what) = port.range() {
                problems.push(Problem::new(at, what).hint("`5432`, or `\"8000-8010\"`"));
            }
        }
        if self.protocol == Some(Protocol::Icmp) {
            let ported = |ends: &Option<OneOrMany<String>>| {
                placed("", ends)
                    .iter()
                    .any(|(_, end)| read(end).is_ok_and(|end| end.port.is_some()))
            };
            if self.ports.is_some() || ported(&self.to) || ported(&self.from) {
                problems.push(
                    Problem::new("$.protocol", "ICMP has no ports")
                        .hint("leave the ports or the protocol out"),
                );
            }
        }
        if self.of.is_some() && self.namespace.is_some() {
            problems.push(
                Problem::new("$.namespace", "both `of` and `namespace` are given")
                    .hint("give one of them"),
            );
        }
        if let Some(of) = &self.of {
            problems.extend(of.problems("$.of"));
        }
        problems
    }

    /// Which of their packets; none where that was left out.
    pub(crate) fn direction(&self) -> Option<Direction> {
        self.direction
    }

    /// The same, with these of their packets.
    pub(crate) fn with_direction(&self, direction: Direction) -> Self {
        FlowSelector {
            direction: Some(direction),
            ..self.clone()
        }
    }

    /// The plan, unless it warns of another harm than is asked for and that is not wanted.
    ///
    /// # Errors
    /// It is not wanted.
    pub(crate) fn refuse_warnings_if_strict(&self, plan: Plan) -> Result<Plan, Refusal> {
        if plan.warnings.is_empty() || self.strict != Some(true) {
            return Ok(plan);
        }
        let problems = plan.warnings.into_iter();
        Err(Refusal {
            problems: problems
                .map(|warning| Problem::new("$.strict", warning))
                .collect(),
            ..Refusal::new(
                "strict",
                "this host would do another harm than is asked for",
            )
        }
        .hint("change what is asked for, or leave `strict` out to have it with a warning"))
    }

    /// Why their live connections can't be told, where they can't.
    pub(crate) fn connection_problem(&self, at: &str) -> Option<Problem> {
        match (&self.interface, self.protocol) {
            (Some(_), _) => Some(
                Problem::new(at, "a connection is not bound to an interface")
                    .hint("name addresses instead of `interface`"),
            ),
            (_, Some(Protocol::Udp | Protocol::Icmp)) => Some(
                Problem::new(at, "only TCP has connections")
                    .hint("leave `established` or `protocol` out"),
            ),
            _ => None,
        }
    }

    /// What is to be done to them on this host. Looks only: the kernel is asked whether it would, too.
    ///
    /// # Errors
    /// There is no such host, interface or namespace; or the kernel would not do it.
    pub(crate) fn filter(
        &self,
        effect: PacketEffect,
        context: &PlanContext<'_>,
    ) -> Result<PacketFilter, Refusal> {
        let mut problems = Vec::new();
        let place = self.locate(context)?;
        let resolver = place.resolver(context.host);
        let resolve = |name: &str| place.resolve(resolver.as_ref(), name);
        let to = ends("to", &self.to, &resolve, &mut problems);
        let from = ends("from", &self.from, &resolve, &mut problems);
        let except = ends("except", &self.except, &resolve, &mut problems);
        let FlowLocation {
            namespace,
            cgroups,
            viewpoint,
            ..
        } = place;
        let ports: Vec<PortRange> = placed("ports", &self.ports)
            .into_iter()
            .filter_map(|(_, port)| port.range().ok())
            .collect();
        let links = context
            .host
            .interfaces(namespace.as_ref())
            .map_err(|error| kernel_refusal(&error))?;
        if let Some(wanted) = &self.interface
            && !links.iter().any(|link| link.name == *wanted)
        {
            let known: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
            let problem = Problem::new("$.interface", format!("there is no interface `{wanted}`"));
            problems.push(match nearest(wanted, known.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("there are {}", known.join(", "))),
            });
        }
        if to
            .iter()
            .chain(&from)
            .chain(&except)
            .map(|end| end.networks.len())
            .sum::<usize>()
            > MAX_NETWORKS
        {
            problems.push(
                Problem::new("$", format!("more than {MAX_NETWORKS} networks"))
                    .hint("name wider networks"),
            );
        }
        if !problems.is_empty() {
            return Err(Refusal {
                problems,
                ..Refusal::new("no-match", "the flows are not to be found on this host")
            });
        }
        let spare_ports: Vec<PortRange> = context
            .protected_ports
            .iter()
            .map(|port| (*port).into())
            .collect();
        let all_spared = |mut ports: Box<dyn Iterator<Item = PortRange> + '_>| {
            ports.all(|port| port.within(&spare_ports))
        };
        let of_ends =
            |ends: &[Endpoint]| ends.iter().map(|end| end.port).collect::<Option<Vec<_>>>();
        let spared = [Some(ports.clone()), of_ends(&to), of_ends(&from)]
            .into_iter()
            .flatten()
            .any(|ports| !ports.is_empty() && all_spared(Box::new(ports.into_iter())));
        if spared {
            return Err(Refusal::new(
                "protected",
                "every port that is named is one that this host protects",
            )
            .hint("name others; the owner of this host may change `protect-ports` in its policy"));
        }
        let named = |link: &&Interface| {
            self.interface
                .as_ref()
                .is_none_or(|wanted| *wanted == link.name)
        };
        let loopback = effect.only_answers()
            || to
                .iter()
                .chain(&from)
                .flat_map(|end| &end.networks)
                .any(|network| network.is_loopback())
            || (self.interface.is_some() && links.iter().filter(named).any(|link| link.loopback));
        let direction = self.direction.unwrap_or_default();
        // What goes over the loopback arrives where it left: once is enough.
        let leaves_by =
            |link: &&Interface| !link.loopback || (loopback && direction == Direction::Egress);
        let arrives_by = |link: &&Interface| !link.loopback || loopback;
        let devices = |by: &dyn Fn(&&Interface) -> bool| {
            // What another injection shapes with is no way out: what comes back from one `ifb` must not go to the next.
            let meant = |link: &&Interface| self.interface.is_some() || link.kind != "ifb";
            let links = links.iter().filter(named).filter(by).filter(meant);
            links.map(|link| link.name.clone()).collect::<Vec<_>>()
        };
        if !cgroups.is_empty() && !effect.can_see_sockets() {
            let what = "it is not known whose a packet at a device is";
            return Err(Refusal {
                problems: vec![Problem::new("$.of", what).hint(
                    "name its ports or addresses instead, or for latency, reordering and corruption `\"backend\": \"nfqueue\"`",
                )],
                ..Refusal::new("no-match", "the processes' packets can't be told from others'")
            });
        }
        // What can't be looked at is as if there were nothing of it.
        let translated =
            !effect.only_answers() && context.host.translates_addresses(namespace.as_ref());
        let mut filter = PacketFilter {
            table: format!("backburn-{}", context.mark(0)),
            namespace,
            devices: match cgroups.is_empty()
                && effect.leaves_at_devices()
                && direction != Direction::Ingress
            {
                true => devices(&leaves_by),
                false => Vec::new(),
            },
            inlets: match effect.shaping().is_some() && direction != Direction::Egress {
                true => devices(&arrives_by),
                false => Vec::new(),
            },
            flows: FlowMatch {
                to,
                from,
                ports,
                protocol: self.protocol.unwrap_or_default(),
                direction,
                interface: self.interface.clone(),
                loopback,
                cgroups,
                except,
                spare_ports,
                spare_link: context.control_connection,
            },
            effect,
            viewpoint,
            translated,
            marks: translated.then_some(0),
            names: names("to", &self.to, false)
                .chain(names("from", &self.from, true))
                .collect(),
        };
        filter.marks = match filter.held_marks() {
            Some(_) => Some(free_marks(namespace_inode(&filter, context)?, context)?),
            None => None,
        };
        context
            .host
            .check_filter(&filter)
            .map_err(|error| kernel_refusal(&error))?;
        Ok(filter)
    }

    /// The network namespace that is meant; none where it is ours.
    pub(crate) fn find_namespace(
        &self,
        context: &PlanContext<'_>,
    ) -> Result<Option<Namespace>, Refusal> {
        self.locate(context).map(|place| place.namespace)
    }

    /// Where the flows are, and whose.
    pub(super) fn locate(&self, context: &PlanContext<'_>) -> Result<FlowLocation, Refusal> {
        let own = context
            .host
            .own_namespace()
            .map_err(|error| kernel_refusal(&error))?;
        if let Some(name) = &self.namespace {
            let path = match name.contains('/') {
                true => PathBuf::from(name),
                false => Path::new(NAMED_NAMESPACES).join(name),
            };
            let found = context.host.namespace_at(&path).map_err(|error| {
                let problem = Problem::new("$.namespace", format!("{}: {error}", path.display()));
                Refusal {
                    problems: vec![problem.hint(
                        "`ip netns` lists those with a name; `/proc/PID/ns/net` is a process's",
                    )],
                    ..Refusal::new("no-match", "the network namespace is not to be had")
                }
            })?;
            return Ok(match found.inode == own.inode {
                true => FlowLocation::default(),
                false => FlowLocation::of(found, context.host),
            });
        }
        let Some(of) = &self.of else {
            return Ok(FlowLocation::default());
        };
        match flow_owner(of, &own, context)? {
            FlowOwner::Namespace(namespace) => Ok(FlowLocation::of(namespace, context.host)),
            FlowOwner::Cgroups(..) if self.protocol == Some(Protocol::Icmp) => Err(Refusal {
                problems: vec![
                    Problem::new(
                        "$.protocol",
                        "it is not known whose an arriving ICMP packet is",
                    )
                    .hint("leave `of` or the protocol out"),
                ],
                ..Refusal::new(
                    "no-match",
                    "the processes' packets can't be told from others'",
                )
            }),
            FlowOwner::Cgroups(cgroups, one) => Ok(FlowLocation {
                cgroups,
                viewpoint: context.host.viewpoint_of(one),
                ..FlowLocation::default()
            }),
        }
    }
}

fn namespace_inode(filter: &PacketFilter, context: &PlanContext<'_>) -> Result<u64, Refusal> {
    match &filter.namespace {
        Some(namespace) => Ok(namespace.inode),
        None => match context.host.own_namespace() {
            Ok(own) => Ok(own.inode),
            Err(error) => Err(kernel_refusal(&error)),
        },
    }
}

/// Which bits of packets' marks no other fault has in this namespace.
fn free_marks(inode: u64, context: &PlanContext<'_>) -> Result<usize, Refusal> {
    let is_free = |number: &usize| {
        let name = marks_held(inode, *number);
        !context.held.iter().any(|(thing, _)| *thing == name)
    };
    (0..PacketFilter::MARKS).find(is_free).ok_or_else(|| {
        let number = PacketFilter::MARKS;
        let what = format!("{number} faults mark packets of this network already");
        Refusal::new("overlap", what).hint("wait for the end of one of them: addresses are translated here, and what packets were before is known by such marks")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_must_be_chosen_and_be_right() {
        let problems = |json: serde_json::Value| -> Vec<String> {
            let flows: FlowSelector = serde_json::from_value(json).expect("it has the form");
            flows
                .problems()
                .into_iter()
                .map(|problem| problem.at)
                .collect()
        };
        use serde_json::json;
        assert_eq!(problems(json!({"protocol": "tcp"})), ["$"]);
        assert_eq!(problems(json!({"except": "10.0.0.1"})), ["$"]);
        assert_eq!(
            problems(json!({"ports": [80, "9-8", 0]})),
            ["$.ports[1]", "$.ports[2]"]
        );
        assert_eq!(
            problems(json!({"to": ["10.0.0.0/8", "10.0.0.0/99"], "from": "?"})),
            ["$.to[1]", "$.from"]
        );
        assert_eq!(
            problems(json!({"ports": 80, "protocol": "icmp"})),
            ["$.protocol"]
        );
        assert_eq!(
            problems(json!({"of": {"name": "x"}, "namespace": "y"})),
            ["$.namespace"]
        );
        assert!(problems(json!({"to": "[::1]:80", "protocol": "udp"})).is_empty());
    }
}
