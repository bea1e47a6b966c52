//! Reads JSON, and says where and why it cannot be read.

use crate::Problem;
use serde_json::Value;

/// The text as JSON. The problem's place is its line and column.
pub(super) fn parse(text: &str) -> Result<Value, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        let problem = Problem::new(
            format!("line {line}, column {column}"),
            format!("this is no JSON: {what}"),
        );
        match hint(text, line, column, what) {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    })
}

fn hint(text: &str, line: usize, column: usize, what: &str) -> Option<&'static str> {
    let here = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // serde_json counts columns in bytes, from 1; the byte it stopped at is the last one read.
    let rest = here.get(column.saturating_sub(1)..).unwrap_or_default();
    let start = text.trim_start();
    if start.is_empty() {
        Some("the document is empty; an experiment starts with `{`")
    } else if !start.starts_with(['{', '[']) {
        Some("an experiment is JSON and starts with `{`; YAML has to be turned into JSON first")
    } else if what.contains("trailing comma") {
        Some("take out the comma before the closing bracket")
    } else if what.contains("EOF") {
        Some("a `}`, a `]` or a `\"` is missing at the end")
    } else if rest.starts_with('\'') {
        Some("JSON has double quotes only")
    } else if rest.starts_with('/') || rest.starts_with('#') {
        Some("JSON has no comments; use an `x-…` key")
    } else if what.contains("expected `,`") {
        Some("a comma is missing before this, or a quote or a bracket is not closed")
    } else if what.contains("key must be a string") {
        Some("a key stands in double quotes")
    } else if what.contains("control character") {
        Some("a line end within text is written `\\n`")
    } else if what.contains("trailing characters") {
        Some("the document has ended before this: there is a closing bracket too many")
    } else if what.contains("recursion limit") {
        Some("no experiment is nested this deep")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_slip_has_its_place_and_a_hint() {
        for (text, at, hint) in [
            ("", "line 1, column 0", "empty"),
            ("title: x", "line 1, column 2", "YAML"),
            ("{\"a\": 1,}", "line 1, column 9", "comma before"),
            (
                "{\"a\": 1\n\"b\": 2}",
                "line 2, column 1",
                "comma is missing",
            ),
            ("{'a': 1}", "line 1, column 2", "double quotes"),
            ("{\"a\": 'x'}", "line 1, column 7", "double quotes"),
            ("{\n// c\n\"a\": 1}", "line 2, column 1", "comments"),
            ("{\"a\": {", "line 1, column 7", "missing at the end"),
            ("{}}", "line 1, column 3", "too many"),
            ("{a: 1}", "line 1, column 2", "key"),
            ("{\"a\": \"x\ny\"}", "line 2, column 0", "`\\n`"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.at, at, "{text:?}: {problem}");
            assert!(
                problem.hint.as_deref().unwrap_or_default().contains(hint),
                "{text:?}: {problem}"
            );
        }
        assert!(parse("\u{feff}{}").is_ok());
        assert!(parse(&"[".repeat(1_000)).is_err());
    }
}
