//! What a `process` provider runs: its arguments as argv, never a shell's line.

use crate::python;
use serde_json::Value;

/// The program and its arguments. As the Chaos Toolkit does, empty texts and `null`s in a list or
/// an object are left out. Errors say what would do.
pub fn argv(program: &str, arguments: Option<&Value>) -> Result<Vec<String>, String> {
    let mut argv = vec![program.to_owned()];
    match arguments {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => argv.extend(list.iter().filter_map(word)),
        Some(Value::Object(fields)) => {
            for (key, value) in fields {
                argv.extend((!key.is_empty()).then(|| key.clone()));
                argv.extend(word(value));
            }
        }
        Some(Value::String(line)) => argv.extend(words(line)?),
        Some(other) => argv.extend(word(other)),
    }
    Ok(argv)
}

/// A value as one argument, as Python's `str` writes it.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        other => Some(python::spelled(other)),
    }
}

/// Splits a line into words at white space, minding quotes and `\`. Whatever only a shell would
/// understand is refused, not passed on as if it meant nothing.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err("a `'` has no end".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a `\"` has no end".into()),
                        },
                        // Before its own end quote a `$` is only a `$`.
                        Some('$') if chars.peek() == Some(&'"') => word.push('$'),
                        Some(inner @ ('$' | '`')) => expands(inner, chars.peek()).map_or_else(
                            || {
                                word.push(inner);
                                Ok(())
                            },
                            |syntax| Err(shell(&syntax)),
                        )?,
                        Some(inner) => word.push(inner),
                        None => return Err("a `\"` has no end".into()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("a `\\` stands at the end".into()),
            },
            '|' | '>' | '<' | ';' | '&' | '(' | ')' => return Err(shell(&c.to_string())),
            '*' | '?' | '[' => return Err(shell(&c.to_string())),
            '~' | '#' if word.is_none() => return Err(shell(&c.to_string())),
            '{' if word.as_deref() != Some("$") && braces_expand(chars.clone()) => {
                return Err(shell("{"));
            }
            '$' | '`' => match expands(c, chars.peek()) {
                Some(syntax) => return Err(shell(&syntax)),
                None => word.get_or_insert_default().push(c),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Whether a shell would put something in place of this.
fn expands(c: char, next: Option<&char>) -> Option<String> {
    match (c, next) {
        ('`', _) => Some("`".into()),
        ('$', Some(next)) if next.is_alphanumeric() || "({_@*#?$!-'\"".contains(*next) => {
            Some(format!("${next}"))
        }
        _ => None,
    }
}

/// Whether what follows a `{` makes it a list or a range (`{a,b}`, `{1..3}`) to a shell.
fn braces_expand(rest: impl Iterator<Item = char>) -> bool {
    let inner: String = rest
        .take_while(|c| *c != '}' && !c.is_whitespace())
        .collect();
    inner.contains(',') || inner.contains("..")
}

fn shell(syntax: &str) -> String {
    format!("`{syntax}` would need a shell, and no shell is run")
}

/// What to write where a shell is really wanted.
pub fn shell_hint(path: &str, line: &str) -> String {
    let line = Value::String(format!("{path} {line}"));
    format!(
        "say so explicitly: `\"path\": \"sh\", \"arguments\": [\"-c\", {line}]`; or put the word in quotes. The Chaos Toolkit gives such a line to a shell"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(arguments: Value) -> Result<Vec<String>, String> {
        argv("p", Some(&arguments))
    }

    #[test]
    fn lists_objects_and_lines_become_argv() {
        assert_eq!(
            of(json!(["-a", 1, "", null, "x y", true])).unwrap(),
            ["p", "-a", "1", "x y", "True"]
        );
        assert_eq!(
            of(json!({"--n": 3, "--flag": ""})).unwrap(),
            ["p", "--n", "3", "--flag"]
        );
        assert_eq!(
            of(json!("-a 'x y' \"z \\\" w\" q\\ r ''")).unwrap(),
            ["p", "-a", "x y", "z \" w", "q r", ""]
        );
        assert_eq!(of(Value::Null).unwrap(), ["p"]);
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for line in [
            "a | b",
            "a > f",
            "a < f",
            "a; b",
            "a && b",
            "a &",
            "$(a)",
            "`a`",
            "*.txt",
            "a?",
            "[ab]",
            "~/x",
            "$HOME",
            "\"$HOME\"",
            "\"`a`\"",
            "${X}",
            "{a,b}",
            "{1..3}",
            "# x",
            "(a)",
            "'open",
            "\"open",
            "a\\",
            "$$",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_a_shell_would_leave_alone_is_not() {
        for (line, word) in [
            ("'a|b'", "a|b"),
            ("a\\*", "a*"),
            ("\"a;b*\"", "a;b*"),
            ("a#b", "a#b"),
            ("a$", "a$"),
            ("{}", "{}"),
            ("a=~b", "a=~b"),
            ("\"5$\"", "5$"),
        ] {
            assert_eq!(words(line).unwrap(), [word], "{line}");
        }
    }
}
