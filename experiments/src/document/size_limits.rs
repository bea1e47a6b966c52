//! How large a document may be. Everything here is counted before memory is spent on it, on the controller and in local runs alike;
//! the reference lists [`SIZE_LIMITS`].

use super::located_steps;
use crate::Problem;
use crate::problem::{MAX_PROBLEMS, at_key};
use crate::size_in_memory::{
    MAX_DEPTH, MAX_SUBSTITUTED_BYTES, MAX_VARIABLE_CHAIN, VALUE_BYTES, size_in_memory,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longest text of a document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Largest document in memory, in bytes, once variables are in place and every `ref` is replaced by its activity: the length of each
/// text, and [`VALUE_BYTES`] for each value.
pub const MAX_EXPANDED_BYTES: usize = 32 << 20;

/// Longest key of an object, in bytes. Messages name places by their keys.
pub const MAX_KEY_BYTES: usize = 1 << 10;

/// Most variables in one `configuration`, and most secrets in one scope.
pub const MAX_VARIABLES: usize = 1_000;

/// Most scopes of `secrets`.
pub const MAX_SECRET_SCOPES: usize = 100;

/// Most probes of the hypothesis.
pub const MAX_HYPOTHESIS_PROBES: usize = 200;

/// Most steps of the method, and most of the rollbacks.
pub const MAX_STEPS: usize = 1_000;

/// Most targets of a document.
pub const MAX_TARGETS: usize = 200;

/// Most labels of a target.
pub const MAX_LABELS: usize = 100;

/// Most abort rules of a document.
pub const MAX_ABORT_RULES: usize = 200;

/// Most probes within each other as tolerances.
pub const MAX_TOLERANCE_DEPTH: usize = 8;

/// Most dates and ranges of dates in a schedule's `blackouts`.
pub const MAX_BLACKOUTS: usize = 1_000;

/// A limit on the size of a document, for the reference.
#[derive(Debug, Clone, Copy)]
pub struct SizeLimit {
    /// The thing of which there is a largest number.
    pub what: &'static str,
    /// The largest number that is allowed.
    pub most: usize,
}

/// Every limit on the size of a document.
pub const SIZE_LIMITS: &[SizeLimit] = &[
    limit("bytes of the document's text", MAX_DOCUMENT_BYTES),
    limit(
        "bytes of the document in memory, with variables and `ref`s in place (64 for each value besides its text)",
        MAX_EXPANDED_BYTES,
    ),
    limit(
        "bytes that all variables together insert (64 for each value besides its text)",
        MAX_SUBSTITUTED_BYTES,
    ),
    limit("lists and objects within each other", MAX_DEPTH),
    limit(
        "variables that lead from one to the next",
        MAX_VARIABLE_CHAIN,
    ),
    limit("bytes of a key", MAX_KEY_BYTES),
    limit(
        "variables in one `configuration`, and secrets in one scope",
        MAX_VARIABLES,
    ),
    limit("scopes of `secrets`", MAX_SECRET_SCOPES),
    limit("probes of the hypothesis", MAX_HYPOTHESIS_PROBES),
    limit("steps of the method, and of the rollbacks", MAX_STEPS),
    limit("targets", MAX_TARGETS),
    limit("labels of a target", MAX_LABELS),
    limit("abort rules", MAX_ABORT_RULES),
    limit(
        "probes within each other as tolerances",
        MAX_TOLERANCE_DEPTH,
    ),
    limit("`blackouts` of a schedule", MAX_BLACKOUTS),
    limit("problems that are reported at once", MAX_PROBLEMS),
];

const fn limit(what: &'static str, most: usize) -> SizeLimit {
    SizeLimit { what, most }
}

/// A problem for each part of the document that is larger than allowed. Parts that variables stand for are not counted before they are
/// in place: the document is checked as it is written, and again with its values.
pub(crate) fn check_sizes(document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let sections = [
        (
            "$.steady-state-hypothesis.probes",
            "/steady-state-hypothesis/probes",
            MAX_HYPOTHESIS_PROBES,
            "probes",
        ),
        ("$.method", "/method", MAX_STEPS, "steps"),
        ("$.rollbacks", "/rollbacks", MAX_STEPS, "steps"),
        ("$.abort", "/abort", MAX_ABORT_RULES, "abort rules"),
        ("$.targets", "/targets", MAX_TARGETS, "targets"),
        (
            "$.configuration",
            "/configuration",
            MAX_VARIABLES,
            "variables",
        ),
        ("$.secrets", "/secrets", MAX_SECRET_SCOPES, "scopes"),
        (
            "$.schedule.blackouts",
            "/schedule/blackouts",
            MAX_BLACKOUTS,
            "blackouts",
        ),
    ];
    for (at, pointer, most, what) in sections {
        if let Some(section) = document.pointer(pointer) {
            check_count(section, at, most, what, &mut problems);
        }
    }
    let members = |section: &str| {
        let section = document.get(section).and_then(Value::as_object);
        section.into_iter().flatten()
    };
    for (scope, secrets) in members("secrets").take(MAX_SECRET_SCOPES) {
        let at = at_key("$.secrets", scope);
        check_count(secrets, &at, MAX_VARIABLES, "secrets", &mut problems);
    }
    for (name, target) in members("targets").take(MAX_TARGETS) {
        check_labels(target, &at_key("$.targets", name), &mut problems);
    }
    check_keys(document, "$", &mut problems);
    if !problems.is_empty() {
        return problems;
    }
    for step in located_steps(document) {
        if let Some(own) = step.value.get("configuration") {
            let at = at_key(&step.at, "configuration");
            check_count(own, &at, MAX_VARIABLES, "variables", &mut problems);
        }
        if let Some(target) = step.value.pointer("/provider/targets") {
            let at = at_key(&at_key(&step.at, "provider"), "targets");
            check_labels(target, &at, &mut problems);
        }
        let tolerances =
            std::iter::successors(step.value.get("tolerance"), |outer| outer.get("tolerance"));
        if tolerances.take(MAX_TOLERANCE_DEPTH + 1).count() > MAX_TOLERANCE_DEPTH {
            let what =
                format!("more than {MAX_TOLERANCE_DEPTH} tolerances stand within each other");
            problems.push(
                Problem::new(at_key(&step.at, "tolerance"), what)
                    .hint("judge the value in one probe"),
            );
        }
    }
    problems
}

/// A problem where the document would take more than [`MAX_EXPANDED_BYTES`] once each `ref` is replaced by its activity.
pub(crate) fn check_expanded(document: &Value) -> Option<Problem> {
    let mut total = size_in_memory(document);
    let too_large = |at: &str| {
        let most = MAX_EXPANDED_BYTES >> 20;
        let what = format!("with this, the document takes more than {most} MiB of memory");
        Problem::new(at, what).hint(format!(
            "each value counts {VALUE_BYTES} bytes besides its text, and each `ref` counts as its activity: move large texts into files that probes and actions read"
        ))
    };
    if total > MAX_EXPANDED_BYTES {
        return Some(too_large("$"));
    }
    let steps = located_steps(document);
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &steps {
        if let Some(name) = step.value.get("name").and_then(Value::as_str) {
            sizes
                .entry(name)
                .or_insert_with(|| size_in_memory(step.value));
        }
    }
    steps.iter().find_map(|step| {
        let name = step.value.get("ref")?.as_str()?;
        total += sizes.get(name)?;
        (total > MAX_EXPANDED_BYTES).then(|| too_large(&step.at))
    })
}

fn check_count(section: &Value, at: &str, most: usize, what: &str, problems: &mut Vec<Problem>) {
    let count = match section {
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        _ => return,
    };
    if count > most {
        let what = format!("there are {count} {what}, and {most} are allowed");
        problems.push(Problem::new(at, what).hint("split the experiment into several"));
    }
}

fn check_labels(target: &Value, at: &str, problems: &mut Vec<Problem>) {
    if let Some(labels) = target.get("labels") {
        let at = at_key(at, "labels");
        check_count(labels, &at, MAX_LABELS, "labels", problems);
        for (name, values) in labels.as_object().into_iter().flatten().take(MAX_LABELS) {
            check_count(
                values,
                &at_key(&at, name),
                MAX_VARIABLES,
                "values",
                problems,
            );
        }
    }
}

/// The first key that is longer than allowed, in each part of the document.
fn check_keys(value: &Value, at: &str, problems: &mut Vec<Problem>) {
    if problems.len() >= MAX_PROBLEMS {
        return;
    }
    let has_long_key =
        |fields: &Map<String, Value>| fields.keys().any(|key| key.len() > MAX_KEY_BYTES);
    match value {
        Value::Object(fields) if has_long_key(fields) => {
            let what = format!("a key of this object is longer than {MAX_KEY_BYTES} bytes");
            problems.push(Problem::new(at, what).hint("put long texts into values"));
        }
        Value::Object(fields) => {
            for (key, member) in fields {
                if is_compound(member) {
                    check_keys(member, &at_key(at, key), problems);
                }
            }
        }
        Value::Array(list) => {
            for (index, member) in list.iter().enumerate() {
                if is_compound(member) {
                    check_keys(member, &crate::problem::at_index(at, index), problems);
                }
            }
        }
        _ => {}
    }
}

fn is_compound(value: &Value) -> bool {
    value.is_array() || value.is_object()
}
