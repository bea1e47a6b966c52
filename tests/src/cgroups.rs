//! Control groups of version 2 that a test makes for its processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where version 2 is mounted: beside version 1, or alone.
fn root() -> PathBuf {
    let beside = Path::new("/sys/fs/cgroup/unified");
    let alone = Path::new("/sys/fs/cgroup");
    let found = [beside, alone]
        .into_iter()
        .find(|folder| folder.join("cgroup.controllers").exists());
    found
        .expect("control groups of version 2 are mounted")
        .into()
}

/// Where the groups that limit memory are mounted, of whichever version, and the files of the limit and of what is in use.
fn memory_root() -> (&'static Path, [&'static str; 2]) {
    let one = Path::new("/sys/fs/cgroup/memory");
    match one.is_dir() {
        true => (one, ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
        false => (
            Path::new("/sys/fs/cgroup"),
            ["memory.max", "memory.current"],
        ),
    }
}

/// What the name of every group that a test makes begins with: others come and go meanwhile.
pub(crate) const OF_A_TEST: &str = "test-of-backburn-";

/// A control group that is removed in the end.
pub struct Group(pub PathBuf);

impl Group {
    /// Makes one.
    ///
    /// # Panics
    /// It can't be made.
    pub fn new(name: &str) -> Self {
        Group::below(&root(), name)
    }

    /// Makes one whose processes may use so many bytes of memory.
    ///
    /// # Panics
    /// It can't be made, or memory can't be limited.
    pub fn of_memory(name: &str, limit: u64) -> Self {
        let (root, [limited, _]) = memory_root();
        let group = Group::below(root, name);
        std::fs::write(group.0.join(limited), limit.to_string()).expect("memory can be limited");
        group
    }

    /// How many bytes of memory its processes use.
    ///
    /// # Panics
    /// It is not one that limits memory.
    pub fn memory_in_use(&self) -> u64 {
        let (_, [_, used]) = memory_root();
        let text = std::fs::read_to_string(self.0.join(used)).expect("it counts memory");
        text.trim().parse().expect("a number")
    }

    fn below(root: &Path, name: &str) -> Self {
        // Process ids are this test's own and found elsewhere too; the namespace is not.
        let inode = std::fs::read_link("/proc/self/ns/pid").expect("it is in one");
        let inode: String = inode
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let folder = root.join(format!("{OF_A_TEST}{inode}-{name}"));
        std::fs::create_dir(&folder).expect("root may make a control group");
        Group(folder)
    }

    /// What starts a program in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is busy until the kernel has taken leave of its processes.
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} can't be removed", self.0.display());
    }
}
