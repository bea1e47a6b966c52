//! What ends an agent that hangs, from outside: its guardian and its worker can't end each other then. Whoever started it, a person's
//! `inject` or the connector, kills both and does what `revert --all` would do for them.

use crate::engine::revert_dead;
use crate::host::{Host, wait_readable};
use crate::ledger::{Ledger, LedgerEntry, boot_id};
use crate::processes::{OwnerState, ProcessId};
use backburn_experiments::wire::{Cause, EndedInjection, OwedInjection};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long a process that was killed may take to leave. One that waits for a disk, or is frozen, is not waited for: what it owes
/// is put back all the same.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// How long an agent that is to end may take: its worker 15 s to put everything back, and its guardian 20 s for what is left.
const END_WITHIN: Duration = Duration::from_secs(35);

/// Who is stopped or frozen for so long does not go on by itself.
const STOPPED_FOR: Duration = Duration::from_secs(2);

/// How often it is looked at whether an agent that is to end hangs.
pub const LOOK_EACH: Duration = Duration::from_millis(500);

/// Watches whether an agent that is to end does so.
#[derive(Debug)]
pub struct EndWatch {
    until: Instant,
    stopped_since: Option<Instant>,
}

impl Default for EndWatch {
    fn default() -> Self {
        EndWatch {
            until: Instant::now() + END_WITHIN,
            stopped_since: None,
        }
    }
}

impl EndWatch {
    /// Whether the agent hangs: it takes too long, or its guardian, which would see to a worker that hangs, is stopped or frozen; or
    /// the worker is, where the guardian is dead. To be asked each [`LOOK_EACH`]; `state` is the agent's folder.
    pub fn hangs(&mut self, host: &Host, state: &Path, agent: &Child) -> bool {
        let now = Instant::now();
        let guardian = host.table.identify(agent.id() as i32);
        let seeing_to_it = match guardian {
            Some(guardian) if host.table.alive(guardian) => vec![guardian],
            Some(guardian) => workers(state, guardian),
            None => Vec::new(),
        };
        match host.table.owner_state(&seeing_to_it) {
            OwnerState::Stopped | OwnerState::Frozen => {
                let since = *self.stopped_since.get_or_insert(now);
                now >= self.until || now.duration_since(since) >= STOPPED_FOR
            }
            OwnerState::Alive | OwnerState::Dead => {
                self.stopped_since = None;
                now >= self.until
            }
        }
    }
}

/// How an agent that was to end has ended.
#[derive(Debug)]
pub enum AgentEnd {
    /// It left by itself.
    Left(ExitStatus),
    /// It hung and was ended.
    Hung(HungAgent),
}

/// Waits until an agent has ended, which is a child of this process and leads a process group. One that hangs is ended.
///
/// # Errors
/// It can't be waited for, or not be killed.
pub fn until_ended(host: &Host, state: &Path, agent: &mut Child) -> io::Result<AgentEnd> {
    let mut watch = EndWatch::default();
    let Some(pidfd) = Pid::from_raw(agent.id() as i32) else {
        return Err(io::Error::other("the agent has no id"));
    };
    // Its id is its own until we take leave of it.
    let pidfd = pidfd_open(pidfd, PidfdFlags::empty())?;
    while !wait_readable(&pidfd, LOOK_EACH)? {
        if watch.hangs(host, state, agent) {
            return end_hung_agent(host, state, agent).map(AgentEnd::Hung);
        }
    }
    Ok(AgentEnd::Left(agent.wait()?))
}

/// What became of an agent that hung.
#[derive(Debug, Default)]
pub struct HungAgent {
    /// What was put back for it.
    pub ended: Vec<EndedInjection>,
    /// What is not seen to be gone, and what of its ledger can't be read.
    pub owed: Vec<OwedInjection>,
}

impl HungAgent {
    /// Whether all that it owed is seen to be gone.
    pub fn is_clean(&self) -> bool {
        self.owed.is_empty() && self.ended.iter().all(|end| end.clean)
    }
}

/// Kills an agent, which leads a process group and is a child of this process that was not waited for, and puts back what it owes
/// by the ledger below this state folder.
///
/// # Errors
/// It could not be killed. What it owes stays in the ledger.
pub fn end_hung_agent(host: &Host, state: &Path, agent: &mut Child) -> io::Result<HungAgent> {
    let Some(guardian) = host.table.identify(agent.id() as i32) else {
        return Err(io::Error::other("the agent is not to be seen in /proc"));
    };
    host.kill_group_of(agent).map_err(io::Error::other)?;
    until_gone(host, agent, guardian)?;
    put_back_for(host, state, guardian)
}

/// Puts back what the worker of a guardian that is dead owes by the ledger below this state folder. The worker is given a little
/// time to do so itself.
///
/// # Errors
/// The worker can't be looked at.
pub fn put_back_for(host: &Host, state: &Path, guardian: ProcessId) -> io::Result<HungAgent> {
    let ledger = Ledger::at(state);
    // The worker dies of the same signal, and is not our child: its ends are not to meet with ours.
    let until = Instant::now() + LEAVES_WITHIN;
    for worker in workers(state, guardian) {
        if let Some(worker) = host.table.open_pidfd_checked(worker)? {
            wait_readable(&worker, until.saturating_duration_since(Instant::now()))?;
        }
    }
    if !ledger.folder().exists() {
        return Ok(HungAgent::default());
    }
    let its = |entry: &LedgerEntry| is_of(entry, guardian);
    let (ended, owed) = revert_dead(host, &ledger, its, Cause::AgentDied);
    Ok(HungAgent { ended, owed })
}

/// Whether an entry is this guardian's worker's.
fn is_of(entry: &LedgerEntry, guardian: ProcessId) -> bool {
    entry.owner.guardian == guardian && boot_id().is_ok_and(|boot| boot == entry.owner.boot)
}

/// The workers of this guardian that owe anything: one at the most, where nobody has tampered with the ledger.
fn workers(state: &Path, guardian: ProcessId) -> Vec<ProcessId> {
    let entries = Ledger::at(state).entries();
    let entries = entries.map(|(entries, _)| entries).unwrap_or_default();
    let its = entries.iter().filter(|entry| is_of(entry, guardian));
    let mut workers: Vec<ProcessId> = its.map(|entry| entry.owner.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}

/// Waits a little until the guardian is gone, and takes leave of it.
fn until_gone(host: &Host, agent: &mut Child, guardian: ProcessId) -> io::Result<()> {
    if let Some(pidfd) = host.table.open_pidfd_checked(guardian)?
        && !wait_readable(&pidfd, LEAVES_WITHIN)?
    {
        return Ok(());
    }
    agent.wait()?;
    Ok(())
}
