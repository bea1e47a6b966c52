//! The files of an authority: read and written whole, and for their owner only.

use super::ca_error::CaError;
use crate::files::{create_private, sync_parent};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The files of a key and of its certificate.
pub(super) fn files(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = |kind| folder.join(format!("{name}.{kind}"));
    (file("key"), file("crt"))
}

pub(super) fn move_file(from: &Path, to: &Path) -> Result<(), CaError> {
    let moved = std::fs::rename(from, to).and_then(|()| sync_parent(to));
    moved.map_err(|source| CaError::File {
        path: from.into(),
        source,
    })
}

pub(super) fn read(path: &Path) -> Result<Option<String>, CaError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::File {
            path: path.into(),
            source,
        }),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), CaError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CaError::File {
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner may read, atomically and synced.
pub(super) fn write_privately(folder: &Path, path: &Path, content: &[u8]) -> Result<(), CaError> {
    let beside = path.with_extension("new");
    let write = || {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut file = create_private(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_parent(path)
    };
    write().map_err(|source| CaError::File {
        path: path.into(),
        source,
    })
}
