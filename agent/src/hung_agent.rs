//! What ends an agent that hangs, from outside: its guardian and its worker can't end each other then. Whoever started it, a person's
//! `inject` or the connector, kills both and does what `revert --all` would do for them.

use crate::engine::revert_matching;
use crate::host::{Host, wait_readable};
use crate::ledger::{Ledger, LedgerEntry, boot_id};
use crate::processes::{OwnerState, ProcessId};
use backburn_experiments::wire::{Cause, EndedInjection, UnrevertedInjection};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long a process that was killed may take to leave. One that waits for a disk, or is frozen, is not waited for: what it owes
/// is put back all the same.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an agent that is to end may take: its worker 15 s to put everything back, and its guardian 20 s for what is left.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(35);

/// Who is stopped or frozen for so long does not go on by itself.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked at whether an agent that is to end hangs.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Watches whether an agent that is to end does so.
#[derive(Debug)]
pub struct ShutdownMonitor {
    until: Instant,
    stopped_since: Option<Instant>,
}

impl Default for ShutdownMonitor {
    fn default() -> Self {
        ShutdownMonitor {
            until: Instant::now() + SHUTDOWN_TIMEOUT,
            stopped_since: None,
        }
    }
}

impl ShutdownMonitor {
    /// Whether the agent hangs: it takes too long, or its guardian, which would see to a worker that hangs, is stopped or frozen; or
    /// the worker is, where the guardian is dead. To be asked each [`CHECK_INTERVAL`]; `state` is the agent's folder.
    pub fn hangs(&mut self, host: &Host, state: &Path, agent: &Child) -> bool {
        let now = Instant::now();
        let guardian = host.table.identify(agent.id() as i32);
        let watched = match guardian {
            Some(guardian) if host.table.alive(guardian) => vec![guardian],
            Some(guardian) => workers(state, guardian),
            None => Vec::new(),
        };
        match host.table.owner_state(&watched) {
            OwnerState::Stopped | OwnerState::Frozen => {
                let since = *self.stopped_since.get_or_insert(now);
                now >= self.until || now.duration_since(since) >= STOPPED_TIMEOUT
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
pub enum AgentExit {
    /// It left by itself.
    Exited(ExitStatus),
    /// It hung and was ended.
    Hung(HungAgentOutcome),
}

/// Waits until an agent has ended, which is a child of this process and leads a process group. One that hangs is ended.
///
/// # Errors
/// It can't be waited for, or not be killed.
pub fn wait_for_exit(host: &Host, state: &Path, agent: &mut Child) -> io::Result<AgentExit> {
    let mut watch = ShutdownMonitor::default();
    let Some(pidfd) = Pid::from_raw(agent.id() as i32) else {
        return Err(io::Error::other("the agent has no id"));
    };
    // Its id is its own until we take leave of it.
    let pidfd = pidfd_open(pidfd, PidfdFlags::empty())?;
    while !wait_readable(&pidfd, CHECK_INTERVAL)? {
        if watch.hangs(host, state, agent) {
            return end_hung_agent(host, state, agent).map(AgentExit::Hung);
        }
    }
    Ok(AgentExit::Exited(agent.wait()?))
}

/// What became of an agent that hung.
#[derive(Debug, Default)]
pub struct HungAgentOutcome {
    /// What was put back for it.
    pub ended: Vec<EndedInjection>,
    /// What is not seen to be gone, and what of its ledger can't be read.
    pub owed: Vec<UnrevertedInjection>,
}

impl HungAgentOutcome {
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
pub fn end_hung_agent(
    host: &Host,
    state: &Path,
    agent: &mut Child,
) -> io::Result<HungAgentOutcome> {
    let Some(guardian) = host.table.identify(agent.id() as i32) else {
        return Err(io::Error::other("the agent is not to be seen in /proc"));
    };
    host.kill_group_of(agent).map_err(io::Error::other)?;
    reap(host, agent, guardian)?;
    revert_for_guardian(host, state, guardian)
}

/// Puts back what the worker of a guardian that is dead owes by the ledger below this state folder. The worker is given a little
/// time to do so itself.
///
/// # Errors
/// The worker can't be looked at.
pub fn revert_for_guardian(
    host: &Host,
    state: &Path,
    guardian: ProcessId,
) -> io::Result<HungAgentOutcome> {
    let ledger = Ledger::at(state);
    // The worker dies of the same signal, and is not our child: its ends are not to meet with ours.
    let until = Instant::now() + KILL_TIMEOUT;
    for worker in workers(state, guardian) {
        if let Some(worker) = host.table.open_pidfd_checked(worker)? {
            wait_readable(&worker, until.saturating_duration_since(Instant::now()))?;
        }
    }
    if !ledger.folder().exists() {
        return Ok(HungAgentOutcome::default());
    }
    let is_owned = |entry: &LedgerEntry| is_of(entry, guardian);
    let (ended, owed) = revert_matching(host, &ledger, is_owned, Cause::AgentDied);
    Ok(HungAgentOutcome { ended, owed })
}

/// Whether an entry is this guardian's worker's.
fn is_of(entry: &LedgerEntry, guardian: ProcessId) -> bool {
    entry.owner.guardian == guardian && boot_id().is_ok_and(|boot| boot == entry.owner.boot)
}

/// The workers of this guardian that owe anything: one at the most, where nobody has tampered with the ledger.
fn workers(state: &Path, guardian: ProcessId) -> Vec<ProcessId> {
    let entries = Ledger::at(state).entries();
    let entries = entries.map(|(entries, _)| entries).unwrap_or_default();
    let is_owned = entries.iter().filter(|entry| is_of(entry, guardian));
    let mut workers: Vec<ProcessId> = is_owned.map(|entry| entry.owner.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}

/// Waits a little until the guardian is gone, and takes leave of it.
fn reap(host: &Host, agent: &mut Child, guardian: ProcessId) -> io::Result<()> {
    if let Some(pidfd) = host.table.open_pidfd_checked(guardian)?
        && !wait_readable(&pidfd, KILL_TIMEOUT)?
    {
        return Ok(());
    }
    agent.wait()?;
    Ok(())
}
