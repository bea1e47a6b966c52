//! Somebody else on the host, who changes what a fault holds while it acts.

#![allow(
    clippy::disallowed_methods,
    reason = "this is what others do to a host: no effect of the agent's, and put back by the trial itself"
)]

use crate::files::read_regular;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a stranger writes.
const WRITTEN: &[u8] = b"\n# changed by somebody else\n";
/// Longest file that is changed, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// How a stranger changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StrangerWay {
    /// It is written to where it is.
    Edit,
    /// Another one gets its name, as editors do it.
    Replace,
}

/// What a stranger has done, and what puts it back.
#[derive(Debug)]
pub(super) enum StrangerChange {
    /// A file was made where none was.
    Made(PathBuf),
    /// A file was written to: its path, its content and the time of its last change before that.
    Edited(PathBuf, Vec<u8>, SystemTime),
    /// Another file or link has its name: its path, and where it is kept meanwhile.
    Replaced(PathBuf, PathBuf),
}

impl StrangerChange {
    /// Changes what is at this path.
    ///
    /// # Errors
    /// It is neither a file nor a link, it is too long, or the file system refuses.
    pub(super) fn make(path: &Path, way: StrangerWay) -> io::Result<Self> {
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create_new(path)?.write_all(WRITTEN)?;
                return Ok(StrangerChange::Made(path.to_owned()));
            }
            metadata => metadata?,
        };
        let content = match metadata.is_symlink() {
            true => Vec::new(),
            false => read_regular(path, MAX_BYTES)?,
        };
        if way == StrangerWay::Edit && !metadata.is_symlink() {
            OpenOptions::new()
                .append(true)
                .open(path)?
                .write_all(WRITTEN)?;
            return Ok(StrangerChange::Edited(
                path.to_owned(),
                content,
                metadata.modified()?,
            ));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kept = path.with_file_name(format!(".{name}.kept-by-conform"));
        std::fs::rename(path, &kept)?;
        match metadata.is_symlink() {
            true => std::os::unix::fs::symlink("made-by-somebody-else", path)?,
            false => {
                std::fs::write(path, [&content, WRITTEN].concat())?;
                std::fs::set_permissions(path, metadata.permissions())?;
            }
        }
        Ok(StrangerChange::Replaced(path.to_owned(), kept))
    }

    /// Puts back what the fault had made of it.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn put_back(self) -> io::Result<()> {
        match self {
            StrangerChange::Made(path) => std::fs::remove_file(path),
            StrangerChange::Edited(path, content, modified) => {
                let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
                file.write_all(&content)?;
                file.set_modified(modified)
            }
            StrangerChange::Replaced(path, kept) => std::fs::rename(kept, path),
        }
    }

    /// Removes what only this knows of, once somebody has put the file itself back.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn forget(self) -> io::Result<()> {
        match self {
            StrangerChange::Replaced(_, kept) => std::fs::remove_file(kept),
            _ => Ok(()),
        }
    }
}
