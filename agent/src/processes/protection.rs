//! Which processes are never victims, whatever a selector says: pid 1, kernel threads, Backburn's own
//! processes and those that it was started from, dead processes, and those that the policy protects.

use super::cgroup::{cgroup_paths, whole_unit};
use super::own_processes::OwnProcesses;
use super::users::uid_of;
use super::{Process, ProcessTable, Stat};
use backburn_experiments::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the policy protects. A `*` at the end of an entry stands for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Protection {
    /// Processes with these names. Default: `init`, systemd, sshd, the message bus, the container runtimes, the kubelet and NetworkManager.
    pub names: Vec<String>,
    /// These systemd units, their processes, and those of all units below them.
    pub units: Vec<String>,
    /// Processes of these users, by name or number.
    pub users: Vec<String>,
    /// Files and folders that no fault alters, each with all below it: absolute paths. The agent's state folder, policy and program
    /// are always protected.
    pub paths: Vec<PathBuf>,
}

impl Default for Protection {
    fn default() -> Self {
        let names = [
            "init",
            "systemd",
            "systemd-*",
            "(sd-pam)",
            "sshd",
            "sshd-*",
            "dbus-daemon",
            "dbus-broker*",
            "dockerd",
            "containerd",
            "containerd-shim*",
            "crio",
            "conmon",
            "kubelet",
            "NetworkManager",
        ];
        Protection {
            names: names.map(String::from).to_vec(),
            units: Vec::new(),
            users: Vec::new(),
            paths: Vec::new(),
        }
    }
}

impl Protection {
    /// Entries that would protect nothing; `at` is the place of this in the policy, e.g. `$.protect`.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        let unknown = |(index, user): (usize, &String)| {
            uid_of(user).is_none().then(|| {
                Problem::new(
                    format!("{at}.users[{index}]"),
                    format!("there is no user `{user}` on this host"),
                )
                .hint("give a name that `getent passwd` lists, or a number")
            })
        };
        let relative = |(index, path): (usize, &PathBuf)| {
            (!path.is_absolute()).then(|| {
                Problem::new(
                    format!("{at}.paths[{index}]"),
                    format!("`{}` is not an absolute path", path.display()),
                )
                .hint("a path that begins with `/`")
            })
        };
        let users = self.users.iter().enumerate().filter_map(unknown);
        let paths = self.paths.iter().enumerate().filter_map(relative);
        users.chain(paths).collect()
    }
}

impl Protection {
    /// The entry of `units` that protects a unit, by its name or by one of the units above it in its control group's path.
    pub fn protecting_unit(&self, name: &str, control_group: &str) -> Option<&str> {
        let is_meant = |entry: &&String| {
            let entry = whole_unit(entry);
            like(&entry, name) || control_group.split('/').any(|part| like(&entry, part))
        };
        self.units.iter().find(is_meant).map(String::as_str)
    }
}

/// Decides which processes are protected.
pub(super) struct ProtectionCheck<'a> {
    table: &'a ProcessTable,
    protection: &'a Protection,
    users: Vec<(u32, &'a str)>,
    ours: OwnProcesses<'a>,
}

impl<'a> ProtectionCheck<'a> {
    pub(super) fn new(table: &'a ProcessTable, protection: &'a Protection) -> Self {
        let users = protection.users.iter();
        let users = users
            .filter_map(|user| Some((uid_of(user)?, user.as_str())))
            .collect();
        ProtectionCheck {
            table,
            protection,
            users,
            ours: OwnProcesses::new(table),
        }
    }

    /// Why this process is protected, if it is.
    pub(super) fn reason(&self, process: &Process, stat: &Stat) -> Option<String> {
        if process.id.pid == 1 {
            return Some("it is the first process of the system".into());
        }
        if stat.is_kernel_thread() {
            return Some("it is a kernel thread".into());
        }
        if stat.is_dead() {
            return Some("it is dead and not yet reaped by its parent".into());
        }
        if let Some(reason) = self.ours.reason(process.id.pid) {
            return Some(reason);
        }
        let name = |name: &&String| like(name, &process.name) || like(name, &stat.comm);
        if let Some(name) = self.protection.names.iter().find(name) {
            return Some(format!("the policy protects the name `{name}`"));
        }
        if let Some((_, user)) = self.users.iter().find(|(uid, _)| *uid == process.uid) {
            return Some(format!("the policy protects the user `{user}`"));
        }
        if self.protection.units.is_empty() {
            return None;
        }
        let paths = cgroup_paths(self.table, process.id.pid).unwrap_or_default();
        let unit = |unit: &&String| {
            paths
                .iter()
                .any(|(_, path)| path.split('/').any(|part| like(&whole_unit(unit), part)))
        };
        let unit = self.protection.units.iter().find(unit)?;
        Some(format!("the policy protects the unit `{unit}`"))
    }
}

/// Whether a pattern, which may end with `*`, matches a name.
fn like(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}
