//! Opening a store: a folder that only its owner may enter, a lock for one controller, and connections.

use crate::files::sync_parent;
use crate::store::error::{StoreError, StoreErrorKind};
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection waits for another's lock. Only an import holds one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store's folder, locked.
#[derive(Debug)]
pub(super) struct StoreFolder {
    file: PathBuf,
    /// The kernel releases it when its holder dies. None if a running controller has it.
    lock: Option<Flock<File>>,
}

impl StoreFolder {
    /// Creates the folder if there is none, and locks it.
    pub(super) fn lock(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
                _ => StoreErrorKind::Io,
            };
            StoreError::new(
                kind,
                format!("could not open the store in {}: {error}", folder.display()),
            )
            .caused_by(error)
        };
        create_durably(folder).map_err(cannot)?;
        let lock = open_private(&folder.join("lock")).map_err(cannot)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, error)| {
                    match error {
                nix::errno::Errno::EWOULDBLOCK => StoreError::new(
                    StoreErrorKind::Locked,
                    format!(
                        "the store in {} is locked by another process: only one controller may use a store",
                        folder.display()
                    ),
                )
                .hint("end the other controller, or give this one its own folder"),
                other => cannot(other.into()),
            }
                },
            )?;
        let file = folder.join("store.db");
        // Closed before SQLite opens it: closing any descriptor of the file later would release SQLite's locks.
        drop(open_private(&file).map_err(cannot)?);
        Ok(StoreFolder {
            file,
            lock: Some(lock),
        })
    }

    /// Opens a folder that has a store, and locks it unless a running controller has.
    pub(super) fn share(folder: &Path) -> Result<Self, StoreError> {
        let file = existing(folder)?;
        match StoreFolder::lock(folder) {
            Err(error) if error.kind == StoreErrorKind::Locked => {
                Ok(StoreFolder { file, lock: None })
            }
            locked => locked,
        }
    }

    /// Whether this process alone uses the store.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The bytes of the store's files.
    pub(super) fn bytes(&self) -> u64 {
        let log = self.file.with_extension("db-wal");
        [&self.file, &log]
            .into_iter()
            .filter_map(|file| std::fs::metadata(file).ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// The file of the database.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Makes the file of the database readable by its owner only.
    pub(super) fn make_private(&self) -> io::Result<()> {
        std::fs::set_permissions(&self.file, Permissions::from_mode(0o600))
    }

    /// Opens a connection that reads, and may write other databases: a backup is one.
    pub(super) fn open_backup_reader(&self) -> Result<Connection, StoreError> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens a connection that may write. Each commit is synced.
    pub(super) fn open_writer(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::new(
                StoreErrorKind::Io,
                "the file system does not support the shared memory of a write-ahead log",
            )
            .hint("put the store's folder on a local disk"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // A log that has grown is truncated to this size, in bytes.
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        Ok(connection)
    }

    /// Opens a connection that reads what is committed, without waiting for writers.
    pub(super) fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn connect(&self, credentials: OpenFlags) -> Result<Connection, StoreError> {
        connect(&self.file, credentials)
    }
}

fn connect(file: &Path, credentials: OpenFlags) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(file, credentials | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A prepared file must not run anything, and a damaged page is to be noticed when it is read.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The database in a folder that has a store.
fn existing(folder: &Path) -> Result<PathBuf, StoreError> {
    let file = folder.join("store.db");
    match file.is_file() {
        true => Ok(file),
        false => Err(
            StoreError::not_found(format!("there is no store in {}", folder.display()))
                .hint("give the folder of the controller's data with `--data`"),
        ),
    }
}

/// Opens a connection that reads the store in this folder, whoever uses it.
pub(super) fn read_only(folder: &Path) -> Result<Connection, StoreError> {
    let connection = connect(&existing(folder)?, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Creates a folder that only its owner may enter, and syncs its parent so that it survives a crash of the host.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    sync_parent(folder)
}

/// Opens a file that only its owner may read, and creates it if there is none.
fn open_private(path: &Path) -> io::Result<File> {
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
    fn connections_sync_commits_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let folder = StoreFolder::lock(folder.path()).unwrap();
        let writing = folder.open_writer().unwrap();
        let pragma = |name| writing.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        assert_eq!(pragma("synchronous"), Ok(2), "FULL");
        assert_eq!(pragma("foreign_keys"), Ok(1));
        writing.execute_batch("CREATE TABLE a (x)").unwrap();
        let refused = folder
            .open_reader()
            .unwrap()
            .execute_batch("INSERT INTO a VALUES (1)");
        assert_eq!(
            StoreError::from(refused.unwrap_err()).kind,
            StoreErrorKind::Io
        );
    }
}
