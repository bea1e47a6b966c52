//! Variables in one text: which there are, and the text with their values in place.

use super::size::Budget;
use super::{Values, missing};
use crate::Problem;
use serde_json::Value;

/// The most problems after which a missing variable's hint is still looked for, which takes its time.
const MAX_HINTED: usize = 100;

/// A part of a text.
enum Piece<'t> {
    /// As it is.
    Plain(&'t str),
    /// `$$`, and whether `{` comes next.
    Escaped { before_brace: bool },
    /// `${…}`.
    Braced(&'t str),
    /// `$name`.
    Bare(&'t str),
}

/// The parts of a text, in their order.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let Some(after) = rest.strip_prefix('$') else {
            let end = rest.find('$').unwrap_or(rest.len());
            let (plain, next) = rest.split_at(end);
            rest = next;
            return (!plain.is_empty()).then_some(Piece::Plain(plain));
        };
        if let Some(next) = after.strip_prefix('$') {
            rest = next;
            let before_brace = next.starts_with('{');
            return Some(Piece::Escaped { before_brace });
        }
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .filter(|(name, _)| !name.is_empty() && !name.contains('$'));
        if let Some((name, next)) = braced {
            rest = next;
            return Some(Piece::Braced(name));
        }
        let name = identifier(after);
        if name.is_empty() {
            let (dollar, next) = rest.split_at(1);
            rest = next;
            return Some(Piece::Plain(dollar));
        }
        rest = &after[name.len()..];
        Some(Piece::Bare(name))
    })
}

/// Whatever in a text may be a variable's name.
pub(super) fn names_in(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Braced(name) | Piece::Bare(name) => Some(name),
        Piece::Plain(_) | Piece::Escaped { .. } => None,
    })
}

/// Whether a text has anything in it that is put in place when these are the names: else it is left as
/// it is written, its `$$` included.
pub(super) fn has_variable(text: &str, is_name: impl Fn(&str) -> bool) -> bool {
    pieces(text).any(|piece| match piece {
        Piece::Braced(name) => is_name(name) || reads_as_name(name),
        Piece::Escaped { before_brace } => before_brace,
        Piece::Bare(name) => is_name(name),
        Piece::Plain(_) => false,
    })
}

/// The text with the values in place, or the value of the one variable that it is.
pub(super) fn fill(
    template: &str,
    values: &Values,
    at: &str,
    depth: usize,
    budget: &mut Budget,
    problems: &mut Vec<Problem>,
) -> Value {
    if let Some(value) = whole(template).and_then(|name| values.get(name)) {
        return match budget.take(value, depth, at, problems) {
            true => value.clone(),
            false => Value::Null,
        };
    }
    let nothing_to_find = values.is_empty();
    let mut filled = String::with_capacity(template.len());
    for piece in pieces(template) {
        let (name, braced) = match piece {
            Piece::Plain(plain) => {
                filled.push_str(plain);
                continue;
            }
            Piece::Escaped { before_brace } => {
                filled.push('$');
                if nothing_to_find && !before_brace {
                    filled.push('$');
                }
                continue;
            }
            Piece::Braced(name) => (name, true),
            Piece::Bare(name) => (name, false),
        };
        match (values.written_out(name), braced) {
            (Some(text), _) => {
                if budget.take_text(text.len(), at, problems) {
                    filled.push_str(&text);
                }
            }
            (None, true) => {
                if reads_as_name(name) {
                    problems.push(match problems.len() < MAX_HINTED {
                        true => missing(name, values, at),
                        false => Problem::new(at, format!("there is no variable `{name}`")),
                    });
                }
                filled.push_str("${");
                filled.push_str(name);
                filled.push('}');
            }
            (None, false) => {
                filled.push('$');
                filled.push_str(name);
            }
        }
    }
    Value::String(filled)
}

/// The name of a text that is one variable.
pub(super) fn whole(template: &str) -> Option<&str> {
    let mut pieces = pieces(template);
    match (pieces.next()?, pieces.next()) {
        (Piece::Braced(name) | Piece::Bare(name), None) => Some(name),
        _ => None,
    }
}

/// Whether what stands in braces reads as a variable's name: letters, digits, `_`, `-` and `.`, the
/// first a letter or `_`. A name that is not declared is an error then; anything else, e.g. a
/// shell's `${x:-1}`, stays as it is.
fn reads_as_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
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
