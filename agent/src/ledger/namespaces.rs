//! Where what an entry names can be seen. A process id, a network device and a path mean something else, or nothing, in another
//! namespace, so an entry tells the namespaces that it was written in. Whoever is in others, or is not shown every process, can
//! neither call its owner dead nor what it made gone.

use super::{LedgerEntry, boot_id};
use crate::changes::Change;
use crate::helpers::AlteredPlace;
use crate::netlink::Namespace;
use crate::processes::{ClockShift, ProcessTable};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The number of the machine's first pid namespace (`PROC_PID_INIT_INO` of the kernel's `include/linux/proc_ns.h`), in which every
/// process of the machine has an id.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The namespaces that an entry was written in, each by the number of its inode, which no other has as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Namespaces {
    /// The one that its process ids belong to.
    pub pid: u64,
    /// The one that changes are made in where they name none.
    pub network: u64,
    /// The one that its paths belong to.
    pub mount: u64,
    /// The time namespace, where start times read in it can't be compared with those read elsewhere (see [`ClockShift`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// Which folders its paths meant, so that they are known again in another mount namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<PathBuf, FolderId>,
}

/// A folder, as long as its file system stays mounted somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    /// The device that it is on.
    pub device: u64,
    /// Its inode's number there.
    pub inode: u64,
}

/// Why what an entry names can't be seen from here, and from where it can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it can't be seen from here and stays owed: {why}; {from}")]
pub struct NotVisible {
    /// What keeps it from being seen.
    pub why: String,
    /// From where it can be, for people.
    pub from: String,
}

impl Namespaces {
    /// Those of this process, with the folders that `changes` name.
    ///
    /// # Errors
    /// `/proc/self/ns` can't be read.
    pub fn of(changes: &[Change]) -> io::Result<Self> {
        let time = match ClockShift::own() {
            ClockShift::Ticks(_) => None,
            ClockShift::Unknown => Some(own("time")?),
        };
        let folders = folders(changes);
        Ok(Namespaces {
            pid: own("pid")?,
            network: own("net")?,
            mount: own("mnt")?,
            time,
            folders: folders
                .filter_map(|path| Some((path.to_owned(), FolderId::at(path)?)))
                .collect(),
        })
    }
}

impl FolderId {
    fn at(path: &Path) -> Option<Self> {
        let folder = rustix::fs::stat(path).ok()?;
        Some(FolderId {
            device: folder.st_dev,
            inode: folder.st_ino,
        })
    }
}

impl LedgerEntry {
    /// Whether everything that this entry names can be seen by this process: its owner, its victims, and what its changes made.
    ///
    /// # Errors
    /// Something of it can't be, and from where it can.
    pub fn visible(&self, table: &ProcessTable) -> Result<(), NotVisible> {
        let unknown = |error: io::Error| NotVisible {
            why: error.to_string(),
            from: "mend that, then `revert --all`".into(),
        };
        table.check_visibility().map_err(unknown)?;
        let boot = boot_id().map_err(unknown)?;
        // Whatever the kernel kept for another boot ended with it. What was written before entries told their namespaces was
        // written here, as far as anybody knows.
        let other_boot = !self.owner.boot.is_empty() && self.owner.boot != boot;
        let Some(entry_namespaces) = self.namespaces.as_ref().filter(|_| !other_boot) else {
            return Ok(());
        };
        let own_namespaces = Namespaces::of(&[]).map_err(unknown)?;
        let elsewhere = |kind: &str, number: u64, own: u64| NotVisible {
            why: format!("it belongs to {kind} namespace {number}, and this is {own}"),
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
            let seen = folders(&self.changes).all(known)
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

    /// Whether neither the worker nor the guardian of this entry is there to see to it.
    ///
    /// # Errors
    /// That can't be told from here.
    pub fn is_abandoned(&self, table: &ProcessTable) -> Result<bool, NotVisible> {
        self.visible(table)?;
        let boot = boot_id().unwrap_or_default();
        if !self.owner.boot.is_empty() && self.owner.boot != boot {
            return Ok(true);
        }
        for id in [self.owner.worker, self.owner.guardian] {
            let found = table.find(id).map_err(|error| NotVisible {
                why: error.to_string(),
                from: "look as its user, or as root".into(),
            })?;
            if found.is_some_and(|stat| !stat.is_dead()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The number of the namespace of this kind that this process is in.
fn own(kind: &str) -> io::Result<u64> {
    let path = format!("/proc/self/ns/{kind}");
    rustix::fs::stat(&path)
        .map(|file| file.st_ino)
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{path}: {error}")))
}

/// The processes in the namespace of this kind and number that can be seen from here; none where some can't be looked at.
fn processes_in(kind: &str, number: u64, table: &ProcessTable) -> Option<Vec<i32>> {
    let link = format!("ns/{kind}");
    let mut found = Vec::new();
    let mut all_seen = true;
    for pid in table.pids().ok()? {
        match table.metadata(pid, &link) {
            // One that is dead and not yet waited for is nobody: the kernel lets a namespace's first process die only after all others.
            Ok(namespace) if namespace.st_ino == number => {
                found.extend(table.stat(pid).filter(|stat| !stat.is_dead()).map(|_| pid));
            }
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            // Of one with more rights than ours, this much is still told.
            Err(_) if kind == "pid" && table.has_one_id(pid) => {}
            Err(_) => all_seen = false,
        }
    }
    (all_seen || !found.is_empty()).then_some(found)
}

/// Whether nobody is in a namespace any more, seen from where everybody is seen. Then its processes are gone, and its network is
/// nobody's.
fn is_empty_namespace(kind: &str, number: u64, table: &ProcessTable) -> bool {
    let sees_all = own("pid").is_ok_and(|own| own == FIRST_PID_NAMESPACE);
    let named = || {
        // One that is mounted under a name, as by `ip netns`, waits for somebody to enter it.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo");
        mounts.map_or(true, |mounts| {
            mounts.contains(&format!(" {kind}:[{number}] "))
        })
    };
    sees_all && processes_in(kind, number, table).is_some_and(|found| found.is_empty()) && !named()
}

/// From where an entry of these namespaces can be put back, for people.
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
            "put it back there: `nsenter --target {pid} --pid{enter} backburn-agent revert --all`"
        ),
        None if entry_namespaces.pid == FIRST_PID_NAMESPACE && entry_namespaces.pid != own_namespaces.pid => {
            "put it back on the host itself, in its first pid namespace: `backburn-agent revert --all`".into()
        }
        None => "put it back there with `backburn-agent revert --all`, or in the host's first pid namespace once nobody is left there"
            .into(),
    }
}

/// The folders that changes name.
fn folders(changes: &[Change]) -> impl Iterator<Item = &Path> {
    altered_places(changes).filter_map(|place| match place {
        AlteredPlace::Folder(folder) => Some(folder),
        AlteredPlace::Nowhere | AlteredPlace::Network(_) => None,
    })
}

/// The network namespaces that changes name.
fn networks(changes: &[Change]) -> impl Iterator<Item = &Namespace> {
    altered_places(changes).filter_map(|place| match place {
        AlteredPlace::Network(namespace) => namespace,
        AlteredPlace::Nowhere | AlteredPlace::Folder(_) => None,
    })
}

fn altered_places(changes: &[Change]) -> impl Iterator<Item = AlteredPlace<'_>> {
    changes.iter().filter_map(|change| match change {
        Change::Helper(helper) => Some(helper.spec.helper().altered_place()),
        Change::Stop(_) | Change::Kill(_) | Change::Unreadable(_) => None,
    })
}

/// Whether a change may leave something in the network namespace of whoever makes it.
fn alters_own_network(change: &Change) -> bool {
    let Change::Helper(helper) = change else {
        return false;
    };
    helper.spec.helper().altered_place() == AlteredPlace::Network(None)
}
