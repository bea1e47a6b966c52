//! The rows of the audit log.

use super::codec::{all, change, from_json, from_word_or_none, json, one, parsed, word};
use crate::store::audit::{AuditRow, ChainVerifier, EMPTY_HEAD};
use crate::store::error::StoreError;
use crate::store::records::{AuditEntry, AuditHead, AuditRecord, ChainVerification};
use rusqlite::{Connection, Row, params};

pub(super) fn append(
    connection: &Connection,
    record: &AuditRecord,
) -> Result<AuditHead, StoreError> {
    let query = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
    let last = one(connection, query, [], |row| {
        Ok(AuditHead {
            number: row.get("number")?,
            hash: parsed(row, "hash")?,
        })
    })?;
    let last = last.unwrap_or(EMPTY_HEAD);
    let link = AuditRow {
        number: last.number + 1,
        at: record.at.to_string(),
        who: record.who.clone(),
        role: record.role.as_ref().map(word).transpose()?,
        what: record.what.clone(),
        about: record.about.clone(),
        outcome: record.outcome.clone(),
        detail: json(&record.detail)?,
    };
    let hash = link.hash(&last.hash);
    let statement = "INSERT INTO audit (number, at, who, role, what, about, outcome, detail, previous, hash) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let parameters = params![
        link.number,
        link.at,
        link.who,
        link.role,
        link.what,
        link.about,
        link.outcome,
        link.detail,
        last.hash.to_string(),
        hash.to_string(),
    ];
    change(connection, statement, parameters)?;
    let number = link.number;
    Ok(AuditHead { number, hash })
}

pub(super) fn after(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let query = "SELECT * FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    all(connection, query, params![after, limit], |row| {
        Ok(AuditEntry {
            number: row.get("number")?,
            record: AuditRecord {
                at: parsed(row, "at")?,
                who: row.get("who")?,
                role: from_word_or_none(row, "role")?,
                what: row.get("what")?,
                about: row.get("about")?,
                outcome: row.get("outcome")?,
                detail: from_json(row, "detail")?,
            },
            previous: parsed(row, "previous")?,
            hash: parsed(row, "hash")?,
        })
    })
}

fn link(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        number: row.get("number")?,
        at: row.get("at")?,
        who: row.get("who")?,
        role: row.get("role")?,
        what: row.get("what")?,
        about: row.get("about")?,
        outcome: row.get("outcome")?,
        detail: row.get("detail")?,
    })
}

pub(super) fn verify(
    connection: &Connection,
    known: Option<&AuditHead>,
) -> Result<ChainVerification, StoreError> {
    let mut walk = ChainVerifier::new(known);
    let mut statement = connection.prepare_cached("SELECT * FROM audit ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (previous, hash) = (row.get_ref("previous")?, row.get_ref("hash")?);
        let (previous, hash) = (
            previous.as_str().unwrap_or_default(),
            hash.as_str().unwrap_or_default(),
        );
        if !walk.step(&link(row)?, previous, hash) {
            break;
        }
    }
    let mut verified = walk.end();
    // A store that an older program wrote has no notes.
    let has_notes = "SELECT 1 FROM sqlite_schema WHERE name = 'run_notes'";
    if verified.broken.is_none() && one(connection, has_notes, [], |_| Ok(()))?.is_some() {
        verified.broken = super::run_notes::verify(connection)?;
    }
    Ok(verified)
}
