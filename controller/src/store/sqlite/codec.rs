//! Encoding and decoding of columns. A text that cannot be decoded means that the store is damaged.

use crate::store::error::StoreError;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::str::FromStr;

/// Encodes a value as JSON on one line.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::conflict("it cannot be written as JSON").caused_by(error))
}

/// Encodes a value that is a single JSON string (an outcome, a role, a reason) without the quotes.
pub(super) fn word(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

fn wrong(column: &str, why: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    tracing::warn!(column, %why, "a column of the store could not be decoded");
    rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Text,
        Box::new(FromSqlError::Other(Box::new(why))),
    )
}

/// Decodes a column of JSON.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| wrong(column, error))
}

/// Decodes a column of JSON that may be null, which means the default.
pub(super) fn from_json_or_default<T: DeserializeOwned + Default>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(_) => from_json(row, column),
        None => Ok(T::default()),
    }
}

/// Decodes a column that is a single word.
pub(super) fn from_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_value(row.get_ref(column)?.as_str()?.into())
        .map_err(|error| wrong(column, error))
}

/// Decodes a column that is a single word or null.
pub(super) fn from_word_or_none<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(_) => from_word(row, column).map(Some),
        None => Ok(None),
    }
}

/// Parses a column's text: a time, a hash, or a 64-bit number.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| wrong(column, error))
}

/// Parses a column's text, which may be null.
pub(super) fn parsed_or_none<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    match row.get_ref(column)?.as_str_or_null()? {
        Some(_) => parsed(row, column).map(Some),
        None => Ok(None),
    }
}

/// Returns all rows that a query finds.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(parameters, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the first row that a query finds, if any.
pub(super) fn one<T>(
    connection: &Connection,
    query: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    match statement.query_row(parameters, read) {
        Ok(found) => Ok(Some(found)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Executes a statement that changes rows. Returns their number.
pub(super) fn change(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(statement)?.execute(parameters)?)
}
