//! Experiments that come with a request and are kept under no name: what they may not read, and what is recorded of them.

use backburn_experiments::Problem;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The document that a run is asked for.
#[derive(Debug, Clone)]
pub enum RequestedDocument {
    /// One that is kept, or was.
    Stored(Value),
    /// One that came with the request, as text: so that it is read and hashed as its author wrote it.
    Inline(String),
}

impl RequestedDocument {
    /// The text that is read as an experiment.
    pub(super) fn text(&self) -> String {
        match self {
            RequestedDocument::Stored(document) => document.to_string(),
            RequestedDocument::Inline(text) => text.clone(),
        }
    }

    /// Of one that came with the request, the SHA-256 of its bytes in hexadecimal, as `sha256sum` prints it. None for one
    /// that is kept: its name and version say which it is.
    pub fn sha256(&self) -> Option<String> {
        match self {
            RequestedDocument::Stored(_) => None,
            RequestedDocument::Inline(text) => {
                let hash = Sha256::digest(text.as_bytes());
                Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
            }
        }
    }

    /// The title, for people; empty where it has none.
    pub fn title(&self) -> String {
        let parsed = match self {
            RequestedDocument::Stored(document) => document.clone(),
            RequestedDocument::Inline(text) => serde_json::from_str(text).unwrap_or_default(),
        };
        let title = parsed.get("title").and_then(Value::as_str);
        title.unwrap_or_default().to_owned()
    }

    /// Each place where a document that came with the request would read the controller's environment or files. Whoever sends
    /// it may start runs, which is not to say that the controller's secrets are theirs.
    pub(super) fn foreign_sources(&self, variables: &Map<String, Value>) -> Vec<Problem> {
        let RequestedDocument::Inline(text) = self else {
            return Vec::new();
        };
        let parsed: Value = serde_json::from_str(text).unwrap_or_default();
        let mut problems = Vec::new();
        let configuration = parsed.get("configuration").and_then(Value::as_object);
        for (name, written) in configuration.into_iter().flatten() {
            // A variable of the request goes before it.
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

/// Refuses what says that its value is in the environment or in a file, at any depth.
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
    let what = format!(
        "an experiment that the controller does not keep reads nothing of the controller's {what}"
    );
    problems.push(Problem::new(at, what).hint(
        "hand a configuration value over with `--var`, or keep the experiment with `backburn apply`",
    ));
}
