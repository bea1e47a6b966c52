//! Halting the fleet. Every fault is told to end before anything else happens, and before anything is written: a halt works
//! while the store does not. Then the halt is stored, so that it outlives a restart of the controller.

use super::runs::ActiveRun;
use super::{Service, lock};
use crate::fleet::AgentReverted;
use crate::store::{Store, StoreError};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{EndedInjection, Refusal, UnrevertedInjection};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The setting that holds the halt in force.
const HALT_SETTING: &str = "halted";

/// The setting that holds the halts of teams.
const TEAM_HALTS_SETTING: &str = "halted-teams";

/// How long agents may take to report that everything is gone.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a run may take to record what its agents have reported.
const RECORD_TIMEOUT: Duration = Duration::from_secs(1);

/// A halt that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveHalt {
    /// The name of the token that halted the fleet.
    pub who: String,
    /// When the fleet was halted.
    pub at: Timestamp,
    /// The reason, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a halt did.
#[derive(Debug, Clone)]
pub struct HaltReport {
    /// The runs that were told to end.
    pub runs: Vec<String>,
    /// What each agent did, slowest first.
    pub agents: Vec<HaltedAgent>,
    /// The time from the command until everything was observed gone or the wait was over, in milliseconds.
    pub took_ms: f64,
    /// Whether everything is observed gone.
    pub clean: bool,
    /// The runs with faults that are not known to be over.
    pub unknown: Vec<String>,
    /// Whether the halt is stored. If it is not, a restart of the controller ends it.
    pub remembered: bool,
}

/// How the last halt went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastHalt {
    /// The time until everything was observed gone or the wait was over, in seconds.
    pub seconds: f64,
    /// Whether everything was observed gone.
    pub clean: bool,
}

/// What an agent did in a halt.
#[derive(Debug, Clone)]
pub struct HaltedAgent {
    /// The name of the agent.
    pub agent: String,
    /// The time from the command until it reported that everything is observed gone, in milliseconds. None if it did not.
    pub took_ms: Option<f64>,
    /// What it could not revert.
    pub owed: Vec<UnrevertedInjection>,
    /// Whether it is connected and does not answer.
    pub unresponsive: bool,
    /// What its guardian reverted because its worker died or hung.
    pub guardian: Vec<EndedInjection>,
}

impl HaltedAgent {
    /// Whether everything is observed gone: by its worker, or by its guardian, which knows all that its worker owed.
    fn is_clean(&self) -> bool {
        match self.took_ms {
            Some(_) => self.owed.is_empty(),
            None => !self.guardian.is_empty() && self.guardian.iter().all(|ended| ended.clean),
        }
    }
}

impl ActiveHalt {
    /// Why no run may start.
    pub fn refusal(&self) -> Refusal {
        let why = self.why.as_deref().map(|why| format!(": {why}"));
        let what = format!(
            "`{}` halted the fleet at {}{}",
            self.who,
            self.at.strftime("%F %T UTC"),
            why.unwrap_or_default()
        );
        Refusal::new("halt", what).hint("`backburn resume` lets runs start again")
    }
}

/// The halt that was in force when the controller ended, if any.
pub(super) fn stored(store: &dyn Store) -> Result<Option<ActiveHalt>, StoreError> {
    let kept = store.setting(HALT_SETTING)?.unwrap_or_default();
    match serde_json::from_value(kept.clone()) {
        Ok(halted) => Ok(halted),
        // A setting that cannot be read is no reason to start runs.
        Err(error) => Ok(Some(ActiveHalt {
            who: "unknown".into(),
            at: Timestamp::UNIX_EPOCH,
            why: Some(format!("the stored halt could not be read: {error}")),
        })),
    }
}

/// The halts of teams that were in force when the controller ended. If they cannot be read, the whole fleet is halted.
pub(super) fn stored_of_teams(
    store: &dyn Store,
) -> Result<Result<BTreeMap<String, ActiveHalt>, ActiveHalt>, StoreError> {
    let Some(kept) = store.setting(TEAM_HALTS_SETTING)? else {
        return Ok(Ok(BTreeMap::new()));
    };
    Ok(serde_json::from_value(kept).map_err(|error| ActiveHalt {
        who: "unknown".into(),
        at: Timestamp::UNIX_EPOCH,
        why: Some(format!(
            "the stored halts of teams could not be read: {error}"
        )),
    }))
}

impl Service {
    /// The halt in force, if any.
    pub fn halted(&self) -> Option<ActiveHalt> {
        lock(&self.halted).clone()
    }

    /// How the last halt since the start went, if there was one.
    pub fn last_halt(&self) -> Option<LastHalt> {
        *lock(&self.last_halt)
    }

    /// The halts of teams that are in force, by team.
    pub fn halted_teams(&self) -> BTreeMap<String, ActiveHalt> {
        lock(&self.halted_teams).clone()
    }

    /// Ends every run, has every agent revert everything, and lets no run start until [`resume`](Service::resume).
    pub async fn halt(self: &Arc<Self>, who: &str, why: Option<String>) -> HaltReport {
        let halted = ActiveHalt {
            who: who.to_owned(),
            at: Timestamp::now(),
            why,
        };
        // From here on nothing starts. The runs are told before the agents are: that a fault ended early because of the halt
        // must not be taken for its regular end.
        *lock(&self.halted) = Some(halted.clone());
        self.fleet.halt();
        self.game_days_changed();
        let runs: Vec<_> = (lock(&self.runs).iter())
            .map(|(run, running)| (run.clone(), Arc::clone(running)))
            .collect();
        let setting = (HALT_SETTING, json!(halted));
        self.end(runs, &halted.refusal().what, None, setting).await
    }

    /// Ends every run that has reserved an agent of this team, has all of these agents revert everything, and lets no run
    /// target them until [`resume_team`](Service::resume_team).
    ///
    /// # Errors
    /// No agent belongs to the team.
    pub async fn halt_team(
        self: &Arc<Self>,
        team: &str,
        who: &str,
        why: Option<String>,
    ) -> Result<HaltReport, Refusal> {
        let agents = self.fleet.team(team);
        if agents.is_empty() {
            let teams = self.fleet.teams();
            let teams: Vec<&str> = teams.iter().map(String::as_str).collect();
            let what = format!("no agent belongs to team `{}`", team.escape_debug());
            return Err(Refusal::new("not-there", what).hint(match teams.is_empty() {
                true => "`backburn halt` halts the whole fleet; an admin gives an agent to a team with `backburn agents label NAME team=TEAM`".to_owned(),
                false => format!("teams with agents are: {}; `backburn halt` halts the whole fleet", teams.join(", ")),
            }));
        }
        let halted = ActiveHalt {
            who: who.to_owned(),
            at: Timestamp::now(),
            why,
        };
        let all = {
            let mut all = lock(&self.halted_teams);
            all.insert(team.to_owned(), halted.clone());
            all.clone()
        };
        self.fleet.halt_team(team);
        let theirs: BTreeSet<String> = (agents.iter())
            .flat_map(|agent| self.fleet.runs_of(agent))
            .collect();
        let runs: Vec<_> = (lock(&self.runs).iter())
            .filter(|(run, _)| theirs.contains(*run))
            .map(|(run, running)| (run.clone(), Arc::clone(running)))
            .collect();
        let what = format!("team `{team}`: {}", halted.refusal().what);
        let setting = (TEAM_HALTS_SETTING, json!(all));
        Ok(self.end(runs, &what, Some(agents), setting).await)
    }

    /// Ends these runs, and has all agents revert everything, or only these ones. Then the halt is stored.
    async fn end(
        self: &Arc<Self>,
        runs: Vec<(String, Arc<ActiveRun>)>,
        why: &str,
        only: Option<BTreeSet<String>>,
        (setting, kept): (&'static str, Value),
    ) -> HaltReport {
        let began = Instant::now();
        for (_, running) in &runs {
            running.stop.send(why.to_owned()).ok();
        }
        let mut agents = Vec::new();
        let report = |reverted| agents.push(HaltedAgent::from(reverted));
        match &only {
            None => self.fleet.revert_all(REVERT_TIMEOUT, report).await,
            Some(only) => (self.fleet.revert_agents(only, REVERT_TIMEOUT, report)).await,
        }
        let silent = agents
            .iter()
            .filter(|agent: &&HaltedAgent| agent.took_ms.is_none());
        let silent: BTreeSet<String> = silent
            .flat_map(|agent| self.fleet.runs_of(&agent.agent))
            .collect();
        let answered = Instant::now();
        let mut unknown = Vec::new();
        for (run, running) in &runs {
            let mut open = running.open.subscribe();
            let left = match silent.contains(run) {
                // The run only records what other agents have reported; silent agents are not waited for.
                true => RECORD_TIMEOUT.saturating_sub(answered.elapsed()),
                false => REVERT_TIMEOUT.saturating_sub(began.elapsed()),
            };
            let over = tokio::time::timeout(left, open.wait_for(|open| open.is_empty())).await;
            if over.is_err() {
                unknown.push(run.clone());
            }
        }
        let took_ms = super::runs::millis(HumanDuration(began.elapsed()));
        agents.sort_by(|one, other| {
            let key = |agent: &HaltedAgent| agent.took_ms.unwrap_or(f64::INFINITY);
            key(other).total_cmp(&key(one))
        });
        let clean = unknown.is_empty() && agents.iter().all(HaltedAgent::is_clean);
        *lock(&self.last_halt) = Some(LastHalt {
            seconds: took_ms / 1000.0,
            clean,
        });
        let store = Arc::clone(&self.store);
        let remember = tokio::task::spawn_blocking(move || store.set(setting, &kept)).await;
        let remembered = matches!(&remember, Ok(Ok(())));
        if !remembered {
            tracing::error!(?remember, "the halt is in force, but could not be stored");
        }
        HaltReport {
            runs: runs.into_iter().map(|(run, _)| run).collect(),
            agents,
            took_ms,
            clean,
            unknown,
            remembered,
        }
    }

    /// Ends the halt of a team: runs may target its agents again. Returns whether one was in force.
    ///
    /// # Errors
    /// The store failed; the halt stays in force, as it would after a restart.
    pub fn resume_team(&self, team: &str) -> Result<bool, StoreError> {
        let mut left = self.halted_teams();
        let was = left.remove(team).is_some();
        self.store.set(TEAM_HALTS_SETTING, &json!(left))?;
        lock(&self.halted_teams).remove(team);
        self.fleet.resume_team(team);
        self.schedules.send_modify(|count| *count += 1);
        Ok(was)
    }

    /// Ends the halt: runs may start again. Runs that were ended stay so. Returns whether a halt was in force.
    ///
    /// # Errors
    /// The store failed; the halt stays in force, as it would after a restart.
    pub fn resume(&self) -> Result<bool, StoreError> {
        self.store.set(HALT_SETTING, &json!(null))?;
        let was = lock(&self.halted).take().is_some();
        self.fleet.resume();
        self.schedules.send_modify(|count| *count += 1);
        Ok(was)
    }
}

impl From<AgentReverted> for HaltedAgent {
    fn from(reverted: AgentReverted) -> Self {
        HaltedAgent {
            agent: reverted.agent,
            took_ms: reverted
                .took
                .map(|took| super::runs::millis(HumanDuration(took))),
            owed: reverted.owed,
            unresponsive: reverted.unresponsive,
            guardian: reverted.guardian,
        }
    }
}
