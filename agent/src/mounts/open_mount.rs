//! A path that stays the same while it is examined, whatever others mount over it.

#![expect(
    clippy::disallowed_methods,
    reason = "opened for reading, or only to be named"
)]

use super::{Mount, mounts};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// A path that is held open without reading what is there, so that no other mount can take its place meanwhile.
#[derive(Debug)]
pub(crate) struct OpenMount(OwnedFd);

impl OpenMount {
    /// Opens a path.
    ///
    /// # Errors
    /// There is no such path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(OpenMount(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens the folder that is at the path, for reading.
    ///
    /// # Errors
    /// It is not a folder, or cannot be read.
    pub(crate) fn open_folder(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&self.0, ".", flags, Mode::empty())?)
    }

    /// The mount that the path lies on.
    ///
    /// # Errors
    /// The kernel does not tell, or the mount is not one of this process's mount namespace.
    pub(crate) fn mount(&self) -> io::Result<Mount> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let number: Option<u64> = number.and_then(|number| number.trim().parse().ok());
        let mut all = mounts()?.into_iter();
        all.find(|mount| Some(mount.number) == number)
            .ok_or_else(|| io::Error::other("it lies on a mount that is not listed here"))
    }
}

impl AsFd for OpenMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
