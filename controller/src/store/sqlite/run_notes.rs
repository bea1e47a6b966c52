//! The notes of runs and of game days: two tables of the same form.

use super::codec::{all, change, from_json, json, one, parsed};
use crate::store::error::StoreError;
use crate::store::records::{
    AuditHead, AuditMismatch, AuditRecord, CLEANED, ChainVerification, Hash, NoteStream, RunNote,
    RunNoteEntry,
};
use crate::store::run_notes::{NO_NOTE, RunNoteRow};
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;

/// The table of a stream.
struct NoteTable {
    /// The table of notes.
    notes: &'static str,
    /// Its column with the number of the run or of the game day.
    owner: &'static str,
    /// The table of runs or of game days.
    owners: &'static str,
    /// What the owner is called.
    word: &'static str,
}

const TABLES: [NoteTable; 2] = [
    NoteTable {
        notes: "run_notes",
        owner: "run",
        owners: "runs",
        word: "run",
    },
    NoteTable {
        notes: "game_day_notes",
        owner: "game_day",
        owners: "game_days",
        word: "game day",
    },
];

impl NoteTable {
    fn of(stream: NoteStream) -> &'static NoteTable {
        match stream {
            NoteStream::Run => &TABLES[0],
            NoteStream::GameDay => &TABLES[1],
        }
    }
}

/// The number of the run or of the game day.
fn ordinal(connection: &Connection, stream: NoteStream, id: &str) -> Result<i64, StoreError> {
    match stream {
        NoteStream::Run => super::runs::ordinal(connection, id),
        NoteStream::GameDay => super::game_days::ordinal(connection, id),
    }
}

/// Verifies the audit log, and the notes whose hashes it has.
pub(super) fn verify_with_log(
    connection: &Connection,
    known: Option<&AuditHead>,
) -> Result<ChainVerification, StoreError> {
    let mut verified = super::audit::verify(connection, known)?;
    for table in &TABLES {
        // A store that an older program wrote has no notes.
        let has_notes = "SELECT 1 FROM sqlite_schema WHERE name = ?1";
        if verified.broken.is_none()
            && one(connection, has_notes, [table.notes], |_| Ok(()))?.is_some()
        {
            verified.broken = verify(connection, table)?;
        }
    }
    Ok(verified)
}

/// Appends a note to a run or a game day, and its hash to the audit log.
pub(super) fn append(
    connection: &Connection,
    stream: NoteStream,
    id: &str,
    note: &RunNote,
) -> Result<RunNoteEntry, StoreError> {
    let owner_number = ordinal(connection, stream, id)?;
    let table = NoteTable::of(stream);
    if stream == NoteStream::GameDay && note.kind == "state" && note.body["state"] == "ended" {
        super::game_days::end(connection, id, note.at)?;
    }
    let (notes, owner) = (table.notes, table.owner);
    let query =
        format!("SELECT number, hash FROM {notes} WHERE {owner} = ?1 ORDER BY number DESC LIMIT 1");
    let last = one(connection, &query, [owner_number], |row| {
        Ok((row.get::<_, u64>("number")?, parsed(row, "hash")?))
    })?;
    let (number, previous) = last.unwrap_or((0, NO_NOTE));
    let row = RunNoteRow {
        run: id.to_owned(),
        number: number + 1,
        at: note.at.to_string(),
        who: note.who.clone(),
        kind: note.kind.clone(),
        body: json(&note.body)?,
    };
    let hash = row.hash(&previous);
    let statement = format!(
        "INSERT INTO {notes} ({owner}, number, at, who, kind, body, previous, hash) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    );
    let parameters = params![
        owner_number,
        row.number,
        row.at,
        row.who,
        row.kind,
        row.body,
        previous.to_string(),
        hash.to_string(),
    ];
    change(connection, &statement, parameters)?;
    let detail = serde_json::json!({"kind": row.kind, "number": row.number, "hash": hash});
    let audited = AuditRecord {
        at: note.at,
        who: note.who.clone(),
        role: None,
        what: "note".into(),
        about: id.to_owned(),
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

/// The notes of a run or a game day after this number, oldest first.
pub(super) fn of(
    connection: &Connection,
    stream: NoteStream,
    id: &str,
    after: u64,
) -> Result<Vec<RunNoteEntry>, StoreError> {
    let owner_number = ordinal(connection, stream, id)?;
    let NoteTable { notes, owner, .. } = NoteTable::of(stream);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let query = format!("SELECT * FROM {notes} WHERE {owner} = ?1 AND number > ?2 ORDER BY number");
    all(connection, &query, params![owner_number, after], |row| {
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

/// Verifies the notes of a table: each chain, and that the notes are those that the audit log names. Returns the first entry of
/// the audit log whose note is not as it was written.
fn verify(connection: &Connection, table: &NoteTable) -> Result<Option<AuditMismatch>, StoreError> {
    let NoteTable {
        notes: note_table,
        owner,
        owners,
        word,
    } = table;
    let query = format!(
        "SELECT {owners}.id, {note_table}.* FROM {note_table} JOIN {owners} \
        ON {owners}.number = {note_table}.{owner} ORDER BY {note_table}.{owner}, {note_table}.number"
    );
    let mut notes: BTreeMap<(String, u64), Result<Hash, &str>> = BTreeMap::new();
    for (note, previous, hash) in all(connection, &query, [], row_of)? {
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
    let query = format!(
        "SELECT audit.number, about, detail FROM audit JOIN {owners} ON {owners}.id = audit.about \
        WHERE what = 'note' AND audit.outcome = 'done' ORDER BY audit.number"
    );
    let audited = all(connection, &query, [], |row| {
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
        let why = format!("note {note} of {word} `{run}` {why}");
        return Ok(Some(AuditMismatch { number, why }));
    }
    let unknown = notes.into_keys().next();
    unknown.map_or(Ok(None), |(run, note)| {
        let query = "SELECT COALESCE(MAX(number), 0) FROM audit";
        let number = one(connection, query, [], |row| row.get(0))?.unwrap_or_default();
        let why = format!("note {note} of {word} `{run}` is not in the log");
        Ok(Some(AuditMismatch { number, why }))
    })
}

/// The runs that ended not clean, and of which it was not observed since that nothing is left; earliest first.
pub(super) fn unclean_runs(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let query = "SELECT id FROM runs WHERE outcome = 'not-clean' AND NOT EXISTS \
        (SELECT 1 FROM run_notes WHERE run = runs.number AND kind = ?1) ORDER BY number";
    all(connection, query, [CLEANED], |row| row.get(0))
}
