//! A signal that cannot be taken back. There is no undo, and the plan says so: what brings the
//! process back is its own supervisor.

use super::{Observed, ReversibleChange, count, listed};
use crate::helpers::effect;
use crate::host::{Host, HostError};
use crate::processes::{ProcessId, SignalState};
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io;

/// These processes get a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// The processes that get the signal.
    pub victims: Vec<ProcessId>,
    /// The number of the signal, see signal(7).
    pub signal: i32,
    /// The signal's name, for people.
    pub name: String,
}

/// What became of a signal, so far, in numbers of processes.
#[derive(Debug, Default)]
struct SignalOutcome {
    gone: usize,
    /// They are there, and the signal waits for them.
    pending: usize,
    /// They are there, and the kernel has dropped the signal.
    dropped: usize,
    /// They are there, and have taken it.
    taken: usize,
}

impl Kill {
    /// Whether it is sent so that processes end. Of the others what can be seen is that they are taken.
    fn is_to_end(&self) -> bool {
        let to_end = [
            Signal::KILL,
            Signal::TERM,
            Signal::INT,
            Signal::QUIT,
            Signal::ABORT,
            Signal::SEGV,
            Signal::BUS,
        ];
        to_end.iter().any(|signal| signal.as_raw() == self.signal)
    }

    fn outcome(&self, host: &Host) -> SignalOutcome {
        let mut outcome = SignalOutcome::default();
        for id in &self.victims {
            let state = host.table.signal_state(*id, self.signal);
            let is_dropped =
                |state: &SignalState| state.is_dropped() && self.signal != Signal::KILL.as_raw();
            match state {
                _ if !host.table.alive(*id) => outcome.gone += 1,
                Some(state) if state.is_pending => outcome.pending += 1,
                Some(state) if is_dropped(&state) => outcome.dropped += 1,
                _ => outcome.taken += 1,
            }
        }
        outcome
    }
}

impl ReversibleChange for Kill {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "kill".into(),
            apply: format!("SIG{} to {}", self.name, listed(&self.victims)),
            undo: "none: a signal cannot be taken back; its own supervisor brings a process back"
                .into(),
            if_agent_dies: "nothing is owed".into(),
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
        let mut were_there = false;
        for victim in &self.victims {
            were_there |= host.signal(*victim, signal)?;
        }
        // Those that end by themselves are not gone because of this change.
        if were_there {
            return Ok(());
        }
        let all = count(self.victims.len(), "process", "processes");
        host.effect(&format!("send SIG{} to {all}", self.name), || {
            Err(io::Error::new(
                io::ErrorKind::NotFound,
                "none was there any more",
            ))
        })
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        Ok(Observed::Absent)
    }

    fn undo(&self, _: &Host) -> Result<(), HostError> {
        Ok(())
    }

    fn effect(&self, host: &Host) -> Effect {
        let SignalOutcome {
            gone,
            pending,
            dropped,
            taken,
        } = self.outcome(host);
        let all = count(self.victims.len(), "process", "processes");
        let mut seen = format!("SIG{} sent to {all}, {gone} gone", self.name);
        let mut figures = vec![("gone-processes", gone as f64)];
        if !self.is_to_end() {
            seen += &format!(", taken by {taken} (what they do about it is not seen)");
            figures.push(("taken-signals", taken as f64));
        }
        if pending > 0 {
            seen += &format!(", not taken yet by {pending}");
        }
        if dropped > 0 {
            seen += &format!(
                ", dropped by the kernel for {dropped}, which ignore it or have no handler"
            );
        }
        effect(gone > 0 || (!self.is_to_end() && taken > 0), seen, &figures)
    }

    fn is_done(&self, host: &Host) -> bool {
        let outcome = self.outcome(host);
        // Who ignores a signal does not end of it later either.
        outcome.pending == 0 && (!self.is_to_end() || outcome.taken == 0)
    }
}
