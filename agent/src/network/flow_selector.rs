//! Which packets a network fault affects, as people write it, and the packet filter for them on a
//! host: names become addresses, a process becomes its network namespace.

use super::endpoint::{MAX_NETWORKS, ends, names, placed, read};
use super::flow_location::FlowLocation;
use super::flow_owner::{FlowOwner, flow_owner};
use crate::packet_filter::{
    Direction, Endpoint, FlowMatch, PacketEffect, PacketFilter, Port, PortRange, Protocol,
    marks_held,
};
use crate::plan::{Interface, NAMED_NAMESPACES, Namespace, Plan, PlanContext, kernel_refusal};
use crate::processes::{OneOrMany, ProcessSelector};
use backburn_experiments::Problem;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which packets to affect: those of flows between endpoints, in both directions. At least one of `to`, `from`, `ports`, `interface`, `of` and
/// `namespace` must be given. ARP, neighbour discovery and the policy's protected ports are never affected.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FlowSelector {
    /// Where the flows go: an address, a network such as `10.0.0.0/8`, or a host name, which means all of its addresses; each optionally with
    /// `:port`. IPv6 with a port is written `[fd00::1]:443`. A list means any of them. Names are resolved as the victim resolves them: by the
    /// hosts file and the name servers of its namespace or process. A fault of more than 30 s resolves names again every 10 s and adds
    /// new addresses. On a fleet, `@TARGET`, optionally with a port, means the agents that were selected for a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<OneOrMany<String>>,
    /// Where the flows come from, written like `to`; a port is the source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<OneOrMany<String>>,
    /// Destination ports of the flows: `5432`, `"8000-8010"`, or a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<OneOrMany<Port>>,
    /// Protocol of the flows. Default: any; with a port, TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    /// Direction of the packets to affect, as seen from the host or namespace. Default: arriving packets for latency, reordering and
    /// corruption; leaving packets for duplicates; both for all other faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<Direction>,
    /// Only packets over this interface. The loopback is affected only where it, or one of its addresses, is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<String>,
    /// Only flows of this process: of its network namespace, e.g. a container's; where that is the host's own, of the sockets created
    /// in its control group (version 2), which must contain no other process. Sockets that other processes created for it, such as those
    /// that systemd listens on, are not affected; nor is ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<ProcessSelector>,
    /// Only flows of this network namespace: a name as `ip netns` knows it, or a path such as `/proc/4711/ns/net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    /// Except flows with one of these endpoints, written like `to`; names are resolved once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) except: Option<OneOrMany<String>>,
    /// Whether to refuse the fault where this host would do something else than is asked for, e.g. because its kernel has no netem.
    /// Default: false, which makes the plan warn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

impl FlowSelector {
    /// The packets that arrive from this port of these servers, or of any, at the host or at a namespace.
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

    /// All problems that show without a look at the host.
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
                Problem::new(
                    "$",
                    "no flows are selected: no fault affects everything by default",
                )
                .hint(
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
                problems.push(
                    Problem::new(at, what)
                        .hint("for example `5432`, `\"8000-8010\"`, or a list of them"),
                );
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

    /// The direction of the packets; none where it was left out.
    pub(crate) fn direction(&self) -> Option<Direction> {
        self.direction
    }

    /// The same flows with this direction.
    pub(crate) fn with_direction(&self, direction: Direction) -> Self {
        FlowSelector {
            direction: Some(direction),
            ..self.clone()
        }
    }

    /// The plan, unless it has warnings and the flows are `strict`.
    ///
    /// # Errors
    /// There are warnings, and `strict` is set.
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
                "this host would do something else than is asked for",
            )
        }
        .hint("change the arguments, or leave `strict` out to get a warning instead"))
    }

    /// Why the TCP connections of these flows cannot be listed, if so; `at` is the place of the problem.
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

    /// The packet filter that has an effect on these flows on this host. The kernel is asked whether it would take it.
    ///
    /// # Errors
    /// There is no such host, interface or namespace, all ports are protected, or the kernel would not take the filter.
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
                ..Refusal::new("no-match", "the flows do not exist on this host")
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
            return Err(
                Refusal::new("protected", "this host protects every port that is named").hint(
                    "name others; the owner of this host may change `protect-ports` in its policy",
                ),
            );
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
        // A packet over the loopback arrives where it left: to affect it once is enough.
        let leaves_by =
            |link: &&Interface| !link.loopback || (loopback && direction == Direction::Egress);
        let arrives_by = |link: &&Interface| !link.loopback || loopback;
        let devices = |by: &dyn Fn(&&Interface) -> bool| {
            // The device of another injection leads nowhere: a packet that comes back from one `ifb` must not go to the next.
            let meant = |link: &&Interface| self.interface.is_some() || link.kind != "ifb";
            let links = links.iter().filter(named).filter(by).filter(meant);
            links.map(|link| link.name.clone()).collect::<Vec<_>>()
        };
        if !cgroups.is_empty() && !effect.can_see_sockets() {
            let what = "a packet at a device does not show which process it belongs to";
            return Err(Refusal {
                problems: vec![Problem::new("$.of", what).hint(
                    "name ports or addresses instead; for latency, reordering and corruption, also `\"backend\": \"nfqueue\"`",
                )],
                ..Refusal::new("no-match", "the packets of these processes cannot be told from those of others")
            });
        }
        // What cannot be read is as if there were nothing of it.
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

    /// The network namespace of the flows; none where it is the agent's own.
    pub(crate) fn find_namespace(
        &self,
        context: &PlanContext<'_>,
    ) -> Result<Option<Namespace>, Refusal> {
        self.locate(context).map(|place| place.namespace)
    }

    /// The namespace and the control groups of the flows.
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
                    ..Refusal::new("no-match", "there is no such network namespace")
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
                        "an arriving ICMP packet does not show which process it belongs to",
                    )
                    .hint("leave `of` or the protocol out"),
                ],
                ..Refusal::new(
                    "no-match",
                    "the packets of these processes cannot be told from those of others",
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

/// The inode of the filter's network namespace.
fn namespace_inode(filter: &PacketFilter, context: &PlanContext<'_>) -> Result<u64, Refusal> {
    match &filter.namespace {
        Some(namespace) => Ok(namespace.inode),
        None => match context.host.own_namespace() {
            Ok(own) => Ok(own.inode),
            Err(error) => Err(kernel_refusal(&error)),
        },
    }
}

/// The bits of packet marks that no other fault uses in this namespace, as the number of their place.
fn free_marks(inode: u64, context: &PlanContext<'_>) -> Result<usize, Refusal> {
    let is_free = |number: &usize| {
        let name = marks_held(inode, *number);
        !context.held.iter().any(|(thing, _)| *thing == name)
    };
    (0..PacketFilter::MARKS).find(is_free).ok_or_else(|| {
        let number = PacketFilter::MARKS;
        let what = format!("{number} faults already mark packets of this network");
        Refusal::new("overlap", what).hint("wait until one of them ends: addresses are translated here (NAT), and such marks tell the original addresses of packets")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_selector_empty_or_invalid_is_refused() {
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
