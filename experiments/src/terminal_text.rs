//! Text from outside, shown to people: what a terminal would obey, or an eye would be deceived by, becomes visible instead.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write;

/// The text in one line, with every character that controls a terminal or reorders or hides text written as a JSON escape, for
/// example `\u001b`. That escaping is stable: text that was escaped already stays as it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_deceptive)
}

/// Escapes a whole output, which may consist of several lines and be coloured: line breaks, tabs, and the sequences that set
/// colours and weights stay. It is the last guard before a terminal and cannot tell a line break from outside: whoever puts
/// text into a line uses [`escape`]. JSON stays JSON with the same values, since the escapes are JSON's own.
pub fn guard(output: &str) -> Cow<'_, str> {
    if !output
        .chars()
        .any(|c| is_deceptive(c) && c != '\n' && c != '\t')
    {
        return Cow::Borrowed(output);
    }
    let mut guarded = String::with_capacity(output.len() + 16);
    let mut rest = output;
    while let Some(start) = rest.find('\u{1b}') {
        let (before, sequence) = rest.split_at(start);
        guarded.push_str(&escape_where(before, is_deceptive_in_output));
        let length = style_length(sequence).unwrap_or(0);
        let (style, after) = sequence.split_at(length);
        guarded.push_str(style);
        rest = after;
        if length == 0 {
            guarded.push_str("\\u001b");
            rest = sequence.strip_prefix('\u{1b}').unwrap_or_default();
        }
    }
    guarded.push_str(&escape_where(rest, is_deceptive_in_output));
    Cow::Owned(guarded)
}

/// The same value with each text in it escaped, the keys of its maps included. None if it cannot be written as JSON and read
/// back, which never happens to messages, events and verdicts.
pub fn escaped<T: Serialize + DeserializeOwned>(value: &T) -> Option<T> {
    let mut json = serde_json::to_value(value).ok()?;
    escape_json(&mut json);
    serde_json::from_value(json).ok()
}

/// Whether [`escaped`] would change nothing, found out more cheaply. False also for a few harmless texts, such as those
/// with quotes.
pub fn is_plain<T: Serialize>(value: &T) -> bool {
    // JSON has a backslash before whatever it escapes.
    let text = serde_json::to_string(value);
    text.is_ok_and(|text| !text.chars().any(|c| c == '\\' || is_deceptive(c)))
}

/// The text with each character that XML 1.0 forbids, even as a reference, replaced by U+FFFD (section 2.2, `Char`), and with
/// those that reorder or hide text escaped. Line breaks and tabs stay.
pub fn for_xml(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    let text: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '\u{fffd}' })
        .collect();
    escape_where(&text, |c| {
        is_deceptive(c) && !matches!(c, '\t' | '\n' | '\r')
    })
    .into_owned()
}

fn escape_json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(escaped) = escape(text) {
                *text = escaped;
            }
        }
        Value::Array(members) => members.iter_mut().for_each(escape_json),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.chars().any(is_deceptive)) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(key, value)| (escape(&key).into_owned(), value))
                    .collect();
            }
            fields.values_mut().for_each(escape_json);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if !is_escaped(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    write!(escaped, "\\u{unit:04x}").ok();
                }
            }
        }
    }
    Cow::Owned(escaped)
}

fn is_deceptive_in_output(c: char) -> bool {
    is_deceptive(c) && c != '\n' && c != '\t'
}

/// Whether the character controls a terminal (C0, DEL, C1), reorders text (Unicode's bidirectional controls), breaks a line, or
/// cannot be seen. Joiners (U+200C, U+200D) and variation selectors stay: scripts and emoji need them.
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The length of the sequence at the start of the text if it only sets colours or weights (ECMA-48, SGR). Sequences that hide
/// text or make it blink have no place in the output.
fn style_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    if parameters.as_bytes().get(end) != Some(&b'm') {
        return None;
    }
    let is_style = |parameter: &str| {
        matches!(
            parameter.parse(),
            Ok(0_u8 | 1..=4 | 22..=24 | 30..=37 | 39 | 90..=97)
        )
    };
    let parameters = &parameters[..end];
    (parameters.is_empty() || parameters.split(';').all(is_style)).then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile host, document or agent says, and what people see of it.
    const HOSTILE: &[(&str, &str)] = &[
        ("\u{1b}]0;pwned\u{7}", "\\u001b]0;pwned\\u0007"),
        ("\u{1b}[2J\u{1b}[H", "\\u001b[2J\\u001b[H"),
        ("\u{1b}[31mred", "\\u001b[31mred"),
        ("\u{9b}2J", "\\u009b2J"),
        ("a\nheld: forged", "a\\nheld: forged"),
        ("a\rheld", "a\\rheld"),
        ("a\tb", "a\\tb"),
        ("a\u{8}\u{7f}b", "a\\u0008\\u007fb"),
        ("\u{202e}gpj.exe\u{2066}", "\\u202egpj.exe\\u2066"),
        ("a\u{61c}\u{200e}\u{200f}b", "a\\u061c\\u200e\\u200fb"),
        ("a\u{2028}b\u{2029}c\u{85}d", "a\\u2028b\\u2029c\\u0085d"),
        ("ad\u{200b}min\u{feff}", "ad\\u200bmin\\ufeff"),
        ("\u{e0041}tag", "\\udb40\\udc41tag"),
    ];

    #[test]
    fn escape_hostile_text_is_visible_in_one_line() {
        for (text, shown) in HOSTILE {
            assert_eq!(escape(text), *shown);
            assert_eq!(escape(&escape(text)), *shown, "escaping is stable");
        }
        for plain in ["größer → 東京 👩‍👧 ✓", "C:\\new \\u001b", "نص عربي", ""]
        {
            assert!(matches!(escape(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn guard_output_keeps_own_lines_and_colours_only() {
        let own = "\u{1b}[32mheld\u{1b}[39m: a\tb\n\u{1b}[1;31mx\u{1b}[0m\u{1b}[m\n";
        assert_eq!(guard(own), own);
        for hidden in [
            "\u{1b}[8mx",
            "\u{1b}[2Jx",
            "\u{1b}]8;;http://x\u{7}",
            "\u{1b}",
            "\u{1b}[31",
        ] {
            assert!(!guard(hidden).contains('\u{1b}'), "{hidden:?}");
        }
        for (text, shown) in HOSTILE {
            let json = serde_json::json!({ "said": text }).to_string();
            let guarded = guard(&json);
            assert!(!guarded.chars().any(is_deceptive), "{guarded}");
            let read: Value = serde_json::from_str(&guarded).unwrap();
            assert_eq!(read, serde_json::json!({ "said": text }), "{shown}");
        }
    }

    #[test]
    fn escaped_value_has_each_text_and_key_escaped() {
        let said = serde_json::json!({"a\u{1b}": ["\u{202e}x", {"b": "c\nd"}, 1, null]});
        let seen = serde_json::json!({"a\\u001b": ["\\u202ex", {"b": "c\\nd"}, 1, null]});
        assert_eq!(escaped(&said), Some(seen));
    }

    #[test]
    fn is_plain_value_is_one_that_escaping_does_not_change() {
        for text in ["größer → 東京 ✓", "", "plain/text 1.5 s"] {
            let value = serde_json::json!({"said": [text, 1, null]});
            assert!(is_plain(&value), "{text}");
            assert_eq!(escaped(&value), Some(value));
        }
        for (text, _) in HOSTILE {
            assert!(!is_plain(&serde_json::json!({ "said": text })), "{text:?}");
            assert!(!is_plain(&serde_json::json!({ *text: 1 })), "{text:?}");
        }
    }

    #[test]
    fn for_xml_forbidden_characters_are_replaced() {
        assert_eq!(
            for_xml("a\0b\u{1b}c\u{fffe}\u{ffff}d"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}d"
        );
        assert_eq!(for_xml("one\ntwo\t]]> \u{202e}"), "one\ntwo\t]]> \\u202e");
    }
}
