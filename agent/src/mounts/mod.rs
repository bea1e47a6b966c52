//! The mounts of this process's mount namespace, as the kernel lists them, and who has files open on them. Everything here reads, and
//! asks no file system, so that it never waits for one.

mod frozen;
mod open_mount;
mod users;

pub(crate) use frozen::{LOOK_NAME, OpenFileSystem, WriteLook};
pub(crate) use open_mount::OpenMount;
pub use users::MountUser;
pub(crate) use users::mount_users;

use crate::boot::boot_id;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Which mount of this host is meant. The kernel gives its number to no other mount while it lasts; the boot and the device tell it from
/// one that has the number later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MountIdentity {
    /// The id of the boot in which it was mounted.
    pub boot: String,
    /// The kernel's number of the mount.
    pub number: u64,
    /// The device of its file system, as `major:minor`.
    pub device: String,
    /// Where it was mounted when this was planned.
    pub path: PathBuf,
}

/// A mount as `/proc/self/mountinfo` tells it (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of the mount.
    pub number: u64,
    /// The number of the mount that it lies on.
    pub parent: u64,
    /// The device of its file system, as `major:minor`.
    pub device: String,
    /// The path in its file system that it shows.
    pub root: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The options of this mount alone, e.g. `rw` and `noatime`.
    pub options: Vec<String>,
    /// The kind of its file system, e.g. `ext4`.
    pub kind: String,
    /// Whether the file system itself is read-only, in all of its mounts.
    pub is_file_system_read_only: bool,
}

impl Mount {
    /// Reads a line of the list; none where it is not one.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let mut next = || fields.next();
        let (number, parent) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (device, root, path) = (next()?.to_owned(), unescaped(next()?), unescaped(next()?));
        let options = next()?.split(',').map(str::to_owned).collect();
        let mut system = system.split(' ');
        let kind = system.next()?.to_owned();
        let system_options = system.nth(1).unwrap_or_default();
        Some(Mount {
            number,
            parent,
            device,
            root,
            path,
            options,
            kind,
            is_file_system_read_only: system_options.split(',').any(|option| option == "ro"),
        })
    }

    /// Whether nobody may write through this mount.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// What tells this mount from any other.
    ///
    /// # Errors
    /// The kernel does not tell the id of the boot.
    pub fn identity(&self) -> io::Result<MountIdentity> {
        Ok(MountIdentity {
            boot: boot_id()?,
            number: self.number,
            device: self.device.clone(),
            path: self.path.clone(),
        })
    }
}

impl MountIdentity {
    /// The mount as it is now; none where it is gone.
    ///
    /// # Errors
    /// The kernel does not list the mounts.
    pub fn find(&self) -> io::Result<Option<Mount>> {
        if self.is_of_other_boot()? {
            return Ok(None);
        }
        let is_it = |mount: &Mount| mount.number == self.number && mount.device == self.device;
        Ok(mounts()?.into_iter().find(is_it))
    }

    /// Whether the machine has been started again since.
    ///
    /// # Errors
    /// The kernel does not tell the id of the boot.
    pub fn is_of_other_boot(&self) -> io::Result<bool> {
        Ok(boot_id()? != self.boot)
    }
}

/// All mounts of this process's mount namespace.
///
/// # Errors
/// The kernel does not list them.
pub fn mounts() -> io::Result<Vec<Mount>> {
    // Not text: a path may have any bytes.
    let list = std::fs::read("/proc/self/mountinfo")?;
    let list = String::from_utf8_lossy(&list);
    Ok(list.lines().filter_map(Mount::parse).collect())
}

/// A path in which the kernel has written blanks and backslashes as octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let number = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(number.unwrap_or(*first));
        rest = match number {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_line_is_read_with_blanks_in_paths_and_optional_fields() {
        let line = r"36 35 98:0 /sub /mnt/a\040b\134c ro,noatime shared:7 master:1 - ext4 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.number, mount.parent), (36, 35));
        assert_eq!(mount.path, PathBuf::from(r"/mnt/a b\c"));
        assert_eq!(mount.root, PathBuf::from("/sub"));
        assert!(mount.is_read_only() && !mount.is_file_system_read_only);
        assert_eq!(mount.kind, "ext4");
        let line = "36 35 0:44 / /x rw,relatime - tmpfs none ro,size=4k";
        let mount = Mount::parse(line).unwrap();
        assert!(!mount.is_read_only() && mount.is_file_system_read_only);
        assert_eq!(Mount::parse("36 35"), None);
    }

    #[test]
    fn mount_of_another_boot_is_gone() {
        let root = mounts().unwrap().into_iter().next().unwrap();
        let now = root.identity().unwrap();
        assert_eq!(now.find().unwrap(), Some(root));
        let before = MountIdentity {
            boot: "another".into(),
            ..now
        };
        assert_eq!(before.find().unwrap(), None);
    }
}
