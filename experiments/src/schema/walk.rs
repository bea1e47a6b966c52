//! Walks a value and its schema side by side. Where a schema has branches, the one that was
//! probably meant is found first, by its tag, its key, its JSON type or the fewest problems.

use super::leaf::{
    check_number, check_text, check_words, is_type, matches, none_of_the_keys, shared_tag, shown,
    single_keys, tag_of, unknown_word, unreadable, wrong_type,
};
use super::published::PublishedSchema;
use crate::Problem;
use crate::problem::{MAX_PROBLEMS, at_index, at_key, list_words, meant, nearest};
use serde_json::{Map, Value};
use std::cell::Cell;

pub(super) fn check(schema: &Value, value: &Value, at: &str) -> Vec<Problem> {
    check_from(schema, Definitions::Within(schema), value, at)
}

pub(super) fn check_published(schema: &PublishedSchema, value: &Value, at: &str) -> Vec<Problem> {
    check_from(schema.root(), Definitions::Published(schema), value, at)
}

fn check_from<'s>(
    schema: &'s Value,
    definitions: Definitions<'s>,
    value: &Value,
    at: &str,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let check = Check {
        definitions,
        steps_left: Cell::new(MOST_STEPS),
    };
    check.visit(schema, value, at, 0, &mut problems);
    problems
}

/// Deeper than any document, which has at most 100 levels, times the `$ref`s and alternatives of each. A schema that points at itself is followed
/// no further, which leaves room on the stack of a thread (2 MiB) also in a build without optimisation.
const DEEPEST: usize = 500;

/// More than any document takes. A schema that comes over the wire may point at itself, and twice
/// as often with each step.
const MOST_STEPS: u32 = 200_000;

/// Where `$ref`s lead.
enum Definitions<'s> {
    /// They lead into this schema.
    Within(&'s Value),
    /// They lead to definitions that are read when they are needed.
    Published(&'s PublishedSchema),
}

struct Check<'s> {
    definitions: Definitions<'s>,
    steps_left: Cell<u32>,
}

impl<'s> Check<'s> {
    fn visit(
        &self,
        schema: &'s Value,
        value: &Value,
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) {
        let schema = match schema {
            Value::Bool(true) => return,
            Value::Object(schema) => schema,
            _ => return problems.push(Problem::new(at, "nothing may stand here")),
        };
        // Enough is known to be wrong: more problems would only take memory.
        if problems.len() >= MAX_PROBLEMS {
            return;
        }
        if depth > DEEPEST || !self.step() {
            if problems.is_empty() {
                problems.push(Problem::new(
                    at,
                    "the schema for this points at itself, or there is too much of it",
                ));
            }
            return;
        }
        if let Some(target) = self.referred(schema) {
            self.visit(target, value, at, depth + 1, problems);
        }
        if !self.type_fits(schema, value) {
            if let Some(problem) = unreadable(schema, value, at) {
                return problems.push(problem);
            }
            return problems.push(wrong_type(&self.types(schema, 0), schema, value, at));
        }
        for all in schema
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.visit(all, value, at, depth + 1, problems);
        }
        let before = problems.len();
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                self.choose(branches, value, at, depth + 1, problems);
            }
        }
        if problems.len() > before
            && !value.is_object()
            && !value.is_array()
            && let Some(problem) = unreadable(schema, value, at)
        {
            problems.truncate(before);
            return problems.push(problem);
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

    fn step(&self) -> bool {
        let left = self.steps_left.get();
        self.steps_left.set(left.saturating_sub(1));
        left > 0
    }

    /// What `$ref` points at.
    fn referred(&self, schema: &Map<String, Value>) -> Option<&'s Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        match self.definitions {
            Definitions::Within(root) => root.pointer(pointer),
            Definitions::Published(schema) => schema.definition(pointer),
        }
    }

    fn type_fits(&self, schema: &Map<String, Value>, value: &Value) -> bool {
        match schema.get("type") {
            Some(Value::String(one)) => is_type(one, value),
            Some(Value::Array(some)) => some
                .iter()
                .filter_map(Value::as_str)
                .any(|one| is_type(one, value)),
            _ => true,
        }
    }

    /// The JSON types that a schema lets through; none means any.
    fn types(&self, schema: &Map<String, Value>, depth: usize) -> Vec<String> {
        match schema.get("type") {
            Some(Value::String(one)) => return vec![one.clone()],
            Some(Value::Array(some)) => {
                return some
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
            }
            _ => {}
        }
        let branches = ["oneOf", "anyOf"]
            .iter()
            .find_map(|key| schema.get(*key)?.as_array());
        let parts: Vec<&Value> = match (branches, self.referred(schema)) {
            (Some(branches), _) => branches.iter().collect(),
            (None, Some(target)) => vec![target],
            (None, None) => return Vec::new(),
        };
        let mut types: Vec<String> = Vec::new();
        for part in parts {
            let of_part = match part {
                Value::Object(part) if depth < 20 && self.step() => self.types(part, depth + 1),
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
        let Value::Object(branch) = branch else {
            return branch == &Value::Bool(true);
        };
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
        let fitting: Vec<&'s Value> = branches
            .iter()
            .filter(|branch| self.lets_type_through(branch, value))
            .collect();
        if fitting.is_empty() {
            let wrap = Map::from_iter([("anyOf".to_owned(), Value::Array(branches.to_vec()))]);
            return problems.push(wrong_type(&self.types(&wrap, 0), &wrap, value, at));
        }
        if let [only] = fitting[..] {
            return self.visit(only, value, at, depth, problems);
        }
        let words: Vec<&str> = fitting
            .iter()
            .filter_map(|branch| branch.get("const")?.as_str())
            .collect();
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
                return match fitting
                    .iter()
                    .zip(&keys)
                    .find(|(_, key)| object.contains_key(**key))
                {
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
        let known: Vec<&str> = branches
            .iter()
            .filter_map(|branch| tag_of(branch, tag))
            .collect();
        match value.get(tag) {
            Some(Value::String(word)) => match branches
                .iter()
                .find(|branch| tag_of(branch, tag) == Some(word))
            {
                Some(branch) => self.visit(branch, value, at, depth, problems),
                None => problems.push(unknown_word(word, &known, &at_key(at, tag))),
            },
            Some(other) => problems.push(
                Problem::new(
                    at_key(at, tag),
                    format!("{} stands where text is wanted", shown(other)),
                )
                .hint(format!("one of {}", list_words(&known))),
            ),
            None => problems.push(
                Problem::new(at, format!("`{tag}` is missing"))
                    .hint(format!("one of {}", list_words(&known))),
            ),
        }
    }

    fn keys_in_common(&self, branch: &Value, value: &Value) -> usize {
        let (Some(object), Value::Object(branch)) = (value.as_object(), branch) else {
            return 0;
        };
        let branch = match self.referred(branch) {
            Some(Value::Object(target)) => target,
            _ => branch,
        };
        let Some(properties) = branch.get("properties").and_then(Value::as_object) else {
            return 0;
        };
        object
            .keys()
            .filter(|key| properties.contains_key(*key))
            .count()
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
            problems.push(Problem::new(
                at,
                format!("the list has {} members, {wanted} are wanted", list.len()),
            ));
        }
        let repeated = list
            .iter()
            .enumerate()
            .find(|(index, member)| list[..*index].contains(member));
        if let (Some(Value::Bool(true)), Some((index, member))) =
            (schema.get("uniqueItems"), repeated)
        {
            problems.push(Problem::new(
                at_index(at, index),
                format!("{} stands here twice", shown(member)),
            ));
        }
        let first = schema
            .get("prefixItems")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
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
            let of_pattern = patterns
                .into_iter()
                .flatten()
                .find(|(pattern, _)| matches(pattern, key));
            if let Some((_, schema)) = of_pattern {
                self.visit(schema, member, &place, depth + 1, problems);
            } else if closed {
                if !known.contains(&key.as_str()) {
                    meant_keys.extend(nearest(key, known.iter().copied()));
                    problems.push(
                        Problem::new(place, format!("`{key}` is not known here")).hint(
                            meant(key, &known).unwrap_or_else(|| "nothing may stand here".into()),
                        ),
                    );
                }
            } else if let Some(schema) = schema.get("additionalProperties") {
                self.visit(schema, member, &place, depth + 1, problems);
            }
        }
        for key in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            // A key that is there but for a typing error has been reported once already.
            if !object.contains_key(key) && !meant_keys.contains(&key) {
                let hint = properties
                    .and_then(|properties| properties.get(key)?.get("description")?.as_str())
                    .map(|description| format!("`{key}`: {}", description.trim_end_matches('.')));
                problems.push(Problem {
                    at: at.into(),
                    what: format!("`{key}` is missing"),
                    hint,
                });
            }
        }
    }

    /// The keys that a schema knows, its parts' included (what `flatten` becomes).
    fn known_keys<'k>(&self, schema: &'k Map<String, Value>, depth: usize, known: &mut Vec<&'k str>)
    where
        's: 'k,
    {
        known.extend(
            schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str()),
        );
        if depth > 20 || !self.step() {
            return;
        }
        if let Some(Value::Object(target)) = self.referred(schema) {
            self.known_keys(target, depth + 1, known);
        }
        for part in ["allOf", "oneOf", "anyOf"] {
            for part in schema
                .get(part)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let Value::Object(part) = part {
                    self.known_keys(part, depth + 1, known);
                }
            }
        }
    }
}
