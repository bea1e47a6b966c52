//! Whether this process can see what a ledger entry names. A process in other namespaces, or one that is not shown every process, can neither
//! call the entry's owner dead nor its changes gone.

use super::namespaces::{FolderId, altered_places, folders, own};
use super::{LedgerEntry, Namespaces, boot_id};
use crate::boot::FIRST_PID_NAMESPACE;
use crate::changes::Change;
use crate::helpers::AlteredPlace;
use crate::netlink::Namespace;
use crate::processes::ProcessTable;
use backburn_experiments::wire::UnrevertedInjection;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// Why the things that an entry names cannot be seen from here, and from where they can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be seen from here and stays owed: {why}; {from}")]
pub struct NotVisible {
    /// Why they cannot be seen.
    pub why: String,
    /// What a person can do to revert the entry.
    pub from: String,
}

impl LedgerEntry {
    /// Checks that this process can see everything that the entry names: its owner, its victims, and what its changes made.
    ///
    /// # Errors
    /// Something cannot be seen; says from where it can.
    pub fn visible(&self, table: &ProcessTable) -> Result<(), NotVisible> {
        let unknown = |error: io::Error| NotVisible {
            why: error.to_string(),
            from: "fix that, then run `revert --all`".into(),
        };
        table.check_visibility().map_err(unknown)?;
        let boot = boot_id().map_err(unknown)?;
        // Whatever the kernel kept ended with the boot. An entry without namespaces is assumed to have been written in these.
        let other_boot = !self.owner.boot.is_empty() && self.owner.boot != boot;
        let Some(entry_namespaces) = self.namespaces.as_ref().filter(|_| !other_boot) else {
            return Ok(());
        };
        let own_namespaces = Namespaces::of(&[]).map_err(unknown)?;
        let elsewhere = |kind: &str, number: u64, own: u64| NotVisible {
            why: format!("it belongs to {kind} namespace {number}, and this process is in {own}"),
            from: where_to_revert(entry_namespaces, &own_namespaces, table),
        };
        if entry_namespaces.pid != own_namespaces.pid {
            return match is_empty_namespace("pid", entry_namespaces.pid, table) {
                true => Ok(()),
                false => Err(elsewhere("pid", entry_namespaces.pid, own_namespaces.pid)),
            };
        }
        if entry_namespaces.time != own_namespaces.time {
            let named = |time: Option<u64>| time.unwrap_or_default();
            return Err(elsewhere(
                "time",
                named(entry_namespaces.time),
                named(own_namespaces.time),
            ));
        }
        if entry_namespaces.network != own_namespaces.network
            && self.changes.iter().any(alters_own_network)
            && !is_empty_namespace("net", entry_namespaces.network, table)
        {
            return Err(elsewhere(
                "network",
                entry_namespaces.network,
                own_namespaces.network,
            ));
        }
        if entry_namespaces.mount != own_namespaces.mount {
            let known = |path: &Path| {
                let folder = entry_namespaces.folders.get(path).copied();
                folder.is_some() && folder == FolderId::at(path)
            };
            let reached = |network: &Namespace| matches!(network.open(), Ok(Some(_)));
            let has_mounts = altered_places(&self.changes)
                .any(|place| place == AlteredPlace::Mounts)
                && !is_empty_namespace("mnt", entry_namespaces.mount, table);
            let seen = !has_mounts
                && folders(&self.changes).all(known)
                && networks(&self.changes).all(|network| {
                    reached(network) || is_empty_namespace("net", network.inode, table)
                });
            if !seen {
                return Err(elsewhere(
                    "mount",
                    entry_namespaces.mount,
                    own_namespaces.mount,
                ));
            }
        }
        Ok(())
    }

    /// Whether neither the worker nor the guardian of this entry is alive to revert it.
    ///
    /// # Errors
    /// That cannot be determined from here.
    pub fn is_abandoned(&self, table: &ProcessTable) -> Result<bool, NotVisible> {
        self.visible(table)?;
        let boot = boot_id().unwrap_or_default();
        if !self.owner.boot.is_empty() && self.owner.boot != boot {
            return Ok(true);
        }
        for id in [self.owner.worker, self.owner.guardian] {
            let found = table.find(id).map_err(|error| NotVisible {
                why: error.to_string(),
                from: "check it as that user, or as root".into(),
            })?;
            if found.is_some_and(|stat| !stat.is_dead()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What somebody has to check: what could not be reverted, or cannot be seen from here. None if all is well as far as can be seen.
    pub fn owed(&self, table: &ProcessTable) -> Option<UnrevertedInjection> {
        let mut residue = self.stuck.clone();
        let hidden = self.is_abandoned(table).err();
        residue.extend(hidden.map(|hidden| hidden.to_string()));
        (!residue.is_empty()).then(|| UnrevertedInjection {
            injection: self.injection.clone(),
            fault: self.fault.clone(),
            residue,
        })
    }
}

/// The processes in a namespace that can be seen from here; none if some processes could not be checked.
fn processes_in(kind: &str, number: u64, table: &ProcessTable) -> Option<Vec<i32>> {
    let link = format!("ns/{kind}");
    let mut found = Vec::new();
    let mut all_seen = true;
    for pid in table.pids().ok()? {
        match table.metadata(pid, &link) {
            // A dead process counts as gone: the kernel lets a namespace's first process die only after all others.
            Ok(namespace) if namespace.st_ino == number => {
                found.extend(table.stat(pid).filter(|stat| !stat.is_dead()).map(|_| pid));
            }
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            // The pid namespace of a process with more rights is known all the same.
            Err(_) if kind == "pid" && table.has_one_id(pid) => {}
            Err(_) => all_seen = false,
        }
    }
    (all_seen || !found.is_empty()).then_some(found)
}

/// Whether a namespace has no processes and no name any more, as seen from the first pid namespace. Then its processes are gone, and
/// nobody can use its network.
fn is_empty_namespace(kind: &str, number: u64, table: &ProcessTable) -> bool {
    let sees_all = own("pid").is_ok_and(|own| own == FIRST_PID_NAMESPACE);
    let named = || {
        // A namespace that is mounted under a name, as by `ip netns`, can still be entered.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo");
        mounts.map_or(true, |mounts| {
            mounts.contains(&format!(" {kind}:[{number}] "))
        })
    };
    sees_all && processes_in(kind, number, table).is_some_and(|found| found.is_empty()) && !named()
}

/// Says where an entry of these namespaces can be reverted.
fn where_to_revert(
    entry_namespaces: &Namespaces,
    own_namespaces: &Namespaces,
    table: &ProcessTable,
) -> String {
    let of = |kind: &str, number: u64| processes_in(kind, number, table).unwrap_or_default();
    let mut there = of("pid", entry_namespaces.pid);
    let (same_mount, same_network) = (
        of("mnt", entry_namespaces.mount),
        of("net", entry_namespaces.network),
    );
    let mut enter = String::new();
    let mut narrow = |others: &[i32], option: &str| {
        if there.iter().any(|pid| others.contains(pid)) {
            there.retain(|pid| others.contains(pid));
            enter += option;
        }
    };
    if entry_namespaces.mount != own_namespaces.mount {
        narrow(&same_mount, " --mount");
    }
    if entry_namespaces.network != own_namespaces.network {
        narrow(&same_network, " --net");
    }
    if entry_namespaces.time != own_namespaces.time {
        enter += " --time";
    }
    match there.first() {
        Some(pid) => format!(
            "revert it there: `nsenter --target {pid} --pid{enter} backburn-agent revert --all`"
        ),
        None if entry_namespaces.pid == FIRST_PID_NAMESPACE && entry_namespaces.pid != own_namespaces.pid => {
            "revert it on the host itself, in its first pid namespace: `backburn-agent revert --all`".into()
        }
        None => "revert it there with `backburn-agent revert --all`, or in the host's first pid namespace once no process is left there"
            .into(),
    }
}

/// The network namespaces that the changes name.
fn networks(changes: &[Change]) -> impl Iterator<Item = &Namespace> {
    altered_places(changes).filter_map(|place| match place {
        AlteredPlace::Network(namespace) => namespace,
        AlteredPlace::Nowhere | AlteredPlace::Folder(_) | AlteredPlace::Mounts => None,
    })
}

/// Whether a change may leave something in the network namespace of the process that applies it.
fn alters_own_network(change: &Change) -> bool {
    let Change::Helper(helper) = change else {
        return false;
    };
    helper.spec.helper().altered_place() == AlteredPlace::Network(None)
}
