//! Names as people choose them: one, all below one, or all there are.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// A name, `db.example.org`; or all names below one, `*.example.org`; or all, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// Whether what is below is meant, and it itself is not.
    below: bool,
    /// Its labels from the left, in lower case.
    labels: Vec<String>,
}

impl NamePattern {
    /// Whether it means the name of these labels. Upper and lower case are the same.
    pub fn matches(&self, labels: &[&[u8]]) -> bool {
        let more = labels.len().checked_sub(self.labels.len());
        let fits = match (more, self.below) {
            // All there are, the root too.
            (Some(_), true) if self.is_all() => true,
            (Some(more), true) => more > 0,
            (more, false) => more == Some(0),
            (None, true) => false,
        };
        let same = |(own, label): (&String, &&[u8])| own.as_bytes().eq_ignore_ascii_case(label);
        fits && self.labels.iter().rev().zip(labels.iter().rev()).all(same)
    }

    /// Whether it means all names there are.
    pub fn is_all(&self) -> bool {
        self.below && self.labels.is_empty()
    }

    /// It as a path from the root, `:org:example`; what ends with `;` has nothing below it.
    pub(crate) fn path(&self) -> String {
        let mut path: String = self
            .labels
            .iter()
            .rev()
            .map(|label| format!(":{label}"))
            .collect();
        if !self.below {
            path.push(';');
        }
        path
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (below, name) = match text.strip_prefix('*') {
            Some("") => {
                return Ok(NamePattern {
                    below: true,
                    labels: Vec::new(),
                });
            }
            Some(rest) => (
                true,
                rest.strip_prefix('.').ok_or_else(|| {
                    format!("`{text}`: a `*` stands for whole labels, as in `*.example.org`")
                })?,
            ),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        // With the first label's length and the end, 255 (RFC 1035, 2.3.4).
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(format!("`{text}` is not a name"));
        }
        Ok(NamePattern {
            below,
            labels: name.split('.').map(str::to_ascii_lowercase).collect(),
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.labels.join(".");
        match (self.below, name.as_str()) {
            (true, "") => f.write_str("*"),
            (true, name) => write!(f, "*.{name}"),
            (false, name) => f.write_str(name),
        }
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_pattern_matches_as_documented() {
        for (pattern, name, means) in [
            ("db.example.org", "DB.Example.ORG", true),
            ("DB.example.org.", "db.example.org", true),
            ("db.example.org", "adb.example.org", false),
            ("db.example.org", "x.db.example.org", false),
            ("db.example.org", "example.org", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "db.an-example.org", false),
            ("*", "db.example.org", true),
            ("*", "", true),
            ("org", "", false),
        ] {
            let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
            let labels = if name.is_empty() { &[] } else { &labels[..] };
            let parsed: NamePattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.matches(labels), means, "{pattern} {name}");
        }
        let dotted: NamePattern = "a.b.c".parse().expect("a pattern");
        assert!(
            !dotted.matches(&[b"a.b", b"c"]),
            "a dot in a label is none between two"
        );
        for wrong in [
            "",
            ".",
            "..",
            "a..b",
            "*x.org",
            "a.*.org",
            "**",
            "*.",
            "a b",
            "bücher.example",
            "a:b",
            "a;",
        ] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
        assert!("a".repeat(64).parse::<NamePattern>().is_err());
        assert!(["a"; 128].join(".").parse::<NamePattern>().is_err());
    }

    #[test]
    fn dns_pattern_paths_show_overlaps() {
        let path = |text: &str| text.parse::<NamePattern>().expect("a pattern").path();
        assert_eq!(path("*"), "");
        assert_eq!(path("*.Example.org"), ":org:example");
        assert_eq!(path("db.example.org"), ":org:example:db;");
        assert_eq!(path("example.org"), ":org:example;");
    }
}
