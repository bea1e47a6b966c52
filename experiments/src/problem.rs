//! What is wrong with something a person wrote: where, what, and what would do.

use crate::terminal_text::escape;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing wrong in a document or in a fault's arguments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Where, as a JSON path from the document's root, e.g. `$.method[0].provider.duration`.
    pub at: String,
    /// What is wrong, in one line without a full stop.
    pub what: String,
    /// What would do, where we can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Problem {
            at: at.into(),
            what: what.into(),
            hint: None,
        }
    }

    /// The same problem, saying what would do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", escape(&self.at), escape(&self.what))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", escape(hint))?;
        }
        Ok(())
    }
}

/// The most problems of one document that are reported. Each may be as long as the names in it, so that more would take memory.
pub const MAX_PROBLEMS: usize = 200;

/// The longest word, in bytes, that is compared with others: the time and the memory that it takes grow
/// with the product of both lengths, and documents may have words of any length.
const MAX_COMPARED_BYTES: usize = 40;

/// The most words that one is compared with.
pub(crate) const MAX_COMPARED_WORDS: usize = 1_000;

/// The most bytes of words that a message lists.
const MAX_LISTED_BYTES: usize = 500;

/// The one of `known` that `word` was probably meant to be, if any is near enough: letters may be missing, wrong or in the other case,
/// or it is a part of one known word only, e.g. `latency` of `network-latency`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let lower = word.to_lowercase();
    let known: Vec<&'a str> = known
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_COMPARED_BYTES)
        .take(MAX_COMPARED_WORDS)
        .collect();
    let distance = |candidate: &str| {
        let folded = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        // Of words that differ in case only, the one as written is nearest.
        (folded, strsim::damerau_levenshtein(word, candidate))
    };
    let near = known
        .iter()
        .map(|candidate| (distance(candidate), *candidate))
        .filter(|((distance, _), candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, near)) = near {
        return Some(near);
    }
    let is_part = |candidate: &&&str| {
        let candidate = candidate.to_lowercase();
        candidate.split(['-', '_', '.']).any(|part| part == lower)
    };
    let mut holding = known.iter().filter(is_part);
    match (holding.next(), holding.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// What would do instead of `word`: the nearest of `known`, else all of them.
pub fn meant(word: &str, known: &[&str]) -> Option<String> {
    match nearest(word, known.iter().copied()) {
        _ if known.is_empty() => None,
        Some(near) if known.len() <= 8 => {
            let others: Vec<&str> = known
                .iter()
                .copied()
                .filter(|other| *other != near)
                .collect();
            match others.is_empty() {
                true => Some(format!("did you mean `{near}`?")),
                false => Some(format!(
                    "did you mean `{near}`? There are also {}",
                    list_words(&others)
                )),
            }
        }
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.len() == 1 => Some(format!("only {} is", list_words(known))),
        None => Some(format!("known are {}", list_words(known))),
    }
}

/// Words for a message, each in back-ticks; `…` for those that are too many or too long.
pub fn list_words(words: &[&str]) -> String {
    let mut left = MAX_LISTED_BYTES;
    let mut listed: Vec<String> = words
        .iter()
        .map_while(|word| {
            left = left.checked_sub(word.len())?;
            Some(format!("`{word}`"))
        })
        .collect();
    if listed.len() < words.len() {
        listed.push("…".into());
    }
    listed.join(", ")
}

/// The JSON path of a key of the object at `at`.
pub fn at_key(at: &str, key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if plain {
        format!("{at}.{key}")
    } else {
        format!("{at}['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

/// The JSON path of a member of the list at `at`.
pub fn at_index(at: &str, index: usize) -> String {
    format!("{at}[{index}]")
}

/// The JSON pointer (RFC 6901) to the place that a JSON path of [`at_key`] and [`at_index`] names. None for any other
/// text, e.g. a line and a column.
pub fn pointer_of(at: &str) -> Option<String> {
    let mut rest = at.strip_prefix('$')?;
    let mut pointer = String::new();
    while !rest.is_empty() {
        let mut key = String::new();
        if let Some(quoted) = rest.strip_prefix("['") {
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (_, '\\') => key.push(characters.next()?.1),
                    (end, '\'') => break end,
                    (_, c) => key.push(c),
                }
            };
            rest = quoted[end..].strip_prefix("']")?;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, next) = index.split_once(']')?;
            key.push_str(index);
            rest = next;
        } else {
            let plain = rest.strip_prefix('.')?;
            let (plain, next) = plain.split_at(plain.find(['.', '[']).unwrap_or(plain.len()));
            key.push_str(plain);
            rest = next;
        }
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
    }
    Some(pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_place_that_it_was_made_of() {
        let keys = [
            "a",
            "b-c",
            "x y",
            "it's",
            "back\\slash",
            "a/b~c",
            "",
            "é.[0]",
        ];
        let mut document = serde_json::json!("here");
        let mut at = "$".to_owned();
        for key in keys {
            at = at_index(&at_key(&at, key), 1);
        }
        for key in keys.iter().rev() {
            let key = (*key).to_owned();
            document = serde_json::Value::Object(
                [(key, serde_json::json!([0, document]))]
                    .into_iter()
                    .collect(),
            );
        }
        let pointer = pointer_of(&at).unwrap_or_else(|| panic!("{at}"));
        assert_eq!(
            document.pointer(&pointer),
            Some(&serde_json::json!("here")),
            "{at}"
        );
        assert_eq!(pointer_of("line 1, column 2"), None);
        assert_eq!(pointer_of("$"), Some(String::new()));
    }

    #[test]
    fn nearest_part_or_other_case_is_found() {
        let faults = [
            "network-latency",
            "network-loss",
            "process-kill",
            "disk-fill",
        ];
        assert_eq!(nearest("latency", faults), Some("network-latency"));
        assert_eq!(nearest("Network-Loss", faults), Some("network-loss"));
        assert_eq!(nearest("KILL", faults), Some("process-kill"));
        assert_eq!(nearest("network", faults), None, "two of them");
        assert_eq!(nearest("TCP", ["tcp", "udp"]), Some("tcp"));
        assert_eq!(nearest("Name", ["name", "Name"]), Some("Name"));
    }

    #[test]
    fn a_word_of_any_length_is_compared_in_no_time() {
        let long = "x".repeat(1_000_000);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest("prt", [long.as_str(), "port"]), Some("port"));
        assert_eq!(list_words(&["a", "b"]), "`a`, `b`");
        assert_eq!(list_words(&["a", &long, "b"]), "`a`, …");
    }
}
