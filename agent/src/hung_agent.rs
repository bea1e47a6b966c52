//! Ending an agent of which both processes hang, so that neither can end the other. Whoever started the agent, `inject` or the connector,
//! kills both processes and reverts what they owe, as `revert --all` would.

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

/// How long a process that was killed may take to exit. One that waits for a disk, or is frozen, is not waited for: what it owes is
/// reverted all the same.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an agent that was asked to end may take: its worker 15 s to revert everything, and its guardian 20 s for what is left.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(35);

/// How long a process may be stopped or frozen until it counts as hung.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an agent that was asked to end is checked.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Checks whether an agent that was asked to end hangs.
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
    /// Whether the agent hangs: it takes longer than [`SHUTDOWN_TIMEOUT`], or its guardian, which would end a hung worker, is stopped or
    /// frozen; if the guardian is dead, the same applies to the worker. Call this every [`CHECK_INTERVAL`]. `state` is the state folder.
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

/// How an agent that was asked to end has ended.
#[derive(Debug)]
pub enum AgentExit {
    /// It exited by itself.
    Exited(ExitStatus),
    /// It hung and was killed.
    Hung(HungAgentOutcome),
}

/// Waits until an agent has exited, which must be a child of this process and lead a process group. An agent that hangs is killed.
///
/// # Errors
/// The agent can be neither waited for nor killed.
pub fn wait_for_exit(host: &Host, state: &Path, agent: &mut Child) -> io::Result<AgentExit> {
    let mut watch = ShutdownMonitor::default();
    let Some(pidfd) = Pid::from_raw(agent.id() as i32) else {
        return Err(io::Error::other("the agent has no id"));
    };
    // No other process gets this id before the agent is reaped.
    let pidfd = pidfd_open(pidfd, PidfdFlags::empty())?;
    while !wait_readable(&pidfd, CHECK_INTERVAL)? {
        if watch.hangs(host, state, agent) {
            return end_hung_agent(host, state, agent).map(AgentExit::Hung);
        }
    }
    Ok(AgentExit::Exited(agent.wait()?))
}

/// The result of reverting for an agent that hung or whose guardian died.
#[derive(Debug, Default)]
pub struct HungAgentOutcome {
    /// What was reverted for it.
    pub ended: Vec<EndedInjection>,
    /// What is not observed to be gone, and which of its ledger entries cannot be read.
    pub owed: Vec<UnrevertedInjection>,
}

impl HungAgentOutcome {
    /// Whether everything that it owed is observed to be gone.
    pub fn is_clean(&self) -> bool {
        self.owed.is_empty() && self.ended.iter().all(|end| end.clean)
    }
}

/// Kills an agent and reverts what it owes according to the ledger in this state folder. The agent must lead a process group and be a child
/// of this process that was not waited for.
///
/// # Errors
/// The agent could not be killed. What it owes stays in the ledger.
pub fn end_hung_agent(
    host: &Host,
    state: &Path,
    agent: &mut Child,
) -> io::Result<HungAgentOutcome> {
    let Some(guardian) = host.table.identify(agent.id() as i32) else {
        return Err(io::Error::other("the agent does not appear in /proc"));
    };
    host.kill_group_of(agent).map_err(io::Error::other)?;
    reap(host, agent, guardian)?;
    revert_for_guardian(host, state, guardian)
}

/// Reverts what the worker of a dead guardian owes according to the ledger in this state folder. The worker first gets [`KILL_TIMEOUT`] to
/// exit.
///
/// # Errors
/// The worker cannot be checked.
pub fn revert_for_guardian(
    host: &Host,
    state: &Path,
    guardian: ProcessId,
) -> io::Result<HungAgentOutcome> {
    let ledger = Ledger::at(state);
    // The worker dies of the same signal but is no child of this process; two reverts must not meet.
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

/// Whether an entry belongs to this guardian's worker.
fn is_of(entry: &LedgerEntry, guardian: ProcessId) -> bool {
    entry.owner.guardian == guardian && boot_id().is_ok_and(|boot| boot == entry.owner.boot)
}

/// The workers of this guardian that owe anything: at most one, unless somebody has tampered with the ledger.
fn workers(state: &Path, guardian: ProcessId) -> Vec<ProcessId> {
    let entries = Ledger::at(state).entries();
    let entries = entries.map(|(entries, _)| entries).unwrap_or_default();
    let is_owned = entries.iter().filter(|entry| is_of(entry, guardian));
    let mut workers: Vec<ProcessId> = is_owned.map(|entry| entry.owner.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}

/// Waits up to [`KILL_TIMEOUT`] until the guardian has exited, and reaps it.
fn reap(host: &Host, agent: &mut Child, guardian: ProcessId) -> io::Result<()> {
    if let Some(pidfd) = host.table.open_pidfd_checked(guardian)?
        && !wait_readable(&pidfd, KILL_TIMEOUT)?
    {
        return Ok(());
    }
    agent.wait()?;
    Ok(())
}
