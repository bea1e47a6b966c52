//! Where a store is: a folder for its owner only, a lock for one controller only, and connections.

use crate::store::error::{StoreError, StoreErrorKind};
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection waits for another one's lock. Only an import holds one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store's folder, held.
#[derive(Debug)]
pub(super) struct StoreFolder {
    file: PathBuf,
    // The kernel lets go of it when its holder dies.
    _lock: Flock<File>,
}

impl StoreFolder {
    /// Makes the folder where it is not there, and holds it.
    pub(super) fn hold(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
                _ => StoreErrorKind::Io,
            };
            StoreError::new(
                kind,
                format!("can't open the store in {}: {error}", folder.display()),
            )
            .because(error)
        };
        make_durably(folder).map_err(cannot)?;
        let lock = own(&folder.join("lock")).map_err(cannot)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, error)| {
                    match error {
                nix::errno::Errno::EWOULDBLOCK => StoreError::new(
                    StoreErrorKind::Locked,
                    format!(
                        "the store in {} is held by another process: a store has one controller",
                        folder.display()
                    ),
                )
                .hint("end the other controller, or give this one a folder of its own"),
                other => cannot(other.into()),
            }
                },
            )?;
        let file = folder.join("store.db");
        // Closed again before SQLite opens it: to close any descriptor of it later would undo SQLite's locks.
        drop(own(&file).map_err(cannot)?);
        Ok(StoreFolder { file, _lock: lock })
    }

    /// A connection that may write. Each commit is synced.
    pub(super) fn writing(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::new(
                StoreErrorKind::Io,
                "the file system has no shared memory for a log that is written ahead",
            )
            .hint("put the store's folder on a local disk"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Of a log that was long once, so much stays: 16 MiB.
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        Ok(connection)
    }

    /// A connection that reads what is committed, and waits for nobody.
    pub(super) fn reading(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn connect(&self, credentials: OpenFlags) -> Result<Connection, StoreError> {
        let connection =
            Connection::open_with_flags(&self.file, credentials | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // A file that somebody prepared runs nothing, and a damaged page is noticed where it is read.
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }
}

/// Makes a folder that only its owner may enter, so that it is still there after a crash of the host.
fn make_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let parent = folder.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Opens a file that only its owner may read, and makes it where it is not there.
fn own(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_synced_and_a_reader_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = StoreFolder::hold(folder.path()).unwrap();
        let writing = folder.writing().unwrap();
        let pragma = |name| writing.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        assert_eq!(pragma("synchronous"), Ok(2), "FULL");
        assert_eq!(pragma("foreign_keys"), Ok(1));
        writing.execute_batch("CREATE TABLE a (x)").unwrap();
        let refused = folder
            .reading()
            .unwrap()
            .execute_batch("INSERT INTO a VALUES (1)");
        assert_eq!(
            StoreError::from(refused.unwrap_err()).kind,
            StoreErrorKind::Io
        );
    }
}
