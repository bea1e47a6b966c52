//! What a job of a pipeline is given: a JUnit report, a summary in Markdown, and annotations.

mod annotations;
mod escape;
mod junit;
mod junit_xml;
mod markdown;
mod timeline;

use super::completed_run::CompletedRun;
use super::output::ReportFile;
use super::{CommandFailure, output};
use annotations::Annotator;
use backburn_experiments::journal::Outcome;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// The name under which GitLab's documentation keeps a report of code quality.
const CODE_QUALITY_FILE: &str = "gl-code-quality-report.json";

/// The reports of a run or a suite for a job.
#[derive(Debug, Args)]
pub(super) struct JobOptions {
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown: the verdict, what was measured, a plot, and how to run it again
    #[arg(long, value_name = "FILE", help_heading = "Pipeline")]
    markdown: Option<PathBuf>,
    /// Annotate experiments that did not hold: as workflow commands, or as a report of code quality
    #[arg(long, value_enum, value_name = "PLATFORM", help_heading = "Pipeline")]
    annotations: Option<Platform>,
    /// File for the annotations of GitLab [default: gl-code-quality-report.json]
    #[arg(long, value_name = "FILE", help_heading = "Pipeline")]
    annotations_file: Option<PathBuf>,
}

/// A platform that runs pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Platform {
    /// Workflow commands of GitHub Actions
    Github,
    /// A code quality report of GitLab CI
    Gitlab,
}

/// An experiment of a job, and how it ended.
pub(super) struct ExperimentResult {
    /// The file, as it was named; or the name of a stored experiment.
    pub(super) file: PathBuf,
    /// The title of the experiment, if it could be read.
    pub(super) title: Option<String>,
    /// How the experiment's run ended.
    pub(super) ending: ExperimentEnding,
    /// The command that runs it again.
    pub(super) rerun: String,
}

/// How an experiment of a job ended.
pub(super) enum ExperimentEnding {
    /// It ended with a verdict.
    Finished(Box<CompletedRun>),
    /// Without a run, or without the end of one.
    Failed(CommandFailure),
    /// It was not tried, for this reason.
    Skipped(String),
}

impl ExperimentResult {
    /// The title for people; the file if there is none.
    pub(super) fn title(&self) -> String {
        self.title
            .clone()
            .unwrap_or_else(|| self.file.display().to_string())
    }

    /// The exit code; none for an experiment that was not tried.
    pub(super) fn exit_code(&self) -> Option<u8> {
        match &self.ending {
            ExperimentEnding::Finished(run) => Some(run.finished.verdict.exit_code),
            ExperimentEnding::Failed(failure) => Some(failure.code),
            ExperimentEnding::Skipped(_) => None,
        }
    }

    /// How it ended, in a word or two.
    pub(super) fn word(&self) -> String {
        match &self.ending {
            ExperimentEnding::Finished(run) => run.finished.verdict.outcome.to_string(),
            ExperimentEnding::Failed(failure) => {
                let known = Outcome::ALL
                    .into_iter()
                    .find(|outcome| outcome.exit_code() == failure.code);
                known.map_or_else(|| "failed".to_owned(), |outcome| outcome.to_string())
            }
            ExperimentEnding::Skipped(_) => "not run".into(),
        }
    }
}

/// The exit codes of a suite from the worst on: the first that an experiment has is that of the suite.
const WORST_FIRST: [u8; 9] = [6, 1, 4, 9, 5, 3, 8, 2, 7];

/// The exit code of all of these.
pub(super) fn worst_exit_code(results: &[ExperimentResult]) -> u8 {
    let codes: Vec<u8> = results
        .iter()
        .filter_map(ExperimentResult::exit_code)
        .collect();
    let known = WORST_FIRST.into_iter().find(|code| codes.contains(code));
    known.or(codes.into_iter().max()).unwrap_or(0)
}

/// The reports of a job, whose files are open before anything is injected.
pub(super) struct JobReports {
    junit: Option<ReportFile>,
    markdown: Option<ReportFile>,
    annotator: Option<Annotator>,
}

impl JobOptions {
    /// Opens the files of the reports.
    ///
    /// # Errors
    /// One cannot be written to, or two of them are the same file.
    pub(super) fn open(
        &self,
        others: &[(&str, Option<&ReportFile>)],
        as_json: bool,
    ) -> Result<JobReports, CommandFailure> {
        if self.annotations_file.is_some() && self.annotations != Some(Platform::Gitlab) {
            return Err(CommandFailure::invalid(
                "`--annotations-file` requires `--annotations gitlab`: those of GitHub are printed",
            ));
        }
        let open = |path: Option<&Path>| path.map(ReportFile::open).transpose();
        let code_quality = match self.annotations {
            Some(Platform::Gitlab) => {
                let file = self.annotations_file.as_deref();
                Some(ReportFile::open(
                    file.unwrap_or(Path::new(CODE_QUALITY_FILE)),
                )?)
            }
            _ => None,
        };
        let junit = open(self.junit.as_deref())?;
        let markdown = open(self.markdown.as_deref())?;
        let mut files = others.to_vec();
        files.extend([
            ("--junit", junit.as_ref()),
            ("--markdown", markdown.as_ref()),
            ("--annotations-file", code_quality.as_ref()),
        ]);
        for (place, (name, file)) in files.iter().enumerate() {
            for (other_name, other) in &files[place + 1..] {
                if let (Some(file), Some(other)) = (file, other)
                    && file.is_same(other)
                {
                    return Err(CommandFailure::invalid(format!(
                        "`{name}` and `{other_name}` are the same file, and one report would overwrite the other"
                    )));
                }
            }
        }
        let annotator = self
            .annotations
            .map(|platform| Annotator::new(platform, code_quality, as_json));
        Ok(JobReports {
            junit,
            markdown,
            annotator,
        })
    }

    /// A flag of these that needs the end of a run, if one is given.
    pub(super) fn needs_end(&self) -> bool {
        self.junit.is_some() || self.markdown.is_some() || self.annotations.is_some()
    }
}

impl JobReports {
    /// Begins a part of the log that a person can fold.
    pub(super) fn begin(&self, place: usize, title: &str) {
        if let Some(annotator) = &self.annotator {
            output::print_command(&annotator.begin(place, title));
        }
    }

    /// Ends that part of the log.
    pub(super) fn end(&self, place: usize) {
        if let Some(annotator) = &self.annotator {
            output::print_command(&annotator.end(place));
        }
    }

    /// Writes all reports that were asked for.
    pub(super) fn write(self, results: &[ExperimentResult]) {
        if let Some(file) = self.junit {
            let suites: Vec<_> = results.iter().map(junit::suite).collect();
            file.write(&junit_xml::document("backburn", &suites));
        }
        if let Some(file) = self.markdown {
            file.write(&markdown::summary(results));
        }
        if let Some(annotator) = self.annotator {
            annotator.write(results);
        }
    }

    /// Writes the reports of a run that failed before its end. There is no JUnit report then.
    pub(super) fn write_failure(mut self, result: ExperimentResult) {
        self.junit = None;
        self.write(&[result]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: u8) -> ExperimentResult {
        ExperimentResult {
            file: "x.json".into(),
            title: None,
            ending: ExperimentEnding::Failed(CommandFailure {
                code,
                message: String::new(),
            }),
            rerun: String::new(),
        }
    }

    #[test]
    fn suite_exit_code_is_the_worst() {
        let of = |codes: &[u8]| {
            worst_exit_code(&codes.iter().map(|code| failed(*code)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[0, 0]), 0);
        assert_eq!(of(&[0, 3, 1, 5]), 1);
        assert_eq!(of(&[1, 6, 9]), 6);
        assert_eq!(of(&[0, 2]), 2);
        assert_eq!(of(&[0, 130]), 130);
        // Every code that the table has is ranked.
        for exit in backburn_experiments::journal::exit_codes() {
            assert!(
                exit.code == 0 || WORST_FIRST.contains(&exit.code),
                "{}",
                exit.name
            );
        }
    }
}
