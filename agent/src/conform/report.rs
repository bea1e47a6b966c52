//! What came of the trials, and how it is shown.

use serde::{Deserialize, Serialize};

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConformCheck {
    /// What was tried, in words.
    pub name: String,
    /// What was wrong; none where nothing was.
    pub failure: Option<String>,
}

/// What became of it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConformReport {
    /// The name of the fault that was tried.
    pub fault: String,
    /// `planner`, `holder`, `changer` or `built-in`.
    pub kind: String,
    /// SHA-256 of the plug-in; none for a built-in fault.
    pub sha256: Option<String>,
    /// Whether every check passed.
    pub passed: bool,
    /// The checks, in the order in which they were made.
    pub checks: Vec<ConformCheck>,
    /// What was compared before and after each.
    pub compared: Vec<String>,
    /// What was not tried, and why.
    pub not_tried: Vec<String>,
}

impl ConformReport {
    /// The report as Markdown, for a pull request.
    pub fn to_markdown(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let hash = self
            .sha256
            .as_deref()
            .map_or(String::new(), |hash| format!(", SHA-256 `{hash}`"));
        let mut text = format!(
            "## conform: `{}` ({}) {verdict}\n\nBackburn {}{hash}\n\n| check | result |\n|---|---|\n",
            self.fault,
            self.kind,
            env!("CARGO_PKG_VERSION")
        );
        for check in &self.checks {
            let result = match &check.failure {
                None => "passed".to_owned(),
                Some(why) => format!("**failed**: {}", why.replace('|', "\\|").replace('\n', " ")),
            };
            text += &format!("| {} | {result} |\n", check.name);
        }
        text += &format!("\nCompared: {}\n", self.compared.join(", "));
        if !self.not_tried.is_empty() {
            text += &format!("\nNot tried: {}\n", self.not_tried.join("; "));
        }
        text
    }
}
