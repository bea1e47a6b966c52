//! The file of a plug-in, and its pinned copy: whatever becomes of the file, the copy that an injection was planned with is what
//! observes and undoes it.

use crate::files::read_regular;
use crate::trusted_files;
use backburn_experiments::hexadecimal;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Longest file of a plug-in, in bytes.
pub(crate) const MAX_PROGRAM_BYTES: u64 = 64 << 20;

/// The pinned copy of a plug-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PinnedPlugin {
    /// The plug-in's name, which is also its fault's.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The copy, in the state folder.
    pub file: PathBuf,
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    hexadecimal(digest(&SHA256, content))
}

/// Reads a plug-in's file, which nobody but root, and the user that the agent runs as, may have written.
///
/// # Errors
/// It is not there, not a regular file, too long, or others could have written it or replaced it.
pub(crate) fn read_trusted(path: &Path) -> io::Result<Vec<u8>> {
    let whole = path.canonicalize()?;
    let folder = whole.parent().ok_or(io::ErrorKind::InvalidInput)?;
    trusted_files::check_folder(folder)?;
    trusted_files::check_file(&rustix::fs::stat(&whole)?)?;
    read_regular(&whole, MAX_PROGRAM_BYTES)
}

impl PinnedPlugin {
    /// Checks that the copy is still what it was.
    ///
    /// # Errors
    /// It is gone, or somebody has altered it.
    pub fn check(&self) -> io::Result<()> {
        let named = |what: String| {
            io::Error::other(format!("its pinned copy {} {what}", self.file.display()))
        };
        let content = trusted_files::read_up_to(&self.file, MAX_PROGRAM_BYTES)
            .map_err(|error| named(format!("cannot be read: {error}")))?;
        match sha256(&content) == self.sha256 {
            true => Ok(()),
            false => Err(named("was altered, so it is not run".into())),
        }
    }
}
