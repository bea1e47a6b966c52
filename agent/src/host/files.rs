//! The doors for a change of a file that keeps its original: everything is done beside the file, in its own folder, and only names
//! that the agent gave are ever removed. Each call is one effect, and is durable when it returns.

use super::{Host, HostError};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, fsync, futimens, linkat, openat,
    openat2, renameat, statat, unlinkat,
};
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// How the names begin of all files that the agent makes beside others.
pub const MADE_FILE_PREFIX: &str = ".backburn-";

/// Most bytes of an extended attribute's value, and of the list of their names (`XATTR_SIZE_MAX`, xattr(7)).
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// A folder that is held open, so that nobody can put another in its place meanwhile.
#[derive(Debug)]
pub struct OpenFolder(OwnedFd);

impl OpenFolder {
    /// Opens the folder of a path. No part of the folder's path may be a link.
    ///
    /// # Errors
    /// There is no such folder, or a part of its path is a link by now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat2(
            CWD,
            folder,
            flags,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        Ok(OpenFolder(opened?))
    }

    /// What a name in the folder stands for; none where it stands for nothing. Links are not followed.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn stat(&self, name: &Path) -> io::Result<Option<Stat>> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file in the folder for reading, without a trace in its access time where the kernel allows that.
    ///
    /// # Errors
    /// It is not there, is a link, or cannot be read.
    pub fn open(&self, name: &Path) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match openat(&self.0, name, flags | OFlags::NOATIME, Mode::empty()) {
            // Only a file's owner and root may leave no trace.
            Err(rustix::io::Errno::PERM) => openat(&self.0, name, flags, Mode::empty()),
            opened => opened,
        };
        Ok(File::from(opened?))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }
}

/// What a copy of a file has instead of the original's bytes.
#[derive(Debug, Clone, Copy)]
pub struct CopyEdit<'a> {
    /// The length of the copy in bytes; none for the original's. What is beyond the original's end is zero.
    pub length: Option<u64>,
    /// Bytes that stand at these offsets.
    pub patches: &'a [(u64, Vec<u8>)],
}

impl Host {
    /// Makes a copy of a file beside it: with this edit, and with the original's owner, mode, extended attributes and times. What
    /// has the copy's name already is a remainder of the agent's, and is removed first.
    ///
    /// # Errors
    /// The error of the file system; the copy is then removed.
    pub fn copy_beside(
        &self,
        folder: &OpenFolder,
        original: &File,
        copy: &Path,
        edit: CopyEdit<'_>,
    ) -> Result<(), HostError> {
        self.effect(&format!("write {}", copy.display()), || {
            made_by_agent(copy)?;
            unlink_if_there(folder, copy)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let made = openat(
                &folder.0,
                copy,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )?;
            write_copy(original, &File::from(made), edit)
                .and_then(|()| folder.sync())
                .inspect_err(|_| {
                    // A copy that cannot be removed is found by its name when the change is undone.
                    unlinkat(&folder.0, copy, AtFlags::empty()).ok();
                })
        })
    }

    /// Gives a file a second name beside its first.
    ///
    /// # Errors
    /// The error of the file system, e.g. since it has no second names.
    pub fn link_beside(
        &self,
        folder: &OpenFolder,
        name: &Path,
        second: &Path,
    ) -> Result<(), HostError> {
        self.effect(&format!("link {}", second.display()), || {
            made_by_agent(second)?;
            linkat(&folder.0, name, &folder.0, second, AtFlags::empty())?;
            folder.sync()
        })
    }

    /// Renames a file that has a name of the agent's to another name in its folder, in place of what has that name.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn rename_beside(
        &self,
        folder: &OpenFolder,
        made: &Path,
        name: &Path,
    ) -> Result<(), HostError> {
        self.effect(&format!("rename to {}", name.display()), || {
            made_by_agent(made)?;
            renameat(&folder.0, made, &folder.0, name)?;
            folder.sync()
        })
    }

    /// Removes a name of the agent's. One that is not there is removed already.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn unlink_beside(&self, folder: &OpenFolder, made: &Path) -> Result<(), HostError> {
        self.effect(&format!("remove {}", made.display()), || {
            made_by_agent(made)?;
            unlink_if_there(folder, made)?;
            folder.sync()
        })
    }
}

/// Refuses every name but those that the agent gives.
fn made_by_agent(name: &Path) -> io::Result<()> {
    let text = name.to_str().unwrap_or_default();
    match text.starts_with(MADE_FILE_PREFIX) && !text.contains('/') {
        true => Ok(()),
        false => Err(io::Error::other("not a name that the agent gives")),
    }
}

fn unlink_if_there(folder: &OpenFolder, name: &Path) -> io::Result<()> {
    match unlinkat(&folder.0, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the copy's content, then what else a file has. The owner before the mode and the attributes, since a new owner takes
/// set-user-id bits and capabilities away; the times last, since everything before alters them.
fn write_copy(mut original: &File, mut copy: &File, edit: CopyEdit<'_>) -> io::Result<()> {
    let metadata = fstat(original)?;
    original.rewind()?;
    io::copy(&mut original, &mut copy)?;
    if let Some(length) = edit.length {
        copy.set_len(length)?;
    }
    for (offset, bytes) in edit.patches {
        copy.write_all_at(bytes, *offset)?;
    }
    fchown(
        copy,
        Some(Uid::from_raw(metadata.st_uid)),
        Some(Gid::from_raw(metadata.st_gid)),
    )?;
    fchmod(copy, Mode::from_raw_mode(metadata.st_mode & 0o7777))?;
    for name in attribute_names(original)? {
        let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
        let length = match fgetxattr(original, name.as_str(), &mut value) {
            Ok(length) => length,
            // Removed since it was listed.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        value.truncate(length);
        fsetxattr(copy, name.as_str(), &value, XattrFlags::empty())?;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    futimens(
        copy,
        &Timestamps {
            last_access: time(metadata.st_atime, metadata.st_atime_nsec),
            last_modification: time(metadata.st_mtime, metadata.st_mtime_nsec),
        },
    )?;
    copy.sync_all()
}

/// The names of a file's extended attributes; none on a file system that has no such attributes.
fn attribute_names(file: &File) -> io::Result<Vec<String>> {
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match flistxattr(file, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let names = names.split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8(name.to_vec()).map_err(io::Error::other))
        .collect()
}
