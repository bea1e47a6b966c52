//! Who has files of a mount open.

use super::Mount;
use crate::processes::{ProcessTable, is_own_process};
use std::fmt;

/// A process that has files of a mount open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUser {
    /// Its process id.
    pub pid: i32,
    /// The name of the process.
    pub name: String,
    /// Whether it has one of them open for writing.
    pub writes: bool,
    /// Whether it is a process of Backburn.
    pub is_own: bool,
}

impl fmt::Display for MountUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// `O_WRONLY` and `O_RDWR` of the kernel's `include/uapi/asm-generic/fcntl.h`.
const WRITE_FLAGS: u32 = 0o3;

/// The processes that have files of these mounts open, or are Backburn's own and work or run from them. Those that the agent may not look into
/// are left out, and so is who has only mapped a file that is closed.
pub(crate) fn mount_users(table: &ProcessTable, mounts: &[&Mount]) -> Vec<MountUser> {
    let mut found = Vec::new();
    for pid in table.pids().unwrap_or_default() {
        let (mut is_open, mut writes) = (false, false);
        for descriptor in table.entries(pid, "fd").unwrap_or_default() {
            let path = table.root().join(format!("{pid}/fdinfo/{descriptor}"));
            // One that is closed meanwhile is none.
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            let field = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.map(str::trim)
            };
            let number = field("mnt_id:").and_then(|number| number.parse::<u64>().ok());
            if mounts.iter().all(|mount| Some(mount.number) != number) {
                continue;
            }
            is_open = true;
            let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok());
            writes |= flags.is_some_and(|flags| flags & WRITE_FLAGS != 0);
        }
        if !(is_open || mounts.iter().any(|mount| is_home(table, pid, mount))) {
            continue;
        }
        found.push(MountUser {
            pid,
            name: table.name(pid).unwrap_or_default(),
            writes,
            is_own: is_own_process(table, pid),
        });
    }
    found
}

/// Whether a process may be Backburn's own and has its working folder or its program below the mount, by their names alone: no file system
/// is asked.
fn is_home(table: &ProcessTable, pid: i32, mount: &Mount) -> bool {
    let lies_there = |file: &str| {
        let path = table.link(pid, file);
        path.is_ok_and(|path| path.starts_with(&mount.path))
    };
    (lies_there("cwd") || lies_there("exe")) && is_own_process(table, pid)
}
