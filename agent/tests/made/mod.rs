//! A made-up `/proc`, so that there are always the same processes, and a made-up host around it.

#![allow(dead_code, reason = "each test file uses its own part")]

use backburn_agent::processes::{Found, ProcessSelector, ProcessTable, Protection};
use backburn_experiments::wire::Refusal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A container's id.
pub const ID: &str = "4f1c2ab09d3e4f1c2ab09d3e4f1c2ab09d3e4f1c2ab09d3e4f1c2ab09d3e4f1c";

/// A `/proc` with a web server of three workers, a data base in a container, and much that is spared.
pub struct Made {
    folder: tempfile::TempDir,
}

struct MadeProcess<'a> {
    pid: i32,
    name: &'a str,
    parent: i32,
    state: char,
    uid: u32,
    line: &'a str,
    cgroup: &'a str,
}

const PLAIN: MadeProcess<'static> = MadeProcess {
    pid: 0,
    name: "",
    parent: 1,
    state: 'S',
    uid: 1000,
    line: "",
    cgroup: "0::/",
};

impl Made {
    pub fn new() -> Self {
        let made = Made {
            folder: tempfile::tempdir().unwrap(),
        };
        let web = "9:cpu,cpuacct:/system.slice/nginx.service\n0::/system.slice/nginx.service";
        let container = format!("4:memory:/docker/{ID}\n0::/system.slice/docker-{ID}.scope/init");
        let entries = [
            MadeProcess {
                pid: 1,
                name: "init",
                parent: 0,
                uid: 0,
                line: "/sbin/init",
                ..PLAIN
            },
            MadeProcess {
                pid: 2,
                name: "kthreadd",
                parent: 0,
                uid: 0,
                ..PLAIN
            },
            MadeProcess {
                pid: 9,
                name: "kworker/0:1",
                parent: 2,
                uid: 0,
                ..PLAIN
            },
            MadeProcess {
                pid: 20,
                name: "sshd",
                uid: 0,
                line: "sshd: /usr/sbin/sshd -D",
                ..PLAIN
            },
            MadeProcess {
                pid: 21,
                name: "systemd-journal",
                uid: 0,
                line: "/lib/systemd/systemd-journald",
                ..PLAIN
            },
            MadeProcess {
                pid: 30,
                name: "nginx",
                uid: 0,
                line: "nginx: master",
                cgroup: web,
                ..PLAIN
            },
            MadeProcess {
                pid: 33,
                name: "nginx",
                parent: 30,
                uid: 33,
                line: "nginx: worker",
                cgroup: web,
                ..PLAIN
            },
            MadeProcess {
                pid: 31,
                name: "nginx",
                parent: 30,
                uid: 33,
                line: "nginx: worker",
                cgroup: web,
                ..PLAIN
            },
            MadeProcess {
                pid: 32,
                name: "nginx",
                parent: 30,
                uid: 33,
                line: "nginx: worker",
                cgroup: web,
                ..PLAIN
            },
            MadeProcess {
                pid: 40,
                name: "postgres",
                uid: 70,
                line: "/bin/postgres\0-D\0/data",
                cgroup: &container,
                ..PLAIN
            },
            MadeProcess {
                pid: 41,
                name: "a-very-long-nam",
                line: "/opt/a-very-long-name\0serve",
                ..PLAIN
            },
            MadeProcess {
                pid: 42,
                name: "a-very-long-nam",
                line: "/opt/a-very-long-namesake",
                ..PLAIN
            },
            MadeProcess {
                pid: 50,
                name: "late",
                state: 'Z',
                ..PLAIN
            },
            MadeProcess {
                pid: 60,
                name: "backburn-agent",
                line: "/usr/bin/backburn-agent\0run",
                ..PLAIN
            },
            MadeProcess {
                pid: 61,
                name: "backburn",
                line: "/usr/bin/backburn\0demo-service",
                ..PLAIN
            },
            MadeProcess {
                pid: 62,
                name: "backburn-helper",
                line: "/proc/self/exe\0helper\0x",
                ..PLAIN
            },
        ];
        for entry in entries {
            made.add(&entry);
        }
        made
    }

    fn add(&self, e: &MadeProcess<'_>) {
        let folder = self.folder.path().join(e.pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        // In the order of their ids, but the workers of the web server started in another.
        let start = if e.pid == 33 { 305 } else { e.pid * 10 };
        // `PF_KTHREAD`.
        let flags = if e.pid == 2 || e.parent == 2 {
            0x0020_0000
        } else {
            0
        };
        let stat = format!(
            "{} ({}) {} {} 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start} 1000 42 0",
            e.pid, e.name, e.state, e.parent
        );
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("comm"), format!("{}\n", e.name)).unwrap();
        let line = if e.line.is_empty() {
            String::new()
        } else {
            format!("{}\0", e.line)
        };
        fs::write(folder.join("cmdline"), line).unwrap();
        fs::write(folder.join("cgroup"), format!("{}\n", e.cgroup)).unwrap();
        fs::write(
            folder.join("status"),
            format!("Name:\tx\nUid:\t{0}\t{0}\t{0}\t{0}\nTracerPid:\t0\n", e.uid),
        )
        .unwrap();
    }

    pub fn find(&self, selector: Value) -> Result<Found, Refusal> {
        self.find_with(selector, &Protection::default(), 7)
    }

    pub fn find_with(
        &self,
        selector: Value,
        protection: &Protection,
        seed: u64,
    ) -> Result<Found, Refusal> {
        let selector: ProcessSelector = serde_json::from_value(selector).unwrap();
        selector.find(
            "$.process",
            &ProcessTable::at(self.path()),
            protection,
            seed,
        )
    }

    /// The ids of everyone that a selector means.
    pub fn all(&self, mut selector: Value) -> Vec<i32> {
        selector["select"] = json!("all");
        let found = self.find(selector).unwrap();
        let mut pids: Vec<i32> = found.victims.iter().map(|process| process.id.pid).collect();
        assert_eq!(pids.len(), found.matched);
        pids.sort_unstable();
        pids
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}
