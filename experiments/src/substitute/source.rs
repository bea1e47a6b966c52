//! Where a document's values come from: the environment, files, or the document itself.

use super::Sources;
use crate::Problem;
use crate::chaostoolkit::convert;
use crate::problem::at_key;
use serde_json::{Map, Value};

/// The `type` of something that says where a value is found.
pub(super) fn is_source(written: &Value) -> Option<&str> {
    let kind = written.get("type")?.as_str()?;
    ["env", "file", "vault", "probe"]
        .contains(&kind)
        .then_some(kind)
}

/// Whether the host that fills this in would read its environment or a file for it.
pub(super) fn is_read(written: &Value) -> bool {
    match is_source(written) {
        Some("env") => true,
        Some("file") => written.get("path").is_some(),
        _ => false,
    }
}

/// Whether this value was found in the environment or in a file, and is not the document's own default.
pub(super) fn is_found(value: &Value, written: &Value, sources: &Sources) -> bool {
    let key = || written.get("key").and_then(Value::as_str);
    match is_source(written) {
        Some("env") => {
            key().is_none_or(|key| key.contains('$') || (sources.environment)(key).is_some())
        }
        Some("file") => value.is_string(),
        _ => false,
    }
}

/// That a given variable has the shape of a source.
pub(super) fn not_in_a_variable(at: &str) -> Problem {
    let what = "a variable is data, and this says where a value is to be read";
    Problem::new(at, what).hint(
        "give the value itself, or write the source into the document's `configuration` or `secrets`",
    )
}

pub(super) fn resolve_one(
    written: &Value,
    sources: &Sources,
    at: &str,
    secret: bool,
    problems: &mut Vec<Problem>,
) -> Value {
    let Value::Object(fields) = written else {
        return written.clone();
    };
    let found = match is_source(written) {
        Some("env") => from_environment(fields, sources, at),
        Some("file") if fields.contains_key("path") || secret => from_file(fields, sources, at),
        Some("probe") if !secret => Err(Problem::new(
            at,
            "a configuration that a probe finds out is not supported",
        )
        .hint(
            "find the value out before, and hand it over with `--var` or `{\"type\": \"env\", …}`",
        )),
        Some("vault") if secret => Err(Problem::new(at, "secrets in Vault are not supported")
            .hint(
                "hand the secret over with `{\"type\": \"env\", …}` or `{\"type\": \"file\", …}`",
            )),
        // The toolkit looks for secrets in objects within objects, too.
        None if secret => {
            let inner = fields.iter().map(|(key, written)| {
                (
                    key.clone(),
                    resolve_one(written, sources, &at_key(at, key), true, problems),
                )
            });
            Ok(Value::Object(inner.collect()))
        }
        _ => Ok(written.clone()),
    };
    found.unwrap_or_else(|problem| {
        problems.push(problem);
        Value::Null
    })
}

fn named<'f>(fields: &'f Map<String, Value>, key: &str, at: &str) -> Result<&'f str, Problem> {
    match fields.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(Problem::new(at_key(at, key), "a name is wanted, as text")),
        None => Err(Problem::new(at, format!("`{key}` is missing"))),
    }
}

fn from_environment(
    fields: &Map<String, Value>,
    sources: &Sources,
    at: &str,
) -> Result<Value, Problem> {
    let key = named(fields, "key", at)?;
    let kind = fields
        .get("env_var_type")
        .and_then(Value::as_str)
        .unwrap_or("str");
    let value = match (sources.environment)(key) {
        Some(text) => Value::String(text),
        None => fields.get("default").cloned().ok_or_else(|| {
            Problem::new(at, format!("the environment variable `{key}` is not set"))
                .hint(format!("set `{key}`, or give a `default`"))
        })?,
    };
    // The value itself stays out of the message: it may be a secret.
    convert(kind, value).ok_or_else(|| {
        Problem::new(
            at,
            format!("the value of the environment variable `{key}` is no `{kind}`"),
        )
    })
}

fn from_file(fields: &Map<String, Value>, sources: &Sources, at: &str) -> Result<Value, Problem> {
    let path = named(fields, "path", at)?;
    let text = (sources.file)(path).map_err(|why| {
        Problem::new(
            at_key(at, "path"),
            format!("`{path}` could not be read: {why}"),
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Value::String(
        text.strip_suffix('\r').unwrap_or(text).to_owned(),
    ))
}
