//! Puts configured values in place: `${name}` becomes the configuration's value of that name, or
//! the secret's. The rules are the Chaos Toolkit's (Python's `string.Template`), but a variable
//! that is missing is a problem here, where it stays as it is there.
//!
//! Environment and files come in as closures: this crate does no I/O.

use crate::Problem;
use crate::problem::{at_index, at_key, list_words, nearest};
use serde_json::{Map, Value};

/// Where configured values come from, besides the document.
pub struct Sources<'a> {
    /// An environment variable's value.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// A file's content, or why it could not be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// From `--var` and `--var-file`; they go before the document's configuration.
    pub variables: &'a Map<String, Value>,
    /// From `--var-file`, by scope; a scope takes the place of the document's.
    pub secrets: &'a Map<String, Value>,
}

/// What `${name}` can stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// The configuration, resolved.
    pub configuration: Map<String, Value>,
    /// The secrets, resolved: scope, key, value.
    pub secrets: Map<String, Value>,
}

impl Values {
    /// The value of a name: the configuration's first, then the secrets' scopes in their order.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.configuration.get(name).or_else(|| {
            self.secrets
                .values()
                .find_map(|scope| scope.as_object()?.get(name))
        })
    }

    /// Every name there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let secrets = self
            .secrets
            .values()
            .filter_map(Value::as_object)
            .flat_map(Map::keys);
        self.configuration.keys().chain(secrets).map(String::as_str)
    }

    fn is_empty(&self) -> bool {
        self.names().next().is_none()
    }
}

/// What a document's `configuration` and `secrets` come to.
pub fn resolve(document: &Value, sources: &Sources, problems: &mut Vec<Problem>) -> Values {
    let mut values = Values::default();
    let empty = Map::new();
    let section = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_object)
            .unwrap_or(&empty)
    };
    for (name, written) in section("configuration") {
        let written = sources.variables.get(name).unwrap_or(written);
        let at = at_key("$.configuration", name);
        values.configuration.insert(
            name.clone(),
            resolve_one(written, sources, &at, false, problems),
        );
    }
    for (name, written) in sources.variables {
        if !values.configuration.contains_key(name) {
            let value = resolve_one(written, sources, &format!("--var {name}"), false, problems);
            values.configuration.insert(name.clone(), value);
        }
    }
    let scopes = section("secrets")
        .iter()
        .filter(|(scope, _)| !sources.secrets.contains_key(*scope));
    for (scope, written) in scopes.chain(sources.secrets) {
        let at = at_key("$.secrets", scope);
        if is_source(written).is_some() {
            problems.push(
                Problem::new(at, "a scope of secrets is not itself a secret")
                    .hint(format!("write `{{\"{scope}\": {{\"name\": …}}}}`")),
            );
            continue;
        }
        values.secrets.insert(
            scope.clone(),
            resolve_one(written, sources, &at, true, problems),
        );
    }
    values
}

/// The `type` of something that says where a value is found.
fn is_source(written: &Value) -> Option<&str> {
    let kind = written.get("type")?.as_str()?;
    ["env", "file", "vault", "probe"]
        .contains(&kind)
        .then_some(kind)
}

fn resolve_one(
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

/// What an environment variable's text becomes, as the Chaos Toolkit converts it; a default is
/// converted as well. None where it cannot be.
pub fn convert(kind: &str, value: Value) -> Option<Value> {
    let text = value.as_str().map(|text| text.trim().replace('_', ""));
    match (kind, &value) {
        ("str" | "string" | "bytes", _) => Some(value),
        ("int" | "integer", Value::String(_)) => text?.parse::<i64>().ok().map(Value::from),
        ("int" | "integer", Value::Bool(flag)) => Some(Value::from(i64::from(*flag))),
        ("int" | "integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => Some(Value::from(whole)),
            None => number
                .as_f64()
                .filter(|float| float.abs() < 9e15)
                .map(|float| Value::from(float as i64)),
        },
        ("float" | "number", Value::String(_)) => text?.parse::<f64>().ok().and_then(finite),
        ("float" | "number", Value::Bool(flag)) => finite(f64::from(u8::from(*flag))),
        ("float" | "number", Value::Number(number)) => number.as_f64().and_then(finite),
        ("bool", Value::Bool(_)) => Some(value),
        ("bool", Value::String(text)) => Some(Value::Bool(
            !["false", "0", "no"].contains(&text.to_lowercase().as_str()),
        )),
        ("json", Value::String(text)) if !text.is_empty() => serde_json::from_str(text).ok(),
        ("json", _) => Some(value),
        _ => None,
    }
}

fn finite(float: f64) -> Option<Value> {
    serde_json::Number::from_f64(float).map(Value::Number)
}

/// What is said about the experiment and what is other tools' stays as it was written.
const LEFT_ALONE: [&str; 8] = [
    "title",
    "description",
    "tags",
    "contributions",
    "extensions",
    "controls",
    "configuration",
    "secrets",
];

/// The document with every value in place.
pub fn document(
    raw: &Value,
    values: &Values,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Value {
    let Value::Object(fields) = raw else {
        return raw.clone();
    };
    let fields = fields.iter().map(|(key, value)| {
        let left_alone = LEFT_ALONE.contains(&key.as_str()) || key.starts_with("x-");
        let value = match left_alone {
            true => value.clone(),
            false => Place { sources }.fill(value, values, &at_key("$", key), problems),
        };
        (key.clone(), value)
    });
    Value::Object(fields.collect())
}

struct Place<'a> {
    sources: &'a Sources<'a>,
}

impl Place<'_> {
    fn fill(&self, value: &Value, values: &Values, at: &str, problems: &mut Vec<Problem>) -> Value {
        match value {
            Value::String(text) => text_with(text, values, at, problems),
            Value::Array(list) => {
                let filled = list.iter().enumerate();
                filled
                    .map(|(index, member)| {
                        self.fill(member, values, &at_index(at, index), problems)
                    })
                    .collect()
            }
            Value::Object(fields) => {
                let own = self.own_configuration(fields, values, at, problems);
                let values = own.as_ref().unwrap_or(values);
                let fields = fields.iter().map(|(key, member)| {
                    let filled = match (key.as_str(), &own) {
                        ("configuration", Some(own)) => own_part(member, own),
                        ("controls", _) if fields.contains_key("provider") => member.clone(),
                        ("title", _) if at == "$.steady-state-hypothesis" => member.clone(),
                        _ => self.fill(member, values, &at_key(at, key), problems),
                    };
                    (key.clone(), filled)
                });
                Value::Object(fields.collect())
            }
            other => other.clone(),
        }
    }

    /// An activity's own configuration over the experiment's, where it has one.
    fn own_configuration(
        &self,
        activity: &Map<String, Value>,
        values: &Values,
        at: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Values> {
        let own = activity.get("configuration")?.as_object()?;
        activity.get("provider")?;
        let mut values = values.clone();
        for (name, written) in own {
            let at = at_key(&at_key(at, "configuration"), name);
            values.configuration.insert(
                name.clone(),
                resolve_one(written, self.sources, &at, false, problems),
            );
        }
        Some(values)
    }
}

fn own_part(written: &Value, own: &Values) -> Value {
    let names = written.as_object().into_iter().flat_map(Map::keys);
    Value::Object(
        names
            .filter_map(|name| Some((name.clone(), own.configuration.get(name)?.clone())))
            .collect(),
    )
}

/// Puts the values in place in one text. A text that is one variable becomes its value, whatever
/// its type; elsewhere a value is written out as Python writes it (`True`, `None`), lists and
/// objects as JSON. `$name` stands for a name that there is, `$$` for `$`; with no names at all
/// only `$${` is looked at, so that a shell's `$$` in an experiment without configuration stays.
pub fn text_with(template: &str, values: &Values, at: &str, problems: &mut Vec<Problem>) -> Value {
    if let Some(value) = whole(template).and_then(|name| values.get(name)) {
        return value.clone();
    }
    let nothing_to_find = values.is_empty();
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('$') {
        filled.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            if nothing_to_find && !after.starts_with('{') {
                filled.push('$');
            }
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|inner| {
            let name = identifier(inner);
            inner[name.len()..]
                .strip_prefix('}')
                .filter(|_| !name.is_empty())
                .map(|after| (name, after))
        });
        let (name, after, known) = match braced {
            Some((name, after)) => (name, after, values.get(name)),
            None => {
                let name = identifier(rest);
                (name, &rest[name.len()..], values.get(name))
            }
        };
        match known {
            Some(value) => {
                filled.push_str(&written_out(value));
                rest = after;
            }
            None => {
                if braced.is_some() {
                    problems.push(missing(name, values, at));
                }
                filled.push('$');
            }
        }
    }
    filled.push_str(rest);
    Value::String(filled)
}

fn missing(name: &str, values: &Values, at: &str) -> Problem {
    let names: Vec<&str> = values.names().collect();
    let near = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `${{{near}}}`?"),
        None if names.is_empty() || names.len() > 12 => {
            format!("add it to `configuration`, or say `--var {name}=…`")
        }
        None => format!("there are {}; or say `--var {name}=…`", list_words(&names)),
    };
    Problem::new(at, format!("there is no variable `{name}`"))
        .hint(format!("{near} (`$${{{name}}}` keeps the text as it is)"))
}

/// The name of a text that is one variable.
fn whole(template: &str) -> Option<&str> {
    let rest = template.strip_prefix('$')?;
    let name = match rest.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => rest,
    };
    (!name.is_empty() && identifier(name).len() == name.len()).then_some(name)
}

/// The identifier that a text starts with: ASCII letters, digits and `_`, no digit first.
fn identifier(text: &str) -> &str {
    let end = text
        .char_indices()
        .find(|(index, c)| {
            !(c.is_ascii_alphabetic() || *c == '_' || (*index > 0 && c.is_ascii_digit()))
        })
        .map_or(text.len(), |(index, _)| index);
    &text[..end]
}

fn written_out(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
