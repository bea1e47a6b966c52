//! The changes of actions.

use super::codec::{all, change, from_json, json, one, parsed};
use crate::store::error::StoreError;
use crate::store::records::{ActionChange, ActionChangeEntry};
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// Appends a change. Without an action it is the first one of a new action. Returns its number.
pub(super) fn append(
    connection: &Connection,
    action: Option<u64>,
    at: Timestamp,
    who: &str,
    changed: &ActionChange,
) -> Result<u64, StoreError> {
    let query = "SELECT 1 + COALESCE(MAX(number), 0) FROM action_changes";
    let number: u64 = one(connection, query, [], |row| row.get(0))?.unwrap_or(1);
    let statement =
        "INSERT INTO action_changes (number, action, at, who, change) VALUES (?1, ?2, ?3, ?4, ?5)";
    let parameters = params![
        number,
        action.unwrap_or(number),
        at.to_string(),
        who,
        json(changed)?
    ];
    change(connection, statement, parameters)?;
    Ok(number)
}

/// All changes, oldest first.
pub(super) fn list(connection: &Connection) -> Result<Vec<ActionChangeEntry>, StoreError> {
    let query = "SELECT * FROM action_changes ORDER BY number";
    all(connection, query, [], |row| {
        Ok(ActionChangeEntry {
            number: row.get("number")?,
            action: row.get("action")?,
            at: parsed(row, "at")?,
            who: row.get("who")?,
            change: from_json(row, "change")?,
        })
    })
}
