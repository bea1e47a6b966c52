//! Experiments. Each change makes a new version, and so does a removal.

use super::codec::{all, change, from_json, one, parsed};
use crate::store::error::StoreError;
use crate::store::records::{ExperimentRecord, ExperimentVersionRecord, PutResult};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

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
    document: &str,
    who: &str,
    at: Timestamp,
) -> Result<PutResult, StoreError> {
    let version = match latest(connection, name)? {
        Some((version, Some(stored))) if stored == document => {
            let changed = false;
            return Ok(PutResult { version, changed });
        }
        Some((version, _)) => version + 1,
        None => 1,
    };
    insert(connection, name, version, Some(document), who, at)?;
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
