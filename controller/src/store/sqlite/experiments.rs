//! Experiments. Each change makes a new version, and so does a removal.

use super::codec::{all, change, from_json, json, one, parsed};
use crate::store::error::StoreError;
use crate::store::records::{ExperimentRecord, ExperimentVersionRecord, PutResult};
use crate::store::stored_secrets::{StoredSecrets, put_secrets_back, take_secrets};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::Value;

fn latest(
    connection: &Connection,
    name: &str,
) -> Result<Option<(u64, Option<String>)>, StoreError> {
    let query =
        "SELECT version, document FROM experiments WHERE name = ?1 ORDER BY version DESC LIMIT 1";
    one(connection, query, [name], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Whether there never was an experiment of this name.
pub(super) fn is_new(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    latest(connection, name).map(|found| found.is_none())
}

fn insert(
    connection: &Connection,
    name: &str,
    version: u64,
    document: Option<&str>,
    who: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let statement =
        "INSERT INTO experiments (name, version, document, who, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let parameters = params![name, version, document, who, at.to_string()];
    change(connection, statement, parameters).map(|_| ())
}

pub(super) fn put(
    connection: &Connection,
    name: &str,
    (document, secrets): (&str, &StoredSecrets),
    who: &str,
    at: Timestamp,
) -> Result<PutResult, StoreError> {
    let version = match latest(connection, name)? {
        Some((version, Some(stored)))
            if stored == document && secrets_of(connection, name, version)? == *secrets =>
        {
            let changed = false;
            return Ok(PutResult { version, changed });
        }
        Some((version, _)) => version + 1,
        None => 1,
    };
    insert(connection, name, version, Some(document), who, at)?;
    insert_secrets(connection, name, version, secrets)?;
    let changed = true;
    Ok(PutResult { version, changed })
}

fn read(row: &Row<'_>) -> rusqlite::Result<ExperimentRecord> {
    Ok(ExperimentRecord {
        name: row.get("name")?,
        version: row.get("version")?,
        document: from_json(row, "document")?,
        who: row.get("who")?,
        at: parsed(row, "at")?,
    })
}

pub(super) fn get(
    connection: &Connection,
    name: &str,
    version: Option<u64>,
) -> Result<ExperimentRecord, StoreError> {
    let query = "SELECT * FROM experiments WHERE name = ?1 AND document IS NOT NULL \
        AND version = COALESCE(?2, (SELECT MAX(version) FROM experiments WHERE name = ?1))";
    one(connection, query, params![name, version], read)?.ok_or_else(|| match version {
        Some(version) => StoreError::not_found(format!(
            "there is no version {version} of experiment `{name}`"
        )),
        None => unknown(name),
    })
}

/// An experiment with its secrets in their places.
pub(super) fn with_secrets(
    connection: &Connection,
    name: &str,
    version: Option<u64>,
) -> Result<ExperimentRecord, StoreError> {
    let mut found = get(connection, name, version)?;
    let secrets = secrets_of(connection, name, found.version)?;
    put_secrets_back(&mut found.document, &secrets);
    Ok(found)
}

fn secrets_of(
    connection: &Connection,
    name: &str,
    version: u64,
) -> Result<StoredSecrets, StoreError> {
    let query = "SELECT secrets FROM experiment_secrets WHERE name = ?1 AND version = ?2";
    let found = one(connection, query, params![name, version], |row| {
        from_json(row, "secrets")
    })?;
    Ok(found.unwrap_or_default())
}

fn insert_secrets(
    connection: &Connection,
    name: &str,
    version: u64,
    secrets: &StoredSecrets,
) -> Result<(), StoreError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let statement = "INSERT INTO experiment_secrets (name, version, secrets) VALUES (?1, ?2, ?3)";
    change(
        connection,
        statement,
        params![name, version, json(secrets)?],
    )
    .map(|_| ())
}

/// Takes the secrets out of all documents that still have them: those of a store or an export of an earlier version. Returns whether there
/// were any.
pub(super) fn separate_secrets(connection: &Connection) -> Result<bool, StoreError> {
    let query = "SELECT name, version, document FROM experiments WHERE document IS NOT NULL";
    let stored = all(connection, query, [], |row| {
        let name: String = row.get("name")?;
        let version: u64 = row.get("version")?;
        Ok((name, version, from_json::<Value>(row, "document")?))
    })?;
    let mut is_found = false;
    for (name, version, mut document) in stored {
        let secrets = take_secrets(&mut document);
        if secrets.is_empty() {
            continue;
        }
        is_found = true;
        let statement = "UPDATE experiments SET document = ?3 WHERE name = ?1 AND version = ?2";
        change(
            connection,
            statement,
            params![name, version, json(&document)?],
        )?;
        insert_secrets(connection, &name, version, &secrets)?;
    }
    Ok(is_found)
}

fn unknown(name: &str) -> StoreError {
    StoreError::not_found(format!("there is no experiment `{name}`"))
}

pub(super) fn list(
    connection: &Connection,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ExperimentRecord>, StoreError> {
    let query = "SELECT * FROM experiments AS this \
        WHERE name > COALESCE(?1, '') AND document IS NOT NULL \
        AND version = (SELECT MAX(version) FROM experiments WHERE name = this.name) \
        ORDER BY name LIMIT ?2";
    all(connection, query, params![after, limit], read)
}

pub(super) fn versions(
    connection: &Connection,
    name: &str,
) -> Result<Vec<ExperimentVersionRecord>, StoreError> {
    let query = "SELECT version, who, at, document IS NULL AS removed FROM experiments \
        WHERE name = ?1 ORDER BY version";
    let found = all(connection, query, [name], |row| {
        Ok(ExperimentVersionRecord {
            version: row.get("version")?,
            who: row.get("who")?,
            at: parsed(row, "at")?,
            removed: row.get("removed")?,
        })
    })?;
    match found.is_empty() {
        true => Err(unknown(name)),
        false => Ok(found),
    }
}

pub(super) fn remove(
    connection: &Connection,
    name: &str,
    who: &str,
    at: Timestamp,
) -> Result<u64, StoreError> {
    match latest(connection, name)? {
        Some((version, Some(_))) => {
            insert(connection, name, version + 1, None, who, at)?;
            Ok(version + 1)
        }
        _ => Err(unknown(name)),
    }
}
