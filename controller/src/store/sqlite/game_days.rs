//! Game days: their documents, in versions, and those that are or were held.

use super::codec::{all, change, from_json, from_word, json, one, parsed, parsed_or_none, word};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::records::{
    ExperimentVersionRecord, GameDayDocumentRecord, GameDayRecord, GameDayRun, PutResult,
};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

fn latest(
    connection: &Connection,
    name: &str,
) -> Result<Option<(u64, Option<String>)>, StoreError> {
    let query = "SELECT version, document FROM game_day_documents WHERE name = ?1 ORDER BY version DESC LIMIT 1";
    one(connection, query, [name], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

fn insert(
    connection: &Connection,
    name: &str,
    version: u64,
    document: Option<&str>,
    (who, at): (&str, Timestamp),
) -> Result<(), StoreError> {
    let statement = "INSERT INTO game_day_documents (name, version, document, who, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let parameters = params![name, version, document, who, at.to_string()];
    change(connection, statement, parameters).map(|_| ())
}

fn unknown(name: &str) -> StoreError {
    StoreError::not_found(format!("there is no stored game day `{name}`"))
}

pub(super) fn put_document(
    connection: &Connection,
    name: &str,
    document: &str,
    by: (&str, Timestamp),
) -> Result<PutResult, StoreError> {
    let version = match latest(connection, name)? {
        Some((version, Some(stored))) if stored == document => {
            let changed = false;
            return Ok(PutResult { version, changed });
        }
        Some((version, _)) => version + 1,
        None => 1,
    };
    insert(connection, name, version, Some(document), by)?;
    let changed = true;
    Ok(PutResult { version, changed })
}

pub(super) fn remove_document(
    connection: &Connection,
    name: &str,
    by: (&str, Timestamp),
) -> Result<u64, StoreError> {
    match latest(connection, name)? {
        Some((version, Some(_))) => {
            insert(connection, name, version + 1, None, by)?;
            Ok(version + 1)
        }
        _ => Err(unknown(name)),
    }
}

fn read_document(row: &Row<'_>) -> rusqlite::Result<GameDayDocumentRecord> {
    Ok(GameDayDocumentRecord {
        name: row.get("name")?,
        version: row.get("version")?,
        document: from_json(row, "document")?,
        who: row.get("who")?,
        at: parsed(row, "at")?,
    })
}

pub(super) fn document(
    connection: &Connection,
    name: &str,
    version: Option<u64>,
) -> Result<GameDayDocumentRecord, StoreError> {
    let query = "SELECT * FROM game_day_documents WHERE name = ?1 AND document IS NOT NULL \
        AND version = COALESCE(?2, (SELECT MAX(version) FROM game_day_documents WHERE name = ?1))";
    let found = one(connection, query, params![name, version], read_document)?;
    found.ok_or_else(|| match version {
        Some(version) => StoreError::not_found(format!(
            "there is no version {version} of game day `{name}`"
        )),
        None => unknown(name),
    })
}

pub(super) fn documents(connection: &Connection) -> Result<Vec<GameDayDocumentRecord>, StoreError> {
    let query = "SELECT * FROM game_day_documents AS one WHERE document IS NOT NULL AND version = \
        (SELECT MAX(version) FROM game_day_documents WHERE name = one.name) ORDER BY name";
    all(connection, query, [], read_document)
}

pub(super) fn document_versions(
    connection: &Connection,
    name: &str,
) -> Result<Vec<ExperimentVersionRecord>, StoreError> {
    let query = "SELECT version, who, at, document IS NULL AS removed FROM game_day_documents \
        WHERE name = ?1 ORDER BY version";
    let versions = all(connection, query, [name], |row| {
        Ok(ExperimentVersionRecord {
            version: row.get("version")?,
            who: row.get("who")?,
            at: parsed(row, "at")?,
            removed: row.get("removed")?,
        })
    })?;
    match versions.is_empty() {
        true => Err(unknown(name)),
        false => Ok(versions),
    }
}

pub(super) fn open(connection: &Connection, day: &GameDayRecord) -> Result<(), StoreError> {
    let statement = "INSERT INTO game_days (id, name, version, document, mode, who, person, prepared) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (name, version) = match &day.reference {
        Some(reference) => (Some(&reference.name), Some(reference.version)),
        None => (None, None),
    };
    let parameters = params![
        day.id,
        name,
        version,
        json(&day.document)?,
        word(&day.mode)?,
        day.who,
        day.person,
        day.prepared.to_string(),
    ];
    change(connection, statement, parameters).map(|_| ())
}

fn read(row: &Row<'_>) -> rusqlite::Result<GameDayRecord> {
    let (name, version): (Option<String>, Option<u64>) = (row.get("name")?, row.get("version")?);
    Ok(GameDayRecord {
        id: row.get("id")?,
        reference: name
            .zip(version)
            .map(|(name, version)| crate::store::ExperimentRef { name, version }),
        document: from_json(row, "document")?,
        mode: from_word(row, "mode")?,
        who: row.get("who")?,
        person: row.get("person")?,
        prepared: parsed(row, "prepared")?,
        ended: parsed_or_none(row, "ended")?,
    })
}

pub(super) fn get(connection: &Connection, id: &str) -> Result<GameDayRecord, StoreError> {
    let found = one(
        connection,
        "SELECT * FROM game_days WHERE id = ?1",
        [id],
        read,
    )?;
    found.ok_or_else(|| StoreError::not_found(format!("there is no game day `{id}`")))
}

/// Its number among the game days, in the order in which they were prepared.
pub(super) fn ordinal(connection: &Connection, id: &str) -> Result<i64, StoreError> {
    let query = "SELECT number FROM game_days WHERE id = ?1";
    let found = one(connection, query, [id], |row| row.get(0))?;
    found.ok_or_else(|| StoreError::not_found(format!("there is no game day `{id}`")))
}

pub(super) fn list(
    connection: &Connection,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<GameDayRecord>, StoreError> {
    let before = before.map(|id| ordinal(connection, id)).transpose()?;
    let query = "SELECT * FROM game_days WHERE number < COALESCE(?1, 9223372036854775807) \
        ORDER BY number DESC LIMIT ?2";
    all(connection, query, params![before, limit], read)
}

pub(super) fn open_ones(connection: &Connection) -> Result<Vec<GameDayRecord>, StoreError> {
    let query = "SELECT * FROM game_days WHERE ended IS NULL ORDER BY number";
    all(connection, query, [], read)
}

pub(super) fn end(connection: &Connection, id: &str, at: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE game_days SET ended = ?2 WHERE id = ?1 AND ended IS NULL";
    match change(connection, statement, [id, &at.to_string()])? {
        0 => Err(StoreError::new(
            StoreErrorKind::Conflict,
            format!("game day `{id}` is over already"),
        )),
        _ => Ok(()),
    }
}

pub(super) fn link_run(connection: &Connection, link: &GameDayRun) -> Result<(), StoreError> {
    let statement = "INSERT INTO game_day_runs (run, game_day, step) VALUES (?1, ?2, ?3)";
    change(
        connection,
        statement,
        params![link.run, link.game_day, link.step],
    )
    .map(|_| ())
}

fn read_run(row: &Row<'_>) -> rusqlite::Result<GameDayRun> {
    Ok(GameDayRun {
        run: row.get("run")?,
        game_day: row.get("game_day")?,
        step: row.get("step")?,
    })
}

pub(super) fn of_run(connection: &Connection, run: &str) -> Result<Option<GameDayRun>, StoreError> {
    let query = "SELECT * FROM game_day_runs WHERE run = ?1";
    one(connection, query, [run], read_run)
}

pub(super) fn runs(connection: &Connection, id: &str) -> Result<Vec<GameDayRun>, StoreError> {
    let query = "SELECT * FROM game_day_runs WHERE game_day = ?1 ORDER BY step, rowid";
    all(connection, query, [id], read_run)
}
