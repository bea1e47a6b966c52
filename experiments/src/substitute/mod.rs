//! Puts configured values in place: `${name}` becomes the configuration's value of that name, or
//! the secret's. The rules are the Chaos Toolkit's (Python's `string.Template`), with these
//! differences: a variable that is missing is a problem, where it stays as it is there; in braces
//! any name that is declared may stand, also `a-b`; and the configuration's own texts have values
//! put in place, too.
//!
//! Environment and files come in as closures: this crate does no I/O.

mod names;
mod size;
mod source;
mod template;
mod typed_value;
mod values;

pub use crate::size_in_memory::{
    MAX_DEPTH, MAX_SUBSTITUTED_BYTES, MAX_VARIABLE_CHAIN, VALUE_BYTES,
};

pub use values::{Confidential, Sources, Values};

use crate::Problem;
use crate::document::located_steps;
use crate::problem::{MAX_COMPARED_WORDS, MAX_PROBLEMS, at_index, at_key, list_words, nearest};
use serde_json::{Map, Value};
use size::Budget;
use source::{is_read, is_source, resolve_one};
use std::collections::BTreeSet;

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
    let declared = section("configuration");
    names::check_declared(declared, section("secrets"), problems);
    names::check_given(document, sources, problems);

    let scopes = section("secrets")
        .iter()
        .filter(|(scope, _)| !sources.secrets.contains_key(*scope));
    let mut of_secrets = Vec::new();
    for (scope, written) in scopes.chain(sources.secrets) {
        let at = at_key("$.secrets", scope);
        if is_source(written).is_some() {
            of_secrets.push(
                Problem::new(at, "a scope of secrets is not itself a secret")
                    .hint(format!("write `{{\"{scope}\": {{\"name\": …}}}}`")),
            );
            continue;
        }
        values.secrets.insert(
            scope.clone(),
            resolve_one(written, sources, &at, true, &mut of_secrets),
        );
    }
    let of_secret = values.secrets.values().filter_map(Value::as_object);
    let of_secret: BTreeSet<String> = of_secret.flat_map(Map::keys).cloned().collect();
    values.confidential.names = of_secret.clone();

    let mut texts = Vec::new();
    for (name, given) in sources.variables {
        let at = format!("--var {name}");
        // A text may read as a source, too.
        let value = typed_value::typed(given, declared.get(name), &at);
        let value = value.and_then(|typed| match is_read(given) || is_read(&typed.value) {
            true => Err(source::not_in_a_variable(&at)),
            false => Ok(typed),
        });
        let value = match value {
            Ok(typed) => {
                texts.extend(typed.text.map(|text| (name.clone(), text)));
                typed.value
            }
            Err(problem) => {
                problems.push(problem);
                Value::Null
            }
        };
        // A value that is given in place of a secret is one.
        if of_secret.contains(name) {
            values.confidential.values.push(value.clone());
        }
        values.configuration.insert(name.clone(), value);
    }
    values.texts.extend(texts);
    let mut values = configured(
        declared,
        values,
        "$.configuration",
        sources,
        &mut Budget::default(),
        problems,
    );
    problems.extend(of_secrets);
    // In the document's order, what it does not declare last.
    let mut rest = std::mem::take(&mut values.configuration);
    for name in declared.keys() {
        values.configuration.extend(rest.shift_remove_entry(name));
    }
    values.configuration.extend(rest);
    values
}

/// These values with what is declared besides; a declared name that has a value already keeps it.
fn configured(
    declared: &Map<String, Value>,
    values: Values,
    at: &str,
    sources: &Sources,
    budget: &mut Budget,
    problems: &mut Vec<Problem>,
) -> Values {
    let mut configuring = ConfigurationResolver {
        declared,
        values,
        at,
        sources,
        going: Vec::new(),
        budget,
        problems,
    };
    for name in declared.keys() {
        configuring.need(name);
    }
    configuring.values
}

/// Declared values on their way: each waits for those that its texts name.
struct ConfigurationResolver<'a, 'd> {
    declared: &'d Map<String, Value>,
    values: Values,
    at: &'a str,
    sources: &'a Sources<'a>,
    /// The names that wait for one another, the first for the second and so on.
    going: Vec<&'d str>,
    budget: &'a mut Budget,
    problems: &'a mut Vec<Problem>,
}

impl<'d> ConfigurationResolver<'_, 'd> {
    /// Makes sure that this name has its value, where it is declared.
    fn need(&mut self, name: &str) {
        let Some((name, written)) = self.declared.get_key_value(name) else {
            return;
        };
        if self.values.configuration.contains_key(name) {
            return;
        }
        let at = at_key(self.at, name);
        let begun = self.going.iter().position(|other| other == name);
        let wrong = if let Some(begun) = begun {
            let circle = self.going[begun..].iter().copied().chain([name.as_str()]);
            let circle: Vec<String> = circle.map(|name| format!("`{name}`")).collect();
            let what = format!("`{name}` is made of itself: {}", circle.join(" → "));
            Some(Problem::new(at.clone(), what).hint("write one of them out"))
        } else if self.going.len() == MAX_VARIABLE_CHAIN {
            let what =
                format!("more than {MAX_VARIABLE_CHAIN} variables lead from one to the next");
            Some(Problem::new(at.clone(), what))
        } else {
            None
        };
        if let Some(problem) = wrong {
            self.problems.push(problem);
            // What waits for it goes on, and says nothing more about it.
            self.values.configuration.insert(name.clone(), Value::Null);
            return;
        }
        self.going.push(name);
        let mut named = Vec::new();
        names::of(written, &mut named);
        for other in named {
            self.need(other);
        }
        self.going.pop();
        let filled = TemplateFiller::new(self.sources, self.budget, true).fill(
            written,
            &self.values,
            &at,
            1,
            self.problems,
        );
        // What a variable put in place is data, whatever it looks like: only the document names sources.
        let value = match is_source(written) {
            Some(_) => resolve_one(&filled, self.sources, &at, false, self.problems),
            None => filled,
        };
        let confidential = &mut self.values.confidential;
        if source::is_found(&value, written, self.sources) {
            confidential.values.push(value.clone());
            confidential.names.insert(name.clone());
        } else if names::any_in(written, &confidential.names) {
            confidential.names.insert(name.clone());
        }
        self.values.configuration.insert(name.clone(), value);
    }
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

/// The document with every value in place, and what messages never quote because activities' own configuration read it.
pub fn document(
    raw: &Value,
    values: &Values,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> (Value, Confidential) {
    let Value::Object(fields) = raw else {
        return (raw.clone(), Confidential::default());
    };
    let mut budget = Budget::default();
    let mut place = TemplateFiller::new(sources, &mut budget, false);
    let fields = fields.iter().map(|(key, value)| {
        let left_alone = LEFT_ALONE.contains(&key.as_str()) || key.starts_with("x-");
        let value = match left_alone {
            true => value.clone(),
            false => place.fill(value, values, &at_key("$", key), 1, problems),
        };
        (key.clone(), value)
    });
    let filled = Value::Object(fields.collect());
    (filled, place.confidential)
}

/// Values being put in place somewhere in a document.
struct TemplateFiller<'a> {
    sources: &'a Sources<'a>,
    budget: &'a mut Budget,
    /// Whether a text without a variable is left as it is, `$$` included: the configuration's are,
    /// which the Chaos Toolkit does not look into.
    plain_stays: bool,
    /// Whether only text can stand here: what was given as text stays as it was written.
    only_text: bool,
    /// What activities' own configuration read.
    confidential: Confidential,
}

impl<'a> TemplateFiller<'a> {
    fn new(sources: &'a Sources<'a>, budget: &'a mut Budget, plain_stays: bool) -> Self {
        TemplateFiller {
            sources,
            budget,
            plain_stays,
            only_text: false,
            confidential: Confidential::default(),
        }
    }

    fn fill(
        &mut self,
        value: &Value,
        values: &Values,
        at: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) -> Value {
        if depth > MAX_DEPTH {
            problems.push(size::too_deep(at));
            return Value::Null;
        }
        // Enough is known to be wrong: more problems would only take memory.
        if problems.len() >= MAX_PROBLEMS {
            return Value::Null;
        }
        match value {
            Value::String(text) => {
                let is_name = |name: &str| values.get(name).is_some();
                if self.plain_stays && !template::has_variable(text, is_name) {
                    return value.clone();
                }
                let filled = template::fill(text, values, at, depth, self.budget, problems);
                let given = template::whole(text).filter(|_| self.only_text && is_scalar(&filled));
                match given.and_then(|name| values.texts.get(name)) {
                    Some(given) => given.clone().into(),
                    None => filled,
                }
            }
            Value::Array(list) => {
                let filled = list.iter().enumerate();
                filled
                    .map(|(index, member)| {
                        self.fill(member, values, &at_index(at, index), depth + 1, problems)
                    })
                    .collect()
            }
            Value::Object(fields) => {
                let own = self.own_configuration(fields, values, at, problems);
                let values = own.as_ref().unwrap_or(values);
                let kind = fields.get("type").and_then(Value::as_str);
                let filled = fields.iter().map(|(key, member)| {
                    let outer = self.only_text;
                    self.only_text |= matches!(
                        (kind, key.as_str()),
                        (Some("process"), "arguments" | "env") | (Some("http"), "headers")
                    );
                    let filled = match (key.as_str(), &own) {
                        ("configuration", Some(own)) => own_part(member, own),
                        ("controls", _) if fields.contains_key("provider") => member.clone(),
                        ("title" | "controls", _) if at == "$.steady-state-hypothesis" => {
                            member.clone()
                        }
                        _ => self.fill(member, values, &at_key(at, key), depth + 1, problems),
                    };
                    self.only_text = outer;
                    (key.clone(), filled)
                });
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }

    /// An activity's own configuration over the experiment's, where it has one.
    fn own_configuration(
        &mut self,
        activity: &Map<String, Value>,
        values: &Values,
        at: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Values> {
        let own = activity.get("configuration")?.as_object()?;
        activity.get("provider")?;
        if own.is_empty() {
            return None;
        }
        let values = values.for_activity(activity, own);
        let at = at_key(at, "configuration");
        let own = configured(own, values, &at, self.sources, self.budget, problems);
        (self.confidential.values).extend_from_slice(&own.confidential.values);
        (self.confidential.names).extend(own.confidential.names.iter().cloned());
        Some(own)
    }
}

/// Puts the text that was given where the value that it reads as does not fit: a label `1` or a name
/// `true` is text where only text fits. `wrong` are the JSON pointers of what does not fit. Whether
/// anything was changed.
pub fn texts_instead(
    raw: &Value,
    filled: &mut Value,
    values: &Values,
    wrong: impl Iterator<Item = String>,
) -> bool {
    let mut changed = false;
    for pointer in wrong {
        let written = raw.pointer(&pointer).and_then(Value::as_str);
        let Some(name) = written.and_then(template::whole) else {
            continue;
        };
        let (Some(value), Some(place)) = (values.get(name), filled.pointer_mut(&pointer)) else {
            continue;
        };
        // Another value is an activity's own.
        if let Some(given) = values.texts.get(name)
            && value == place
            && is_scalar(place)
        {
            *place = given.clone().into();
            changed = true;
        }
    }
    changed
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

fn own_part(written: &Value, own: &Values) -> Value {
    let names = written.as_object().into_iter().flat_map(Map::keys);
    Value::Object(
        names
            .filter_map(|name| Some((name.clone(), own.configuration.get(name)?.clone())))
            .collect(),
    )
}

/// A problem for each source of the configuration whose name or path a given variable has a part in: who gives a variable does
/// not choose what the host that fills it in reads.
pub fn chosen_sources(document: &Value, variables: &Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let own = located_steps(document).into_iter().filter_map(|step| {
        let own = step.value.get("configuration")?;
        Some((at_key(&step.at, "configuration"), own))
    });
    let experiment = document.get("configuration");
    let experiment = experiment.map(|own| ("$.configuration".to_owned(), own));
    let mut given: BTreeSet<String> = variables.keys().cloned().collect();
    for (at, section) in experiment.into_iter().chain(own) {
        let Some(fields) = section.as_object() else {
            continue;
        };
        // A name that is made of a given one is given, too.
        loop {
            let before = given.len();
            let made = fields
                .iter()
                .filter(|(_, written)| names::any_in(written, &given));
            let made: Vec<String> = made.map(|(name, _)| name.clone()).collect();
            given.extend(made);
            if given.len() == before {
                break;
            }
        }
        for (name, written) in fields {
            let is_replaced = at == "$.configuration" && variables.contains_key(name);
            if !is_replaced && is_read(written) && names::any_in(written, &given) {
                let what = "a variable of the request would choose what is read here";
                problems.push(Problem::new(at_key(&at, name), what).hint(
                    "write the name or the path into the document, or give the value itself as the variable",
                ));
            }
        }
    }
    problems
}

/// The first of these names that a text has as a variable.
pub(crate) fn first_name_in<'t>(text: &'t str, names: &BTreeSet<String>) -> Option<&'t str> {
    template::names_in(text).find(|name| names.contains(*name))
}

/// Puts the values in place in one text. A text that is one variable becomes its value, whatever
/// its type; elsewhere a value is written out: as it was given, else as Python writes it (`True`, `None`), lists and
/// objects as JSON. `$name` stands for a name that there is, `$$` for `$`; with no names at all
/// only `$${` is looked at, so that a shell's `$$` in an experiment without configuration stays.
pub fn text_with(template: &str, values: &Values, at: &str, problems: &mut Vec<Problem>) -> Value {
    template::fill(template, values, at, 0, &mut Budget::default(), problems)
}

fn missing(name: &str, values: &Values, at: &str) -> Problem {
    let names: Vec<&str> = values.names().take(MAX_COMPARED_WORDS).collect();
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

#[cfg(test)]
mod tests;
