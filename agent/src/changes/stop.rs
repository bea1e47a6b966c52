//! Processes stopped with SIGSTOP and let go with SIGCONT: for those that cannot be held by
//! tracing. Nothing in the kernel ends this one, so the ledger and the guardian do.
//!
//! Victims that were stopped before are not in the list: what was stopped stays stopped.

use super::{Observed, ReversibleChange, count, listed};
use crate::host::{Host, HostError};
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, Instant};

/// These processes are stopped by a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Who; none of them was stopped when this was planned.
    pub victims: Vec<ProcessId>,
}

/// How far apart two looks at a traced process are.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How many looks tell that a traced process runs on.
const LOOKS_OF_TRACED: usize = 5;
/// How long a traced process must not have got anywhere to be taken for one that stands still: at a glance, and where it matters
/// that it was not its tracer that had to wait for a processor.
const STILL_AT_A_GLANCE: Duration = Duration::from_millis(8);
const STILL_FOR_SURE: Duration = Duration::from_millis(300);
/// How long a process may take to stop, or its tracer to let it go on.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether a process stands still. One that is traced shows every short stop that its tracer makes as `t`, as at each system call
/// under strace: it stands still only if it gets nowhere meanwhile.
fn is_still(table: &ProcessTable, id: ProcessId, for_so_long: Duration) -> bool {
    let begin = Instant::now();
    let switches = table.context_switches(id);
    loop {
        match table.state(id) {
            Some('T') => return true,
            Some('t') if table.context_switches(id) == switches => {}
            _ => return false,
        }
        if begin.elapsed() >= for_so_long {
            return true;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Whether a process is stopped now, before anything is done to it.
pub(crate) fn is_stopped(table: &ProcessTable, id: ProcessId) -> bool {
    is_still(table, id, STILL_FOR_SURE)
}

fn stands_still(table: &ProcessTable, id: ProcessId) -> bool {
    is_still(table, id, STILL_AT_A_GLANCE)
}

/// Whether a process is neither stopped nor about to be. Of one that is traced that shows only after some looks: its tracer may
/// have been told of a SIGSTOP and still pass it on, and nobody else can. `still_for` is how long one must get nowhere to be stopped.
fn runs_on(table: &ProcessTable, id: ProcessId, still_for: Duration) -> bool {
    let until = Instant::now() + STOP_TIMEOUT;
    let settled = if table.tracer(id.pid).is_some() {
        LOOKS_OF_TRACED
    } else {
        1
    };
    let mut ran = table.run_time(id);
    let mut switches = table.context_switches(id);
    let mut moved = Instant::now();
    let mut running = 0;
    loop {
        let state = table.state(id);
        if state == Some('T') || table.has_pending(id, Signal::STOP) {
            return false;
        }
        let had = std::mem::replace(&mut ran, table.run_time(id));
        let before = std::mem::replace(&mut switches, table.context_switches(id));
        if before != switches {
            moved = Instant::now();
        }
        let is_about_to_stop = match state {
            Some('t') if moved.elapsed() >= still_for => return false,
            Some('t') => before == switches,
            // Waiting for a processor, on which it may find that it was told to stop.
            Some('R') => settled > 1 && ran.is_some() && ran == had,
            _ => false,
        };
        running += usize::from(!is_about_to_stop);
        if running >= settled || Instant::now() >= until {
            return true;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

impl Stop {
    fn those(&self, such: impl Fn(ProcessId) -> bool) -> Vec<ProcessId> {
        self.victims
            .iter()
            .copied()
            .filter(|id| such(*id))
            .collect()
    }

    /// Lets one process go on, and sees to it that a SIGSTOP on its way does not stop it after that.
    fn let_go(host: &Host, id: ProcessId) -> Result<(), HostError> {
        let until = Instant::now() + STOP_TIMEOUT;
        while !runs_on(&host.table, id, STILL_AT_A_GLANCE) && Instant::now() < until {
            // Takes a SIGSTOP that is still pending with it.
            host.signal(id, Signal::CONT)?;
        }
        Ok(())
    }
}

impl ReversibleChange for Stop {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "stop".into(),
            apply: format!("SIGSTOP to {}", listed(&self.victims)),
            undo: "SIGCONT to those of them that are stopped".into(),
            if_agent_dies:
                "the guardian sends SIGCONT; without it, the next start or `revert --all`".into(),
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
        // The signal is sent, the stop is theirs: a process in a device's hands takes its time.
        let until = Instant::now() + STOP_TIMEOUT;
        let on_the_way = |id: &ProcessId| host.table.alive(*id) && !stands_still(&host.table, *id);
        while self.victims.iter().any(on_the_way) && Instant::now() < until {
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        // One that is hidden from the agent is not gone.
        for id in &self.victims {
            host.table.find(*id)?;
        }
        let stopped = self.those(|id| !runs_on(&host.table, id, STILL_FOR_SURE));
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
        self.victims
            .iter()
            .try_for_each(|id| Self::let_go(host, *id))
    }

    fn effect(&self, host: &Host) -> Effect {
        let stopped = self.those(|id| stands_still(&host.table, id)).len();
        let gone = self.those(|id| !host.table.alive(id)).len();
        let mut seen = format!(
            "{stopped} of {} stopped",
            count(self.victims.len(), "process", "processes")
        );
        if gone > 0 {
            seen += &format!(", {gone} gone");
        }
        Effect {
            acts: stopped > 0,
            seen,
            figures: [
                ("stopped-processes".to_owned(), stopped as f64),
                ("gone-processes".to_owned(), gone as f64),
            ]
            .into(),
            unmet: None,
        }
    }

    fn is_done(&self, _: &Host) -> bool {
        // Victims that ended are no failure of the fault's: its effect says that none is stopped
        // any more, as it does where they are held by tracing.
        false
    }
}
