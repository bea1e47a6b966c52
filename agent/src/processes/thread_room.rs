//! How many more processes and threads the kernel would start here.

use super::ProcessTable;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The tightest limit of the number of threads that this process is under, and what of it is in use. A process counts as the threads
/// that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRoom {
    /// How many there may be.
    pub limit: u64,
    /// How many there are.
    pub used: u64,
    /// The limit's name, for people.
    pub of: String,
}

impl ThreadRoom {
    /// How many more there may be.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl fmt::Display for ThreadRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} threads ({})", self.used, self.limit, self.of)
    }
}

impl ProcessTable {
    /// The tightest limit: the kernel's own, or that of a control group that this process is in.
    ///
    /// # Errors
    /// The kernel does not show how many threads there are.
    pub fn thread_room(&self) -> io::Result<ThreadRoom> {
        let number = |path: PathBuf| -> Option<u64> {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        };
        let load = std::fs::read_to_string(self.root().join("loadavg"))?;
        // `0.20 0.18 0.12 1/80 11206`: the second figure of the pair is the number of all threads (proc_loadavg(5)).
        let used = load
            .split_whitespace()
            .nth(3)
            .and_then(|pair| pair.split_once('/')?.1.parse().ok())
            .ok_or_else(|| io::Error::other("/proc/loadavg has another form"))?;
        let of_kernel = ["threads-max", "pid_max"].into_iter().filter_map(|name| {
            let limit = number(self.root().join("sys/kernel").join(name))?;
            let of = format!("kernel.{name}");
            Some(ThreadRoom { limit, used, of })
        });
        let of_groups = own_groups(self.root()).into_iter().filter_map(|folder| {
            let limit = number(folder.join("pids.max"))?;
            let used = number(folder.join("pids.current"))?;
            let of = format!("pids.max of {}", folder.display());
            Some(ThreadRoom { limit, used, of })
        });
        let tightest = of_kernel.chain(of_groups).min_by_key(ThreadRoom::free);
        tightest.ok_or_else(|| io::Error::other("/proc/sys/kernel shows no limit of threads"))
    }
}

/// The folders of the control groups that this process is in and that may limit threads, each with those above it.
fn own_groups(proc: &Path) -> Vec<PathBuf> {
    let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
    let (groups, mounts) = (read("self/cgroup"), read("self/mounts"));
    let mounted = |wanted: &dyn Fn(&str, &str) -> bool| {
        let mut mounts = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(kind, options).then(|| PathBuf::from(folder))
        });
        mounts.next()
    };
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let top = match controllers {
            "" => mounted(&|kind, _| kind == "cgroup2"),
            some if some.split(',').any(|name| name == "pids") => mounted(&|kind, options| {
                kind == "cgroup" && options.split(',').any(|option| option == "pids")
            }),
            _ => None,
        };
        let Some(top) = top else { continue };
        let own = top.join(path.trim_start_matches('/'));
        folders.extend(
            own.ancestors()
                .take_while(|folder| folder.starts_with(&top))
                .map(Path::to_owned),
        );
    }
    folders
}
