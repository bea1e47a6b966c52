//! Faults that are aimed at agents: `@db`, or `@db:5432`, in a fault's arguments means the addresses of the agents that
//! were picked for the target `db`. Each stands where it was written, in the order of the agents' names, so that the
//! members of a partition come in the same order for all of them.

use backburn_experiments::labels::{ADDRESS, Labels};
use backburn_experiments::select::Picked;
use backburn_experiments::wire::Refusal;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The targets that are aimed at.
pub(super) fn aimed(arguments: &Map<String, Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    arguments.values().for_each(|value| look(value, &mut found));
    found
}

fn look(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => found.extend(target(text).map(|(name, _)| name.to_owned())),
        Value::Array(list) => list.iter().for_each(|value| look(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| look(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The target of `@db:5432`, and what comes after it.
fn target(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('@')?;
    let end = text.find(':').unwrap_or(text.len());
    Some(text.split_at(end))
}

/// The arguments with addresses in place, for the agent `hit` that acts.
///
/// # Errors
/// An agent that is aimed at has no address that means its host to the agent that acts.
pub(super) fn addressed(
    arguments: &Map<String, Value>,
    picks: &BTreeMap<String, Picked>,
    inventory: &[(String, Labels)],
    hit: &str,
) -> Result<Map<String, Value>, Refusal> {
    let mut done = Map::new();
    for (key, value) in arguments {
        done.insert(key.clone(), put(value, picks, inventory, hit)?);
    }
    Ok(done)
}

fn put(
    value: &Value,
    picks: &BTreeMap<String, Picked>,
    inventory: &[(String, Labels)],
    hit: &str,
) -> Result<Value, Refusal> {
    Ok(match value {
        Value::String(text) => match addresses(text, picks, inventory, hit)? {
            Some(all) => all.into(),
            None => value.clone(),
        },
        Value::Array(list) => {
            let mut whole = Vec::new();
            for value in list {
                match value
                    .as_str()
                    .map(|text| addresses(text, picks, inventory, hit))
                {
                    Some(all) => match all? {
                        // In their place, beside what else stands there.
                        Some(all) => whole.extend(all.into_iter().map(Value::from)),
                        None => whole.push(value.clone()),
                    },
                    None => whole.push(put(value, picks, inventory, hit)?),
                }
            }
            whole.into()
        }
        Value::Object(fields) => addressed(fields, picks, inventory, hit)?.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

fn addresses(
    text: &str,
    picks: &BTreeMap<String, Picked>,
    inventory: &[(String, Labels)],
    hit: &str,
) -> Result<Option<Vec<String>>, Refusal> {
    let Some((name, port)) = target(text) else {
        return Ok(None);
    };
    let Some(picked) = picks.get(name) else {
        return Ok(None);
    };
    let mut all = Vec::new();
    for agent in &picked.picked {
        let Some(address) = address_of(agent, inventory) else {
            let what = format!("agent `{agent}` of the target `{name}` has no address");
            return Err(Refusal::new("no-match", what).hint(format!(
                "an admin gives it one: `backburn agents label {agent} {ADDRESS}=…`"
            )));
        };
        if is_loopback(address) && !address_of(hit, inventory).is_some_and(is_loopback) {
            let what = format!(
                "agent `{agent}` of the target `{name}` connects from {address}, which means another host to agent `{hit}`"
            );
            return Err(Refusal::new("no-match", what).hint(format!(
                "an admin gives it the address under which other hosts reach it: `backburn agents label {agent} {ADDRESS}=…`"
            )));
        }
        all.push(match address.contains(':') && !port.is_empty() {
            true => format!("[{address}]{port}"),
            false => format!("{address}{port}"),
        });
    }
    Ok(Some(all))
}

fn address_of<'a>(agent: &str, inventory: &'a [(String, Labels)]) -> Option<&'a str> {
    let (_, labels) = inventory.iter().find(|(name, _)| name == agent)?;
    labels.get(ADDRESS).map(String::as_str)
}

/// Whether an address means each host itself.
fn is_loopback(address: &str) -> bool {
    let address = address.parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn agents_are_put_where_their_target_stands() {
        let labels = |address: &str| [(ADDRESS.to_owned(), address.to_owned())].into();
        let inventory: Vec<(String, Labels)> = vec![
            ("a".into(), labels("10.0.0.1")),
            ("b".into(), labels("fd00::2")),
            ("c".into(), BTreeMap::new()),
        ];
        let picked = |names: &[&str]| Picked {
            matched: Vec::new(),
            picked: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let picks = [
            ("db".to_owned(), picked(&["a", "b"])),
            ("lost".to_owned(), picked(&["c"])),
        ]
        .into();
        let arguments = json!({
            "to": "@db:5432", "ports": [80, "@db"], "x": {"members": ["10.9.9.9", "@db"]},
            "mail": "me@db", "other": "@nobody",
        });
        let arguments = arguments.as_object().unwrap();
        assert_eq!(aimed(arguments), ["db", "nobody"].map(str::to_owned).into());
        let done = addressed(arguments, &picks, &inventory, "a").unwrap();
        assert_eq!(
            Value::from(done),
            json!({
                "to": ["10.0.0.1:5432", "[fd00::2]:5432"], "ports": [80, "10.0.0.1", "fd00::2"],
                "x": {"members": ["10.9.9.9", "10.0.0.1", "fd00::2"]},
                "mail": "me@db", "other": "@nobody",
            })
        );
        let lost = json!({"to": "@lost"});
        let refusal = addressed(lost.as_object().unwrap(), &picks, &inventory, "a").unwrap_err();
        assert_eq!(refusal.rule, "no-match");
    }

    #[test]
    fn loopback_address_of_another_host_is_refused() {
        let labels = |address: &str| [(ADDRESS.to_owned(), address.to_owned())].into();
        let inventory: Vec<(String, Labels)> = vec![
            ("here".into(), labels("127.0.0.1")),
            ("also-here".into(), labels("127.0.0.1")),
            ("far".into(), labels("10.0.0.7")),
        ];
        let picked = Picked {
            matched: Vec::new(),
            picked: vec!["here".to_owned()],
        };
        let picks = [("db".to_owned(), picked)].into();
        let aimed = json!({"to": "@db"});
        let aimed = aimed.as_object().unwrap();
        let done = addressed(aimed, &picks, &inventory, "also-here").unwrap();
        assert_eq!(Value::from(done), json!({"to": ["127.0.0.1"]}));
        let refusal = addressed(aimed, &picks, &inventory, "far").unwrap_err();
        assert!(refusal.what.contains("another host"), "{refusal}");
    }
}
