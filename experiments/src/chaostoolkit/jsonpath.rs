//! JSONPath: RFC 9535, and a bridge from the Chaos Toolkit's dialect (jsonpath2) where that differs.
//!
//! There, `[?(…)]` tests the value that it is given, so a list's members are tested by `[*][?(…)]`,
//! which is RFC 9535's `[?…]`; equality is `=`; and there are `and`, `or` and `not`. A comparison
//! with something that is not there is false there, whatever the comparison. A filter in that
//! syntax after `[*]` or `.*` is rewritten; anywhere else it is refused, with the RFC's way.

use serde_json_path::JsonPath;

/// Compiles a path.
pub(crate) fn compile(path: &str) -> Result<JsonPath, String> {
    let path = path.trim();
    if path.is_empty() {
        return Err("the JSONPath is empty: `$` is the whole value".into());
    }
    let rewritten = rewrite(path)?;
    JsonPath::parse(&rewritten).map_err(|error| {
        let hint = match () {
            () if !path.starts_with('$') => "; a path starts with `$`",
            () if path.contains("length()") => "; to count what is found, use `count`",
            () => "",
        };
        format!(
            "the JSONPath `{path}` cannot be read: {}{hint}",
            error.message()
        )
    })
}

/// The path with every filter of the other dialect in RFC 9535's words.
fn rewrite(path: &str) -> Result<String, String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let quoted = quoted_length(rest);
        if quoted > 0 {
            out.push_str(&rest[..quoted]);
            rest = &rest[quoted..];
            continue;
        }
        let filter = rest.strip_prefix("[?(").and_then(FilterParser::parse);
        let Some((filter, after)) = filter else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let wildcard = ["[*]", ".*"]
            .iter()
            .find(|wildcard| out.ends_with(*wildcard) && !out.ends_with("..*"));
        match wildcard {
            Some(wildcard) => {
                out.truncate(out.len() - wildcard.len());
                out.push_str(&format!("[?{}]", filter.text));
            }
            None if filter.toolkit_only => {
                return Err(format!(
                    "the JSONPath `{path}` has a filter in the Chaos Toolkit's dialect, where it tests the value before it: write `[*][?(…)]` to test a list's members, or RFC 9535's `==`, `&&`, `||`, `!`"
                ));
            }
            None => out.push_str(&rest[..rest.len() - after.len()]),
        }
        rest = after;
    }
    Ok(out)
}

/// The length in bytes of the quoted text that this starts with.
fn quoted_length(text: &str) -> usize {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        return 0;
    };
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// A filter in jsonpath2's grammar, being read.
struct FilterParser<'p> {
    rest: &'p str,
    /// Whether it has a word or sign that RFC 9535 does not know.
    toolkit_only: bool,
    /// How deep in brackets: no deeper than anybody writes, so that nobody's stack runs out.
    depth: u8,
}

struct ParsedFilter {
    text: String,
    toolkit_only: bool,
}

impl<'p> FilterParser<'p> {
    /// Reads `expression)]`, and gives back the expression in RFC 9535's words and what follows it.
    /// None where it is not in jsonpath2's grammar.
    fn parse(inner: &'p str) -> Option<(ParsedFilter, &'p str)> {
        let mut filter = FilterParser {
            rest: inner,
            toolkit_only: false,
            depth: 0,
        };
        let text = filter.disjunction()?;
        filter.sign(")")?;
        filter.sign("]")?;
        Some((
            ParsedFilter {
                text,
                toolkit_only: filter.toolkit_only,
            },
            filter.rest,
        ))
    }

    fn sign(&mut self, sign: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(sign)?;
        Some(())
    }

    fn word(&mut self, word: &str) -> bool {
        let after = self.rest.trim_start().strip_prefix(word);
        match after.filter(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')) {
            Some(after) => {
                self.rest = after;
                self.toolkit_only = true;
                true
            }
            None => false,
        }
    }

    fn disjunction(&mut self) -> Option<String> {
        let mut text = self.conjunction()?;
        while self.word("or") {
            text = format!("{text} || {}", self.conjunction()?);
        }
        Some(text)
    }

    fn conjunction(&mut self) -> Option<String> {
        let mut text = self.term()?;
        while self.word("and") {
            text = format!("{text} && {}", self.term()?);
        }
        Some(text)
    }

    fn term(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > 50 {
            return None;
        }
        let text = if self.word("not") {
            format!("!({})", self.term()?)
        } else if self.sign("(").is_some() {
            let inner = self.disjunction()?;
            self.sign(")")?;
            format!("({inner})")
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Some(text)
    }

    fn comparison(&mut self) -> Option<String> {
        let left = self.operand()?;
        let signs = [
            ("!=", "!="),
            (">=", ">="),
            ("<=", "<="),
            ("=", "=="),
            (">", ">"),
            ("<", "<"),
        ];
        let Some((there, here)) = signs.iter().find(|(there, _)| self.sign(there).is_some()) else {
            return is_path(left).then(|| left.to_owned());
        };
        if *there == "=" {
            if self.rest.starts_with('=') {
                return None;
            }
            self.toolkit_only = true;
        }
        let right = self.operand()?;
        let there: Vec<&str> = [left, right]
            .into_iter()
            .filter(|operand| is_path(operand))
            .collect();
        let exist: String = there
            .iter()
            .map(|operand| format!("{operand} && "))
            .collect();
        Some(format!("({exist}{left} {here} {right})"))
    }

    /// A path, or a literal.
    fn operand(&mut self) -> Option<&'p str> {
        self.rest = self.rest.trim_start();
        let start = self.rest;
        let quoted = quoted_length(start);
        let length = match start.chars().next()? {
            '"' => quoted,
            '@' | '$' => path_length(start)?,
            '-' | '0'..='9' | 't' | 'f' | 'n' => {
                start.find(|c: char| !(c.is_alphanumeric() || "+-.".contains(c)))?
            }
            _ => return None,
        };
        let (operand, rest) = (start.get(..length)?, start.get(length..)?);
        let literal =
            is_path(operand) || serde_json::from_str::<serde_json::Value>(operand).is_ok();
        self.rest = rest;
        literal.then_some(operand)
    }
}

fn is_path(operand: &str) -> bool {
    operand.starts_with(['@', '$'])
}

/// The length in bytes of the path that this starts with; filters within it are not looked into.
fn path_length(text: &str) -> Option<usize> {
    let mut length = 1;
    while let Some(c) = text[length..].chars().next() {
        match c {
            '.' | '_' | '*' => length += 1,
            '[' => {
                let mut inner = length + 1;
                loop {
                    let quoted = quoted_length(&text[inner..]);
                    match text[inner..].chars().next()? {
                        _ if quoted > 0 => inner += quoted,
                        ']' => break,
                        '[' | '?' | '(' => return None,
                        other => inner += other.len_utf8(),
                    }
                }
                length = inner + 1;
            }
            c if c.is_alphanumeric() => length += c.len_utf8(),
            _ => break,
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What jsonpath2 0.4.5 found in the same document with the same paths.
    #[test]
    fn the_toolkits_paths_find_what_they_find_there() {
        let document = json!({
            "items": [{"name": "a", "n": 1, "ok": true}, {"name": "b", "n": 2}, {"name": "c d", "n": 3}],
            "o": {"x": {"k": 1}, "y": {"k": 2}}
        });
        for (path, found) in [
            ("$.items[*].name", json!(["a", "b", "c d"])),
            ("$.items[-1].n", json!([3])),
            ("$.items[::2].n", json!([1, 3])),
            ("$..n", json!([1, 2, 3])),
            (" $.o.*.k ", json!([1, 2])),
            ("$[\"items\"][0,1].n", json!([1, 2])),
            ("$.items[*][?(@.n = 2)].name", json!(["b"])),
            ("$.items[*][?(@.n>1)].name", json!(["b", "c d"])),
            ("$.items[*][?(@.n=1 and @.ok)].name", json!(["a"])),
            ("$.items[*][?(not @.ok)].name", json!(["b", "c d"])),
            ("$.items[*][?(@.ok != false)].name", json!(["a"])),
            ("$.items[*][?(@.name = \"c d\")].n", json!([3])),
            ("$.items[*][?(@.n=1 or @.n=3)].n", json!([1, 3])),
            ("$.items[*][?(@.ok = true)].n", json!([1])),
            ("$.o.*[?(@.k=1)]", json!([{"k": 1}])),
            ("$.missing.a", json!([])),
        ] {
            let compiled = compile(path).unwrap();
            let all: Vec<Value> = compiled
                .query(&document)
                .all()
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(Value::Array(all), found, "{path}");
        }
    }

    #[test]
    fn the_rfcs_own_filters_are_left_as_they_are() {
        let document = json!({"items": [{"n": 1}, {"n": 2}]});
        for path in [
            "$.items[?@.n == 2]",
            "$.items[?(@.n > 1)]",
            "$.items[?(@.n == 2 && @.n)]",
        ] {
            let compiled = compile(path).unwrap();
            assert_eq!(
                compiled.query(&document).all(),
                [&json!({"n": 2})],
                "{path}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        for (path, word) in [
            ("", "empty"),
            ("items", "starts with `$`"),
            ("$.items[", "cannot be read"),
            ("$.items[?(@.n = 2)]", "Toolkit's dialect"),
            ("$.items.length()", "`count`"),
        ] {
            let error = compile(path).unwrap_err();
            assert!(error.contains(word), "{path}: {error}");
        }
    }
}
