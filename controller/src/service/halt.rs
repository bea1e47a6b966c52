//! Halting the fleet. Every fault is told to end before anything else happens, and before anything is written: a halt works
//! while the store does not. Then the halt is stored, so that it outlives a restart of the controller.

use super::{Service, lock};
use crate::fleet::AgentReverted;
use crate::store::{Store, StoreError};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{EndedInjection, Refusal, UnrevertedInjection};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The setting that holds the halt in force.
const HALT_SETTING: &str = "halted";

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

impl Service {
    /// The halt in force, if any.
    pub fn halted(&self) -> Option<ActiveHalt> {
        lock(&self.halted).clone()
    }

    /// Ends every run, has every agent revert everything, and lets no run start until [`resume`](Service::resume).
    pub async fn halt(self: &Arc<Self>, who: &str, why: Option<String>) -> HaltReport {
        let began = Instant::now();
        let halted = ActiveHalt {
            who: who.to_owned(),
            at: Timestamp::now(),
            why,
        };
        // From here on nothing starts. The runs are told before the agents are: that a fault ended early because of the halt
        // must not be taken for its regular end.
        *lock(&self.halted) = Some(halted.clone());
        self.fleet.halt();
        let runs: Vec<_> = (lock(&self.runs).iter())
            .map(|(run, running)| (run.clone(), Arc::clone(running)))
            .collect();
        for (_, running) in &runs {
            running.stop.send(halted.refusal().what).ok();
        }
        let mut agents = Vec::new();
        self.fleet
            .revert_all(REVERT_TIMEOUT, |reverted| {
                agents.push(HaltedAgent::from(reverted))
            })
            .await;
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
        let store = Arc::clone(&self.store);
        let kept = json!(halted);
        let remember = tokio::task::spawn_blocking(move || store.set(HALT_SETTING, &kept)).await;
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
