//! What a probe's value is judged by: compiled once, then a pure function of the value.
//!
//! The answers are the Chaos Toolkit's (chaoslib/hypothesis.py, lib 1.44). Where that raises, the
//! check itself is broken and the answer is an error: unknown, never false and never fine.

mod number;
mod reason;

use crate::chaostoolkit::jsonpath;
use crate::document::{
    CompareOp, CompareTolerance, ProbeTolerance, Provider, RangeTolerance, RegexTolerance,
    Tolerance, ToleranceRule,
};
use crate::json;
use crate::python::{at_most, equal, kind_of, truthy};
use number::Numeric;
use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A tolerance, compiled.
#[derive(Debug, Clone)]
pub struct CompiledTolerance(Criterion);

#[derive(Debug, Clone)]
enum Criterion {
    Is(Value),
    SuccessOrIs(bool),
    StatusOrIs(i64),
    OneOf(Vec<Value>),
    Regex {
        regex: Regex,
        target: Option<String>,
    },
    Jsonpath {
        path: JsonPath,
        target: Option<String>,
        expect: Option<Value>,
        count: Option<u64>,
    },
    Range {
        least: f64,
        most: f64,
        target: Option<String>,
    },
    Compare {
        path: Option<JsonPath>,
        op: CompareOp,
        with: Value,
    },
    Probe {
        probe: Box<ProbeTolerance>,
        inner: Box<CompiledTolerance>,
    },
    Truthy,
}

impl Criterion {
    /// Whether the body of an HTTP answer may decide.
    fn judges_body(&self) -> bool {
        let is_other = |part: &str| part == "status" || part == "headers";
        match self {
            Criterion::StatusOrIs(_) | Criterion::OneOf(_) | Criterion::SuccessOrIs(_) => false,
            Criterion::Regex { target, .. }
            | Criterion::Jsonpath { target, .. }
            | Criterion::Range { target, .. } => !target.as_deref().is_some_and(is_other),
            Criterion::Compare {
                path: Some(path), ..
            } => {
                let path = path.to_string();
                let below = ["$.", "$['", "$[\""]
                    .iter()
                    .find_map(|root| path.strip_prefix(root));
                let is_part = |c: char| c.is_alphanumeric() || c == '_';
                let first = below.and_then(|below| below.split(|c| !is_part(c)).next());
                !first.is_some_and(is_other)
            }
            Criterion::Is(_)
            | Criterion::Compare { path: None, .. }
            | Criterion::Probe { .. }
            | Criterion::Truthy => true,
        }
    }
}

impl CompiledTolerance {
    /// Compiles a tolerance. The error says what of it is wrong: an expression or a path that cannot be read.
    pub fn compile(tolerance: &Tolerance) -> Result<CompiledTolerance, String> {
        let rule = match tolerance {
            Tolerance::Boolean(flag) => Criterion::SuccessOrIs(*flag),
            Tolerance::Integer(number) => Criterion::StatusOrIs(*number),
            Tolerance::Text(text) => Criterion::Is(Value::String(text.clone())),
            Tolerance::AnyOf(list) => Criterion::OneOf(list.clone()),
            Tolerance::Rule(rule) => match rule.as_ref() {
                ToleranceRule::Regex(RegexTolerance { pattern, target }) => Criterion::Regex {
                    regex: compile_regex(pattern)?,
                    target: target.clone(),
                },
                ToleranceRule::Jsonpath(wanted) => Criterion::Jsonpath {
                    path: jsonpath::compile(&wanted.path)?,
                    target: wanted.target.clone(),
                    expect: wanted.expect.clone(),
                    count: wanted.count,
                },
                ToleranceRule::Range(RangeTolerance {
                    range: (least, most),
                    target,
                }) => {
                    if least > most {
                        return Err(format!(
                            "nothing lies between {least} and {most}: the lower one comes first"
                        ));
                    }
                    Criterion::Range {
                        least: *least,
                        most: *most,
                        target: target.clone(),
                    }
                }
                ToleranceRule::Compare(CompareTolerance { path, op, value }) => {
                    Criterion::Compare {
                        path: path.as_deref().map(jsonpath::compile).transpose()?,
                        op: *op,
                        with: value.clone(),
                    }
                }
                ToleranceRule::Probe(probe) => {
                    let inner = match &probe.tolerance {
                        Some(tolerance) => CompiledTolerance::compile(tolerance)?,
                        None => CompiledTolerance(Criterion::Truthy),
                    };
                    Criterion::Probe {
                        probe: probe.clone(),
                        inner: Box::new(inner),
                    }
                }
            },
        };
        Ok(CompiledTolerance(rule))
    }

    /// Whether a value is in tolerance. An error means that the check is broken, e.g. a regular
    /// expression that is given a number. A tolerance that is a probe has to be measured first:
    /// see [`CompiledTolerance::probe`].
    pub fn accepts(&self, value: &Value) -> Result<bool, String> {
        if let Some(why) = value.get("body_error").and_then(Value::as_str)
            && self.0.judges_body()
        {
            return Err(why.to_owned());
        }
        match &self.0 {
            Criterion::Is(wanted) => Ok(equal(value, wanted)),
            Criterion::SuccessOrIs(wanted) => Ok(match success_of(value) {
                Some(success) => success == *wanted,
                None => equal(value, &Value::Bool(*wanted)),
            }),
            Criterion::StatusOrIs(wanted) => Ok(equal(
                status_of(value).unwrap_or(value),
                &Value::from(*wanted),
            )),
            Criterion::OneOf(list) => one_of(list, value),
            Criterion::Regex { regex, target } => match part(value, target.as_deref())? {
                // Python's `$` matches before a line end that ends the text, too.
                Value::String(text) => Ok(regex.is_match(text)
                    || text
                        .strip_suffix('\n')
                        .is_some_and(|without| regex.is_match(without))),
                other => Err(format!(
                    "a regular expression needs text, and this is {}",
                    kind_of(other)
                )),
            },
            Criterion::Jsonpath {
                path,
                target,
                expect,
                count,
            } => {
                let value = part(value, target.as_deref())?;
                let value = as_json(value)?;
                let found = path.query(&value).all();
                Ok(match (expect, count) {
                    (Some(Value::Array(wanted)), _) => {
                        found.len() == wanted.len()
                            && found.iter().zip(wanted).all(|(a, b)| equal(a, b))
                    }
                    (Some(wanted), _) => matches!(found[..], [only] if equal(only, wanted)),
                    (None, Some(count)) => found.len() as u64 == *count,
                    (None, None) => !found.is_empty(),
                })
            }
            Criterion::Range {
                least,
                most,
                target,
            } => {
                let number = match part(value, target.as_deref())? {
                    Value::Bool(flag) => f64::from(u8::from(*flag)),
                    other => match Numeric::of(other) {
                        Some(number) => number.as_f64(),
                        None => {
                            let what = no_number(other);
                            return Err(format!("a range needs a number, and this is {what}"));
                        }
                    },
                };
                Ok(*least <= number && number <= *most)
            }
            Criterion::Compare { path, op, with } => compare(path.as_ref(), *op, with, value),
            Criterion::Probe { probe, .. } => Err(format!(
                "the tolerance is the probe `{}`, which has not been measured",
                probe.name
            )),
            Criterion::Truthy => Ok(truthy(value)),
        }
    }

    /// Where the tolerance is a probe: who is asked, with `value` among the arguments, and what the
    /// answer is judged by. Where that provider fails, the value is out of tolerance.
    pub fn probe(&self, value: &Value) -> Option<Result<(Provider, &CompiledTolerance), String>> {
        let Criterion::Probe { probe, inner } = &self.0 else {
            return None;
        };
        Some(asking(&probe.provider, value).map(|provider| (provider, inner.as_ref())))
    }

    /// Whether the tolerance is a probe that has to be measured.
    pub fn is_probe(&self) -> bool {
        matches!(self.0, Criterion::Probe { .. })
    }
}

/// Whether the value of a `tcp` or a `dns` probe says that it connected, or that the name has such a record. None for the values of
/// all other probes, which never have exactly these keys.
fn success_of(value: &Value) -> Option<bool> {
    let fields = value.as_object().filter(|fields| fields.len() == 2)?;
    if let (Some(connected), Some(_)) = (fields.get("connected"), fields.get("took")) {
        return connected.as_bool();
    }
    let (code, answers) = (fields.get("code")?, fields.get("answers")?);
    Some(code.as_str()? == "No Error" && !answers.as_array()?.is_empty())
}

fn compile_regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| match &error {
        regex::Error::Syntax(text) => {
            // The library draws the place under the pattern; its last line says what is wrong.
            let what = text
                .lines()
                .last()
                .unwrap_or(text)
                .trim_start_matches("error: ");
            format!("the regular expression `{pattern}` cannot be read: {what}")
        }
        other => format!("the regular expression `{pattern}` cannot be used: {other}"),
    })
}

/// The provider, given the value that it is to judge.
fn asking(provider: &Provider, value: &Value) -> Result<Provider, String> {
    let mut provider = provider.clone();
    let taken = provider
        .probe_mut()
        .and_then(|probe| probe.take_value(value));
    match taken {
        Some(taken) => taken.map(|()| provider),
        None => Err(TAKES_NO_VALUE.into()),
    }
}

/// Whether this provider can judge the value of another.
pub(crate) fn takes_value(provider: &Provider) -> bool {
    let mut provider = provider.clone();
    provider
        .probe_mut()
        .is_some_and(|probe| probe.take_value(&Value::Null).is_some())
}

/// What is wrong with a tolerance whose provider cannot judge a value.
pub(crate) const TAKES_NO_VALUE: &str =
    "only an http, process or python provider can be given a value to judge";

fn status_of(value: &Value) -> Option<&Value> {
    value.as_object()?.get("status")
}

/// The part of a value that a rule looks at; the whole where it has no such part.
fn part<'v>(value: &'v Value, target: Option<&str>) -> Result<&'v Value, String> {
    match (target, value) {
        (None | Some(""), _) => Ok(value),
        (Some(target), Value::Object(fields)) => Ok(fields.get(target).unwrap_or(value)),
        (Some(target), other) => Err(format!("there is no `{target}` in {}", kind_of(other))),
    }
}

/// A value as a JSONPath looks at it: text that is JSON is read. Other text is itself, and only
/// `$` finds it, as in the Chaos Toolkit.
fn as_json(value: &Value) -> Result<Cow<'_, Value>, String> {
    let Value::String(text) = value else {
        return Ok(Cow::Borrowed(value));
    };
    match json::parse(text) {
        Ok((value, repeated)) => match repeated.first() {
            None => Ok(Cow::Owned(value)),
            Some(one) => Err(format!("the JSON is ambiguous: {}: {}", one.at, one.what)),
        },
        Err(_) => Ok(Cow::Borrowed(value)),
    }
}

/// What a value is that is no number.
fn no_number(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text that is no number",
        other => kind_of(other),
    }
}

fn one_of(list: &[Value], value: &Value) -> Result<bool, String> {
    let is_member = |value: &Value| list.iter().any(|member| equal(value, member));
    match (status_of(value), list) {
        (Some(status), _) => Ok(is_member(status)),
        (None, [least, most]) => Ok(at_most(least, value)? && at_most(value, most)?),
        (None, _) => Ok(is_member(value)),
    }
}

fn compare(
    path: Option<&JsonPath>,
    op: CompareOp,
    with: &Value,
    value: &Value,
) -> Result<bool, String> {
    let parsed = match path {
        Some(_) => as_json(value)?,
        None => Cow::Borrowed(value),
    };
    let value = match path {
        None => value,
        Some(path) => match path.query(&parsed).all()[..] {
            [one] => one,
            ref found => {
                return Err(format!(
                    "the path finds {} values, and one is compared",
                    found.len()
                ));
            }
        },
    };
    let order = || match (Numeric::of(value), Numeric::of(with)) {
        (Some(a), Some(b)) => Ok(a.order(b)),
        (None, _) => Err(format!(
            "only numbers are more or less than others, and this is {}",
            no_number(value)
        )),
        (_, None) => Err(format!(
            "only numbers are more or less than others, and `value` is {}",
            no_number(with)
        )),
    };
    let same = || match (value, with) {
        // Of two texts, `1.10` and `1.1` are not the same.
        (Value::String(_), Value::Number(_)) | (Value::Number(_), Value::String(_)) => {
            order().is_ok_and(Ordering::is_eq)
        }
        _ => equal(value, with),
    };
    match op {
        CompareOp::Equal => Ok(same()),
        CompareOp::NotEqual => Ok(!same()),
        CompareOp::Less => Ok(order()?.is_lt()),
        CompareOp::LessOrEqual => Ok(order()?.is_le()),
        CompareOp::GreaterOrEqual => Ok(order()?.is_ge()),
        CompareOp::Greater => Ok(order()?.is_gt()),
        CompareOp::Contains => match (value, with) {
            (Value::String(text), Value::String(inner)) => Ok(text.contains(inner.as_str())),
            (Value::Array(list), member) => Ok(list.iter().any(|one| equal(one, member))),
            (Value::Object(fields), Value::String(key)) => Ok(fields.contains_key(key)),
            (a, b) => Err(format!("{} cannot contain {}", kind_of(a), kind_of(b))),
        },
    }
}

#[cfg(test)]
mod tests;
