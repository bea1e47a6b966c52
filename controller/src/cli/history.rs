//! `backburn runs` without a controller: the runs whose journals are in this host's state folder, and their verdicts, which are
//! computed again from the journals.

use super::comparison::LAST_HELD;
use super::experiment_source::document_value;
use super::output::shown_path;
use super::remote::runs::RunsCommand;
use super::report::{self, format_report};
use super::table::print_table;
use super::{CommandFailure, print, print_json, print_stderr};
use backburn::report::{EarlierRun, ReportBuilder};
use backburn::runner::{FinishedRun, JournalFile};
use backburn_agent::ledger::Ledger;
use backburn_experiments::journal::{JournalEntry, Outcome, Run, Verdict, verdict};
use backburn_experiments::late_revert::LateRevert;
use backburn_experiments::terminal_text::escape;
use jiff::Timestamp;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many of the runs that begin with the given text an error names.
const MAX_NAMED_RUNS: usize = 5;
/// The longest note of a late revert, in bytes.
const MAX_NOTE_BYTES: u64 = 4096;
/// The most earlier runs that a report compares with.
const MAX_EARLIER_RUNS: usize = 10;

/// A run of this host, as its journal tells it.
struct LocalRun {
    id: String,
    journal: PathBuf,
    /// The fold of the journal, up to its end or to its first problem.
    run: Run,
    started: Option<Timestamp>,
    /// When the last event was written.
    last: Option<Timestamp>,
    /// Whether a program still writes the journal.
    is_running: bool,
    /// What keeps the journal from being read to its end.
    problem: Option<String>,
}

/// A run of this host as JSON. The names are those of the controller's API.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LocalRunInfo<'a> {
    id: &'a str,
    title: &'a str,
    seed: u64,
    started: Option<Timestamp>,
    /// Null while the run is going on.
    ended: Option<Timestamp>,
    /// Null while the run is going on.
    outcome: Option<Outcome>,
    exit_code: Option<u8>,
    verdict: Option<Verdict>,
    /// When this host's agent had observed that nothing is left of a run that ended not clean.
    cleaned: Option<Timestamp>,
    events: usize,
    journal: &'a Path,
    problem: Option<&'a str>,
}

/// Runs `backburn runs` for this host.
pub(super) fn runs(command: &RunsCommand) -> Result<u8, CommandFailure> {
    let state = command.host_state()?;
    if let Some(flag) = command.fleet_flag() {
        return Err(CommandFailure::invalid(format!(
            "`{flag}` requires a controller\nhint: name it with `--controller HOST[:PORT]` or BACKBURN_CONTROLLER"
        )));
    }
    match command.run() {
        Some(id) => show(&state, id, command.json()),
        None => list(&state, command),
    }
}

fn list(state: &Path, command: &RunsCommand) -> Result<u8, CommandFailure> {
    let outcome = command
        .outcome()
        .map(document_value::<Outcome>)
        .transpose()
        .map_err(|_| {
            let names: Vec<String> = Outcome::ALL
                .iter()
                .map(|outcome| format!("`{}`", serialized_name(outcome)))
                .collect();
            CommandFailure::invalid(format!(
                "`{}` is not an outcome\nhint: the outcomes are {}",
                command.outcome().unwrap_or_default(),
                names.join(", ")
            ))
        })?;
    let mut runs: Vec<LocalRun> = Vec::new();
    for (id, path) in journals(state)?.into_iter().rev() {
        if runs.len() == command.count() {
            break;
        }
        let run = LocalRun::read(id, path);
        if outcome.is_none() || run.verdict().map(|verdict| verdict.outcome) == outcome {
            runs.push(run);
        }
    }
    if command.json() {
        let runs: Vec<LocalRunInfo<'_>> = runs.iter().map(LocalRun::info).collect();
        print_json(&runs);
        return Ok(0);
    }
    let empty = format!(
        "no runs were found in {}\nhint: root and each user have folders of their own; `--state DIR` names another one, and `--controller` asks a controller for its runs",
        shown_path(&state.join("runs"))
    );
    print_table(
        ["RUN", "OUTCOME", "STARTED", "TITLE"],
        runs.iter().map(LocalRun::row),
        &empty,
    );
    for run in &runs {
        run.warn();
    }
    Ok(0)
}

fn show(state: &Path, given: &str, as_json: bool) -> Result<u8, CommandFailure> {
    let (id, path) = find(state, given)?;
    let found = LocalRun::read(id, path);
    if as_json {
        print_json(&found.info());
        return Ok(0);
    }
    if found.run.events == 0 {
        let problem = found.problem.as_deref().unwrap_or("it is empty");
        return Err(CommandFailure::invalid(format!(
            "the journal {} cannot be read: {}",
            shown_path(&found.journal),
            escape(problem)
        )));
    }
    found.warn();
    let Some(mut verdict) = found.verdict() else {
        let now = found.started.map_or(0.0, report::seconds_since);
        print(&report::format_open_run(&found.run, now));
        return Ok(0);
    };
    let cleaned = found.cleaned();
    match cleaned {
        Some(_) => verdict.hint = None,
        None => report::name_local_revert(&mut verdict, state),
    }
    let title = found.run.title.clone();
    let finished = FinishedRun {
        run: found.run,
        verdict,
        illegal: None,
    };
    print(&format_report(&title, &finished, Some(&found.journal)));
    if let Some(at) = cleaned {
        print(&format!(
            "  cleaned at {}: this host's agent has observed that nothing is left\n",
            at.strftime("%Y-%m-%dT%H:%M:%SZ")
        ));
    }
    Ok(0)
}

/// The runs that go on on this host now.
pub(super) fn running(state: &Path) -> Result<Vec<(Run, Option<Timestamp>)>, CommandFailure> {
    let runs = journals(state)?
        .into_iter()
        .map(|(id, path)| LocalRun::read(id, path))
        .filter(|run| run.is_running);
    Ok(runs.map(|run| (run.run, run.started)).collect())
}

/// Reads the journal of the run with this id, or of the only one whose id begins with this text, line by line, as far as it can be
/// read. Returns the report's builder, the runs before it with the same title, and what keeps the journal from being read to its end.
///
/// # Errors
/// There is no such run, it is not over, or its journal cannot be read at all.
pub(super) fn read_for_report(
    state: &Path,
    given: &str,
) -> Result<(ReportBuilder, Vec<EarlierRun>, Option<String>), CommandFailure> {
    let (id, path) = find(state, given)?;
    let found = LocalRun::read(id.clone(), path);
    if found.is_running {
        return Err(CommandFailure::invalid(format!(
            "run {id} is not over, and its report is written when it is\nhint: `backburn status` shows what it does"
        )));
    }
    let mut read = ReportBuilder::default();
    let mut lines = BufReader::new(open_journal(&found.journal).map_err(|why| {
        CommandFailure::invalid(format!(
            "the journal {} cannot be read: {why}",
            shown_path(&found.journal)
        ))
    })?);
    let mut line = String::new();
    // Where reading ends early, `LocalRun` knows why.
    while matches!(lines.read_line(&mut line), Ok(1..)) {
        if !line.ends_with('\n') || read.line(line.trim_end_matches('\n')).is_err() {
            break;
        }
        line.clear();
    }
    let earlier = journals(state)?.into_iter().rev();
    let earlier = earlier
        .filter(|(other, _)| *other < id)
        .map(|(id, path)| LocalRun::read(id, path))
        .filter(|run| run.run.title == found.run.title && run.run.ended)
        .filter_map(|run| {
            Some(EarlierRun::new(
                run.id.clone(),
                run.started?,
                None,
                &run.verdict()?,
            ))
        })
        .take(MAX_EARLIER_RUNS);
    Ok((read, earlier.collect(), found.problem))
}

/// The run of this host to compare a run of an experiment with this title with: the latest that held, or the one with this id.
///
/// # Errors
/// There is none.
pub(super) fn earlier_run(
    state: &Path,
    title: &str,
    which: &str,
) -> Result<EarlierRun, CommandFailure> {
    let found = match which == LAST_HELD {
        true => journals(state)?
            .into_iter()
            .rev()
            .map(|(id, path)| LocalRun::read(id, path))
            .find(|run| {
                let outcome = run.verdict().map(|verdict| verdict.outcome);
                run.run.title == title && outcome == Some(Outcome::Held)
            })
            .ok_or_else(|| {
                CommandFailure::invalid(format!(
                    "no run of this host with the title `{}` has held\nhint: run it without `--compare-with` first",
                    escape(title)
                ))
            })?,
        false => {
            let (id, path) = find(state, which)?;
            LocalRun::read(id, path)
        }
    };
    let known = found.started.zip(found.verdict());
    let (started, verdict) = known.ok_or_else(|| {
        CommandFailure::invalid(format!(
            "run {} is not over, or its journal cannot be read",
            found.id
        ))
    })?;
    Ok(EarlierRun::new(found.id.clone(), started, None, &verdict))
}

/// Opens a journal. A named pipe in the folder must not block, and a link must not lead elsewhere.
fn open_journal(path: &Path) -> Result<File, String> {
    let in_words = |error: io::Error| backburn_experiments::probes::io_error_text(&error);
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(in_words)?;
    match file.metadata().map_err(in_words)?.is_file() {
        true => Ok(file),
        false => Err("it is not a regular file".into()),
    }
}

/// The journals of this host, by the ids of their runs, oldest first.
fn journals(state: &Path) -> Result<Vec<(String, PathBuf)>, CommandFailure> {
    let folder = state.join("runs");
    let failed = |error: io::Error| {
        let why = backburn_experiments::probes::io_error_text(&error);
        CommandFailure::invalid(format!(
            "{}: {why}\nhint: runs that root started are read by root: `sudo backburn runs`",
            shown_path(&folder)
        ))
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension() != Some(OsStr::new("jsonl")) {
            continue;
        }
        if let Some(id) = path.file_stem().and_then(OsStr::to_str) {
            found.push((id.to_owned(), path.clone()));
        }
    }
    // An id begins with the time at which its run started.
    found.sort();
    Ok(found)
}

/// The run with this id, or the only one whose id begins with this text.
fn find(state: &Path, given: &str) -> Result<(String, PathBuf), CommandFailure> {
    let journals = journals(state)?;
    if let Some(exact) = journals.iter().find(|(id, _)| id == given) {
        return Ok(exact.clone());
    }
    let shown = escape(given);
    let begin: Vec<&(String, PathBuf)> = journals
        .iter()
        .filter(|(id, _)| id.starts_with(given))
        .collect();
    match &begin[..] {
        [only] => Ok((*only).clone()),
        [] => Err(CommandFailure::invalid(format!(
            "no run of this host has the id `{shown}`, or an id that begins with it\nhint: `backburn runs` lists the runs in {}; `--state DIR` names another folder, and `--controller` asks a controller",
            shown_path(&state.join("runs"))
        ))),
        several => {
            let names: Vec<&str> = several
                .iter()
                .rev()
                .take(MAX_NAMED_RUNS)
                .map(|(id, _)| id.as_str())
                .collect();
            let more = match several.len() > MAX_NAMED_RUNS {
                true => ", …",
                false => "",
            };
            Err(CommandFailure::invalid(format!(
                "{} runs have ids that begin with `{shown}`: {}{more}\nhint: give more of the id",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

impl LocalRun {
    /// Reads a journal as far as it can be read.
    fn read(id: String, journal: PathBuf) -> Self {
        let mut found = LocalRun {
            id,
            journal,
            run: Run::default(),
            started: None,
            last: None,
            is_running: false,
            problem: None,
        };
        found.problem = found.fold().err();
        found
    }

    fn fold(&mut self) -> Result<(), String> {
        let in_words = |error: io::Error| backburn_experiments::probes::io_error_text(&error);
        let file = open_journal(&self.journal)?;
        self.is_running = JournalFile::is_written(&file);
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        for number in 1_usize.. {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(in_words)? == 0 {
                break;
            }
            let is_whole = line.ends_with(b"\n");
            let entry: JournalEntry = match serde_json::from_slice(&line) {
                Ok(entry) => entry,
                Err(_) if !is_whole && self.is_running => break,
                Err(_) if !is_whole => return Err(format!("line {number} was cut short")),
                Err(error) => return Err(format!("line {number} is not an event: {error}")),
            };
            self.run.apply(&entry).map_err(|error| error.to_string())?;
            self.started = self.started.or(Some(entry.at));
            self.last = Some(entry.at);
        }
        match self.run.ended || self.is_running {
            true => Ok(()),
            false => Err("it ends before the run did".into()),
        }
    }

    /// The verdict; none while the run goes on.
    fn verdict(&self) -> Option<Verdict> {
        (!self.is_running).then(|| verdict(&self.run))
    }

    /// When everything that the run left was seen to be gone: it is noted beside the journal for each injection, and none is owed any more.
    /// None if the run left nothing, or something is not known to be gone.
    fn cleaned(&self) -> Option<Timestamp> {
        let verdict = self
            .verdict()
            .filter(|verdict| verdict.outcome == Outcome::NotClean)?;
        let runs = self.journal.parent()?;
        let ledger = Ledger::at(runs.parent()?);
        let mut last = None;
        for owed in &verdict.owed {
            // A ledger that cannot be listed proves nothing.
            if ledger.entries().is_err() || ledger.owes(&owed.injection) {
                return None;
            }
            let path = LateRevert::path(runs, &self.id, &owed.injection)?;
            let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
            let file = File::options()
                .read(true)
                .custom_flags(flags)
                .open(path)
                .ok()?;
            let mut text = String::new();
            file.take(MAX_NOTE_BYTES).read_to_string(&mut text).ok()?;
            let noted: LateRevert = serde_json::from_str(&text).ok()?;
            let at = Timestamp::from_second(i64::try_from(noted.at).ok()?).ok()?;
            last = last.max(Some(at));
        }
        last
    }

    fn info(&self) -> LocalRunInfo<'_> {
        let verdict = self.verdict();
        LocalRunInfo {
            id: &self.id,
            title: &self.run.title,
            seed: self.run.seed,
            started: self.started,
            ended: self.last.filter(|_| self.run.ended),
            outcome: verdict.as_ref().map(|verdict| verdict.outcome),
            exit_code: verdict.as_ref().map(|verdict| verdict.exit_code),
            verdict,
            cleaned: self.cleaned(),
            events: self.run.events,
            journal: &self.journal,
            problem: self.problem.as_deref(),
        }
    }

    fn row(&self) -> [String; 4] {
        let outcome = match self.verdict() {
            _ if self.run.events == 0 => "unreadable".to_owned(),
            None => "running".to_owned(),
            Some(verdict) => serialized_name(&verdict.outcome),
        };
        let started = self
            .started
            .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        [
            self.id.clone(),
            outcome,
            started.unwrap_or_default(),
            self.run.title.clone(),
        ]
    }

    /// Reports a journal that cannot be read to its end.
    fn warn(&self) {
        if let Some(problem) = &self.problem {
            print_stderr(&format!(
                "warning: the journal {}: {}; what it says until there is shown\n",
                shown_path(&self.journal),
                escape(problem)
            ));
        }
    }
}

/// The text that a value without fields is written as.
fn serialized_name(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
