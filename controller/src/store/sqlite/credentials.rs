//! Agents, join tokens and API tokens.

use super::codec::{
    all, change, from_json, from_json_or_default, from_word, from_word_or_none, json, one, parsed,
    parsed_or_none, word,
};
use crate::store::error::StoreError;
use crate::store::records::{
    ApiTokenRecord, EnrolledAgent, Hash, JoinTokenRecord, Role, TokenOrigin,
};
use backburn_experiments::labels::{ADDRESS, Labels, is_fact};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;

fn not_found(what: &str, name: &str) -> StoreError {
    StoreError::not_found(format!("there is no {what} `{name}`"))
}

fn found_or(rows: usize, what: &str, name: &str) -> Result<(), StoreError> {
    match rows {
        0 => Err(not_found(what, name)),
        _ => Ok(()),
    }
}

fn inserted_or(inserted: usize, what: &str, name: &str) -> Result<(), StoreError> {
    match inserted {
        0 => Err(StoreError::conflict(format!(
            "there already is {what} `{name}`"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn put_agent(connection: &Connection, agent: &EnrolledAgent) -> Result<(), StoreError> {
    let statement = "INSERT OR REPLACE INTO agents (name, serials, labels, enrolled, revoked, labels_by, heard) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let parameters = params![
        agent.name,
        json(&agent.serials)?,
        json(&agent.labels)?,
        agent.enrolled.to_string(),
        agent.revoked.map(|at| at.to_string()),
        agent.labels_by,
        agent.heard.map(|at| at.to_string()),
    ];
    change(connection, statement, parameters).map(|_| ())
}

fn read_agent(row: &Row<'_>) -> rusqlite::Result<EnrolledAgent> {
    let labels_by: Option<String> = row.get("labels_by")?;
    let mut labels: Labels = from_json(row, "labels")?;
    if labels_by.is_none() {
        // Facts and the address of the day on which it joined. Its link tells what they are today.
        labels.retain(|name, _| !is_fact(name) && name != ADDRESS);
    }
    Ok(EnrolledAgent {
        name: row.get("name")?,
        serials: from_json(row, "serials")?,
        labels,
        labels_by,
        enrolled: parsed(row, "enrolled")?,
        revoked: parsed_or_none(row, "revoked")?,
        heard: parsed_or_none(row, "heard")?,
    })
}

pub(super) fn agents_heard(
    connection: &Connection,
    heard: &BTreeMap<String, Timestamp>,
) -> Result<(), StoreError> {
    // All times are written in the same form, in UTC: a later one is a greater text, up to fractions of a second.
    let statement =
        "UPDATE agents SET heard = ?2 WHERE name = ?1 AND (heard IS NULL OR heard < ?2)";
    for (name, at) in heard {
        change(connection, statement, [name, &at.to_string()])?;
    }
    Ok(())
}

pub(super) fn agent(connection: &Connection, name: &str) -> Result<EnrolledAgent, StoreError> {
    let query = "SELECT * FROM agents WHERE name = ?1";
    one(connection, query, [name], read_agent)?.ok_or_else(|| not_found("agent", name))
}

pub(super) fn agents(
    connection: &Connection,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<EnrolledAgent>, StoreError> {
    let query = "SELECT * FROM agents WHERE name > COALESCE(?1, '') ORDER BY name LIMIT ?2";
    all(connection, query, params![after, limit], read_agent)
}

pub(super) fn revoke_agent(
    connection: &Connection,
    name: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let statement = "UPDATE agents SET revoked = COALESCE(revoked, ?2) WHERE name = ?1";
    found_or(
        change(connection, statement, [name, &at.to_string()])?,
        "agent",
        name,
    )
}

pub(super) fn put_join_token(
    connection: &Connection,
    token: &JoinTokenRecord,
) -> Result<(), StoreError> {
    let statement = "INSERT INTO join_tokens (id, hash, who, expires, agent, labels) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    let parameters = params![
        token.id,
        token.hash.to_string(),
        token.who,
        token.expires.to_string(),
        token.agent,
        json(&token.labels)?,
    ];
    inserted_or(
        change(connection, statement, parameters)?,
        "a join token",
        &token.id,
    )
}

fn read_join_token(row: &Row<'_>) -> rusqlite::Result<JoinTokenRecord> {
    Ok(JoinTokenRecord {
        id: row.get("id")?,
        hash: parsed(row, "hash")?,
        who: row.get("who")?,
        expires: parsed(row, "expires")?,
        agent: row.get("agent")?,
        labels: from_json_or_default(row, "labels")?,
    })
}

pub(super) fn take_join_token(
    connection: &Connection,
    id: &str,
    secret: &Hash,
    now: Timestamp,
) -> Result<JoinTokenRecord, StoreError> {
    let query = "SELECT * FROM join_tokens WHERE id = ?1";
    // Hashes are compared: the time until they differ reveals nothing about the secret.
    let token = one(connection, query, [id], read_join_token)?
        .filter(|token| token.hash == *secret && now < token.expires)
        .ok_or_else(|| {
            StoreError::not_found("the join token is not valid")
                .hint("a join token can be used once, and expires: create a new one")
        })?;
    remove_join_token(connection, id)?;
    Ok(token)
}

pub(super) fn join_tokens(connection: &Connection) -> Result<Vec<JoinTokenRecord>, StoreError> {
    all(
        connection,
        "SELECT * FROM join_tokens ORDER BY id",
        [],
        read_join_token,
    )
}

pub(super) fn remove_join_token(connection: &Connection, id: &str) -> Result<(), StoreError> {
    let rows = change(connection, "DELETE FROM join_tokens WHERE id = ?1", [id])?;
    found_or(rows, "join token", id)
}

pub(super) fn put_api_token(
    connection: &Connection,
    token: &ApiTokenRecord,
) -> Result<(), StoreError> {
    let statement = "INSERT INTO api_tokens (id, hash, name, role, created, expires, revoked, person, teams, origin, blind) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING";
    let parameters = params![
        token.id,
        token.hash.to_string(),
        token.name,
        word(&token.role)?,
        token.created.to_string(),
        token.expires.map(|at| at.to_string()),
        token.revoked.map(|at| at.to_string()),
        token.person,
        json(&token.teams)?,
        word(&token.origin)?,
        token.is_blind.then_some("yes"),
    ];
    inserted_or(
        change(connection, statement, parameters)?,
        "an API token",
        &token.id,
    )
}

fn read_api_token(row: &Row<'_>) -> rusqlite::Result<ApiTokenRecord> {
    let name: String = row.get("name")?;
    let person: Option<String> = row.get("person")?;
    Ok(ApiTokenRecord {
        id: row.get("id")?,
        hash: parsed(row, "hash")?,
        person: person.unwrap_or_else(|| name.clone()),
        name,
        teams: from_json_or_default(row, "teams")?,
        origin: from_word_or_none(row, "origin")?.unwrap_or_default(),
        role: from_word(row, "role")?,
        is_blind: row.get::<_, Option<String>>("blind")?.is_some(),
        created: parsed(row, "created")?,
        expires: parsed_or_none(row, "expires")?,
        revoked: parsed_or_none(row, "revoked")?,
    })
}

pub(super) fn api_token(connection: &Connection, id: &str) -> Result<ApiTokenRecord, StoreError> {
    let query = "SELECT * FROM api_tokens WHERE id = ?1";
    one(connection, query, [id], read_api_token)?.ok_or_else(|| not_found("API token", id))
}

pub(super) fn api_tokens(connection: &Connection) -> Result<Vec<ApiTokenRecord>, StoreError> {
    all(
        connection,
        "SELECT * FROM api_tokens ORDER BY id",
        [],
        read_api_token,
    )
}

pub(super) fn revoke_api_token(
    connection: &Connection,
    id: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    keep_an_admin(connection, at, |token| token.id == id)?;
    let statement = "UPDATE api_tokens SET revoked = COALESCE(revoked, ?2) WHERE id = ?1";
    found_or(
        change(connection, statement, [id, &at.to_string()])?,
        "API token",
        id,
    )
}

pub(super) fn revoke_person(
    connection: &Connection,
    person: &str,
    at: Timestamp,
) -> Result<Vec<String>, StoreError> {
    keep_an_admin(connection, at, |token| token.person == person)?;
    let theirs = api_tokens(connection)?.into_iter();
    let theirs: Vec<_> = theirs.filter(|token| token.person == person).collect();
    if theirs.is_empty() {
        return Err(not_found("person with a token called", person));
    }
    let valid = theirs.into_iter().filter(|token| token.is_valid(at));
    let valid: Vec<String> = valid.map(|token| token.id).collect();
    let statement =
        "UPDATE api_tokens SET revoked = COALESCE(revoked, ?2) WHERE COALESCE(person, name) = ?1";
    change(connection, statement, [person, &at.to_string()])?;
    Ok(valid)
}

/// Refuses to revoke these tokens if no admin would be left who could make others. Tokens of log-ins do not count: the identity
/// provider may not be there tomorrow.
fn keep_an_admin(
    connection: &Connection,
    at: Timestamp,
    is_revoked: impl Fn(&ApiTokenRecord) -> bool,
) -> Result<(), StoreError> {
    let admins = api_tokens(connection)?.into_iter().filter(|token| {
        token.role == Role::Admin && token.origin != TokenOrigin::Login && token.is_valid(at)
    });
    let (going, staying): (Vec<_>, Vec<_>) = admins.partition(|token| is_revoked(token));
    match (going.first(), staying.is_empty()) {
        (Some(last), true) => Err(StoreError::conflict(format!(
            "without token `{}` nobody has the role `admin`",
            last.name
        ))
        .hint("make another one first: `backburn tokens make NAME --role admin`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_of_a_store_before_labels_were_granted_keeps_what_it_said_without_facts() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("1.sql")).unwrap();
        let old = r#"INSERT INTO agents VALUES ('a', '["01"]',
            '{"role": "db", "host": "db-1", "kernel": "6.1", "address": "10.0.0.0/8"}', '2026-01-01T00:00:00Z', NULL)"#;
        connection.execute_batch(old).unwrap();
        connection
            .execute_batch("INSERT INTO join_tokens VALUES ('t', printf('%064d', 1), 'ada', '2026-01-01T00:00:00Z', NULL)")
            .unwrap();
        for step in [include_str!("3.sql"), include_str!("7.sql")] {
            connection.execute_batch(step).unwrap();
        }
        let mut kept = agent(&connection, "a").unwrap();
        assert_eq!(kept.labels, [("role".to_owned(), "db".to_owned())].into());
        assert_eq!(kept.labels_by, None, "nobody has granted them");
        assert!(join_tokens(&connection).unwrap()[0].labels.is_empty());
        // Once an admin has granted labels, a fact's name is a label as any other.
        kept.labels.insert("host".into(), "db-1".into());
        kept.labels_by = Some("ada".into());
        put_agent(&connection, &kept).unwrap();
        assert_eq!(agent(&connection, "a").unwrap(), kept);
    }
}
