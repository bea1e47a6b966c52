//! The document of a requested run. One that comes with the request may not read anything on the controller's host.

use crate::store::missing_secrets;
use backburn_experiments::{Problem, hexadecimal};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The document of a requested run.
#[derive(Debug, Clone)]
pub enum RequestedDocument {
    /// The document of a stored experiment.
    Stored(Value),
    /// The text of an experiment that came with the request, so that it is parsed and hashed as its author wrote it.
    Inline(String),
}

impl RequestedDocument {
    /// The text to parse as an experiment.
    pub(super) fn text(&self) -> String {
        match self {
            RequestedDocument::Stored(document) => document.to_string(),
            RequestedDocument::Inline(text) => text.clone(),
        }
    }

    /// The SHA-256 of the text in hexadecimal digits, as `sha256sum` prints it. None for a stored experiment, which has a name
    /// and a version.
    pub fn sha256(&self) -> Option<String> {
        match self {
            RequestedDocument::Stored(_) => None,
            RequestedDocument::Inline(text) => Some(hexadecimal(Sha256::digest(text.as_bytes()))),
        }
    }

    /// The experiment's title; empty if it has none.
    pub fn title(&self) -> String {
        let parsed = match self {
            RequestedDocument::Stored(document) => document.clone(),
            RequestedDocument::Inline(text) => serde_json::from_str(text).unwrap_or_default(),
        };
        let title = parsed.get("title").and_then(Value::as_str);
        title.unwrap_or_default().to_owned()
    }

    /// A problem for each place where an inline document would read the controller's environment or files: the right to start
    /// runs is not the right to read the controller's secrets.
    pub(super) fn foreign_sources(&self, variables: &Map<String, Value>) -> Vec<Problem> {
        let RequestedDocument::Inline(text) = self else {
            return Vec::new();
        };
        let parsed: Value = serde_json::from_str(text).unwrap_or_default();
        let mut problems = missing_secrets(&parsed);
        let configuration = parsed.get("configuration").and_then(Value::as_object);
        for (name, written) in configuration.into_iter().flatten() {
            // A variable of the request takes precedence.
            if !variables.contains_key(name) {
                refuse(written, &format!("$.configuration.{name}"), &mut problems);
            }
        }
        if let Some(secrets) = parsed.get("secrets") {
            refuse(secrets, "$.secrets", &mut problems);
        }
        for (name, value) in variables {
            refuse(value, &format!("--var {name}"), &mut problems);
        }
        problems
    }
}

/// Adds a problem for each value, at any depth, that would come from the environment or from a file.
fn refuse(written: &Value, at: &str, problems: &mut Vec<Problem>) {
    let Value::Object(fields) = written else {
        return;
    };
    let kind = fields.get("type").and_then(Value::as_str);
    let what = match kind {
        Some("env") => "environment",
        Some("file") if fields.contains_key("path") => "files",
        _ => {
            for (key, inner) in fields {
                refuse(inner, &format!("{at}.{key}"), problems);
            }
            return;
        }
    };
    let what = format!("an experiment that is not stored may not read the controller's {what}");
    problems.push(
        Problem::new(at, what)
            .hint("pass the value with `--var`, or store the experiment with `backburn apply`"),
    );
}
