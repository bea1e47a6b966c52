//! Processes stopped with SIGSTOP and let go with SIGCONT: for those that cannot be held by
//! tracing. Nothing in the kernel ends this one, so the ledger and the guardian do.
//!
//! Victims that were stopped before are not in the list: what was stopped stays stopped.

use super::{Alter, Observed, count, listed};
use crate::host::{Host, HostError};
use crate::processes::ProcessId;
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io;

/// These processes are stopped by a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Who; none of them was stopped when this was planned.
    pub victims: Vec<ProcessId>,
}

impl Stop {
    fn stopped(&self, host: &Host) -> Vec<ProcessId> {
        self.victims
            .iter()
            .copied()
            .filter(|id| host.table.state(*id) == Some('T'))
            .collect()
    }
}

impl Alter for Stop {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "stop".into(),
            apply: format!("SIGSTOP to {}", listed(&self.victims)),
            undo: "SIGCONT to those of them that are stopped".into(),
            if_we_die: "the guardian sends SIGCONT; without it, the next start or `revert --all`"
                .into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.victims
            .iter()
            .map(|id| format!("process:{id}"))
            .collect()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        for victim in &self.victims {
            host.signal(*victim, Signal::STOP)?;
        }
        Ok(())
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        let stopped = self.stopped(host);
        Ok(if stopped.is_empty() {
            Observed::Absent
        } else {
            Observed::Present(format!(
                "{} still stopped: {}",
                count(stopped.len(), "process", "processes"),
                listed(&stopped)
            ))
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        for victim in self.stopped(host) {
            host.signal(victim, Signal::CONT)?;
        }
        Ok(())
    }

    fn effect(&self, host: &Host) -> Effect {
        let stopped = self.stopped(host).len();
        Effect {
            acts: stopped > 0,
            seen: format!(
                "{stopped} of {} stopped",
                count(self.victims.len(), "process", "processes")
            ),
            figures: [("stopped-processes".to_owned(), stopped as f64)].into(),
            unmet: None,
        }
    }

    fn is_done(&self, host: &Host) -> bool {
        // Nobody left to hold.
        !self.victims.iter().any(|id| host.table.alive(*id))
    }
}
