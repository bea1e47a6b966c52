//! `backburn report`: the report of a run of this host or of a controller, or of a game day, and whether one that was written is what the store says.

use super::history::read_for_report;
use super::output::{ReportFile, shown_path};
use super::remote::{ControllerOptions, run_report as remote};
use super::{CommandFailure, default_state, print, print_stderr};
use backburn::report::{ReportContext, ReportEvidence, ReportFormat};
use backburn_experiments::terminal_text::escape;
use clap::Args;
use std::path::{Path, PathBuf};

/// The exit code for a report that is not what the store says.
const EXIT_DIFFERS: u8 = 1;
/// The exit code for a report that another version of the program wrote, whose text cannot be compared.
const EXIT_UNDECIDED: u8 = 5;
/// Longest file that is verified, in bytes. Reports are much shorter.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["run", "verify"]))]
pub(super) struct ReportCommand {
    /// Run or game day to report on; the beginning of an id is enough, if it is unique
    #[arg(value_name = "RUN|GAMEDAY")]
    run: Option<String>,
    /// Write one HTML page that needs nothing else
    #[arg(long, group = "format")]
    html: bool,
    /// Write Markdown; the default
    #[arg(long, group = "format")]
    markdown: bool,
    /// Write JSON, for programs
    #[arg(long, group = "format")]
    json: bool,
    /// File to write to [default: standard output]
    #[arg(long, short, value_name = "FILE", conflicts_with = "verify")]
    output: Option<PathBuf>,
    /// Make the report in this file again from the journal and the notes, and compare both
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    verify: Option<PathBuf>,
    /// Report on runs of this host, even if a controller is configured
    #[arg(long)]
    local: bool,
    /// Directory of this host's journals [default: /var/lib/backburn for root, else ~/.local/state/backburn]
    #[arg(
        long,
        value_name = "DIR",
        env = "BACKBURN_STATE",
        help_heading = "Host"
    )]
    state: Option<PathBuf>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn report` and writes or verifies a report.
pub(super) fn report(command: &ReportCommand) -> Result<u8, CommandFailure> {
    if let Some(file) = &command.verify {
        return verify(command, file);
    }
    let run = command.run.as_deref().unwrap_or_default();
    let format = match (command.html, command.json) {
        (true, _) => ReportFormat::Html,
        (_, true) => ReportFormat::Json,
        _ => ReportFormat::Markdown,
    };
    let output = command
        .output
        .as_deref()
        .map(ReportFile::open)
        .transpose()?;
    let text = command.make(run, format, None)?;
    if !command.is_for_host() {
        remote::hint_at_blame(&command.controller.client()?, run)?;
    }
    match output {
        Some(file) => file.write(&text),
        None => print(&text),
    }
    Ok(0)
}

impl ReportCommand {
    fn is_for_host(&self) -> bool {
        self.local || !self.controller.is_given()
    }

    /// The report of a run or of a game day; with `as_of`, with as many notes, and actions after the same change.
    fn make(
        &self,
        run: &str,
        format: ReportFormat,
        as_of: Option<&ReportEvidence>,
    ) -> Result<String, CommandFailure> {
        if !self.is_for_host() {
            return remote::fetch(&self.controller.client()?, run, format, as_of);
        }
        if remote::is_game_day(run) {
            return Err(CommandFailure::invalid(format!(
                "`{}` is a game day, which a controller keeps\nhint: name the controller with `--controller HOST`",
                escape(run)
            )));
        }
        let state = self.state.clone().map_or_else(default_state, Ok)?;
        let (read, earlier, problem) = read_for_report(&state, run)?;
        if let Some(problem) = problem {
            print_stderr(&format!(
                "warning: the journal of run {}: {}; what it says until there is reported\n",
                escape(run),
                escape(&problem)
            ));
        }
        let report = read.finish(ReportContext {
            earlier,
            ..ReportContext::default()
        });
        Ok(report.render(format))
    }
}

fn verify(command: &ReportCommand, file: &Path) -> Result<u8, CommandFailure> {
    let shown = shown_path(file);
    let written = read(file).map_err(|why| CommandFailure::invalid(format!("{shown}: {why}")))?;
    let evidence = ReportEvidence::find(&written).ok_or_else(|| {
        CommandFailure::invalid(format!(
            "{shown}: not a report of Backburn, or one whose line of evidence was removed\nhint: `backburn report RUN --html` writes one"
        ))
    })?;
    let again = command.make(&evidence.run, ReportFormat::of(&written), Some(&evidence))?;
    let stored = ReportEvidence::find(&again).unwrap_or_default();
    let (journal, of) = match remote::is_game_day(&stored.run) {
        true => ("the journals", "game day"),
        false => ("the journal", "run"),
    };
    let differs = |what: String| {
        print_stderr(&format!(
            "error: {shown} is not what the store says: {what}\n"
        ));
        Ok(EXIT_DIFFERS)
    };
    if stored.journal != evidence.journal || stored.events != evidence.events {
        return differs(format!(
            "{journal} of {of} {}: {} events and SHA-256 {}, and the report was made from {} events and SHA-256 {}",
            escape(&stored.run),
            stored.events,
            stored.journal,
            evidence.events,
            escape(&evidence.journal)
        ));
    }
    if stored.notes != evidence.notes || stored.head != evidence.head {
        return differs(format!(
            "the notes of {of} {} are others than those that the report was made from",
            escape(&stored.run)
        ));
    }
    if stored.program != evidence.program {
        print_stderr(&format!(
            "warning: the journal and the notes are those that the report names; its text was written by version {} and can be compared by that version only\n",
            escape(&evidence.program)
        ));
        return Ok(EXIT_UNDECIDED);
    }
    if let Some(line) = first_difference(&written, &again) {
        return differs(format!(
            "line {line} was changed, or what it is made from besides the journal and the notes: actions or earlier runs"
        ));
    }
    print(&format!(
        "{shown} is what {journal} and the notes of {of} {} say: {} events, SHA-256 {}\n",
        stored.run, stored.events, stored.journal
    ));
    Ok(0)
}

fn read(file: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let in_words = |error: std::io::Error| backburn_experiments::probes::io_error_text(&error);
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(in_words)?;
    let read = opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    match read.map_err(in_words)? as u64 {
        0..=MAX_FILE_BYTES => Ok(text),
        _ => Err(format!("it is longer than {MAX_FILE_BYTES} bytes")),
    }
}

/// The number of the first line in which two texts differ, from 1; none if they are the same.
fn first_difference(one: &str, other: &str) -> Option<usize> {
    if one == other {
        return None;
    }
    let same = one
        .lines()
        .zip(other.lines())
        .take_while(|(one, other)| one == other);
    Some(same.count() + 1)
}
