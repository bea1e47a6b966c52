//! Runs that wait for approval.

use super::codec::{all, change, from_json, json, one, parsed};
use super::runs;
use crate::store::error::StoreError;
use crate::store::records::{ApprovalRecord, WaitingRun};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

pub(super) fn put(connection: &Connection, approval: &ApprovalRecord) -> Result<(), StoreError> {
    let statement = "INSERT INTO approvals (run, person, rule, variables, plan, fingerprint, expires) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let parameters = params![
        approval.run,
        approval.person,
        approval.rule,
        json(&approval.variables)?,
        approval.plan.as_ref().map(json).transpose()?,
        approval.fingerprint,
        approval.expires.to_string(),
    ];
    change(connection, statement, parameters).map(|_| ())
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApprovalRecord> {
    let plan = match row.get_ref("plan")?.as_str_or_null()? {
        Some(_) => Some(from_json(row, "plan")?),
        None => None,
    };
    Ok(ApprovalRecord {
        run: row.get("run")?,
        person: row.get("person")?,
        rule: row.get("rule")?,
        variables: from_json(row, "variables")?,
        plan,
        fingerprint: row.get("fingerprint")?,
        expires: parsed(row, "expires")?,
    })
}

pub(super) fn list(connection: &Connection) -> Result<Vec<WaitingRun>, StoreError> {
    let query = "SELECT approvals.* FROM approvals JOIN runs ON runs.id = approvals.run ORDER BY runs.number";
    let approvals = all(connection, query, [], read)?;
    let waiting = approvals.into_iter().map(|approval| {
        let run = runs::get(connection, &approval.run)?;
        Ok(WaitingRun { run, approval })
    });
    waiting.collect()
}

pub(super) fn replace(
    connection: &Connection,
    approval: &ApprovalRecord,
) -> Result<(), StoreError> {
    match change(
        connection,
        "DELETE FROM approvals WHERE run = ?1",
        [&approval.run],
    )? {
        0 => Err(StoreError::not_found(format!(
            "no run `{}` waits for approval",
            approval.run
        ))),
        _ => put(connection, approval),
    }
}

/// Ends a run's wait, if its plan has this fingerprint.
pub(super) fn take(
    connection: &Connection,
    run: &str,
    fingerprint: Option<&str>,
    at: Timestamp,
) -> Result<Option<WaitingRun>, StoreError> {
    let query = "SELECT * FROM approvals WHERE run = ?1 AND (?2 IS NULL OR fingerprint = ?2)";
    let Some(approval) = one(connection, query, params![run, fingerprint], read)? else {
        return Ok(None);
    };
    change(connection, "DELETE FROM approvals WHERE run = ?1", [run])?;
    let statement = "UPDATE runs SET started = ?2 WHERE id = ?1";
    change(connection, statement, [run, &at.to_string()])?;
    let run = runs::get(connection, run)?;
    Ok(Some(WaitingRun { run, approval }))
}
