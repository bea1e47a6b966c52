//! Control groups: the paths of a process in them, and those of version 2, by which the kernel tells whose a socket is.

use super::ProcessTable;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A control group that is not the root of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cgroup {
    /// The folder of the control group.
    pub folder: PathBuf,
    /// How far below the root the group is, counting from 1.
    pub level: u32,
    /// The kernel's number of it, which no other ever has: its folder's inode.
    pub id: u64,
}

impl Cgroup {
    /// The control group that a process is in; none where that is the root.
    ///
    /// # Errors
    /// Version 2 is not mounted, or the process or its group cannot be read.
    pub fn of(table: &ProcessTable, pid: i32) -> io::Result<Option<Self>> {
        let paths = cgroup_paths(table, pid)
            .ok_or_else(|| io::Error::other(format!("process {pid} cannot be read")))?;
        let missing = || io::Error::other("there are no control groups of version 2 here");
        let (_, path) = paths
            .into_iter()
            .find(|(kind, _)| kind == "unified")
            .ok_or_else(missing)?;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        if parts.contains(&"..") {
            return Err(io::Error::other(format!(
                "control group {path} lies outside of what is seen here"
            )));
        }
        let mounts = std::fs::read_to_string(table.root().join("self/mountinfo"))?;
        let folder = mounts
            .lines()
            .find_map(mounted)
            .ok_or_else(missing)?
            .join(parts.join("/"));
        Ok(Some(Cgroup {
            level: parts.len() as u32,
            id: std::fs::metadata(&folder)?.ino(),
            folder,
        }))
    }

    /// The ids of the processes in the group and in those below it; 0 for each that is in another process namespace.
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        members(&self.folder)
    }

    /// The kernel's numbers of the group and of those below it.
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            found.push(std::fs::metadata(&folder)?.ino());
            for below in std::fs::read_dir(folder)? {
                let below = below?;
                if below.file_type()?.is_dir() {
                    folders.push(below.path());
                }
            }
        }
        Ok(found)
    }
}

fn members(folder: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs"))?;
    let mut found: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    for below in std::fs::read_dir(folder)? {
        let below = below?;
        if below.file_type()?.is_dir() {
            found.extend(members(&below.path())?);
        }
    }
    Ok(found)
}

/// Where a line of `mountinfo` says that control groups of version 2 are mounted, from their root on.
fn mounted(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    // Spaces are written `\040`; nobody mounts these at a place with one.
    (root == "/").then(|| PathBuf::from(place))
}

/// The control groups of a process: what the hierarchy is for (`unified`, `systemd`, or its
/// controllers separated by commas), and the path in it.
pub(super) fn cgroup_paths(table: &ProcessTable, pid: i32) -> Option<Vec<(String, String)>> {
    table.read(pid, "cgroup", |text| {
        let text = String::from_utf8_lossy(text);
        text.lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (kind, path) = rest.split_once(':')?;
                let kind = if kind.is_empty() {
                    "unified"
                } else {
                    kind.trim_start_matches("name=")
                };
                Some((kind.to_owned(), path.to_owned()))
            })
            .collect()
    })
}

/// A unit's whole name: without a suffix, a service is meant.
pub(super) fn whole_unit(unit: &str) -> String {
    const SUFFIXES: [&str; 5] = [".service", ".scope", ".slice", ".socket", ".mount"];
    if unit.ends_with('*') || SUFFIXES.iter().any(|suffix| unit.ends_with(suffix)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

/// The parts of a control group's path, whether that is one of `/proc/PID/cgroup` or a folder below `/sys/fs/cgroup`.
pub(super) fn cgroup_parts(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix("/sys/fs/cgroup")
        .unwrap_or(path)
        .split('/')
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mount_is_found_among_others() {
        let line = "31 23 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mounted(line), Some("/sys/fs/cgroup/unified".into()));
        for other in [
            "32 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            "33 23 0:27 /a /somewhere rw - cgroup2 cgroup2 rw",
        ] {
            assert_eq!(mounted(other), None);
        }
    }
}
