//! The memory that the agent's processes may take: what the host has, within the limits of the control groups that they are in. A
//! container's `/proc/meminfo` shows the host's memory, not the container's.

use crate::metrics::{MetricUnavailable, memory_available, memory_total};
use std::path::{Path, PathBuf};

/// The memory that the agent's processes may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All memory of the host (`MemTotal`), or the limit of the agent's control group if that is lower.
    pub total: u64,
    /// Memory that is available without swapping (`MemAvailable`), within that limit.
    pub available: u64,
    /// Whether a control group limits it.
    pub is_limited: bool,
}

/// The control groups of this process that may limit its memory, found once: a process stays in its groups.
#[derive(Debug, Clone, Default)]
pub struct MemoryLimits {
    groups: Vec<LimitedGroup>,
}

/// A control group that may have a limit of memory, which may change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LimitedGroup {
    folder: PathBuf,
    version: Version,
}

/// Which control groups: their files have other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The files of limits, that of what is in use, and the key of `memory.stat` that says how much of it the kernel would give up first.
    /// Source: the kernel's `admin-guide/cgroup-v1/memory.rst` and `admin-guide/cgroup-v2.rst`.
    fn names(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Version::One => (
                &["memory.limit_in_bytes"],
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ),
            // Above `memory.high` a process is slowed down until it stands still.
            Version::Two => (
                &["memory.max", "memory.high"],
                "memory.current",
                "inactive_file ",
            ),
        }
    }
}

impl MemoryLimits {
    /// The groups of this process. What cannot be read does not limit.
    pub fn of_this_process() -> Self {
        Self::read(Path::new("/proc"))
    }

    /// The same by another folder that looks like `/proc`.
    fn read(proc: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(proc.join("self").join(name));
        let (Ok(mounts), Ok(paths)) = (text("mountinfo"), text("cgroup")) else {
            return MemoryLimits::default();
        };
        let mut groups = Vec::new();
        for (version, root, place) in mounts.lines().filter_map(mounted) {
            let path = paths.lines().find_map(|line| path_in(line, version));
            // In a container, the mount may show a part of the tree only, of which the path then is the beginning.
            let below = path.map(|path| path.strip_prefix(root).unwrap_or(path));
            let below = below.map(|path| path.trim_matches('/'));
            let Some(below) = below.filter(|path| !path.split('/').any(|part| part == "..")) else {
                continue;
            };
            let mut folder = PathBuf::from(place);
            groups.push(folder.clone());
            for part in below.split('/').filter(|part| !part.is_empty()) {
                folder.push(part);
                groups.push(folder.clone());
            }
            let groups = groups.drain(..);
            return MemoryLimits {
                groups: groups
                    .map(|folder| LimitedGroup { folder, version })
                    .collect(),
            };
        }
        MemoryLimits::default()
    }

    /// The memory that this process may take now: the host's, or less where a group limits it.
    ///
    /// # Errors
    /// `/proc/meminfo` cannot be read. A group that is gone does not limit.
    pub fn usable(&self) -> Result<Memory, MetricUnavailable> {
        let host = Memory {
            total: memory_total()?,
            available: memory_available()?,
            is_limited: false,
        };
        Ok(self.within(host))
    }

    fn within(&self, mut memory: Memory) -> Memory {
        let host = memory.total;
        for group in &self.groups {
            // What is in use takes the kernel longer to tell, and a limit beyond all memory does not limit.
            let Some(limit) = group.limit().filter(|limit| *limit < host) else {
                continue;
            };
            memory.is_limited = true;
            memory.total = memory.total.min(limit);
            let used = group.used().unwrap_or(0);
            memory.available = memory.available.min(limit.saturating_sub(used));
        }
        memory
    }
}

impl LimitedGroup {
    /// The lowest limit in bytes. None if there is none.
    fn limit(&self) -> Option<u64> {
        let (limits, _, _) = self.version.names();
        limits.iter().filter_map(|name| self.number(name)).min()
    }

    /// What is in use, less the pages of files that the kernel gives up before anything else.
    fn used(&self) -> Option<u64> {
        let (_, used, key) = self.version.names();
        let stat = std::fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let idle = stat.lines().find_map(|line| line.strip_prefix(key));
        let idle: u64 = idle.and_then(|number| number.trim().parse().ok())?;
        Some(self.number(used)?.saturating_sub(idle))
    }

    /// The number in a file; none for `max`, and for what cannot be read.
    fn number(&self, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(self.folder.join(name)).ok()?;
        text.trim().parse().ok()
    }
}

/// Where a line of `mountinfo` says that control groups with memory are mounted, and which folder of theirs. Source: proc(5).
fn mounted(line: &str) -> Option<(Version, &str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (kind, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    match kind {
        "cgroup" if options.split(',').any(|option| option == "memory") => {
            Some((Version::One, root, place))
        }
        // Beside version 1, version 2 has only the controllers that version 1 has not.
        "cgroup2" if has_memory(Path::new(place)) => Some((Version::Two, root, place)),
        _ => None,
    }
}

fn has_memory(place: &Path) -> bool {
    let controllers = std::fs::read_to_string(place.join("cgroup.controllers"));
    controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
}

/// The path that a line of `/proc/PID/cgroup` has for this version.
fn path_in(line: &str, version: Version) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let is_meant = match version {
        Version::One => controllers.split(',').any(|name| name == "memory"),
        Version::Two => controllers.is_empty(),
    };
    is_meant.then_some(path)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test makes the files that it reads"
)]
mod tests {
    use super::*;
    use std::fs;

    const MIB: u64 = 1 << 20;

    /// A made-up `/proc` and its control groups.
    fn made(version: Version, path: &str, root: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let groups = folder.path().join("groups");
        let place = groups.display();
        fs::create_dir_all(folder.path().join("self")).unwrap();
        fs::create_dir_all(&groups).unwrap();
        let (mount, line) = match version {
            Version::One => (
                format!("31 23 0:27 {root} {place} rw - cgroup cgroup rw,memory"),
                format!("5:cpu,cpuacct:/x\n4:memory:{path}"),
            ),
            Version::Two => (
                format!("31 23 0:27 {root} {place} rw - cgroup2 cgroup2 rw"),
                format!("0::{path}"),
            ),
        };
        fs::write(groups.join("cgroup.controllers"), "cpu memory io").unwrap();
        fs::write(folder.path().join("self/mountinfo"), mount).unwrap();
        fs::write(folder.path().join("self/cgroup"), line).unwrap();
        (folder, groups)
    }

    fn group(folder: &Path, files: &[(&str, u64)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, number) in files {
            fs::write(folder.join(name), format!("{number}\n")).unwrap();
        }
    }

    fn usable(proc: &tempfile::TempDir) -> Memory {
        MemoryLimits::read(proc.path()).within(Memory {
            total: 1000 * MIB,
            available: 700 * MIB,
            is_limited: false,
        })
    }

    #[test]
    fn memory_of_a_limited_group_is_what_its_limit_leaves() {
        let (proc, groups) = made(Version::Two, "/a.slice/b.service", "/");
        let host = usable(&proc);
        assert_eq!((host.total, host.is_limited), (1000 * MIB, false));
        let inner = groups.join("a.slice/b.service");
        group(
            &inner,
            &[("memory.max", 200 * MIB), ("memory.current", 90 * MIB)],
        );
        fs::write(
            inner.join("memory.stat"),
            format!("anon 5\ninactive_file {}\n", 30 * MIB),
        )
        .unwrap();
        fs::write(inner.join("memory.high"), "max\n").unwrap();
        let limited = usable(&proc);
        assert_eq!(
            limited,
            Memory {
                total: 200 * MIB,
                available: 140 * MIB,
                is_limited: true
            }
        );
        // A group above it that has less left counts for what is left, and its own limit only if that is lower.
        let outer = groups.join("a.slice");
        group(
            &outer,
            &[("memory.max", 300 * MIB), ("memory.current", 280 * MIB)],
        );
        fs::write(outer.join("memory.stat"), "inactive_file 0\n").unwrap();
        let limited = usable(&proc);
        assert_eq!((limited.total, limited.available), (200 * MIB, 20 * MIB));
        fs::write(inner.join("memory.high"), (100 * MIB).to_string()).unwrap();
        assert_eq!(usable(&proc).total, 100 * MIB);
    }

    #[test]
    fn memory_of_a_container_is_found_where_its_part_of_the_tree_is_mounted() {
        for (version, path, root) in [
            (Version::One, "/docker/4f1c", "/docker/4f1c"),
            (Version::Two, "/", "/"),
        ] {
            let (proc, groups) = made(version, path, root);
            let (limits, used, key) = version.names();
            group(&groups, &[(limits[0], 64 * MIB), (used, 10 * MIB)]);
            fs::write(groups.join("memory.stat"), format!("{key}0\n")).unwrap();
            let limited = usable(&proc);
            assert_eq!(
                (limited.total, limited.available),
                (64 * MIB, 54 * MIB),
                "{version:?}"
            );
        }
        // Version 1 writes a number beyond all memory where there is no limit.
        let (proc, groups) = made(Version::One, "/x", "/");
        group(
            &groups.join("x"),
            &[
                ("memory.limit_in_bytes", i64::MAX as u64),
                ("memory.usage_in_bytes", 1),
            ],
        );
        assert!(!usable(&proc).is_limited);
        assert_eq!(usable(&proc).available, 700 * MIB);
    }
}
