//! A control group whose processes can be frozen all at once, in each of the kernel's two ways: version 2's `cgroup.freeze`,
//! whose processes a SIGKILL still ends, and version 1's freezer, in which nothing happens to them at all until the thaw.

use crate::cgroups::{Group, OF_A_TEST};
use crate::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the kernel may take to freeze or thaw.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where version 1's freezer is mounted, on machines that have it.
const FREEZER_V1: &str = "/sys/fs/cgroup/freezer";

/// Which of the kernel's two freezers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerVersion {
    /// The controller `freezer` of control groups version 1.
    V1,
    /// `cgroup.freeze` of version 2.
    V2,
}

impl FreezerVersion {
    /// Those that this machine has.
    pub fn all() -> Vec<Self> {
        let mut found = vec![FreezerVersion::V2];
        if Path::new(FREEZER_V1).join("cgroup.procs").exists() {
            found.push(FreezerVersion::V1);
        }
        found
    }
}

/// A control group of a test's own that can be frozen. Thawed and removed in the end.
pub struct Freezer {
    version: FreezerVersion,
    group: Group,
}

impl Freezer {
    /// Makes one, thawed and empty. Needs root.
    ///
    /// # Panics
    /// It can't be made.
    pub fn new(version: FreezerVersion) -> Self {
        // A namespace's number comes back when it is gone, and a group may have been left by a test that was killed.
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let moment = since.expect("the clock is right").as_nanos();
        let group = match version {
            FreezerVersion::V2 => Group::new(&format!("freezer-{moment}")),
            FreezerVersion::V1 => {
                let folder = Path::new(FREEZER_V1).join(format!("{OF_A_TEST}freezer-{moment}"));
                std::fs::create_dir(&folder).expect("root may make a control group");
                Group(folder)
            }
        };
        Freezer { version, group }
    }

    /// The same command, started in this group, with nothing on its standard streams.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = self
            .group
            .command(command.get_program().to_str().expect("a path is text"));
        wrapped
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }

    /// Freezes all that are in it, and waits until they are.
    ///
    /// # Panics
    /// They are not frozen in time.
    pub fn freeze(&self) {
        match self.version {
            FreezerVersion::V2 => self.set("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            FreezerVersion::V1 => self.set("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
        }
    }

    /// Lets them go on.
    ///
    /// # Panics
    /// They are not thawed in time.
    pub fn thaw(&self) {
        match self.version {
            FreezerVersion::V2 => self.set("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
            FreezerVersion::V1 => self.set("freezer.state", "THAWED", "freezer.state", "THAWED"),
        }
    }

    fn set(&self, file: &str, value: &str, shown_in: &str, shown: &str) {
        let folder = &self.group.0;
        std::fs::write(folder.join(file), value).expect("root may freeze a control group");
        let is_shown = || {
            let text = std::fs::read_to_string(folder.join(shown_in)).unwrap_or_default();
            text.lines().any(|line| line == shown)
        };
        wait_within(
            &format!("{shown_in} does not say {shown}"),
            FREEZE_TIMEOUT,
            is_shown,
        );
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // What is frozen neither ends nor lets its group be removed.
        let (file, value) = match self.version {
            FreezerVersion::V2 => ("cgroup.freeze", "0"),
            FreezerVersion::V1 => ("freezer.state", "THAWED"),
        };
        std::fs::write(self.group.0.join(file), value).ok();
        // Who is still in it after a test that failed.
        let inside = std::fs::read_to_string(self.group.0.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.parse().ok()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}
