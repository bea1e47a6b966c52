//! The soft limit of open files of processes, lowered and raised again. Nothing in the kernel ends this one, so the ledger and the
//! guardian do. The files that a process has open stay open.

use super::{Observed, ReversibleChange, count, listed};
use crate::capabilities::{CAP_SYS_RESOURCE, has_capability};
use crate::helpers::effect;
use crate::host::{Host, HostError};
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::{ChangeView, Effect};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};
use std::io;

/// These processes may open fewer files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileLimit {
    /// The processes, each with its limits.
    pub victims: Vec<LimitedProcess>,
}

/// A process with its soft limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedProcess {
    /// The process that is limited.
    pub process: ProcessId,
    /// Its soft limit before.
    pub before: u64,
    /// Its soft limit meanwhile, which is lower.
    pub limit: u64,
    /// When `before` was read, in clock ticks since the machine's boot. Children that began later have inherited the lowered limit.
    pub since: u64,
}

/// Whether the kernel would let this process change the limits of another one (prlimit(2)).
///
/// # Errors
/// It would not permit that.
pub(crate) fn check_limitable(table: &ProcessTable, id: ProcessId) -> io::Result<()> {
    if has_capability(CAP_SYS_RESOURCE) {
        return Ok(());
    }
    let own = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    // The real, the effective and the saved id; the one of the file system does not count.
    let are = |key: &str, id_of_agent: u32| {
        table.status(id.pid, key, |ids| {
            let ids = ids.split_whitespace().take(3);
            Some(ids.flat_map(str::parse::<u32>).all(|id| id == id_of_agent))
        })
    };
    match (are("Uid:", own.0), are("Gid:", own.1)) {
        (Some(true), Some(true)) | (None, _) | (_, None) => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it runs as another user or group, and the agent lacks CAP_SYS_RESOURCE",
        )),
    }
}

impl FileLimit {
    fn ids(&self) -> Vec<ProcessId> {
        self.victims.iter().map(|victim| victim.process).collect()
    }

    /// Those that live and have the lowered limit: victims, and the children that inherited it.
    fn limited(&self, table: &ProcessTable) -> io::Result<Vec<LimitedProcess>> {
        let mut limited = Vec::new();
        for victim in &self.victims {
            let heirs = table.descendants_since(victim.process, victim.since)?;
            let family = heirs.into_iter().chain([victim.process]);
            limited.extend(family.map(|process| LimitedProcess { process, ..*victim }));
        }
        limited.retain(|one| {
            let limits = table.open_file_limits(one.process);
            // What somebody else has set since is theirs.
            limits.is_some_and(|(soft, _)| soft == one.limit)
        });
        Ok(limited)
    }
}

impl LimitedProcess {
    /// Sets the soft limit of exactly this process, where it is the one expected. Whether it was there.
    fn set(&self, host: &Host, expected: u64, limit: u64) -> Result<bool, HostError> {
        let id = self.process;
        host.effect(&format!("let process {id} open {limit} files"), || {
            if host.table.open_pidfd_checked(id)?.is_none() {
                return Ok(false);
            }
            let Some((soft, hard)) = host.table.open_file_limits(id) else {
                return Ok(false);
            };
            if soft != expected {
                return Err(io::Error::other(format!(
                    "its limit is {soft}, not {expected}: somebody else has changed it"
                )));
            }
            let with = |current| Rlimit {
                current: Some(current),
                maximum: Some(hard).filter(|hard| *hard != u64::MAX),
            };
            prlimit(Pid::from_raw(id.pid), Resource::Nofile, with(limit))?;
            if host.table.stat_of(id).is_none() && host.table.stat(id.pid).is_some() {
                // The process has ended just now, and its id is another's: that one gets its limit back.
                prlimit(Pid::from_raw(id.pid), Resource::Nofile, with(expected))?;
                return Ok(false);
            }
            Ok(true)
        })
    }
}

impl ReversibleChange for FileLimit {
    fn view(&self) -> ChangeView {
        let limits: Vec<String> = self
            .victims
            .iter()
            .map(|victim| {
                let LimitedProcess {
                    process,
                    before,
                    limit,
                    ..
                } = victim;
                format!("process {}: {limit} instead of {before}", process.pid)
            })
            .collect();
        ChangeView {
            kind: "file-limit".into(),
            apply: format!(
                "lower the soft limit of open files of {}",
                limits.join(", ")
            ),
            undo: "raise it again where it is still the lowered one".into(),
            if_agent_dies:
                "the guardian raises it again; without it, the next start or `revert --all`".into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        self.ids()
            .iter()
            .map(|id| format!("open-files:{id}"))
            .collect()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        for victim in &self.victims {
            victim.set(host, victim.before, victim.limit)?;
        }
        Ok(())
    }

    fn observe(&self, host: &Host) -> io::Result<Observed> {
        // One that is hidden from the agent is not gone.
        for id in self.ids() {
            if host.table.find(id)?.is_some_and(|stat| !stat.is_dead())
                && host.table.open_file_limits(id).is_none()
                && host.table.alive(id)
            {
                let what = format!("process {id}: its limits cannot be read");
                return Err(io::Error::other(what));
            }
        }
        let limited = self.limited(&host.table)?;
        let limited: Vec<ProcessId> = limited.iter().map(|one| one.process).collect();
        Ok(if limited.is_empty() {
            Observed::Absent
        } else {
            Observed::Present(format!(
                "{} with the lowered limit of open files: {}",
                count(limited.len(), "process", "processes"),
                listed(&limited)
            ))
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        let limited = self.limited(&host.table).map_err(|source| HostError {
            what: "list the processes with a lowered limit".into(),
            source,
        })?;
        for one in limited {
            one.set(host, one.limit, one.before)?;
        }
        Ok(())
    }

    fn effect(&self, host: &Host) -> Effect {
        let limited: Vec<&LimitedProcess> = self
            .victims
            .iter()
            .filter(|victim| {
                let limits = host.table.open_file_limits(victim.process);
                limits.is_some_and(|(soft, _)| soft == victim.limit)
            })
            .collect();
        let free: Vec<u64> = limited
            .iter()
            .filter_map(|victim| {
                let descriptors = host.table.descriptors(victim.process).ok()??;
                Some(descriptors.free_below(victim.limit))
            })
            .collect();
        let gone = self
            .ids()
            .iter()
            .filter(|id| !host.table.alive(**id))
            .count();
        let mut seen = format!(
            "{} of {} limited",
            limited.len(),
            count(self.victims.len(), "process", "processes")
        );
        if let Some(most) = free.iter().max() {
            seen += &format!(
                ", with at most {} left to open",
                count(*most as usize, "file", "files")
            );
        }
        if gone > 0 {
            seen += &format!(", {gone} gone");
        }
        let figures = [
            ("limited-processes", limited.len() as f64),
            ("free-descriptors", free.iter().sum::<u64>() as f64),
            ("gone-processes", gone as f64),
        ];
        effect(!limited.is_empty(), seen, &figures)
    }

    fn is_done(&self, _: &Host) -> bool {
        // As with processes that are stopped: victims that ended show in the effect.
        false
    }
}
