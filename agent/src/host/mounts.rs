//! The doors for changes of mounts.

use super::{Host, HostError};
use crate::mounts::{Mount, MountIdentity, OpenMount};
use nix::mount::MsFlags;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

/// `MS_NOSYMFOLLOW` of the kernel's `include/uapi/linux/mount.h`, since Linux 5.10.
const NOSYMFOLLOW: u64 = 256;

impl Host {
    /// Makes a mount read-only, or writable again. Its other options stay as they are, and so do all other mounts of its file system.
    ///
    /// # Errors
    /// The kernel refused, e.g. since somebody writes; or another mount lies over it.
    pub fn set_read_only(
        &self,
        mount: &MountIdentity,
        path: &Path,
        is_read_only: bool,
    ) -> Result<(), HostError> {
        let to = if is_read_only {
            "read-only"
        } else {
            "writable"
        };
        self.effect(
            &format!("make the mount at {} {to}", path.display()),
            || {
                let opened = OpenMount::at(path)?;
                let found = opened.mount()?;
                if found.number != mount.number {
                    return Err(io::Error::other(
                        "another mount lies over it: unmount that one first",
                    ));
                }
                let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | kept_flags(&found);
                flags.set(MsFlags::MS_RDONLY, is_read_only);
                let target = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
                let none: Option<&str> = None;
                Ok(nix::mount::mount(none, target.as_str(), none, flags, none)?)
            },
        )
    }
}

/// What a mount has besides whether it is read-only, so that it has it afterwards. The kernel keeps how access times are written where
/// no such flag is given.
fn kept_flags(mount: &Mount) -> MsFlags {
    let flag = |option: &String| match option.as_str() {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        "nosymfollow" => MsFlags::from_bits_retain(NOSYMFOLLOW),
        _ => MsFlags::empty(),
    };
    mount.options.iter().map(flag).collect()
}
