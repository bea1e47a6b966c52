//! What a run would hit, so that runs whose blast radii do not meet can go on side by side.

use backburn_experiments::wire::Victim;
use std::collections::BTreeSet;

/// What a run would hit, as its plan says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Footprint {
    /// These agents, and on each only these processes. Empty where no fault is injected.
    Processes(BTreeSet<(String, String)>),
    /// These agents as a whole: processors, memory, disks and networks are everybody's.
    Agents(BTreeSet<String>),
    /// It is not known, as when the run would be refused now.
    Unknown,
}

impl Footprint {
    /// What these injections hit: for each, its agent and its victims.
    pub(super) fn of<'a>(injections: impl IntoIterator<Item = (&'a str, &'a [Victim])>) -> Self {
        let (mut processes, mut agents, mut is_whole) = (BTreeSet::new(), BTreeSet::new(), false);
        for (agent, victims) in injections {
            agents.insert(agent.to_owned());
            // A plan that names no victim says nothing of what it hits.
            is_whole |= victims.is_empty();
            for victim in victims {
                is_whole |= victim.kind != "process";
                processes.insert((agent.to_owned(), victim.id.clone()));
            }
        }
        match is_whole {
            true => Footprint::Agents(agents),
            false => Footprint::Processes(processes),
        }
    }

    /// The agents as a whole: a controller gives an agent to one run at a time.
    pub(super) fn of_agents(agents: impl IntoIterator<Item = String>) -> Self {
        Footprint::Agents(agents.into_iter().collect())
    }

    /// Whether two runs could hit the same.
    pub(super) fn meets(&self, other: &Footprint) -> bool {
        let has_agent = |agents: &BTreeSet<String>, processes: &BTreeSet<(String, String)>| {
            processes.iter().any(|(agent, _)| agents.contains(agent))
        };
        match (self, other) {
            (Footprint::Unknown, _) | (_, Footprint::Unknown) => true,
            (Footprint::Processes(own), Footprint::Processes(others)) => !own.is_disjoint(others),
            (Footprint::Agents(own), Footprint::Agents(others)) => !own.is_disjoint(others),
            (Footprint::Agents(agents), Footprint::Processes(processes))
            | (Footprint::Processes(processes), Footprint::Agents(agents)) => {
                has_agent(agents, processes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victim(kind: &str, id: &str) -> Victim {
        Victim {
            kind: kind.into(),
            id: id.into(),
            name: id.into(),
        }
    }

    #[test]
    fn footprints_meet_where_they_share_a_process_or_a_host() {
        let of = |agent: &'static str, kind, id| Footprint::of([(agent, &[victim(kind, id)][..])]);
        let nothing = Footprint::of([]);
        let (one, two) = (of("a", "process", "1@7"), of("a", "process", "2@7"));
        let elsewhere = of("b", "process", "1@7");
        let network = of("a", "flows", "out:tcp");
        let nameless = Footprint::of([("a", &[][..])]);
        for (left, right, wanted) in [
            (&one, &one, true),
            (&one, &two, false),
            (&one, &elsewhere, false),
            (&one, &network, true),
            (&network, &network, true),
            (&elsewhere, &network, false),
            (&nothing, &network, false),
            (&nothing, &nothing, false),
            (&nameless, &one, true),
            (&Footprint::Unknown, &nothing, true),
        ] {
            assert_eq!(left.meets(right), wanted, "{left:?} {right:?}");
            assert_eq!(right.meets(left), wanted, "{right:?} {left:?}");
        }
    }
}
