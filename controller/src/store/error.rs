//! Errors of a store: a kind for programs, a message for people, and the cause.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The kind of a store's error, which decides how callers react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The disk is full. The store works again once it is not.
    Full,
    /// Another process has locked the store.
    Locked,
    /// The store's files are damaged, or are not a store.
    Corrupt,
    /// A newer program wrote the store.
    Newer,
    /// There is no such record.
    NotThere,
    /// It conflicts with what is stored, e.g. a name is taken or a run is closed.
    Conflict,
    /// The disk or its permissions do not allow reading or writing.
    Io,
    /// The store was closed, or its writer has died.
    Ended,
    /// SQLite refused a statement, which is a bug.
    Bug,
}

impl StoreErrorKind {
    /// Every kind of error, in the order of their declaration.
    pub const ALL: [StoreErrorKind; 9] = [
        StoreErrorKind::Full,
        StoreErrorKind::Locked,
        StoreErrorKind::Corrupt,
        StoreErrorKind::Newer,
        StoreErrorKind::NotThere,
        StoreErrorKind::Conflict,
        StoreErrorKind::Io,
        StoreErrorKind::Ended,
        StoreErrorKind::Bug,
    ];

    /// The word for it, as in metrics.
    pub fn word(self) -> &'static str {
        match self {
            StoreErrorKind::Full => "full",
            StoreErrorKind::Locked => "locked",
            StoreErrorKind::Corrupt => "corrupt",
            StoreErrorKind::Newer => "newer",
            StoreErrorKind::NotThere => "not-there",
            StoreErrorKind::Conflict => "conflict",
            StoreErrorKind::Io => "io",
            StoreErrorKind::Ended => "ended",
            StoreErrorKind::Bug => "bug",
        }
    }

    /// Whether the store failed; otherwise only the request was in vain.
    pub fn is_failure(self) -> bool {
        !matches!(self, StoreErrorKind::NotThere | StoreErrorKind::Conflict)
    }
}

/// An error of a store. Everybody who waited for the same commit gets the same error.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// The kind, which decides how callers react.
    pub kind: StoreErrorKind,
    /// What went wrong, in one line.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, what: impl Into<String>) -> Self {
        StoreError {
            kind,
            what: what.into(),
            hint: None,
            source: None,
        }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        StoreError::new(StoreErrorKind::NotThere, what)
    }

    pub(super) fn conflict(what: impl Into<String>) -> Self {
        StoreError::new(StoreErrorKind::Conflict, what)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Adds what was being done. Errors about the request itself already say that.
    pub(super) fn while_doing(mut self, what: &str) -> Self {
        if !matches!(
            self.kind,
            StoreErrorKind::NotThere | StoreErrorKind::Conflict
        ) {
            self.what = format!("could not {what}: {}", self.what);
        }
        self
    }

    /// The error for a stored text that cannot be parsed.
    pub(super) fn unreadable(what: &str, source: impl Error + Send + Sync + 'static) -> Self {
        damaged(format!("the store is damaged: {what} cannot be read")).caused_by(source)
    }
}

fn damaged(what: String) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, what)
        .hint("restore the folder from a backup, or start with an empty one and `backburn import` an export")
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
        let found = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                Code::DiskFull => full(),
                // The shared-memory index of the write-ahead log could not grow.
                _ if failure.extended_code == SQLITE_IOERR_SHMSIZE => full(),
                Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => {
                    StoreError::new(StoreErrorKind::Locked, "another program holds the database")
                        .hint("end the other program that has the store's files open")
                }
                Code::DatabaseCorrupt => damaged("the store is damaged".into()),
                Code::NotADatabase => damaged("the file is not a database".into()),
                Code::ConstraintViolation => {
                    StoreError::conflict("it conflicts with what is in the store")
                }
                Code::SystemIoFailure
                | Code::CannotOpen
                | Code::ReadOnly
                | Code::PermissionDenied
                | Code::OutOfMemory => StoreError::new(
                    StoreErrorKind::Io,
                    "the store's files cannot be read or written",
                )
                .hint("check the disk and the permissions of the store's folder"),
                _ => StoreError::new(StoreErrorKind::Bug, "a statement was refused"),
            },
            // A column has a value that this program never writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => damaged("the store is damaged".into()),
            _ => StoreError::new(StoreErrorKind::Bug, "a statement was refused"),
        };
        found.caused_by(error)
    }
}

fn full() -> StoreError {
    StoreError::new(StoreErrorKind::Full, "the disk is full")
        .hint("make room on the store's disk; no restart is needed")
}
