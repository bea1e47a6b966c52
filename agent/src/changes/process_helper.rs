//! A process of the agent's that acts on the host as long as it lives: holding victims by tracing them, taking
//! memory, processors or disk. All that it takes the kernel gives back when it dies, and it dies
//! with the thread that started it, at its own deadline, or by the agent's hand. It is found by its mark.

use super::{Observed, ReversibleChange};
use crate::helpers::HelperSpec;
use crate::host::{Host, HostError};
use crate::processes::ProcessId;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Deserializer, Serialize};
use std::io;
use std::time::Duration;

/// How long a killed helper may take to leave, e.g. to give gigabytes back.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one that is asked to end may take before it is killed; it takes the kernel some 15 ms.
const TERM_TIMEOUT: Duration = Duration::from_millis(500);

/// A process of the agent's with a mark on its command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessHelper {
    /// Its mark, from the injection's id.
    pub mark: String,
    /// When the kernel kills it, counted from its start.
    #[serde(deserialize_with = "within_reach")]
    pub deadline: HumanDuration,
    /// What the helper does, as data.
    #[serde(rename = "role")]
    pub spec: HelperSpec,
}

/// A deadline that no clock reaches is the longest one. Some were written so before durations had a limit; undoing does not need it.
fn within_reach<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HumanDuration, D::Error> {
    let written = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(written).unwrap_or(HumanDuration::MAX))
}

impl ProcessHelper {
    fn find(&self, host: &Host) -> io::Result<Vec<ProcessId>> {
        host.find_marked(&self.mark)
    }

    /// The helper, without a scan if this process started it.
    fn known(&self, host: &Host) -> Option<ProcessId> {
        match host.child(&self.mark) {
            Some(id) => host.table.alive(id).then_some(id),
            None => self.find(host).ok()?.first().copied(),
        }
    }
}

impl ReversibleChange for ProcessHelper {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "helper".into(),
            apply: format!(
                "start helper `{}`: {}",
                self.mark,
                self.spec.helper().describe()
            ),
            undo: format!(
                "{} helper `{}`; {}",
                if self.spec.helper().ends_on_sigterm() {
                    "end"
                } else {
                    "kill"
                },
                self.mark,
                self.spec.helper().describe_end()
            ),
            if_agent_dies: self
                .spec
                .helper()
                .describe_agent_death()
                .unwrap_or_else(|| {
                    format!(
                        "the kernel kills it with the agent, and {} after its start in any case",
                        self.deadline
                    )
                }),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.spec.helper().holds()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        host.spawn_helper(&self.mark, self.deadline.0, &self.spec)
            .map(|_| ())
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        let found = self.find(host)?;
        if let Some(id) = found.first() {
            let drift = self.spec.helper().drift();
            if !drift.is_empty() {
                return Ok(Observed::Contested(contested(&drift)));
            }
            return Ok(Observed::Present(format!(
                "helper `{}` is there as process {}",
                self.mark, id.pid
            )));
        }
        if host.is_left_to_others(&self.mark) {
            return Ok(Observed::Absent);
        }
        Ok(match self.spec.helper().residue(&host.table)? {
            None => Observed::Absent,
            Some(residue) => Observed::Present(residue),
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        let asked = self.spec.helper().ends_on_sigterm().then_some(TERM_TIMEOUT);
        if let Some(id) = host.child(&self.mark) {
            host.kill_and_wait(id, asked, KILL_TIMEOUT)?;
            host.reap();
        }
        let found = self.find(host).map_err(|source| HostError {
            what: format!("look for helper {}", self.mark),
            source,
        })?;
        for id in found {
            host.kill_and_wait(id, asked, KILL_TIMEOUT)?;
        }
        if host.is_left_to_others(&self.mark) {
            return Ok(());
        }
        host.effect(&format!("clear away after helper {}", self.mark), || {
            self.spec.helper().remove_leftovers()
        })
    }

    fn effect(&self, host: &Host) -> Effect {
        match self.known(host) {
            Some(id) => {
                let mut effect = self.spec.helper().effect(id.pid, &host.table);
                let drift = self.spec.helper().drift();
                if !drift.is_empty() {
                    effect.acts = false;
                    effect.seen = format!("{}; before that, {}", contested(&drift), effect.seen);
                }
                effect
            }
            None if self.spec.helper().effect_outlasts_helper() => {
                self.spec.helper().effect(0, &host.table)
            }
            None => Effect {
                acts: false,
                seen: format!("helper `{}` is gone", self.mark),
                ..Effect::default()
            },
        }
    }

    fn is_done(&self, host: &Host) -> bool {
        // What others have changed does not what was asked for any more, and maybe something worse: it ends.
        // One that is stopped does not do what was asked for, and with packets in its hands something worse.
        self.known(host)
            .is_none_or(|helper| host.table.state(helper) == Some('T'))
            || self.spec.helper().is_idle(&host.table)
            || !self.spec.helper().drift().is_empty()
    }
}

/// What others have changed, for people.
fn contested(drift: &[String]) -> String {
    format!("contested, it no longer acts: {}", drift.join(", "))
}
