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
        // Process ids are this test's own and found elsewhere too; the namespace is not.
        let inode = std::fs::read_link("/proc/self/ns/pid").expect("it is in one");
        let inode: String = inode
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let folder = root().join(format!("{OF_A_TEST}{inode}-{name}"));
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
