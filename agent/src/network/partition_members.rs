//! Flows between the members of a partition, one of which is this host.

use super::endpoint::{ends, read};
use super::flow_selector::FlowSelector;
use super::partition_topology::LostDirection;
use crate::packet_filter::Direction;
use crate::plan::{PlanContext, kernel_refusal};
use crate::processes::OneOrMany;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;

impl FlowSelector {
    /// All problems of flows between these members, which take the place of `to` and `from`.
    pub(crate) fn problems_between(&self, members: &[String]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, given) in [
            ("to", self.to.is_some()),
            ("from", self.from.is_some()),
            ("direction", self.direction.is_some()),
        ] {
            if given {
                let what = format!("both `between` and `{key}` are given");
                problems.push(Problem::new(format!("$.{key}"), what).hint("give one of them"));
            }
        }
        for (number, member) in members.iter().enumerate() {
            let what = match read(member) {
                Err(what) => what,
                Ok(read) if read.port.is_some() => format!("`{member}` has a port"),
                Ok(_) if members[..number].contains(member) => {
                    format!("`{member}` is given twice")
                }
                Ok(_) => continue,
            };
            problems.push(
                Problem::new(format!("$.between.members[{number}]"), what)
                    .hint("a member is an address or a name; use `ports` to select ports"),
            );
        }
        problems.extend(self.problems_of_given_keys());
        problems
    }

    /// The position of this host, or of the namespace, among the members, by its own addresses.
    ///
    /// # Errors
    /// It is none of the members, or several of them; or a member has no address.
    pub(crate) fn position_among(
        &self,
        members: &[String],
        context: &PlanContext<'_>,
    ) -> Result<usize, Refusal> {
        let place = self.locate(context)?;
        let own = context
            .host
            .addresses(place.namespace.as_ref())
            .map_err(|error| kernel_refusal(&error))?;
        let mut problems = Vec::new();
        let resolver = place.resolver(context.host);
        let resolve = |name: &str| place.resolve(resolver.as_ref(), name);
        let places: Vec<usize> = (0..members.len())
            .filter(|place| {
                let member = Some(OneOrMany::One(members[*place].clone()));
                let key = format!("between.members[{place}]");
                let found = ends(&key, &member, &resolve, &mut problems);
                let mut networks = found.iter().flat_map(|end| &end.networks);
                networks.any(|network| own.iter().any(|address| network.contains(*address)))
            })
            .collect();
        let what = match places.as_slice() {
            [place] if problems.is_empty() => return Ok(*place),
            _ if !problems.is_empty() => "a member has no address".to_owned(),
            [] => "none of the members is this host".to_owned(),
            many => format!("{} of the members are this host", many.len()),
        };
        if problems.is_empty() {
            let own: Vec<String> = own.iter().map(ToString::to_string).collect();
            problems.push(
                Problem::new("$.between.members", what.clone()).hint(format!(
                    "exactly one member must have an address of this host: {}",
                    own.join(", ")
                )),
            );
        }
        Err(Refusal {
            problems,
            ..Refusal::new("no-match", what)
        })
    }

    /// The same flows, but only those to these members, in the direction in which packets are lost.
    pub(crate) fn narrowed_to(&self, others: Vec<String>, lost: LostDirection) -> FlowSelector {
        FlowSelector {
            to: Some(OneOrMany::Many(others)),
            direction: Some(match lost {
                LostDirection::Leaving => Direction::Egress,
                LostDirection::Arriving => Direction::Ingress,
                LostDirection::Both => Direction::Both,
            }),
            ..self.clone()
        }
    }
}
