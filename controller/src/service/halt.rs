//! The lever. What acts is told to end before anything else happens, and least of all before anything is written: it
//! works with the store unavailable. Then it is written down, so that a restart does not let go of it.

use super::{Service, lock};
use crate::fleet::AgentReverted;
use crate::store::{Store, StoreError};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{EndedInjection, UnrevertedInjection, Refusal};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The setting in which it is remembered.
const HALTED: &str = "halted";

/// How long agents may take to say that everything is gone.
const WITHIN: Duration = Duration::from_secs(30);

/// How long a run may take to take in what its agents have said.
const PAPER_WITHIN: Duration = Duration::from_secs(1);

/// The lever is pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveHalt {
    /// By whom.
    pub who: String,
    /// When.
    pub at: Timestamp,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a pull of the lever did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HaltReport {
    /// The runs that were ended.
    pub runs: Vec<String>,
    /// What each agent did, the slowest first.
    pub agents: Vec<HaltedAgent>,
    /// From the command until everything was observed gone, or we stopped waiting, in milliseconds.
    pub took_ms: f64,
    /// Whether everything is observed gone.
    pub clean: bool,
    /// Runs some of whose faults are not known to be over.
    pub unknown: Vec<String>,
    /// Whether the store remembers it; where it does not, a restart of the controller lets go of the lever.
    pub remembered: bool,
}

/// What an agent did when the lever was pulled.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HaltedAgent {
    /// Its name.
    pub agent: String,
    /// From the command until it said that everything is observed gone, in milliseconds; none where it has not.
    pub took_ms: Option<f64>,
    /// What it could not put back.
    pub owed: Vec<UnrevertedInjection>,
    /// Whether it is connected and does not answer.
    pub unresponsive: bool,
    /// What its guardian put back for it, because its worker died or hung.
    pub guardian: Vec<EndedInjection>,
}

impl HaltedAgent {
    /// Whether everything of it is observed gone: by itself, or by its guardian, who knows all that its worker owed.
    fn is_clean(&self) -> bool {
        match self.took_ms {
            Some(_) => self.owed.is_empty(),
            None => !self.guardian.is_empty() && self.guardian.iter().all(|ended| ended.clean),
        }
    }
}

impl ActiveHalt {
    /// Why nothing starts.
    pub fn refusal(&self) -> Refusal {
        let why = self.why.as_deref().map(|why| format!(": {why}"));
        let what = format!(
            "`{}` has pulled the halt lever at {}{}",
            self.who,
            self.at.strftime("%F %T UTC"),
            why.unwrap_or_default()
        );
        Refusal::new("halt", what).hint("`backburn resume` lets runs start again")
    }
}

/// Whether the lever was pulled when the controller ended.
pub(super) fn remembered(store: &dyn Store) -> Result<Option<ActiveHalt>, StoreError> {
    let kept = store.setting(HALTED)?.unwrap_or_default();
    match serde_json::from_value(kept.clone()) {
        Ok(halted) => Ok(halted),
        // What can't be understood is no reason to start.
        Err(error) => Ok(Some(ActiveHalt {
            who: "unknown".into(),
            at: Timestamp::UNIX_EPOCH,
            why: Some(format!(
                "what the store remembers of it can't be understood: {error}"
            )),
        })),
    }
}

impl Service {
    /// Whether the lever is pulled, and by whom.
    pub fn halted(&self) -> Option<ActiveHalt> {
        lock(&self.halted).clone()
    }

    /// Stops every run, has every agent put everything back, and lets nothing new start until [`resume`](Service::resume).
    pub async fn halt(self: &Arc<Self>, who: &str, why: Option<String>) -> HaltReport {
        let began = Instant::now();
        let halted = ActiveHalt {
            who: who.to_owned(),
            at: Timestamp::now(),
            why,
        };
        // From here on nothing starts; then who goes on is told, before the agents are: what an agent says of its
        // faults' ends must not be taken for their ends in time.
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
            .revert_all(WITHIN, |reverted| agents.push(told(reverted)))
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
                // What others have said is about to be taken in; for who says nothing nobody waits.
                true => PAPER_WITHIN.saturating_sub(answered.elapsed()),
                false => WITHIN.saturating_sub(began.elapsed()),
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
        let remember = tokio::task::spawn_blocking(move || store.set(HALTED, &kept)).await;
        let remembered = matches!(&remember, Ok(Ok(())));
        if !remembered {
            tracing::error!(
                ?remember,
                "the halt lever is pulled, and the store does not remember it"
            );
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

    /// Lets runs start again. What was stopped stays stopped. Whether the lever was pulled.
    ///
    /// # Errors
    /// The store's: it stays pulled, since a restart would find it so.
    pub fn resume(&self) -> Result<bool, StoreError> {
        self.store.set(HALTED, &json!(null))?;
        let was = lock(&self.halted).take().is_some();
        self.fleet.resume();
        self.schedules.send_modify(|count| *count += 1);
        Ok(was)
    }
}

fn told(reverted: AgentReverted) -> HaltedAgent {
    HaltedAgent {
        agent: reverted.agent,
        took_ms: reverted.took.map(|took| super::runs::millis(HumanDuration(took))),
        owed: reverted.owed,
        unresponsive: reverted.unresponsive,
        guardian: reverted.guardian,
    }
}
