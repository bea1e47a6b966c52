//! The doors for changes of mounts.

use super::{Host, HostError};
use crate::mounts::{Mount, MountIdentity, mounts};
use nix::mount::MsFlags;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// `MS_NOSYMFOLLOW` of the kernel's `include/uapi/linux/mount.h`, since Linux 5.10.
const NOSYMFOLLOW: u64 = 256;

/// A path that is held open without reading what is there, so that no other mount can take its place meanwhile.
#[derive(Debug)]
pub struct OpenMount(OwnedFd);

impl OpenMount {
    /// Opens a path.
    ///
    /// # Errors
    /// There is no such path.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(OpenMount(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens the folder that is at the path, for reading.
    ///
    /// # Errors
    /// It is not a folder, or cannot be read.
    pub fn open_folder(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&self.0, ".", flags, Mode::empty())?)
    }

    /// The mount that the path lies on.
    ///
    /// # Errors
    /// The kernel does not tell, or the mount is not one of this process's mount namespace.
    pub fn mount(&self) -> io::Result<Mount> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let number: Option<u64> = number.and_then(|number| number.trim().parse().ok());
        let mut all = mounts()?.into_iter();
        all.find(|mount| Some(mount.number) == number)
            .ok_or_else(|| io::Error::other("it lies on a mount that is not listed here"))
    }
}

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
                let target = format!("/proc/self/fd/{}", opened.0.as_raw_fd());
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
