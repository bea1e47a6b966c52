//! A tree of files that no fault may touch, and what can be told of every file in a folder: its kind, content, mode, owner, times,
//! links and extended attributes.

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A user and a group that nobody on the machine is.
const STRANGER: u32 = 64_321;

/// Puts canary files into a folder: one of each kind, with owners, modes, times and attributes that nobody gives by chance.
///
/// # Panics
/// They can't be made: this needs root.
pub fn plant(folder: &Path) {
    let below = folder.join("deep/er");
    std::fs::create_dir_all(&below).expect("a folder can be made");
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = below.join(name);
        std::fs::write(&path, content).expect("a file can be written");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("it is root's");
        path
    };
    std::fs::write(folder.join("precious"), "data").expect("a file can be written");
    let owned = write("owned", b"somebody else's", 0o640);
    chown(&owned, Some(STRANGER), Some(STRANGER)).expect("root may");
    // Like the files that a helper makes, and not one of them.
    write(".backburn-canary", b"not a helper's", 0o600);
    write("program", b"#!/bin/false\n", 0o4755);
    std::fs::hard_link(write("linked", &[7; 5000], 0o444), below.join("again"))
        .expect("a file may have two names");
    symlink("../precious", below.join("link")).expect("a link can be made");
    symlink("nowhere", below.join("dangling")).expect("a link can be made");
    nix::unistd::mkfifo(
        &below.join("fifo"),
        nix::sys::stat::Mode::from_bits_truncate(0o622),
    )
    .expect("a FIFO can be made");
    let old = std::fs::File::options()
        .write(true)
        .open(write("old", b"of long ago", 0o600))
        .expect("it is there");
    old.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .expect("it is root's");
    // Not every file system has attributes of users.
    for name in ["user.canary", "trusted.canary"] {
        lsetxattr(&owned, name, b"sings", XattrFlags::CREATE).ok();
    }
    std::fs::set_permissions(&below, std::fs::Permissions::from_mode(0o1771))
        .expect("it is root's");
}

/// A line for each file in a folder and below, and for the folder: all that can be told of it but when it was read.
///
/// # Panics
/// A folder or a file can't be read.
pub fn fingerprint(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    look(folder, &mut lines);
    lines
}

fn look(path: &Path, lines: &mut Vec<String>) {
    // A file that went between two looks is one that is not there.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        format!("{:?}", std::fs::read_link(path).unwrap_or_default())
    } else if kind.is_file() {
        let mut hasher = DefaultHasher::new();
        std::fs::read(path).unwrap_or_default().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    } else {
        format!("{kind:?}")
    };
    lines.push(format!(
        "file {} mode {:o} owner {}:{} links {} length {} modified {}.{} changed {}.{} content {content} attributes {:?}",
        path.display(),
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.nlink(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
        attributes(path),
    ));
    if kind.is_dir() {
        let mut inside: Vec<_> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        inside.sort();
        for path in inside {
            look(&path, lines);
        }
    }
}

/// The extended attributes of a file, each with its value.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = [0; 4096];
    let length = llistxattr(path, &mut names).unwrap_or(0);
    let mut found: Vec<(String, Vec<u8>)> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0; 1024];
            let length = lgetxattr(path, name, &mut value).unwrap_or(0);
            (
                String::from_utf8_lossy(name).into_owned(),
                value[..length].to_vec(),
            )
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these leaves the files' names and lengths as they were.
    #[test]
    fn fingerprint_of_a_changed_file_is_another() {
        if !nix::unistd::geteuid().is_root() {
            return crate::isolated::skip("not root, and canaries have other owners");
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        plant(folder.path());
        let path = |name: &str| folder.path().join("deep/er").join(name);
        let changes: [(&str, &dyn Fn()); 5] = [
            ("content", &|| {
                std::fs::write(path("old"), "of lang ago").expect("it is there");
            }),
            ("mode", &|| {
                let mode = std::fs::Permissions::from_mode(0o666);
                std::fs::set_permissions(path("owned"), mode).expect("it is there");
            }),
            ("owner", &|| {
                chown(path("owned"), Some(0), None).expect("it is there");
            }),
            ("time", &|| {
                let file = std::fs::File::options().write(true).open(path("linked"));
                let file = file.expect("it is there");
                file.set_modified(SystemTime::UNIX_EPOCH)
                    .expect("it is root's");
            }),
            ("target", &|| {
                std::fs::remove_file(path("link")).expect("it is there");
                symlink("../preciouz", path("link")).expect("a link can be made");
            }),
        ];
        let mut before = fingerprint(folder.path());
        assert_eq!(
            before,
            fingerprint(folder.path()),
            "looking changes nothing"
        );
        for (what, change) in changes {
            change();
            let after = fingerprint(folder.path());
            assert_ne!(before, after, "{what} was changed");
            before = after;
        }
    }
}
