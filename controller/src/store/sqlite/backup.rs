//! Backups: the whole store as of one moment, and files that belong to it, in one SQLite database; and making a store of one.

use super::codec::{all, change, one};
use super::open::StoreFolder;
use super::schema;
use crate::files::sync_parent;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::records::{Backup, RestoreSummary};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, params};
use std::io;
use std::path::{Path, PathBuf};

/// Marks the file as a backup of Backburn: `BkBB`.
const APPLICATION: i64 = 0x426b_4242;

/// What a backup has besides the store's tables.
const BACKUP_TABLES: &str = "
    CREATE TABLE backup (made TEXT NOT NULL, program TEXT NOT NULL) STRICT;
    CREATE TABLE backup_files (name TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL) STRICT;
";

/// Where who may do what is kept: these tables follow the store that is replaced, because what was revoked since the backup
/// stays revoked. What the replaced store does not know is revoked or removed, and what it has had since stays.
const FOLLOW_REPLACED: &str = "
    UPDATE api_tokens SET revoked = COALESCE(revoked, :now) WHERE id NOT IN (SELECT id FROM replaced.api_tokens);
    INSERT OR REPLACE INTO api_tokens SELECT * FROM replaced.api_tokens;
    UPDATE agents SET revoked = COALESCE(revoked, :now) WHERE name NOT IN (SELECT name FROM replaced.agents);
    INSERT OR REPLACE INTO agents SELECT * FROM replaced.agents;
    DELETE FROM join_tokens;
    INSERT INTO join_tokens SELECT * FROM replaced.join_tokens;
    INSERT OR REPLACE INTO settings SELECT * FROM replaced.settings;
";

fn failed(what: impl Into<String>, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Io,
    };
    StoreError::new(kind, format!("{}: {error}", what.into())).caused_by(error)
}

/// Writes a backup to this file, which is empty.
pub(super) fn write(folder: &StoreFolder, to: &Path, backup: &Backup) -> Result<(), StoreError> {
    let source = folder.open_backup_reader()?;
    let target = to.to_str().ok_or_else(|| {
        StoreError::new(
            StoreErrorKind::Io,
            "the name of the backup's file is not UTF-8",
        )
    })?;
    source.execute("VACUUM INTO ?1", [target])?;
    drop(source);
    let connection = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // One file, whatever happens; a backup that is not complete is removed anyway.
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.execute_batch(BACKUP_TABLES)?;
    change(
        &connection,
        "INSERT INTO backup (made, program) VALUES (?1, ?2)",
        params![backup.made.to_string(), env!("CARGO_PKG_VERSION")],
    )?;
    for (name, content) in &backup.files {
        let statement = "INSERT INTO backup_files (name, content) VALUES (?1, ?2)";
        change(&connection, statement, params![name, content])?;
    }
    check(&connection)?;
    connection
        .close()
        .map_err(|(_, error)| StoreError::from(error))
}

/// Checks that a database is intact.
fn check(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(
            StoreError::new(StoreErrorKind::Corrupt, "the backup is damaged")
                .hint("use another backup"),
        ),
    }
}

/// Reads when a backup was made, and its files.
pub(super) fn read(file: &Path) -> Result<Backup, StoreError> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let mark: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if mark != APPLICATION {
        let what = format!("{} is not a backup of a controller", file.display());
        return Err(StoreError::new(StoreErrorKind::Corrupt, what)
            .hint("`backburn backup FILE` writes one; `backburn import` reads an export"));
    }
    check(&connection)?;
    let made: String = connection.query_row("SELECT made FROM backup", [], |row| row.get(0))?;
    let made = made
        .parse::<Timestamp>()
        .map_err(|error| StoreError::unreadable("the time of the backup", error))?;
    let query = "SELECT name, content FROM backup_files ORDER BY name";
    let files = all(&connection, query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Backup { made, files })
}

/// Makes a store in the folder `into`, which must not exist, of a backup. Who may do what follows the store in `replaced`, if
/// there is one.
pub(super) fn restore(
    file: &Path,
    into: &Path,
    replaced: Option<&StoreFolder>,
    now: Timestamp,
    is_all_revoked: bool,
) -> Result<RestoreSummary, StoreError> {
    let folder = StoreFolder::lock(into)?;
    std::fs::copy(file, folder.file())
        .map_err(|error| failed(format!("could not copy {}", file.display()), error))?;
    folder
        .make_private()
        .map_err(|error| failed("could not protect the store", error))?;
    {
        let connection =
            Connection::open_with_flags(folder.file(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("DROP TABLE backup; DROP TABLE backup_files;")?;
        schema::mark(&connection)?;
    }
    let mut connection = folder.open_writer()?;
    schema::migrate(&mut connection)?;
    let mut summary = RestoreSummary::default();
    if let Some(replaced) = replaced {
        let mut present = replaced.open_writer()?;
        schema::migrate(&mut present)?;
        let query = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
        summary.replaced_head = one(&present, query, [], |row| {
            Ok(crate::store::AuditHead {
                number: row.get("number")?,
                hash: super::codec::parsed(row, "hash")?,
            })
        })?;
        drop(present);
        let path = replaced.file().to_str().ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Io,
                "the name of the store's folder is not UTF-8",
            )
        })?;
        connection.execute("ATTACH ?1 AS replaced", [path])?;
        let now = now.to_string();
        let transaction = connection.transaction()?;
        for statement in FOLLOW_REPLACED
            .split(';')
            .filter(|text| !text.trim().is_empty())
        {
            let mut statement = transaction.prepare(statement)?;
            match statement.parameter_count() {
                0 => statement.execute([])?,
                _ => statement.execute([&now])?,
            };
        }
        transaction.commit()?;
        connection.execute_batch("DETACH replaced")?;
    }
    if is_all_revoked {
        revoke_all(&connection, now)?;
    }
    let count = |query: &str| -> Result<u64, StoreError> {
        Ok(connection.query_row(query, [], |row| row.get(0))?)
    };
    summary.runs = count("SELECT COUNT(*) FROM runs")?;
    summary.open_runs = count("SELECT COUNT(*) FROM runs WHERE ended IS NULL")?;
    summary.agents = count("SELECT COUNT(*) FROM agents WHERE revoked IS NULL")?;
    Ok(summary)
}

/// Revokes every token and agent of a store, and removes its join tokens.
fn revoke_all(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let now = now.to_string();
    change(
        connection,
        "UPDATE api_tokens SET revoked = COALESCE(revoked, ?1)",
        [&now],
    )?;
    change(
        connection,
        "UPDATE agents SET revoked = COALESCE(revoked, ?1)",
        [&now],
    )?;
    change(connection, "DELETE FROM join_tokens", []).map(|_| ())
}

/// Puts a restored folder in the place of the present one, which is kept beside it. Returns where.
pub(super) fn swap(
    restored: &Path,
    place: &Path,
    now: Timestamp,
) -> Result<Option<PathBuf>, StoreError> {
    let kept = place.is_dir().then(|| {
        let name = format!("store.replaced-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        place.with_file_name(name)
    });
    let unmoved = |error| failed(format!("could not replace {}", place.display()), error);
    if let Some(kept) = &kept {
        std::fs::rename(place, kept).map_err(unmoved)?;
    }
    std::fs::rename(restored, place).map_err(unmoved)?;
    sync_parent(place).map_err(unmoved)?;
    Ok(kept)
}
