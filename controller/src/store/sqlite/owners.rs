//! The teams that experiments and runs belong to.

use super::codec::{change, from_json, json, one, word};
use crate::store::error::StoreError;
use crate::store::records::OwnedKind;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

pub(super) fn put(
    connection: &Connection,
    kind: OwnedKind,
    id: &str,
    teams: &BTreeSet<String>,
) -> Result<(), StoreError> {
    let statement = "INSERT OR REPLACE INTO owners (what, id, teams) VALUES (?1, ?2, ?3)";
    change(
        connection,
        statement,
        params![word(&kind)?, id, json(teams)?],
    )
    .map(|_| ())
}

pub(super) fn get(
    connection: &Connection,
    kind: OwnedKind,
    id: &str,
) -> Result<BTreeSet<String>, StoreError> {
    let query = "SELECT teams FROM owners WHERE what = ?1 AND id = ?2";
    let teams = one(connection, query, params![word(&kind)?, id], |row| {
        from_json(row, "teams")
    })?;
    Ok(teams.unwrap_or_default())
}
