//! The schema, as a list of migrations. A store of an earlier version is migrated when it is opened.

use super::experiments;
use crate::store::error::{StoreError, StoreErrorKind};
use rusqlite::Connection;

/// The migrations: each makes a version from the one before. A migration that was released is never changed.
const STEPS: &[&str] = &[
    include_str!("1.sql"),
    include_str!("2.sql"),
    include_str!("3.sql"),
    concat!(
        include_str!("4.sql"),
        include_str!("approvals_of_version_1.sql")
    ),
    include_str!("5.sql"),
    include_str!("6.sql"),
    include_str!("7.sql"),
    include_str!("8.sql"),
    include_str!("9.sql"),
    include_str!("10.sql"),
];

/// The version whose step separates secrets from documents.
const SECRETS_APART: usize = 5;

/// Marks the file as a store of Backburn: `BkBn`.
const APPLICATION: i64 = 0x426b_426e;

/// Migrates a store to the latest version.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let mut is_to_be_wiped = false;
    run_steps(connection, STEPS, |version, transaction| {
        if version == SECRETS_APART {
            is_to_be_wiped = experiments::separate_secrets(transaction)?;
        }
        Ok(())
    })?;
    if is_to_be_wiped {
        // What was taken out of a page is still in the file until the file is written anew.
        connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
    }
    Ok(())
}

/// Refuses a store of another version, which a running controller uses: nobody may migrate it meanwhile.
pub(super) fn require_newest(connection: &Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match usize::try_from(version) == Ok(STEPS.len()) {
        true => Ok(()),
        false => Err(StoreError::new(
            StoreErrorKind::Locked,
            format!(
                "the running controller's store is of version {version}, and this program's are of version {}",
                STEPS.len()
            ),
        )
        .hint("use the program that the controller runs, or stop the controller first")),
    }
}

/// Marks a database as a store of Backburn.
pub(super) fn mark(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.pragma_update(None, "application_id", APPLICATION)?)
}

/// Runs the steps that the store does not have yet, each in a transaction of its own. `finish` is called with each version in its transaction.
fn run_steps(
    connection: &mut Connection,
    steps: &[&str],
    mut finish: impl FnMut(usize, &Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (tables > 0 || version != 0) {
        return Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "the file `store.db` is another program's database",
        )
        .hint("give the store a folder of its own"));
    }
    let newest = steps.len();
    let found = usize::try_from(version).unwrap_or(usize::MAX);
    if found > newest {
        return Err(StoreError::new(
            StoreErrorKind::Newer,
            format!(
                "the store is of version {version}, and this program knows {newest} at the most"
            ),
        )
        .hint(
            "run the newer program that wrote it, or `import` into an empty folder what it exports",
        ));
    }
    for (index, step) in steps.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        finish(index + 1, &transaction)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[&str] = &[
        "CREATE TABLE a (x)",
        "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2)",
    ];

    fn step_by_step(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
        run_steps(connection, steps, |_, _| Ok(()))
    }

    fn version(connection: &Connection) -> i64 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn migrations_run_once_and_in_order() {
        let mut connection = Connection::open_in_memory().unwrap();
        step_by_step(&mut connection, &TWO[..1]).unwrap();
        assert_eq!(version(&connection), 1);
        for _ in 0..2 {
            step_by_step(&mut connection, TWO).unwrap();
            assert_eq!(version(&connection), 2);
        }
        let rows: i64 = connection
            .query_row("SELECT COUNT(*) FROM a WHERE x = 1 AND y = 2", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn migration_that_fails_leaves_the_version_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = [TWO[0], "CREATE TABLE b (x); INSERT INTO nowhere VALUES (1)"];
        assert_eq!(
            step_by_step(&mut connection, &broken).unwrap_err().kind,
            StoreErrorKind::Bug
        );
        assert_eq!(version(&connection), 1);
        step_by_step(&mut connection, TWO).unwrap();
    }

    #[test]
    fn database_that_is_newer_or_foreign_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        step_by_step(&mut connection, TWO).unwrap();
        let newer = step_by_step(&mut connection, &TWO[..1]).unwrap_err();
        assert_eq!(newer.kind, StoreErrorKind::Newer);
        assert!(
            newer.what.contains("version 2") && newer.hint.is_some(),
            "{newer}"
        );
        let mut strange = Connection::open_in_memory().unwrap();
        strange.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert_eq!(
            step_by_step(&mut strange, TWO).unwrap_err().kind,
            StoreErrorKind::Corrupt
        );
    }
}
