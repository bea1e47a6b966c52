//! The notes of runs.

use super::codec::{all, change, from_json, json, one, parsed};
use crate::store::error::StoreError;
use crate::store::records::{AuditMismatch, AuditRecord, CLEANED, Hash, RunNote, RunNoteEntry};
use crate::store::run_notes::{NO_NOTE, RunNoteRow};
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;

/// Appends a note to a run, and its hash to the audit log.
pub(super) fn append(
    connection: &Connection,
    run: &str,
    note: &RunNote,
) -> Result<RunNoteEntry, StoreError> {
    let run_number = super::runs::ordinal(connection, run)?;
    let query = "SELECT number, hash FROM run_notes WHERE run = ?1 ORDER BY number DESC LIMIT 1";
    let last = one(connection, query, [run_number], |row| {
        Ok((row.get::<_, u64>("number")?, parsed(row, "hash")?))
    })?;
    let (number, previous) = last.unwrap_or((0, NO_NOTE));
    let row = RunNoteRow {
        run: run.to_owned(),
        number: number + 1,
        at: note.at.to_string(),
        who: note.who.clone(),
        kind: note.kind.clone(),
        body: json(&note.body)?,
    };
    let hash = row.hash(&previous);
    let statement = "INSERT INTO run_notes (run, number, at, who, kind, body, previous, hash) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let parameters = params![
        run_number,
        row.number,
        row.at,
        row.who,
        row.kind,
        row.body,
        previous.to_string(),
        hash.to_string(),
    ];
    change(connection, statement, parameters)?;
    let detail = serde_json::json!({"kind": row.kind, "number": row.number, "hash": hash});
    let audited = AuditRecord {
        at: note.at,
        who: note.who.clone(),
        role: None,
        what: "note".into(),
        about: run.to_owned(),
        outcome: "done".into(),
        detail,
    };
    super::audit::append(connection, &audited)?;
    Ok(RunNoteEntry {
        number: row.number,
        note: note.clone(),
        previous,
        hash,
    })
}

/// A run's notes, oldest first.
pub(super) fn of(connection: &Connection, run: &str) -> Result<Vec<RunNoteEntry>, StoreError> {
    let run = super::runs::ordinal(connection, run)?;
    let query = "SELECT * FROM run_notes WHERE run = ?1 ORDER BY number";
    all(connection, query, [run], |row| {
        Ok(RunNoteEntry {
            number: row.get("number")?,
            note: RunNote {
                at: parsed(row, "at")?,
                who: row.get("who")?,
                kind: row.get("kind")?,
                body: from_json(row, "body")?,
            },
            previous: parsed(row, "previous")?,
            hash: parsed(row, "hash")?,
        })
    })
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<(RunNoteRow, String, String)> {
    let note = RunNoteRow {
        run: row.get("id")?,
        number: row.get("number")?,
        at: row.get("at")?,
        who: row.get("who")?,
        kind: row.get("kind")?,
        body: row.get("body")?,
    };
    Ok((note, row.get("previous")?, row.get("hash")?))
}

/// Verifies the notes of all runs: each chain, and that the notes are those that the audit log names. Returns the first entry of
/// the audit log whose note is not as it was written.
pub(super) fn verify(connection: &Connection) -> Result<Option<AuditMismatch>, StoreError> {
    let query = "SELECT runs.id, run_notes.* FROM run_notes JOIN runs ON runs.number = run_notes.run \
        ORDER BY run_notes.run, run_notes.number";
    let mut notes: BTreeMap<(String, u64), Result<Hash, &str>> = BTreeMap::new();
    for (note, previous, hash) in all(connection, query, [], row_of)? {
        let before = match note.number {
            1 => Some(NO_NOTE),
            number => notes
                .get(&(note.run.clone(), number - 1))
                .and_then(|before| before.as_ref().ok().copied()),
        };
        let verified = match before {
            Some(before) if previous != before.to_string() => {
                Err("does not follow from the note before")
            }
            Some(before) if hash != note.hash(&before).to_string() => Err("was changed"),
            Some(before) => Ok(note.hash(&before)),
            None => Err("does not follow from a note that is intact"),
        };
        notes.insert((note.run, note.number), verified);
    }
    // Runs that were removed because of their age took their notes along.
    let query = "SELECT audit.number, about, detail FROM audit JOIN runs ON runs.id = audit.about \
        WHERE what = 'note' AND audit.outcome = 'done' ORDER BY audit.number";
    let audited = all(connection, query, [], |row| {
        Ok((
            row.get::<_, u64>(0)?,
            row.get::<_, String>(1)?,
            from_json::<serde_json::Value>(row, "detail")?,
        ))
    })?;
    for (number, run, detail) in audited {
        let note = detail["number"].as_u64().unwrap_or_default();
        let why = match notes.remove(&(run.clone(), note)) {
            Some(Ok(hash)) if detail["hash"] == hash.to_string() => continue,
            Some(Ok(_)) => "is another one than the one written",
            Some(Err(why)) => why,
            None => "is missing",
        };
        let why = format!("note {note} of run `{run}` {why}");
        return Ok(Some(AuditMismatch { number, why }));
    }
    let unknown = notes.into_keys().next();
    unknown.map_or(Ok(None), |(run, note)| {
        let query = "SELECT COALESCE(MAX(number), 0) FROM audit";
        let number = one(connection, query, [], |row| row.get(0))?.unwrap_or_default();
        let why = format!("note {note} of run `{run}` is not in the log");
        Ok(Some(AuditMismatch { number, why }))
    })
}

/// The runs that ended not clean, and of which it was not observed since that nothing is left; earliest first.
pub(super) fn unclean_runs(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let query = "SELECT id FROM runs WHERE outcome = 'not-clean' AND NOT EXISTS \
        (SELECT 1 FROM run_notes WHERE run = runs.number AND kind = ?1) ORDER BY number";
    all(connection, query, [CLEANED], |row| row.get(0))
}
