//! What can go wrong with a store: of what kind, in words for people, with what lay beneath.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What kind of thing went wrong, for whoever decides what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No room on the disk. Works again once there is.
    Full,
    /// Somebody else holds the store.
    Locked,
    /// The store's files are damaged, or are not a store.
    Corrupt,
    /// The store was written by a newer program.
    Newer,
    /// What was asked for is not there.
    NotThere,
    /// It can't be done as things are: a name is taken, a run is closed.
    Conflict,
    /// The disk or its rights do not let us read or write.
    Io,
    /// The store was closed, or its writer has died.
    Ended,
    /// SQLite refused a statement of ours, which is a bug.
    Bug,
}

/// What went wrong. The same error may be told to everybody who waited for one commit.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// Of what kind.
    pub kind: StoreErrorKind,
    /// What, in one line.
    pub what: String,
    /// What would do.
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

    pub(super) fn not_there(what: impl Into<String>) -> Self {
        StoreError::new(StoreErrorKind::NotThere, what)
    }

    pub(super) fn conflict(what: impl Into<String>) -> Self {
        StoreError::new(StoreErrorKind::Conflict, what)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Says what was being done. An answer to a question that was asked says so itself.
    pub(super) fn while_doing(mut self, what: &str) -> Self {
        if !matches!(
            self.kind,
            StoreErrorKind::NotThere | StoreErrorKind::Conflict
        ) {
            self.what = format!("can't {what}: {}", self.what);
        }
        self
    }

    /// A stored text that is not what it must be.
    pub(super) fn unreadable(what: &str, source: impl Error + Send + Sync + 'static) -> Self {
        damaged(format!("the store is damaged: {what} can't be read")).because(source)
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
                // The index of the log could not grow.
                _ if failure.extended_code == SQLITE_IOERR_SHMSIZE => full(),
                Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => {
                    StoreError::new(StoreErrorKind::Locked, "another program holds the database")
                        .hint("end what else has the store's files open")
                }
                Code::DatabaseCorrupt => damaged("the store is damaged".into()),
                Code::NotADatabase => damaged("the file is not a database".into()),
                Code::ConstraintViolation => {
                    StoreError::conflict("it contradicts what is in the store")
                }
                Code::SystemIoFailure
                | Code::CannotOpen
                | Code::ReadOnly
                | Code::PermissionDenied
                | Code::OutOfMemory => StoreError::new(
                    StoreErrorKind::Io,
                    "the store's files can't be read or written",
                )
                .hint("look at the disk, and at who may write to the store's folder"),
                _ => StoreError::new(StoreErrorKind::Bug, "a statement was refused"),
            },
            // A column holds what this program never writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => damaged("the store is damaged".into()),
            _ => StoreError::new(StoreErrorKind::Bug, "a statement was refused"),
        };
        found.because(error)
    }
}

fn full() -> StoreError {
    StoreError::new(StoreErrorKind::Full, "the disk is full")
        .hint("make room on the store's disk; nothing has to be started again")
}
