//! An ext4 file system in a file, for faults that freeze one. It is thawed before it goes, whatever has happened: a process that writes
//! to it could not be killed.

use crate::wait::wait_within;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a write may take that does not wait.
const SOON: Duration = Duration::from_millis(400);

/// An ext4 file system of 8 MiB, mounted while this is there. Needs root, `mkfs.ext4`, `mount` and a mount namespace of its own.
#[derive(Debug)]
pub struct FrozenDisk {
    folder: tempfile::TempDir,
}

impl FrozenDisk {
    /// A fresh one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let disk = FrozenDisk { folder };
        let image = disk.folder.path().join("image");
        let file = std::fs::File::create(&image).expect("a file can be made");
        file.set_len(8 << 20).expect("it can be long");
        std::fs::create_dir(disk.path()).expect("a folder can be made");
        let (image, path) = (
            image.display().to_string(),
            disk.path().display().to_string(),
        );
        run("mkfs.ext4", &["-q", "-F", &image]);
        run("mount", &["-o", "loop,noatime", &image, &path]);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Whether a write is done at once. It changes nothing: a folder that is not there is removed.
    pub fn takes_writes(&self) -> bool {
        let mut write = Command::new("rmdir")
            .arg(self.path().join("nothing"))
            .stderr(Stdio::null())
            .spawn()
            .expect("`rmdir` starts");
        let until = std::time::Instant::now() + SOON;
        loop {
            if write
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
            {
                return true;
            }
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", write.id()));
            let waits = stat.is_ok_and(|stat| stat.contains(") D "));
            if waits && std::time::Instant::now() > until {
                // It ends as soon as it waits no more.
                write.kill().ok();
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Freezes it, as another program would.
    pub fn freeze(&self) {
        run(
            "fsfreeze",
            &["--freeze", &self.path().display().to_string()],
        );
    }

    /// Thaws it, as another program would. Whether it was frozen.
    pub fn thaw(&self) -> bool {
        thaw(&self.path())
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        self.thaw();
        let path = self.path().display().to_string();
        wait_within("it is not in use", Duration::from_secs(10), || {
            let unmounted = Command::new("umount")
                .arg(&path)
                .stderr(Stdio::null())
                .status();
            unmounted.is_ok_and(|status| status.success())
        });
    }
}

fn thaw(path: &Path) -> bool {
    let thawed = Command::new("fsfreeze")
        .arg("--unfreeze")
        .arg(path)
        .stderr(Stdio::null())
        .status();
    thawed.is_ok_and(|status| status.success())
}

fn run(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status();
    assert!(status.expect("it starts").success(), "{program} {words:?}");
}
