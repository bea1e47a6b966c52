//! Teams: which experiments, runs and agents a token that is limited to teams may use. What belongs to nobody's team is for
//! tokens of all teams only.

use super::{Actor, Service};
use crate::fleet::{TEAM_LABEL, TeamSet};
use crate::store::{EnrolledAgent, ExperimentRef, OwnedKind, StoreError, StoreErrorKind};
use std::collections::BTreeSet;

impl Actor {
    /// Whether the token may use what belongs to these teams.
    pub fn shares(&self, teams: &BTreeSet<String>) -> bool {
        self.teams.is_empty() || !self.teams.is_disjoint(teams)
    }
}

/// The team of an agent, if a person has granted it one.
fn team_of(agent: &EnrolledAgent) -> BTreeSet<String> {
    let granted = agent
        .labels_by
        .as_ref()
        .and_then(|_| agent.labels.get(TEAM_LABEL));
    granted.cloned().into_iter().collect()
}

impl Service {
    /// Whether the token may use this agent.
    pub fn sees_agent(&self, who: &Actor, agent: &EnrolledAgent) -> bool {
        who.shares(&team_of(agent))
    }

    /// Whether the token may use the agent of this name. What does not exist is seen by everybody.
    ///
    /// # Errors
    /// The store failed.
    pub fn sees_agent_called(&self, who: &Actor, name: &str) -> Result<bool, StoreError> {
        match self.store.agent(name) {
            Ok(agent) => Ok(self.sees_agent(who, &agent)),
            Err(error) if error.kind == StoreErrorKind::NotThere => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the token may use this experiment or run.
    ///
    /// # Errors
    /// The store failed.
    pub fn sees(&self, who: &Actor, kind: OwnedKind, id: &str) -> Result<bool, StoreError> {
        match who.teams.is_empty() {
            true => Ok(true),
            false => Ok(who.shares(&self.store.owners(kind, id)?)),
        }
    }

    /// Whether the token may store an experiment under this name: nobody has, or it belongs to a team of the token.
    ///
    /// # Errors
    /// The store failed.
    pub fn may_store_experiment(&self, who: &Actor, name: &str) -> Result<bool, StoreError> {
        match self.store.experiment_versions(name) {
            Ok(_) => self.sees(who, OwnedKind::Experiment, name),
            Err(error) if error.kind == StoreErrorKind::NotThere => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives a run that is about to start to the teams of its experiment, and to those that its token is limited to.
    pub(super) fn own_run(
        &self,
        run: &str,
        experiment: Option<&ExperimentRef>,
        teams: &TeamSet,
    ) -> Result<(), StoreError> {
        let mut owners = match experiment {
            Some(experiment) => self.store.owners(OwnedKind::Experiment, &experiment.name)?,
            None => TeamSet::new(),
        };
        owners.extend(teams.iter().cloned());
        self.add_owners(run, owners)
    }

    /// Gives a run to the teams of the agents that it is about to target, too.
    pub(super) fn own_by_agents<'a>(
        &self,
        run: &str,
        agents: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), StoreError> {
        self.add_owners(run, self.fleet.teams_of(agents))
    }

    fn add_owners(&self, run: &str, more: TeamSet) -> Result<(), StoreError> {
        if more.is_empty() {
            return Ok(());
        }
        let mut owners = self.store.owners(OwnedKind::Run, run)?;
        let before = owners.len();
        owners.extend(more);
        match owners.len() == before {
            true => Ok(()),
            false => self.store.set_owners(OwnedKind::Run, run, &owners),
        }
    }
}
