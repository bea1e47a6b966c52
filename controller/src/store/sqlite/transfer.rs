//! Export and import, by one list of the tables. JSON is exported and imported as the text that is stored, so that the
//! export of an import has the same bytes.

use super::experiments;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::export::{FORMAT, ImportError, LineProblem};
use crate::store::records::{ActionChange, Hash, OwnedKind, Role, TokenOrigin, Trigger};
use crate::store::stored_secrets::StoredSecrets;
use backburn_experiments::game_day::GameDayMode;
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, TransactionBehavior, params_from_iter};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};

/// The kind of the first line.
const HEADER: &str = "backburn-export";
/// The kind of the last line.
const END: &str = "end";
/// The kind of the secrets of an experiment, which an export has only where they are asked for.
const SECRETS: &str = "experiment-secrets";
/// Moves the pending approvals that an export of version 1 has in a setting to their table.
const APPROVALS_OF_VERSION_1: &str = include_str!("approvals_of_version_1.sql");
/// The most problems that are reported.
const MAX_PROBLEMS: usize = 100;

/// The meaning of a column, which is checked before it is imported.
#[derive(Debug, Clone, Copy)]
enum Column {
    Text,
    Number,
    Time,
    Hash,
    /// A 64-bit number, stored as text.
    Seed,
    Word(fn(&str) -> bool),
    Json(fn(&str) -> Result<(), serde_json::Error>),
}

/// A table in an export.
struct ExportTable {
    kind: &'static str,
    /// The columns in the order in which they are exported, and whether each may be null.
    columns: &'static [(&'static str, Column, bool)],
    select: &'static str,
    insert: &'static str,
}

fn json<T: DeserializeOwned>(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<T>(text).map(|_| ())
}

fn word<T: DeserializeOwned>(text: &str) -> bool {
    serde_json::from_value::<T>(text.into()).is_ok()
}

/// All tables, each after those that it refers to.
const TABLES: &[ExportTable] = &[
    ExportTable {
        kind: "experiment",
        columns: &[
            ("name", Column::Text, false),
            ("version", Column::Number, false),
            ("document", Column::Json(json::<serde_json::Value>), true),
            ("who", Column::Text, false),
            ("at", Column::Time, false),
        ],
        select: "SELECT name, version, document, who, at FROM experiments ORDER BY name, version",
        insert: "INSERT INTO experiments (name, version, document, who, at) VALUES (?1, ?2, ?3, ?4, ?5)",
    },
    ExportTable {
        kind: SECRETS,
        columns: &[
            ("name", Column::Text, false),
            ("version", Column::Number, false),
            ("secrets", Column::Json(json::<StoredSecrets>), false),
        ],
        select: "SELECT name, version, secrets FROM experiment_secrets ORDER BY name, version",
        insert: "INSERT INTO experiment_secrets (name, version, secrets) VALUES (?1, ?2, ?3)",
    },
    ExportTable {
        kind: "run",
        columns: &[
            ("id", Column::Text, false),
            ("experiment", Column::Text, true),
            ("version", Column::Number, true),
            ("title", Column::Text, false),
            ("seed", Column::Seed, false),
            ("who", Column::Text, false),
            ("because", Column::Word(word::<Trigger>), false),
            ("started", Column::Time, false),
            ("ended", Column::Time, true),
            ("outcome", Column::Word(word::<Outcome>), true),
            ("verdict", Column::Json(json::<serde_json::Value>), true),
        ],
        select: "SELECT id, experiment, version, title, seed, who, because, started, ended, outcome, verdict \
            FROM runs ORDER BY number",
        insert: "INSERT INTO runs (id, experiment, version, title, seed, who, because, started, ended, \
            outcome, verdict) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    },
    ExportTable {
        kind: "approval",
        columns: &[
            ("run", Column::Text, false),
            ("person", Column::Text, false),
            ("rule", Column::Text, false),
            (
                "variables",
                Column::Json(json::<serde_json::Map<String, serde_json::Value>>),
                false,
            ),
            ("plan", Column::Json(json::<serde_json::Value>), true),
            ("fingerprint", Column::Hash, true),
            ("expires", Column::Time, false),
        ],
        select: "SELECT run, person, rule, variables, plan, fingerprint, expires FROM approvals ORDER BY run",
        insert: "INSERT INTO approvals (run, person, rule, variables, plan, fingerprint, expires) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    },
    ExportTable {
        kind: "event",
        columns: &[
            ("run", Column::Text, false),
            ("number", Column::Number, false),
            ("entry", Column::Json(json::<JournalEntry>), false),
        ],
        select: "SELECT runs.id AS run, events.number, entry FROM events JOIN runs ON runs.number = events.run \
            ORDER BY runs.number, events.number",
        insert: "INSERT INTO events (run, number, entry) VALUES ((SELECT number FROM runs WHERE id = ?1), ?2, ?3)",
    },
    ExportTable {
        kind: "run-note",
        columns: &[
            ("run", Column::Text, false),
            ("number", Column::Number, false),
            ("at", Column::Time, false),
            ("who", Column::Text, false),
            ("type", Column::Text, false),
            ("body", Column::Json(json::<serde_json::Value>), false),
            ("previous", Column::Hash, false),
            ("hash", Column::Hash, false),
        ],
        select: "SELECT runs.id AS run, run_notes.number, at, run_notes.who, kind, body, previous, hash \
            FROM run_notes JOIN runs ON runs.number = run_notes.run ORDER BY runs.number, run_notes.number",
        insert: "INSERT INTO run_notes (run, number, at, who, kind, body, previous, hash) \
            VALUES ((SELECT number FROM runs WHERE id = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    },
    ExportTable {
        kind: "action-change",
        columns: &[
            ("number", Column::Number, false),
            ("action", Column::Number, false),
            ("at", Column::Time, false),
            ("who", Column::Text, false),
            ("change", Column::Json(json::<ActionChange>), false),
        ],
        select: "SELECT number, action, at, who, change FROM action_changes ORDER BY number",
        insert: "INSERT INTO action_changes (number, action, at, who, change) VALUES (?1, ?2, ?3, ?4, ?5)",
    },
    ExportTable {
        kind: "game-day-document",
        columns: &[
            ("name", Column::Text, false),
            ("version", Column::Number, false),
            ("document", Column::Json(json::<serde_json::Value>), true),
            ("who", Column::Text, false),
            ("at", Column::Time, false),
        ],
        select: "SELECT name, version, document, who, at FROM game_day_documents ORDER BY name, version",
        insert: "INSERT INTO game_day_documents (name, version, document, who, at) VALUES (?1, ?2, ?3, ?4, ?5)",
    },
    ExportTable {
        kind: "game-day",
        columns: &[
            ("id", Column::Text, false),
            ("name", Column::Text, true),
            ("version", Column::Number, true),
            ("document", Column::Json(json::<serde_json::Value>), false),
            ("mode", Column::Word(word::<GameDayMode>), false),
            ("who", Column::Text, false),
            ("person", Column::Text, false),
            ("prepared", Column::Time, false),
            ("ended", Column::Time, true),
        ],
        select: "SELECT id, name, version, document, mode, who, person, prepared, ended FROM game_days ORDER BY number",
        insert: "INSERT INTO game_days (id, name, version, document, mode, who, person, prepared, ended) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    },
    ExportTable {
        kind: "game-day-note",
        columns: &[
            ("game_day", Column::Text, false),
            ("number", Column::Number, false),
            ("at", Column::Time, false),
            ("who", Column::Text, false),
            ("type", Column::Text, false),
            ("body", Column::Json(json::<serde_json::Value>), false),
            ("previous", Column::Hash, false),
            ("hash", Column::Hash, false),
        ],
        select: "SELECT game_days.id AS game_day, game_day_notes.number, at, game_day_notes.who, kind, body, previous, hash \
            FROM game_day_notes JOIN game_days ON game_days.number = game_day_notes.game_day \
            ORDER BY game_days.number, game_day_notes.number",
        insert: "INSERT INTO game_day_notes (game_day, number, at, who, kind, body, previous, hash) \
            VALUES ((SELECT number FROM game_days WHERE id = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    },
    ExportTable {
        kind: "game-day-run",
        columns: &[
            ("run", Column::Text, false),
            ("game_day", Column::Text, false),
            ("step", Column::Number, false),
        ],
        select: "SELECT run, game_day, step FROM game_day_runs ORDER BY run",
        insert: "INSERT INTO game_day_runs (run, game_day, step) VALUES (?1, ?2, ?3)",
    },
    ExportTable {
        kind: "agent",
        columns: &[
            ("name", Column::Text, false),
            ("serials", Column::Json(json::<Vec<String>>), false),
            (
                "labels",
                Column::Json(json::<BTreeMap<String, String>>),
                false,
            ),
            ("enrolled", Column::Time, false),
            ("revoked", Column::Time, true),
            ("labels_by", Column::Text, true),
            ("heard", Column::Time, true),
        ],
        select: "SELECT name, serials, labels, enrolled, revoked, labels_by, heard FROM agents ORDER BY name",
        insert: "INSERT INTO agents (name, serials, labels, enrolled, revoked, labels_by, heard) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    },
    ExportTable {
        kind: "join-token",
        columns: &[
            ("id", Column::Text, false),
            ("hash", Column::Hash, false),
            ("who", Column::Text, false),
            ("expires", Column::Time, false),
            ("agent", Column::Text, true),
            (
                "labels",
                Column::Json(json::<BTreeMap<String, String>>),
                true,
            ),
        ],
        select: "SELECT id, hash, who, expires, agent, labels FROM join_tokens ORDER BY id",
        insert: "INSERT INTO join_tokens (id, hash, who, expires, agent, labels) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    },
    ExportTable {
        kind: "api-token",
        columns: &[
            ("id", Column::Text, false),
            ("hash", Column::Hash, false),
            ("name", Column::Text, false),
            ("role", Column::Word(word::<Role>), false),
            ("created", Column::Time, false),
            ("expires", Column::Time, true),
            ("revoked", Column::Time, true),
            ("person", Column::Text, true),
            ("teams", Column::Json(json::<BTreeSet<String>>), true),
            ("origin", Column::Word(word::<TokenOrigin>), true),
            ("blind", Column::Word(|word| word == "yes"), true),
        ],
        select: "SELECT id, hash, name, role, created, expires, revoked, person, teams, origin, blind FROM api_tokens ORDER BY id",
        insert: "INSERT INTO api_tokens (id, hash, name, role, created, expires, revoked, person, teams, origin, blind) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    },
    ExportTable {
        kind: "owner",
        columns: &[
            ("what", Column::Word(word::<OwnedKind>), false),
            ("id", Column::Text, false),
            ("teams", Column::Json(json::<BTreeSet<String>>), false),
        ],
        select: "SELECT what, id, teams FROM owners ORDER BY what, id",
        insert: "INSERT INTO owners (what, id, teams) VALUES (?1, ?2, ?3)",
    },
    ExportTable {
        kind: "setting",
        columns: &[
            ("name", Column::Text, false),
            ("value", Column::Json(json::<serde_json::Value>), false),
        ],
        select: "SELECT name, value FROM settings ORDER BY name",
        insert: "INSERT INTO settings (name, value) VALUES (?1, ?2)",
    },
    ExportTable {
        kind: "audit",
        columns: &[
            ("number", Column::Number, false),
            ("at", Column::Time, false),
            ("who", Column::Text, false),
            ("role", Column::Word(word::<Role>), true),
            ("what", Column::Text, false),
            ("about", Column::Text, false),
            ("outcome", Column::Text, false),
            ("detail", Column::Json(json::<serde_json::Value>), false),
            ("previous", Column::Hash, false),
            ("hash", Column::Hash, false),
        ],
        select: "SELECT number, at, who, role, what, about, outcome, detail, previous, hash FROM audit ORDER BY number",
        insert: "INSERT INTO audit (number, at, who, role, what, about, outcome, detail, previous, hash) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    },
];

/// Writes everything. The caller has begun to read, so that it is of one moment.
pub(super) fn export(
    connection: &Connection,
    to: &mut dyn Write,
    with_secrets: bool,
) -> Result<(), StoreError> {
    let unwritten = |error: std::io::Error| {
        StoreError::new(StoreErrorKind::Io, "the export can't be written").caused_by(error)
    };
    writeln!(to, r#"{{"kind":"{HEADER}","format":{FORMAT}}}"#).map_err(unwritten)?;
    let mut records = 0_u64;
    let mut line = String::new();
    let tables = TABLES
        .iter()
        .filter(|table| with_secrets || table.kind != SECRETS);
    for table in tables {
        let mut statement = connection.prepare(table.select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            line.clear();
            write_line(&mut line, table, row)?;
            to.write_all(line.as_bytes()).map_err(unwritten)?;
            records += 1;
        }
    }
    writeln!(to, r#"{{"kind":"{END}","records":{records}}}"#).map_err(unwritten)?;
    to.flush().map_err(unwritten)
}

/// A record. What is null is left out.
fn write_line(line: &mut String, table: &ExportTable, row: &Row<'_>) -> Result<(), StoreError> {
    line.push_str(r#"{"kind":""#);
    line.push_str(table.kind);
    line.push('"');
    for (index, (name, column, _)) in table.columns.iter().enumerate() {
        let value = row.get_ref(index)?;
        if value == ValueRef::Null {
            continue;
        }
        line.push_str(&format!(r#","{name}":"#));
        match (column, value) {
            (Column::Number, ValueRef::Integer(number)) => line.push_str(&number.to_string()),
            (Column::Json(_), value) => {
                let text = value.as_str().map_err(rusqlite::Error::from)?;
                // A line is one line whatever somebody did to the file.
                let whole = json::<serde_json::Value>(text);
                whole.map_err(|error| StoreError::unreadable("a column of JSON", error))?;
                line.push_str(&text.replace(['\n', '\r'], " "));
            }
            (_, value) => {
                let text = value.as_str().map_err(rusqlite::Error::from)?;
                line.push_str(&serde_json::Value::from(text).to_string());
            }
        }
    }
    line.push_str("}\n");
    Ok(())
}

/// Takes in everything, in one transaction, into a store that has nothing.
pub(super) fn import(
    connection: &mut Connection,
    from: &mut dyn BufRead,
) -> Result<u64, ImportError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(StoreError::from)?;
    for table in TABLES {
        if transaction
            .prepare(table.select)
            .and_then(|mut statement| statement.exists([]))
            .map_err(StoreError::from)?
        {
            return Err(StoreError::conflict("the store is not empty")
                .hint("import into a folder that has no store yet")
                .into());
        }
    }
    let mut import = Import {
        connection: &transaction,
        problems: Vec::new(),
        line: 0,
        records: 0,
        ended: false,
    };
    import.lines(from)?;
    if import.problems.is_empty() {
        import.check_gaps()?;
        import.check_audit_log()?;
        // An export of an earlier version has them in its documents.
        experiments::separate_secrets(&transaction)?;
        (transaction.execute_batch(APPROVALS_OF_VERSION_1)).map_err(StoreError::from)?;
    }
    let (problems, records) = (import.problems, import.records);
    if !problems.is_empty() {
        return Err(ImportError::Problems(problems));
    }
    transaction.commit().map_err(StoreError::from)?;
    Ok(records)
}

type Fields = BTreeMap<String, Box<RawValue>>;

struct Import<'a> {
    connection: &'a Connection,
    problems: Vec<LineProblem>,
    line: u64,
    records: u64,
    ended: bool,
}

impl Import<'_> {
    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(LineProblem {
            line: self.line,
            what: what.into(),
        });
    }

    fn lines(&mut self, from: &mut dyn BufRead) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let length = from.read_until(b'\n', &mut bytes).map_err(|error| {
                StoreError::new(StoreErrorKind::Io, "the export cannot be read").caused_by(error)
            })?;
            if length == 0 || self.problems.len() >= MAX_PROBLEMS {
                break;
            }
            self.line += 1;
            match serde_json::from_slice::<Fields>(&bytes) {
                Ok(fields) => match backburn_experiments::json::read_bytes(&bytes) {
                    Ok(_) => self.take(fields)?,
                    Err(problems) => {
                        self.problem(backburn_experiments::json::in_one_line(&problems))
                    }
                },
                Err(error) => self.problem(format!("it is not a JSON object: {error}")),
            }
            if self.line == 1 && !self.problems.is_empty() {
                return Ok(());
            }
        }
        if self.line == 0 {
            self.problem("it is empty");
        } else if !self.ended && self.problems.len() < MAX_PROBLEMS {
            self.problem("the last line is missing: the export was cut short");
        }
        Ok(())
    }

    fn take(&mut self, mut fields: Fields) -> Result<(), StoreError> {
        let kind = fields.remove("kind");
        let kind: String = kind
            .and_then(|kind| serde_json::from_str(kind.get()).ok())
            .unwrap_or_default();
        let mut number = |name| -> Option<u64> {
            let number = fields.remove(name)?;
            serde_json::from_str(number.get()).ok()
        };
        if self.line == 1 {
            match (kind.as_str(), number("format")) {
                (HEADER, Some(1..=FORMAT)) => {}
                (HEADER, Some(format)) => self.problem(format!(
                    "its format is {format}; this program reads formats up to {FORMAT}"
                )),
                _ => self.problem("it is not an export of a store"),
            }
            return Ok(());
        }
        if self.ended {
            self.problem("it comes after the last line");
        } else if kind == END {
            self.ended = true;
            // Lines that could not be imported have problems of their own.
            let records = number("records");
            if records != Some(self.line - 2) {
                self.problem(format!("there are {} records before it", self.line - 2));
            }
        } else if let Some(table) = TABLES.iter().find(|table| table.kind == kind) {
            self.insert(table, fields)?;
        } else {
            self.problem(format!("there is no kind `{kind}`"));
        }
        Ok(())
    }

    fn insert(&mut self, table: &ExportTable, mut fields: Fields) -> Result<(), StoreError> {
        let before = self.problems.len();
        let mut values = Vec::with_capacity(table.columns.len());
        for (name, column, optional) in table.columns {
            match fields.remove(*name) {
                Some(raw) => match value(*column, raw.get()) {
                    Ok(value) => values.push(value),
                    Err(why) => self.problem(format!("`{name}`: {why}")),
                },
                None if *optional => values.push(Value::Null),
                None => self.problem(format!("`{name}` is missing")),
            }
        }
        for name in fields.keys() {
            self.problem(format!("there is no field `{name}`"));
        }
        if self.problems.len() > before {
            return Ok(());
        }
        let inserted = self
            .connection
            .prepare_cached(table.insert)
            .and_then(|mut statement| statement.execute(params_from_iter(values)));
        match inserted.map_err(StoreError::from) {
            Ok(_) => self.records += 1,
            Err(error) if error.kind == StoreErrorKind::Conflict => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                self.problem(format!(
                    "it conflicts with the lines before it: {}",
                    why.unwrap_or_default()
                ));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Checks for gaps, which can only be seen once all lines are imported.
    fn check_gaps(&mut self) -> Result<(), StoreError> {
        let gaps = "SELECT runs.id FROM events JOIN runs ON runs.number = events.run \
            GROUP BY events.run HAVING MAX(events.number) <> COUNT(*)";
        let gaps = super::codec::all(self.connection, gaps, [], |row| row.get::<_, String>(0))?;
        for run in gaps {
            self.problem(format!("events of run `{run}` are missing"));
        }
        let gaps = "SELECT name FROM experiments GROUP BY name HAVING MAX(version) <> COUNT(*)";
        let gaps = super::codec::all(self.connection, gaps, [], |row| row.get::<_, String>(0))?;
        for name in gaps {
            self.problem(format!("versions of experiment `{name}` are missing"));
        }
        Ok(())
    }
}

impl Import<'_> {
    /// Checks the chain of the audit log: an import must not make a log that was altered look like an intact one.
    fn check_audit_log(&mut self) -> Result<(), StoreError> {
        if let Some(broken) = super::run_notes::verify_with_log(self.connection, None)?.broken {
            self.problem(format!(
                "the audit log is broken at entry {}: {}",
                broken.number, broken.why
            ));
        }
        Ok(())
    }
}

/// The value of a column, from its JSON in a line.
fn value(column: Column, raw: &str) -> Result<Value, String> {
    if let Column::Number = column {
        let number: Option<i64> = serde_json::from_str(raw).ok();
        let number = number.filter(|number| *number > 0);
        return number
            .map(Value::Integer)
            .ok_or_else(|| "it must be a positive whole number".into());
    }
    if let Column::Json(check) = column {
        return match check(raw) {
            Ok(()) => Ok(Value::Text(raw.to_owned())),
            Err(error) => Err(error.to_string()),
        };
    }
    let text: String =
        serde_json::from_str(raw).map_err(|_| String::from("it must be a string"))?;
    let (right, must) = match column {
        Column::Time => (
            text.parse::<Timestamp>().is_ok(),
            "a time in RFC 3339 format",
        ),
        Column::Hash => (text.parse::<Hash>().is_ok(), "64 hexadecimal digits"),
        Column::Seed => (text.parse::<u64>().is_ok(), "a 64-bit whole number"),
        Column::Word(known) => (known(&text), "one of the allowed words"),
        Column::Text | Column::Number | Column::Json(_) => (true, "a string"),
    };
    match right {
        true => Ok(Value::Text(text)),
        false => Err(format!("`{text}` must be {must}")),
    }
}
