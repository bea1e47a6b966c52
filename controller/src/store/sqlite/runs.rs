//! Runs and their journals.

use super::codec::{
    all, change, from_json, from_word, from_word_or_none, one, parsed, parsed_or_none, word,
};
use crate::store::error::StoreError;
use crate::store::records::{ExperimentRef, NewRun, NumberedEvent, RunEnd, RunFilter, RunRecord};
use jiff::Timestamp;
use rusqlite::{Connection, Row, ToSql, params};

fn unknown(run: &str) -> StoreError {
    StoreError::not_found(format!("there is no run `{run}`"))
}

fn closed(run: &str) -> StoreError {
    StoreError::conflict(format!("run `{run}` is closed"))
}

/// Why there is no open run of this id.
fn not_open(connection: &Connection, run: &str) -> StoreError {
    match ordinal(connection, run) {
        Ok(_) => closed(run),
        Err(error) => error,
    }
}

/// The number of a run in the order in which runs were opened.
pub(super) fn ordinal(connection: &Connection, run: &str) -> Result<i64, StoreError> {
    let query = "SELECT number FROM runs WHERE id = ?1";
    one(connection, query, [run], |row| row.get(0))?.ok_or_else(|| unknown(run))
}

pub(super) fn open(connection: &Connection, run: &NewRun) -> Result<(), StoreError> {
    if ordinal(connection, &run.id).is_ok() {
        return Err(StoreError::conflict(format!(
            "there already is a run `{}`",
            run.id
        )));
    }
    if let Some(of) = &run.experiment {
        super::experiments::get(connection, &of.name, Some(of.version))?;
    }
    let of = run.experiment.as_ref();
    let statement = "INSERT INTO runs (id, experiment, version, title, seed, who, because, started) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let parameters = params![
        run.id,
        of.map(|of| &of.name),
        of.map(|of| of.version),
        run.title,
        run.seed.to_string(),
        run.who,
        word(&run.because)?,
        run.started.to_string(),
    ];
    change(connection, statement, parameters).map(|_| ())
}

/// An open run's ordinal, and the number of the next entry in its journal.
fn next(connection: &Connection, run: &str) -> Result<(i64, u64), StoreError> {
    let query = "SELECT number, 1 + COALESCE((SELECT MAX(number) FROM events WHERE run = runs.number), 0) \
        FROM runs WHERE id = ?1 AND ended IS NULL";
    let next = one(connection, query, [run], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?))
    })?;
    next.ok_or_else(|| not_open(connection, run))
}

const INSERT: &str = "INSERT INTO events (run, number, entry) VALUES (?1, ?2, ?3)";

/// Changes data with one statement, so that no savepoint is needed. An `INSERT … SELECT … RETURNING` would do everything in
/// one statement, but uses two temporary tables.
pub(super) fn append(connection: &Connection, run: &str, entry: &str) -> Result<u64, StoreError> {
    let (ordinal, number) = next(connection, run)?;
    change(connection, INSERT, params![ordinal, number, entry])?;
    Ok(number)
}

pub(super) fn append_all(
    connection: &Connection,
    run: &str,
    entries: &[String],
) -> Result<(), StoreError> {
    let (ordinal, first) = next(connection, run)?;
    for (number, entry) in (first..).zip(entries) {
        change(connection, INSERT, params![ordinal, number, entry])?;
    }
    Ok(())
}

pub(super) fn events(
    connection: &Connection,
    run: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<NumberedEvent>, StoreError> {
    let ordinal = ordinal(connection, run)?;
    let query =
        "SELECT number, entry FROM events WHERE run = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    // SQLite's integers are signed: larger numbers do not exist in it.
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    all(connection, query, params![ordinal, after, limit], |row| {
        Ok(NumberedEvent {
            number: row.get("number")?,
            entry: from_json(row, "entry")?,
        })
    })
}

pub(super) fn journal_lines(
    connection: &Connection,
    run: &str,
    after: u64,
    read: &mut dyn FnMut(&str) -> bool,
) -> Result<(), StoreError> {
    let ordinal = ordinal(connection, run)?;
    let query = "SELECT entry FROM events WHERE run = ?1 AND number > ?2 ORDER BY number";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query([ordinal, after])?;
    while let Some(row) = rows.next()? {
        let entry = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if !read(entry) {
            break;
        }
    }
    Ok(())
}

pub(super) fn close(
    connection: &Connection,
    run: &str,
    end: &RunEnd,
    verdict: &str,
) -> Result<(), StoreError> {
    let statement =
        "UPDATE runs SET ended = ?2, outcome = ?3, verdict = ?4 WHERE id = ?1 AND ended IS NULL";
    let parameters = params![run, end.ended.to_string(), word(&end.outcome)?, verdict];
    match change(connection, statement, parameters)? {
        0 => return Err(not_open(connection, run)),
        _ => change(connection, "DELETE FROM approvals WHERE run = ?1", [run])?,
    };
    Ok(())
}

const COLUMNS: &str = "SELECT *, COALESCE((SELECT MAX(number) FROM events WHERE run = runs.number), 0) \
    AS events, EXISTS (SELECT 1 FROM approvals WHERE run = runs.id) AS waiting, \
    (SELECT at FROM run_notes WHERE run = runs.number AND kind = 'cleaned' ORDER BY number LIMIT 1) AS cleaned FROM runs";

fn read(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let experiment = match row.get::<_, Option<String>>("experiment")? {
        Some(name) => Some(ExperimentRef {
            name,
            version: row.get("version")?,
        }),
        None => None,
    };
    let end = match (
        parsed_or_none(row, "ended")?,
        from_word_or_none(row, "outcome")?,
    ) {
        (Some(ended), Some(outcome)) => Some(RunEnd {
            ended,
            outcome,
            verdict: from_json(row, "verdict")?,
        }),
        _ => None,
    };
    let new = NewRun {
        id: row.get("id")?,
        experiment,
        title: row.get("title")?,
        seed: parsed(row, "seed")?,
        who: row.get("who")?,
        because: from_word(row, "because")?,
        started: parsed(row, "started")?,
    };
    let events = row.get("events")?;
    let cleaned = parsed_or_none(row, "cleaned")?;
    Ok(RunRecord {
        new,
        end,
        events,
        cleaned,
        waiting: row.get("waiting")?,
    })
}

pub(super) fn get(connection: &Connection, run: &str) -> Result<RunRecord, StoreError> {
    let query = format!("{COLUMNS} WHERE id = ?1");
    one(connection, &query, [run], read)?.ok_or_else(|| unknown(run))
}

pub(super) fn list(
    connection: &Connection,
    filter: &RunFilter,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<RunRecord>, StoreError> {
    let before = before.map(|run| ordinal(connection, run)).transpose()?;
    let outcome = filter.outcome.as_ref().map(word).transpose()?;
    let mut conditions = vec!["1"];
    let mut parameters: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
    if let Some(before) = &before {
        conditions.push("number < :before");
        parameters.push((":before", before));
    }
    if let Some(experiment) = &filter.experiment {
        conditions.push("experiment = :experiment");
        parameters.push((":experiment", experiment));
    }
    if let Some(outcome) = &outcome {
        conditions.push("outcome = :outcome");
        parameters.push((":outcome", outcome));
    }
    conditions.extend(match filter.open {
        Some(true) => Some("ended IS NULL"),
        Some(false) => Some("ended IS NOT NULL"),
        None => None,
    });
    let conditions = conditions.join(" AND ");
    let query = format!("{COLUMNS} WHERE {conditions} ORDER BY number DESC LIMIT :limit");
    all(connection, &query, &*parameters, read)
}

pub(super) fn open_ones(connection: &Connection) -> Result<Vec<RunRecord>, StoreError> {
    let query = format!(
        "{COLUMNS} WHERE ended IS NULL AND id NOT IN (SELECT run FROM approvals) ORDER BY number"
    );
    all(connection, &query, [], read)
}

/// Deletes the earliest run that was closed before this time. Times are texts of varying length, so they are compared as
/// numbers.
pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT number, id FROM runs WHERE ended IS NOT NULL AND unixepoch(ended) < ?1 \
        ORDER BY number LIMIT 1";
    let found = one(connection, query, [before.as_second()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let Some((number, id)) = found else {
        return Ok(None);
    };
    change(connection, "DELETE FROM events WHERE run = ?1", [number])?;
    change(connection, "DELETE FROM run_notes WHERE run = ?1", [number])?;
    change(connection, "DELETE FROM runs WHERE number = ?1", [number])?;
    let owners = "DELETE FROM owners WHERE what = 'run' AND id = ?1";
    change(connection, owners, [&id])?;
    Ok(Some(id))
}
