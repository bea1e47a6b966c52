//! Why an authority or a certificate cannot be had.

use std::io;
use std::path::PathBuf;

/// Why an authority or a certificate could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The content of a file is invalid.
    #[error("{}: {what}\nhint: restore it from a backup; with a new authority, created in an empty folder, every agent has to join again", path.display())]
    Content {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No certificate can be created for this request or name.
    #[error("{0}")]
    Request(String),
}

/// What a library says of a key, a certificate or a request that it cannot use.
pub(super) fn wrong(error: impl std::fmt::Display) -> CaError {
    CaError::Request(error.to_string())
}
