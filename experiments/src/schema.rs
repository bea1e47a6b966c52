//! The document's JSON Schema, made from the types in `document`, and the check of a value
//! against such a schema. The check knows what schemars writes and no more: it is here for its
//! messages (every problem at once, each with its place and what would do), which see
//! `docs/decisions/schema-validation.md`.

use crate::problem::{at_index, at_key, list_words, meant};
use crate::{Problem, Span, document::Document};
use regex::Regex;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The JSON Schema (draft 2020-12) of an experiment whose `${name}`s have been put in place.
pub fn document_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>().to_value();
    allow_extensions(&mut schema);
    bound_integers(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".into(), json!("Backburn experiment"));
        root.insert("$id".into(), json!("urn:backburn:experiment:1"));
    }
    schema
}

/// The JSON Schema of a type of ours, e.g. of a fault's arguments or of a policy, with every part
/// in its place, so that flags can be made of its properties.
pub fn of<T: JsonSchema>() -> Value {
    let mut schema = generate::<T>(true);
    bound_integers(&mut schema);
    schema
}

fn generate<T: JsonSchema>(inline: bool) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = inline);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Lets every object that knows its keys have `x-…` keys as well.
fn allow_extensions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("additionalProperties") == Some(&Value::Bool(false)) {
                object.insert("patternProperties".into(), json!({"^x-": true}));
            }
            object.values_mut().for_each(allow_extensions);
        }
        Value::Array(list) => list.iter_mut().for_each(allow_extensions),
        _ => {}
    }
}

/// Says in `maximum`, which everyone reads, what schemars says in `format: uint32`, which nobody does.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("format").and_then(Value::as_str) == Some("uint32") {
                object.entry("maximum").or_insert_with(|| json!(u32::MAX));
            }
            object.values_mut().for_each(bound_integers);
        }
        Value::Array(list) => list.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// Everything in `value` that `schema` does not allow. `at` is where `value` stands, e.g. `$`.
///
/// `schema` is what schemars writes for a type: `$ref` into its own `$defs`, `type`, `properties`,
/// `required`, `enum`, `const`, `oneOf`, `anyOf`, `allOf`, bounds, `pattern`, and `format: duration`.
pub fn check(schema: &Value, value: &Value, at: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    Check { root: schema }.visit(schema, value, at, 0, &mut problems);
    problems
}

/// Deeper than any document (the JSON parser stops at 128) times any chain of `$ref`s; a schema
/// that comes over the wire may point at itself.
const DEEPEST: usize = 1_000;

struct Check<'s> {
    root: &'s Value,
}

impl<'s> Check<'s> {
    fn visit(&self, schema: &'s Value, value: &Value, at: &str, depth: usize, problems: &mut Vec<Problem>) {
        let schema = match schema {
            Value::Bool(true) => return,
            Value::Object(schema) => schema,
            _ => return problems.push(Problem::new(at, "nothing may stand here")),
        };
        if depth > DEEPEST {
            return problems.push(Problem::new(at, "the schema for this points at itself"));
        }
        if let Some(target) = self.referred(schema) {
            self.visit(target, value, at, depth + 1, problems);
        }
        if !self.type_fits(schema, value) {
            return problems.push(wrong_type(&self.types(schema, 0), schema, value, at));
        }
        for all in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.visit(all, value, at, depth + 1, problems);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                self.choose(branches, value, at, depth + 1, problems);
            }
        }
        check_words(schema, value, at, problems);
        match value {
            Value::String(text) => check_text(schema, text, at, problems),
            Value::Number(number) => check_number(schema, number, at, problems),
            Value::Array(list) => self.check_list(schema, list, at, depth, problems),
            Value::Object(object) => self.check_object(schema, object, at, depth, problems),
            _ => {}
        }
    }

    /// What `$ref` points at.
    fn referred(&self, schema: &Map<String, Value>) -> Option<&'s Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }

    fn type_fits(&self, schema: &Map<String, Value>, value: &Value) -> bool {
        match schema.get("type") {
            Some(Value::String(one)) => is_type(one, value),
            Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).any(|one| is_type(one, value)),
            _ => true,
        }
    }

    /// The JSON types that a schema lets through; none means any.
    fn types(&self, schema: &Map<String, Value>, depth: usize) -> Vec<String> {
        match schema.get("type") {
            Some(Value::String(one)) => return vec![one.clone()],
            Some(Value::Array(some)) => {
                return some.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            }
            _ => {}
        }
        let branches = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array());
        let parts: Vec<&Value> = match (branches, self.referred(schema)) {
            (Some(branches), _) => branches.iter().collect(),
            (None, Some(target)) => vec![target],
            (None, None) => return Vec::new(),
        };
        let mut types: Vec<String> = Vec::new();
        for part in parts {
            let of_part = match part {
                Value::Object(part) if depth < 20 => self.types(part, depth + 1),
                _ => Vec::new(),
            };
            if of_part.is_empty() {
                return Vec::new();
            }
            types.extend(of_part);
        }
        types.dedup();
        types
    }

    fn lets_type_through(&self, branch: &Value, value: &Value) -> bool {
        let Value::Object(branch) = branch else { return branch == &Value::Bool(true) };
        let types = self.types(branch, 0);
        types.is_empty() || types.iter().any(|one| is_type(one, value))
    }

    /// Reports the problems of the branch that was meant.
    fn choose(
        &self,
        branches: &'s [Value],
        value: &Value,
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) {
        let fitting: Vec<&'s Value> =
            branches.iter().filter(|branch| self.lets_type_through(branch, value)).collect();
        if fitting.is_empty() {
            let wrap = Map::from_iter([("anyOf".to_owned(), Value::Array(branches.to_vec()))]);
            return problems.push(wrong_type(&self.types(&wrap, 0), &wrap, value, at));
        }
        if let [only] = fitting[..] {
            return self.visit(only, value, at, depth, problems);
        }
        let words: Vec<&str> = fitting.iter().filter_map(|branch| branch.get("const")?.as_str()).collect();
        if let (Value::String(word), true) = (value, words.len() == fitting.len()) {
            if !words.contains(&word.as_str()) {
                problems.push(unknown_word(word, &words, at));
            }
            return;
        }
        if let Value::Object(object) = value {
            if let Some(tag) = shared_tag(&fitting) {
                return self.choose_by_tag(tag, &fitting, value, at, depth, problems);
            }
            if let Some(keys) = single_keys(&fitting) {
                return match fitting.iter().zip(&keys).find(|(_, key)| object.contains_key(**key)) {
                    Some((branch, _)) => self.visit(branch, value, at, depth, problems),
                    None => problems.push(none_of_the_keys(object, &keys, at)),
                };
            }
        }
        let tried = fitting.iter().map(|branch| {
            let mut found = Vec::new();
            self.visit(branch, value, at, depth, &mut found);
            (self.keys_in_common(branch, value), found)
        });
        let mut best: Option<(usize, Vec<Problem>)> = None;
        for (common, found) in tried {
            if found.is_empty() {
                return;
            }
            let better = best.as_ref().is_none_or(|(best_common, best_found)| {
                (common, best_found.len()) > (*best_common, found.len())
            });
            if better {
                best = Some((common, found));
            }
        }
        problems.extend(best.map(|(_, found)| found).unwrap_or_default());
    }

    fn choose_by_tag(
        &self,
        tag: &str,
        branches: &[&'s Value],
        value: &Value,
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) {
        let known: Vec<&str> = branches.iter().filter_map(|branch| tag_of(branch, tag)).collect();
        match value.get(tag) {
            Some(Value::String(word)) => match branches.iter().find(|branch| tag_of(branch, tag) == Some(word)) {
                Some(branch) => self.visit(branch, value, at, depth, problems),
                None => problems.push(unknown_word(word, &known, &at_key(at, tag))),
            },
            Some(other) => problems.push(
                Problem::new(at_key(at, tag), format!("{} stands where text is wanted", shown(other)))
                    .hint(format!("one of {}", list_words(&known))),
            ),
            None => problems.push(
                Problem::new(at, format!("`{tag}` is missing")).hint(format!("one of {}", list_words(&known))),
            ),
        }
    }

    fn keys_in_common(&self, branch: &Value, value: &Value) -> usize {
        let (Some(object), Value::Object(branch)) = (value.as_object(), branch) else { return 0 };
        let branch = match self.referred(branch) {
            Some(Value::Object(target)) => target,
            _ => branch,
        };
        let Some(properties) = branch.get("properties").and_then(Value::as_object) else { return 0 };
        object.keys().filter(|key| properties.contains_key(*key)).count()
    }

    fn check_list(
        &self,
        schema: &'s Map<String, Value>,
        list: &[Value],
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        if bound("minItems").is_some_and(|least| (list.len() as u64) < least)
            || bound("maxItems").is_some_and(|most| (list.len() as u64) > most)
        {
            let wanted = match (bound("minItems"), bound("maxItems")) {
                (Some(least), Some(most)) if least == most => format!("{least}"),
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (_, most) => format!("at most {}", most.unwrap_or_default()),
            };
            problems.push(Problem::new(at, format!("the list has {} members, {wanted} are wanted", list.len())));
        }
        let repeated = list.iter().enumerate().find(|(index, member)| list[..*index].contains(member));
        if let (Some(Value::Bool(true)), Some((index, member))) = (schema.get("uniqueItems"), repeated) {
            problems.push(Problem::new(at_index(at, index), format!("{} stands here twice", shown(member))));
        }
        let first = schema.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (index, member) in list.iter().enumerate() {
            if let Some(schema) = first.get(index).or_else(|| schema.get("items")) {
                self.visit(schema, member, &at_index(at, index), depth + 1, problems);
            }
        }
    }

    fn check_object(
        &self,
        schema: &'s Map<String, Value>,
        object: &Map<String, Value>,
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
            || schema.get("unevaluatedProperties") == Some(&Value::Bool(false));
        let mut known = Vec::new();
        if closed {
            self.known_keys(schema, 0, &mut known);
        }
        let mut meant_keys = Vec::new();
        for (key, member) in object {
            let place = at_key(at, key);
            if let Some(schema) = properties.and_then(|properties| properties.get(key)) {
                self.visit(schema, member, &place, depth + 1, problems);
                continue;
            }
            let of_pattern = patterns.into_iter().flatten().find(|(pattern, _)| matches(pattern, key));
            if let Some((_, schema)) = of_pattern {
                self.visit(schema, member, &place, depth + 1, problems);
            } else if closed {
                if !known.contains(&key.as_str()) {
                    meant_keys.extend(crate::problem::nearest(key, known.iter().copied()));
                    problems.push(
                        Problem::new(place, format!("`{key}` is not known here"))
                            .hint(meant(key, &known).unwrap_or_else(|| "nothing may stand here".into())),
                    );
                }
            } else if let Some(schema) = schema.get("additionalProperties") {
                self.visit(schema, member, &place, depth + 1, problems);
            }
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            // A key that is there but for a typing error has been reported once already.
            if !object.contains_key(key) && !meant_keys.contains(&key) {
                let hint = properties
                    .and_then(|properties| properties.get(key)?.get("description")?.as_str())
                    .map(|description| format!("`{key}`: {}", description.trim_end_matches('.')));
                problems.push(Problem { at: at.into(), what: format!("`{key}` is missing"), hint });
            }
        }
    }

    /// The keys that a schema knows, its parts' included (what `flatten` becomes).
    fn known_keys<'k>(&self, schema: &'k Map<String, Value>, depth: usize, known: &mut Vec<&'k str>)
    where
        's: 'k,
    {
        known.extend(schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str()));
        if depth > 20 {
            return;
        }
        if let Some(Value::Object(target)) = self.referred(schema) {
            self.known_keys(target, depth + 1, known);
        }
        for part in ["allOf", "oneOf", "anyOf"] {
            for part in schema.get(part).and_then(Value::as_array).into_iter().flatten() {
                if let Value::Object(part) = part {
                    self.known_keys(part, depth + 1, known);
                }
            }
        }
    }
}

/// The key by whose constant all of these differ.
fn shared_tag<'s>(branches: &[&'s Value]) -> Option<&'s str> {
    let properties = branches.first()?.get("properties")?.as_object()?;
    properties
        .keys()
        .map(String::as_str)
        .find(|key| branches.iter().all(|branch| tag_of(branch, key).is_some()))
}

fn tag_of<'s>(branch: &'s Value, tag: &str) -> Option<&'s str> {
    branch.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// The one key that each of these must have, where each has one.
fn single_keys<'s>(branches: &[&'s Value]) -> Option<Vec<&'s str>> {
    branches
        .iter()
        .map(|branch| match branch.get("required")?.as_array()?.as_slice() {
            [Value::String(key)] if branch.get("properties")?.as_object()?.len() == 1 => Some(key.as_str()),
            _ => None,
        })
        .collect()
}

fn none_of_the_keys(object: &Map<String, Value>, keys: &[&str], at: &str) -> Problem {
    let wrong = object.keys().find(|key| !key.starts_with("x-"));
    match wrong {
        Some(key) => Problem::new(at_key(at, key), format!("`{key}` is not known here"))
            .hint(meant(key, keys).unwrap_or_default()),
        None => Problem::new(at, "the object is empty").hint(format!("one of {}", list_words(keys))),
    }
}

fn unknown_word(word: &str, known: &[&str], at: &str) -> Problem {
    let problem = Problem::new(at, format!("`{word}` is not known here"));
    match meant(word, known) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

fn check_words(schema: &Map<String, Value>, value: &Value, at: &str, problems: &mut Vec<Problem>) {
    let known = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(known)), _) => known.as_slice(),
        (_, Some(only)) => std::slice::from_ref(only),
        _ => return,
    };
    if known.contains(value) {
        return;
    }
    let words: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    problems.push(match value {
        Value::String(word) => unknown_word(word, &words, at),
        other => {
            let list: Vec<String> = known.iter().map(shown).collect();
            Problem::new(at, format!("{} is not known here", shown(other))).hint(format!("one of {}", list.join(", ")))
        }
    });
}

fn check_text(schema: &Map<String, Value>, text: &str, at: &str, problems: &mut Vec<Problem>) {
    let length = text.chars().count() as u64;
    if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| length < least) {
        let what = if text.is_empty() { "the text is empty".into() } else { format!("`{text}` is too short") };
        problems.push(Problem::new(at, what));
    }
    if let Some(most) = schema.get("maxLength").and_then(Value::as_u64).filter(|most| length > *most) {
        problems.push(Problem::new(at, format!("the text is longer than {most} characters")));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str).filter(|pattern| !matches(pattern, text)) {
        problems.push(Problem::new(at, format!("`{text}` does not match `{pattern}`")));
    }
    if schema.get("format").and_then(Value::as_str) == Some("duration") {
        if let Err(what) = text.parse::<Span>() {
            problems.push(Problem::new(at, what));
        }
    }
}

fn check_number(
    schema: &Map<String, Value>,
    number: &serde_json::Number,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let (format_least, format_most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (Some(0.0), Some(f64::from(u8::MAX))),
        Some("uint16") => (Some(0.0), Some(f64::from(u16::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("uint64" | "uint") => (Some(0.0), None),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        // Past an i64 the parser keeps a u64 or a float.
        Some("int64") if number.as_i64().is_none() => (None, Some(i64::MAX as f64 - 1_024.0)),
        _ => (None, None),
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let least = bound("minimum").or(format_least);
    let most = bound("maximum").or(format_most);
    let mut wrong = |side: &str, limit: f64| {
        problems.push(Problem::new(at, format!("`{number}` is {side} {limit}")));
    };
    if let Some(least) = least.filter(|least| value < *least) {
        wrong("less than", least);
    }
    if let Some(most) = most.filter(|most| value > *most) {
        wrong("more than", most);
    }
    if let Some(limit) = bound("exclusiveMinimum").filter(|limit| value <= *limit) {
        wrong("not more than", limit);
    }
    if let Some(limit) = bound("exclusiveMaximum").filter(|limit| value >= *limit) {
        wrong("not less than", limit);
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    if let Some(start) = pattern.strip_prefix('^').filter(|rest| !rest.contains(|c| r"\.[]()*+?{}|$^".contains(c))) {
        return text.starts_with(start);
    }
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// Whether a value is of a JSON Schema type. `1.0` is no integer here, as it is none to serde.
fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn type_word(name: &str) -> &'static str {
    match name {
        "boolean" => "`true` or `false`",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "an object",
        _ => "nothing",
    }
}

fn wrong_type(types: &[String], schema: &Map<String, Value>, value: &Value, at: &str) -> Problem {
    let mut wanted: Vec<&str> = types.iter().filter(|name| *name != "null").map(|name| type_word(name)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let problem = Problem::new(at, format!("{} stands where {} is wanted", shown(value), wanted.join(" or ")));
    let is_duration = schema.get("format").and_then(Value::as_str) == Some("duration");
    match value {
        _ if is_duration => problem.hint("a duration is `1m30s`, `250ms`, `PT90S` or a number of seconds"),
        Value::String(text) if !types.is_empty() => match serde_json::from_str::<Value>(text) {
            Ok(inner) if types.iter().any(|name| is_type(name, &inner)) => problem.hint("leave out the quotes"),
            _ => problem,
        },
        _ if types.iter().any(|name| name == "array") && !value.is_array() => problem.hint("put it in `[` and `]`"),
        _ => problem,
    }
}

/// A value as a message shows it, short.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("`{}…`", &text[..end]),
                None => format!("`{text}`"),
            }
        }
    }
}
