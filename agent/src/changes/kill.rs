//! A signal that cannot be taken back. There is no undo, and the plan says so: what brings the
//! process back is its own supervisor.

use super::{Alter, Observed, count, listed};
use crate::host::{Host, HostError};
use crate::processes::ProcessId;
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io;

/// These processes get a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// Who.
    pub victims: Vec<ProcessId>,
    /// The signal's number.
    pub signal: i32,
    /// The signal's name, for people.
    pub name: String,
}

impl Kill {
    fn is_fatal(&self) -> bool {
        self.signal == Signal::KILL.as_raw()
    }
}

impl Alter for Kill {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "kill".into(),
            apply: format!("SIG{} to {}", self.name, listed(&self.victims)),
            undo: "none: a signal cannot be taken back; its own supervisor brings a process back"
                .into(),
            if_we_die: "nothing is owed".into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.victims
            .iter()
            .map(|id| format!("process:{id}"))
            .collect()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let Some(signal) = Signal::from_named_raw(self.signal) else {
            return host.effect(&format!("send signal {}", self.signal), || {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the kernel has no such signal by name",
                ))
            });
        };
        for victim in &self.victims {
            host.signal(*victim, signal)?;
        }
        Ok(())
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        Ok(Observed::Absent)
    }

    fn undo(&self, _: &Host) -> Result<(), HostError> {
        Ok(())
    }

    fn effect(&self, host: &Host) -> Effect {
        let gone = self
            .victims
            .iter()
            .filter(|id| !host.table.alive(**id))
            .count();
        let all = self.victims.len();
        Effect {
            // A signal that only asks has acted when it was sent; only SIGKILL must be seen to kill.
            acts: gone > 0 || !self.is_fatal(),
            seen: format!(
                "SIG{} sent to {}, {gone} gone",
                self.name,
                count(all, "process", "processes")
            ),
            figures: [("gone-processes".to_owned(), gone as f64)].into(),
            unmet: None,
        }
    }

    fn is_done(&self, host: &Host) -> bool {
        !self.is_fatal() || !self.victims.iter().any(|id| host.table.alive(*id))
    }
}
