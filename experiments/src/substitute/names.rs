//! The names of variables: which a document declares and uses, and which were given.

use super::{LEFT_ALONE, Sources, template};
use crate::Problem;
use crate::problem::{MAX_COMPARED_WORDS, at_key, list_words, nearest};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The most names that a hint lists.
const MAX_LISTED: usize = 12;

/// Adds whatever may be a variable's name in the texts of a value.
pub(super) fn of<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.extend(template::names_in(text)),
        Value::Array(list) => list.iter().for_each(|member| of(member, found)),
        Value::Object(fields) => fields.values().for_each(|member| of(member, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a text of this value has one of these names as a variable.
pub(super) fn any_in(value: &Value, names: &BTreeSet<String>) -> bool {
    match value {
        Value::String(text) => template::names_in(text).any(|name| names.contains(name)),
        Value::Array(list) => list.iter().any(|member| any_in(member, names)),
        Value::Object(fields) => fields.values().any(|member| any_in(member, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Refuses names that no `${…}` can say.
pub(super) fn check_declared(
    configuration: &Map<String, Value>,
    secrets: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) {
    let of_secrets = secrets.iter().filter_map(|(scope, fields)| {
        let fields = fields.as_object()?;
        Some(fields.keys().map(|key| (at_key("$.secrets", scope), key)))
    });
    let names = configuration
        .keys()
        .map(|name| ("$.configuration".to_owned(), name));
    for (at, name) in names.chain(of_secrets.flatten()) {
        if name.is_empty() || name.contains(['$', '{', '}']) {
            problems.push(
                Problem::new(at_key(&at, name), "no `${…}` can say this name")
                    .hint("a name has at least one character, and no `$`, `{` or `}`"),
            );
        }
    }
}

/// Refuses given values that nothing in the document asks for: the name is mistyped, or the value
/// is for another document.
pub(super) fn check_given(document: &Value, sources: &Sources, problems: &mut Vec<Problem>) {
    if sources.variables.is_empty() && sources.secrets.is_empty() {
        return;
    }
    let keys = |section: &str| {
        let fields = document.get(section).and_then(Value::as_object);
        fields.into_iter().flat_map(Map::keys).map(String::as_str)
    };
    let mut used = Vec::new();
    let mut scopes = Vec::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        if key == "configuration" || !LEFT_ALONE.contains(&key.as_str()) {
            of(value, &mut used);
            scopes_in(value, &mut scopes);
        }
    }
    let used: BTreeSet<&str> = used.into_iter().collect();
    let known: BTreeSet<&str> = keys("configuration").chain(used.iter().copied()).collect();
    for name in sources.variables.keys() {
        if !known.contains(name.as_str()) {
            problems.push(unknown("--var", name, "variable", &known));
        }
    }
    let scopes: BTreeSet<&str> = keys("secrets").chain(scopes).collect();
    for (scope, fields) in sources.secrets {
        let mut fields = fields.as_object().into_iter().flat_map(Map::keys);
        if !scopes.contains(scope.as_str()) && !fields.any(|key| used.contains(key.as_str())) {
            problems.push(unknown(
                "--var-file secrets",
                scope,
                "scope of secrets",
                &scopes,
            ));
        }
    }
}

/// Adds the scopes that activities and providers name in their `secrets`.
fn scopes_in<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|member| scopes_in(member, found)),
        Value::Object(fields) => {
            for (key, member) in fields {
                match (key.as_str(), member) {
                    ("secrets", Value::Array(names)) => {
                        found.extend(names.iter().filter_map(Value::as_str));
                    }
                    ("secrets", Value::String(name)) => found.push(name),
                    _ => scopes_in(member, found),
                }
            }
        }
        _ => {}
    }
}

fn unknown(whence: &str, name: &str, what: &str, known: &BTreeSet<&str>) -> Problem {
    let problem = Problem::new(
        format!("{whence} {name}"),
        format!("the experiment has no {what} `{name}`"),
    );
    let names: Vec<&str> = known.iter().copied().take(MAX_COMPARED_WORDS).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => problem.hint(format!("it has no {what} at all")),
        None if names.len() > MAX_LISTED => problem,
        None => problem.hint(format!("there are {}", list_words(&names))),
    }
}
