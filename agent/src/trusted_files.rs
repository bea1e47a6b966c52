//! Reading the files of the state folder, none of which is trusted before its owner and mode were checked: whoever can write to the ledger
//! can have things undone with the rights of the agent, and whoever can write to the credentials chooses the controller.

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, stat};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest file that is read, in bytes. Usual entries have a few kilobytes; those of faults with very many victims, some hundred.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Reads a file of the ledger, or the credentials.
///
/// # Errors
/// The file cannot be read, is too long, or could have been written by others, see [`check_file`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, MAX_FILE_BYTES)
}

/// Reads a file of the state folder that may have at most this many bytes.
///
/// # Errors
/// As those of [`read`].
#[expect(clippy::disallowed_methods, reason = "opened for reading")]
pub(crate) fn read_up_to(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // A FIFO under this name must not block the reader.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(access_denied("it is a symbolic link")),
        opened => File::from(opened?),
    };
    check_file(&fstat(&file)?)?;
    let mut content = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut content)?;
    match content.len() as u64 > max_bytes {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {max_bytes} bytes"),
        )),
        false => Ok(content),
    }
}

/// Opens the lock file, and creates it if there is none.
///
/// # Errors
/// The file cannot be opened at once, or could have been written by others, see [`check_file`].
#[expect(
    clippy::disallowed_methods,
    reason = "the ledger's own lock, which stays: it is no effect on the host"
)]
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::RUSR | Mode::WUSR) {
        Err(rustix::io::Errno::LOOP) => return Err(access_denied("it is a symbolic link")),
        opened => opened?,
    };
    check_file(&fstat(&file)?)?;
    Ok(file.into())
}

/// Checks that only root and this user could have put files into a folder, or replaced it by another. Folders above it may be sticky,
/// like `/tmp`, since others cannot replace what is in them either.
///
/// # Errors
/// The folder does not exist, cannot be checked, or others could have written to it.
#[expect(clippy::disallowed_methods, reason = "opened for reading")]
pub(crate) fn check_folder(folder: &Path) -> io::Result<()> {
    let named = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty())?;
    let itself = fstat(&opened)?;
    if FileType::from_raw_mode(itself.st_mode) != FileType::Directory {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is not a folder",
        ));
    }
    check_owner(&itself)?;
    let whole = folder.canonicalize()?;
    for above in whole.ancestors().skip(1) {
        let above_it = stat(above).map_err(|error| named(above, error.into()))?;
        let is_sticky = Mode::from_raw_mode(above_it.st_mode).contains(Mode::SVTX);
        let checked = match is_sticky && above_it.st_uid == 0 {
            true => Ok(()),
            false if is_unmapped(&above_it) => Ok(()),
            false => check_owner(&above_it),
        };
        checked.map_err(|error| named(above, error))?;
    }
    Ok(())
}

/// Whether something belongs to a user that this user namespace does not know. The first user namespace knows every user.
fn is_unmapped(of: &Stat) -> bool {
    const WHOLE: &str = "0 0 4294967295";
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_first = map.split_ascii_whitespace().eq(WHOLE.split(' '));
    let unknown = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    !is_first && unknown.trim().parse() == Ok(of.st_uid)
}

/// Checks that a file is a regular one that only root and this user could have written.
pub(crate) fn check_file(file: &Stat) -> io::Result<()> {
    if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Err(access_denied("it is not a regular file"));
    }
    check_owner(file)
}

/// Checks that only root and this user could have written something with this owner and mode.
pub(crate) fn check_owner(of: &Stat) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if of.st_uid != 0 && of.st_uid != own {
        return Err(access_denied(&format!(
            "it belongs to user {}, and this is user {own}",
            of.st_uid
        )));
    }
    let mode = Mode::from_raw_mode(of.st_mode);
    let is_own_group = of.st_gid == 0 || of.st_gid == rustix::process::getegid().as_raw();
    if mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && !is_own_group) {
        return Err(access_denied(&format!(
            "others can write to it (mode {:o})",
            of.st_mode & 0o7777
        )));
    }
    Ok(())
}

pub(crate) fn access_denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
