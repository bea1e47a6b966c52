//! Annotations of a job: workflow commands for GitHub, a report of code quality for GitLab; and parts of the log that can be folded.

use super::super::output::{self, ReportFile};
use super::{ExperimentEnding, ExperimentResult, Platform};
use backburn_experiments::hexadecimal;
use backburn_experiments::journal::Outcome;
use backburn_experiments::terminal_text::{escape, for_xml};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// How much an annotation matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Something of the system, the experiment or the pipeline has to be mended.
    Error,
    /// No annotation has been shown yet.
    Warning,
    /// Something to know about an experiment that held.
    Notice,
}

/// Writes the annotations of a job.
pub(super) struct Annotator {
    platform: Platform,
    /// The file for those of GitLab.
    file: Option<ReportFile>,
    /// Whether stdout has JSON only, so that commands go to stderr.
    as_json: bool,
}

impl Annotator {
    /// Annotates for this platform. From now on, no line of the output is taken for a command of GitHub, unless it is one of these.
    pub(super) fn new(platform: Platform, file: Option<ReportFile>, as_json: bool) -> Self {
        if platform == Platform::Github {
            output::guard_workflow_commands();
        }
        Annotator {
            platform,
            file,
            as_json,
        }
    }

    /// What begins a part of the log.
    pub(super) fn begin(&self, place: usize, title: &str) -> String {
        match self.platform {
            Platform::Github => format!("::group::{}\n", command_data(title)),
            Platform::Gitlab => {
                let (at, title) = (Timestamp::now().as_second(), escape(title));
                format!(
                    "\x1b[0Ksection_start:{at}:backburn_{place}[collapsed=true]\r\x1b[0K{title}\n"
                )
            }
        }
    }

    /// What ends a part of the log.
    pub(super) fn end(&self, place: usize) -> String {
        match self.platform {
            Platform::Github => "::endgroup::\n".into(),
            Platform::Gitlab => {
                let at = Timestamp::now().as_second();
                format!("\x1b[0Ksection_end:{at}:backburn_{place}\r\x1b[0K\n")
            }
        }
    }

    /// Writes the annotations of all experiments.
    pub(super) fn write(self, results: &[ExperimentResult]) {
        match self.file {
            Some(file) => {
                let issues: Vec<Value> = results.iter().filter_map(code_quality_issue).collect();
                file.write(&format!("{:#}\n", Value::from(issues)));
            }
            None => {
                let commands: String = results.iter().filter_map(workflow_command).collect();
                match self.as_json {
                    true => output::print_command(&commands),
                    false => output::print_command_to_stdout(&commands),
                }
            }
        }
    }
}

/// How much the end of an experiment matters, and what is to be said of it. None if there is nothing to say.
fn finding(result: &ExperimentResult) -> Option<(Level, String)> {
    match &result.ending {
        ExperimentEnding::Finished(run) => {
            let verdict = &run.finished.verdict;
            let level = match verdict.outcome {
                Outcome::Held if verdict.notes.is_empty() => return None,
                Outcome::Held => Level::Notice,
                Outcome::NotStarted | Outcome::Inconclusive => Level::Warning,
                Outcome::Deviated
                | Outcome::Invalid
                | Outcome::Aborted
                | Outcome::NotClean
                | Outcome::NotInjected => Level::Error,
            };
            let lines = verdict.reasons.iter().chain(&verdict.notes).cloned();
            let hint = verdict.hint.as_ref().map(|hint| format!("hint: {hint}"));
            Some((level, lines.chain(hint).collect::<Vec<_>>().join("\n")))
        }
        ExperimentEnding::Failed(failure) => {
            let is_refused = failure.code == Outcome::NotStarted.exit_code();
            let level = if is_refused {
                Level::Warning
            } else {
                Level::Error
            };
            Some((level, failure.message.clone()))
        }
        ExperimentEnding::Skipped(why) => Some((Level::Warning, why.clone())),
    }
}

/// The path of a file from the top of the repository, as both platforms expect it.
fn repository_path(file: &Path) -> String {
    let top = ["GITHUB_WORKSPACE", "CI_PROJECT_DIR"]
        .into_iter()
        .find_map(std::env::var_os);
    let real = std::fs::canonicalize(file).ok();
    let below = real.zip(top).and_then(|(real, top)| {
        let top = std::fs::canonicalize(PathBuf::from(top)).ok()?;
        real.strip_prefix(top).ok().map(Path::to_owned)
    });
    let path = below.unwrap_or_else(|| file.strip_prefix("./").unwrap_or(file).to_owned());
    for_xml(&path.display().to_string())
}

/// Data of a workflow command. Source: `escapeData` of GitHub's toolkit.
fn command_data(text: &str) -> String {
    let text = for_xml(text);
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property of a workflow command. Source: `escapeProperty` of GitHub's toolkit.
fn command_property(text: &str) -> String {
    command_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The workflow command that annotates this experiment.
fn workflow_command(result: &ExperimentResult) -> Option<String> {
    let (level, text) = finding(result)?;
    let level = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Notice => "notice",
    };
    let title = format!("{}: {}", result.word(), result.title());
    Some(format!(
        "::{level} file={},line=1,title={}::{}\n",
        command_property(&repository_path(&result.file)),
        command_property(&title),
        command_data(&text)
    ))
}

/// The issue in a report of code quality that annotates this experiment. Source: GitLab, "Code Quality report format".
fn code_quality_issue(result: &ExperimentResult) -> Option<Value> {
    let (level, text) = finding(result)?;
    let severity = match level {
        Level::Error if result.exit_code() == Some(Outcome::NotClean.exit_code()) => "blocker",
        Level::Error => "major",
        Level::Warning => "minor",
        Level::Notice => "info",
    };
    let (path, word) = (repository_path(&result.file), result.word());
    // The same finding has the same fingerprint in every pipeline, whatever the figures in its text.
    let fingerprint = hexadecimal(Sha256::digest(format!("{path}\0{word}")));
    Some(json!({
        "description": for_xml(&format!("{word}: {}: {text}", result.title())),
        "check_name": format!("backburn {word}"),
        "fingerprint": fingerprint,
        "severity": severity,
        "location": {"path": path, "lines": {"begin": 1}},
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use crate::cli::CommandFailure;

    fn failed(code: u8, message: &str) -> ExperimentResult {
        ExperimentResult {
            file: "./e/a,b.json".into(),
            title: Some("a: 100 %,\n::error::x".into()),
            ending: ExperimentEnding::Failed(CommandFailure {
                code,
                message: message.into(),
            }),
            rerun: String::new(),
        }
    }

    #[test]
    fn workflow_command_of_hostile_text_is_one_line() {
        assert_eq!(
            workflow_command(&failed(2, "one\n::set-output name=a::b\r50 %")).unwrap(),
            "::error file=e/a%2Cb.json,line=1,title=invalid%3A a%3A 100 %25%2C%0A%3A%3Aerror%3A%3Ax::one%0A::set-output name=a::b%0D50 %25\n"
        );
        assert!(
            workflow_command(&failed(3, "x"))
                .unwrap()
                .starts_with("::warning ")
        );
    }

    #[test]
    fn code_quality_issue_of_the_same_finding_keeps_its_fingerprint() {
        let of = |message| code_quality_issue(&failed(6, message)).unwrap();
        let (one, other) = (of("5 of 7"), of("6 of 7"));
        assert_eq!(one["fingerprint"], other["fingerprint"]);
        assert_eq!(one["severity"], "blocker");
        assert_eq!(
            one["location"],
            json!({"path": "e/a,b.json", "lines": {"begin": 1}})
        );
        assert_ne!(
            one["fingerprint"],
            code_quality_issue(&failed(2, "")).unwrap()["fingerprint"]
        );
    }
}
