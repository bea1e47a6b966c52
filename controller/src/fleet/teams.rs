//! Teams of agents: the granted label `team` says which team an agent belongs to.

use super::Fleet;
use backburn_experiments::wire::Refusal;
use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

/// The granted label that names an agent's team.
pub const TEAM_LABEL: &str = "team";

/// Names of teams. Where it limits something, none means no limit.
pub type TeamSet = BTreeSet<String>;

impl Fleet {
    /// The agents that people have given to one of these teams. None if no teams are given, which means all agents.
    pub(super) fn members_of(&self, teams: &TeamSet) -> Option<BTreeSet<String>> {
        if teams.is_empty() {
            return None;
        }
        let granted = self.granted();
        let theirs = granted.iter().filter(|(_, granted)| {
            let team = granted.labels.get(TEAM_LABEL);
            granted.is_confirmed && team.is_some_and(|team| teams.contains(team))
        });
        Some(theirs.map(|(name, _)| name.clone()).collect())
    }

    /// The agents of this team, whether or not they are connected. A halt takes an agent's own word for it, too.
    pub fn team(&self, team: &str) -> BTreeSet<String> {
        let granted = self.granted();
        let theirs = granted
            .iter()
            .filter(|(_, granted)| granted.labels.get(TEAM_LABEL).is_some_and(|of| of == team));
        theirs.map(|(name, _)| name.clone()).collect()
    }

    /// The teams that people have given these agents to.
    pub fn teams_of<'a>(&self, agents: impl IntoIterator<Item = &'a String>) -> TeamSet {
        let all_granted = self.granted();
        let teams = agents.into_iter().filter_map(|agent| {
            let granted = all_granted
                .get(agent)
                .filter(|granted| granted.is_confirmed)?;
            granted.labels.get(TEAM_LABEL).cloned()
        });
        teams.collect()
    }

    /// All teams that have an agent.
    pub fn teams(&self) -> TeamSet {
        let granted = self.granted();
        let teams = granted
            .values()
            .filter_map(|granted| granted.labels.get(TEAM_LABEL));
        teams.cloned().collect()
    }

    /// From now on no agent of this team can be reserved. Runs that are told to end before
    /// [`revert_agents`](Self::revert_agents) is called wait for its requests instead of sending their own.
    pub fn halt_team(&self, team: &str) {
        let theirs = self.team(team);
        self.halted_teams().insert(team.to_owned());
        // Reservations check for a halt under this lock: those made before are complete.
        let members = self.members();
        for (name, member) in members.iter().filter(|(name, _)| theirs.contains(*name)) {
            self.guardians().remove(name);
            member.handle.announce_revert_all();
        }
    }

    /// Agents of this team can be reserved again.
    pub fn resume_team(&self, team: &str) {
        self.halted_teams().remove(team);
    }

    /// Whether the halt of its team keeps this agent from being reserved.
    pub(super) fn is_team_halted(&self, agent: &str) -> bool {
        self.team_halt_refusal(agent).is_some()
    }

    /// Why this agent cannot be reserved, if its team is halted.
    pub(super) fn team_halt_refusal(&self, agent: &str) -> Option<Refusal> {
        let team = self.granted().get(agent)?.labels.get(TEAM_LABEL)?.clone();
        let is_halted = self.halted_teams().contains(&team);
        is_halted.then(|| {
            let what = format!("agent `{agent}` belongs to team `{team}`, which is halted");
            Refusal::new("halt", what).hint(format!(
                "`backburn resume --team {team}` lets runs target it again"
            ))
        })
    }

    /// Locked after all others.
    fn halted_teams(&self) -> MutexGuard<'_, TeamSet> {
        (self.halted_teams.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}
