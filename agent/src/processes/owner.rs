//! Whether the processes that answer for a ledger entry can revert it: one that is stopped or frozen is there and does nothing.

use super::cgroup::cgroup_paths;
use super::{ProcessId, ProcessTable};
use std::path::{Path, PathBuf};

/// The state of the processes that answer for a ledger entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// All of them are running.
    Alive,
    /// One of them is stopped by a signal or a tracer.
    Stopped,
    /// One of them is in a control group that is frozen.
    Frozen,
    /// All of them have ended.
    Dead,
}

impl OwnerState {
    /// The name of the state, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            OwnerState::Alive => "alive",
            OwnerState::Stopped => "stopped",
            OwnerState::Frozen => "frozen",
            OwnerState::Dead => "dead",
        }
    }
}

impl ProcessTable {
    /// The worst state of those of these processes that have not ended; at least one is taken to be there.
    pub fn owner_state(&self, owner: &[ProcessId]) -> OwnerState {
        let alive = || owner.iter().filter(|id| self.alive(**id));
        if alive().any(|id| self.is_frozen(id.pid)) {
            return OwnerState::Frozen;
        }
        match alive().any(|id| matches!(self.state(*id), Some('T' | 't'))) {
            true => OwnerState::Stopped,
            false => OwnerState::Alive,
        }
    }

    /// Whether a process is in a control group that is frozen, of version 1 (`freezer.state`) or 2 (`cgroup.events`). Sources:
    /// the kernel's Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst.
    pub fn is_frozen(&self, pid: i32) -> bool {
        let Some(paths) = cgroup_paths(self, pid) else {
            return false;
        };
        let Ok(mounts) = std::fs::read_to_string(self.root().join("self/mountinfo")) else {
            return false;
        };
        let read = |hierarchy: &str, path: &str, file: &str| -> Option<String> {
            let folder = mounts.lines().find_map(|line| mounted(line, hierarchy))?;
            let below = path.trim_start_matches('/');
            std::fs::read_to_string(folder.join(below).join(file)).ok()
        };
        paths.iter().any(|(kind, path)| {
            let is_frozen = match kind.as_str() {
                "unified" => read("", path, "cgroup.events")
                    .map(|events| events.lines().any(|line| line == "frozen 1")),
                kinds if kinds.split(',').any(|kind| kind == "freezer") => {
                    read("freezer", path, "freezer.state").map(|state| state.trim() != "THAWED")
                }
                _ => None,
            };
            is_frozen == Some(true)
        })
    }

    /// The control group of version 1 by which this process could be frozen: then nobody who is in it can be killed until it is
    /// thawed. None where it is in the root, which nobody can freeze, or there is no such hierarchy.
    pub fn freezer(&self, pid: i32) -> Option<String> {
        let paths = cgroup_paths(self, pid)?;
        let freezer = paths
            .into_iter()
            .find(|(kind, _)| kind.split(',').any(|kind| kind == "freezer"));
        freezer.map(|(_, path)| path).filter(|path| path != "/")
    }
}

/// Where a line of `mountinfo` says that a hierarchy of control groups is mounted, from its root on: of version 1 with this
/// controller, or of version 2 where none is given.
fn mounted(line: &str, controller: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let fits = match kind.next()? {
        "cgroup2" => controller.is_empty(),
        "cgroup" => {
            let options = kind.nth(1)?;
            options.split(',').any(|option| option == controller)
        }
        _ => false,
    };
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    (fits && root == "/").then(|| Path::new(place).to_owned())
}
