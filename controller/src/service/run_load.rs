//! What a run takes of the ceilings in the policy.

use super::RunSpec;
use crate::fleet::TeamSet;
use crate::runner;
use backburn_experiments::check::Experiment;
use std::collections::BTreeMap;

/// What a run takes of the ceilings in the policy, from its reservation of agents to its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunLoad {
    /// The id of the run; empty for one that is only asked about.
    pub run: String,
    /// The name of the token that asked for it.
    pub who: String,
    /// The person to whom the token belongs.
    pub person: String,
    /// The teams that the token is limited to; none means all.
    pub teams: TeamSet,
    /// The agents that it targets, with their labels.
    pub agents: BTreeMap<String, BTreeMap<String, String>>,
    /// The most faults that it may have on each agent.
    pub faults: BTreeMap<String, u32>,
    /// The most faults that it may have at a time, by its blast radius.
    pub concurrent_faults: Option<u32>,
}

impl RunLoad {
    /// What a run of this experiment takes on these agents, where so many faults are planned on each.
    pub(super) fn of(
        run: &str,
        spec: &RunSpec,
        experiment: &Experiment,
        agents: &BTreeMap<String, BTreeMap<String, String>>,
        planned: &BTreeMap<String, u32>,
    ) -> Self {
        // Agents that came or went between the selection and now change what would be selected: each action may then hit each.
        let upper_bound = runner::fault_actions(experiment);
        let is_same = upper_bound == 0
            || (!planned.is_empty() && planned.keys().all(|name| agents.contains_key(name)));
        let faults = agents.keys().map(|name| {
            let count = match is_same {
                true => planned.get(name).copied().unwrap_or(0),
                false => upper_bound,
            };
            (name.clone(), count)
        });
        RunLoad {
            run: run.to_owned(),
            who: spec.who.clone(),
            person: spec.person.clone(),
            teams: spec.teams.clone(),
            faults: faults.collect(),
            agents: agents.clone(),
            concurrent_faults: (experiment.document.blast_radius.as_ref())
                .and_then(|radius| radius.concurrent_faults),
        }
    }

    /// The most faults that the run may have at a time on the agents whose labels match.
    pub(super) fn faults_on(&self, matches: impl Fn(&BTreeMap<String, String>) -> bool) -> u32 {
        let agents = self.agents.iter().filter(|(_, labels)| matches(labels));
        let count: u32 = agents.filter_map(|(name, _)| self.faults.get(name)).sum();
        self.concurrent_faults.map_or(count, |most| most.min(count))
    }
}
