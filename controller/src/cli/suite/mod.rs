//! `backburn run --suite`: runs many experiments in order, several at a time where that is safe, with one set of reports. It ends at the first run
//! that is not clean.

mod changed;
mod footprint;
mod queue;
mod selection;

use super::completed_run::CompletedRun;
use super::job::{ExperimentEnding, ExperimentResult, JobReports, worst_exit_code};
use super::output::shown_path;
use super::progress::OutputStyle;
use super::remote::{self, RemoteExperiment};
use super::run::RunCommand;
use super::signals::{RunSignal, RunSignals};
use super::{CommandFailure, print, print_json_line, print_stderr, report, runtime};
use backburn::runner::{self, Preview};
use backburn_experiments::check::Experiment;
use backburn_experiments::journal::Outcome;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::wire::Victim;
use footprint::Footprint;
use queue::SuiteQueue;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What is run of a file.
enum SuiteExperiment {
    /// The experiments run on this host.
    Local(Box<Experiment>),
    /// On the fleet of a controller.
    Fleet(RemoteExperiment),
}

/// An experiment of the suite.
struct SuiteEntry {
    file: PathBuf,
    title: Option<String>,
    experiment: SuiteExperiment,
    /// The seed of its plan and its run. None if it is not planned.
    seed: Option<u64>,
}

/// A suite that is being run.
struct SuiteRun<'a> {
    command: &'a RunCommand,
    reports: &'a JobReports,
    entries: &'a [SuiteEntry],
    queue: Arc<SuiteQueue>,
    results: Mutex<Vec<Option<ExperimentEnding>>>,
}

/// Runs the suite of the command.
pub(super) fn main(command: &RunCommand) -> Result<u8, CommandFailure> {
    command.refuse_misplaced_flags()?;
    let options = &command.suite;
    if command.is_on_fleet() && options.parallel() > 1 && command.has_lock() {
        return Err(CommandFailure::invalid(
            "`--parallel` and `--lock` contradict each other: of the runs with one lock, one is open at a time\nhint: leave one of them out",
        ));
    }
    let files = selected(command)?;
    let reports = command.job.open(&[], command.json)?;
    let entries = load(command, files)?;
    let queue = Arc::new(SuiteQueue::of(entries.len()));
    let suite = SuiteRun {
        command,
        reports: &reports,
        entries: &entries,
        queue: Arc::clone(&queue),
        results: Mutex::new(entries.iter().map(|_| None).collect()),
    };
    stop_by_signals(queue)?;
    suite.run();
    let why = suite.queue.stopped().unwrap_or_default();
    let endings = suite
        .results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let results: Vec<ExperimentResult> = entries
        .iter()
        .zip(endings)
        .map(|(entry, ending)| result(command, entry, ending, &why))
        .collect();
    // A suite that was stopped before its first run has no verdict, and is not a success either.
    let code = match (worst_exit_code(&results), why.is_empty()) {
        (0, false) => Outcome::Aborted.exit_code(),
        (code, _) => code,
    };
    print_summary(command, &results, code);
    reports.write(&results);
    Ok(code)
}

/// The files that the command selects, in order.
fn selected(command: &RunCommand) -> Result<Vec<PathBuf>, CommandFailure> {
    let options = &command.suite;
    let mut files = selection::files(&options.suite)?;
    let all = files.len();
    if let Some(base) = &options.only_changed {
        let changed = changed::changed_files(base)?;
        let is_changed =
            |file: &Path| std::fs::canonicalize(file).is_ok_and(|real| changed.contains(&real));
        // Values from a file are part of every experiment.
        if !command
            .variables
            .files()
            .iter()
            .any(|file| is_changed(file))
        {
            files.retain(|file| is_changed(file));
        }
        if files.is_empty() {
            print_stderr(&format!(
                "note: none of the {all} experiments differs from `{}`\n",
                escape(base)
            ));
        }
    }
    if let Some(shard) = options.shard {
        let before = files.len();
        files = shard.of(files);
        if files.is_empty() && before > 0 {
            print_stderr(&format!(
                "note: part {shard} has none of the {before} experiments\n"
            ));
        }
    }
    Ok(files)
}

/// Reads and checks all experiments, so that nothing is injected while one of them is wrong.
fn load(command: &RunCommand, files: Vec<PathBuf>) -> Result<Vec<SuiteEntry>, CommandFailure> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    let is_planned = command.suite.parallel() > 1;
    for file in files {
        let loaded = match command.is_on_fleet() {
            true => command.remote_experiment(&file).map(|experiment| {
                let title = match &experiment {
                    RemoteExperiment::Inline(text) => title_of(text),
                    RemoteExperiment::Stored(_) => None,
                };
                (title, SuiteExperiment::Fleet(experiment))
            }),
            false => command.load(&file).map(|experiment| {
                let title = experiment.document.title.clone();
                (Some(title), SuiteExperiment::Local(Box::new(experiment)))
            }),
        };
        match loaded {
            Ok((title, experiment)) => entries.push(SuiteEntry {
                file,
                title,
                experiment,
                seed: command.seed.or_else(|| is_planned.then(runner::random)),
            }),
            Err(failure) => problems.push(failure.message),
        }
    }
    match problems.is_empty() {
        true => Ok(entries),
        false => {
            problems.push("hint: no experiment was run; a pattern selects files: `--suite 'experiments/*.json'`".into());
            Err(CommandFailure::invalid(problems.join("\n")))
        }
    }
}

/// The title in the text of a document that is not checked here.
fn title_of(text: &str) -> Option<String> {
    let document = backburn_experiments::json::read(text).ok()?;
    Some(document.get("title")?.as_str()?.to_owned())
}

/// Starts nothing new after a signal that ends runs. Each run that goes on receives it as well, and ends itself.
fn stop_by_signals(queue: Arc<SuiteQueue>) -> Result<(), CommandFailure> {
    let failed =
        |error: std::io::Error| CommandFailure::invalid(format!("cannot receive signals: {error}"));
    let runtime = runtime()?;
    let mut signals = {
        let _within = runtime.enter();
        RunSignals::listen().map_err(failed)?
    };
    let listen = move || {
        runtime.block_on(async {
            loop {
                if let RunSignal::End(name) = signals.next().await {
                    queue.stop(format!("{name} received"));
                }
            }
        })
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .map(drop)
        .map_err(failed)
}

/// An experiment's result, for the reports.
fn result(
    command: &RunCommand,
    entry: &SuiteEntry,
    ending: Option<ExperimentEnding>,
    why: &str,
) -> ExperimentResult {
    let ending = ending.unwrap_or_else(|| ExperimentEnding::Skipped(format!("not run: {why}")));
    let (title, seed) = match &ending {
        ExperimentEnding::Finished(run) => (Some(run.title.clone()), Some(run.finished.run.seed)),
        _ => (entry.title.clone(), entry.seed),
    };
    ExperimentResult {
        file: entry.file.clone(),
        title,
        ending,
        rerun: command.rerun(&entry.file, seed),
    }
}

impl SuiteRun<'_> {
    /// Runs all experiments, each on a thread that lives until its run is over.
    fn run(&self) {
        let parallel = usize::from(self.command.suite.parallel()).min(self.entries.len());
        std::thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(|| {
                    while let Some(place) = self.queue.next() {
                        self.run_one(place);
                    }
                });
            }
            for (place, entry) in self.entries.iter().enumerate() {
                if self.queue.stopped().is_some() {
                    break;
                }
                self.queue.add(place, self.footprint(entry));
            }
        });
    }

    /// Runs the experiment of this place.
    fn run_one(&self, place: usize) {
        let entry = &self.entries[place];
        let is_parallel = self.command.suite.parallel() > 1;
        let style = match (self.command.json, is_parallel) {
            (true, _) | (_, true) => OutputStyle::Quiet,
            (false, false) => OutputStyle::for_people(),
        };
        let heading = format!(
            "[{}/{}] {}",
            place + 1,
            self.entries.len(),
            shown_path(&entry.file)
        );
        if !is_parallel {
            self.reports.begin(place, &heading);
        }
        print_stderr(&format!("{heading}\n"));
        let ran = match &entry.experiment {
            SuiteExperiment::Local(experiment) => {
                (self
                    .command
                    .run_here((**experiment).clone(), entry.seed, style))
                .map(Some)
            }
            SuiteExperiment::Fleet(experiment) => {
                let ran = self
                    .command
                    .run_on_fleet(experiment.clone(), entry.seed, style, true);
                ran.map(|(_, completed)| completed)
            }
        };
        let ending = match ran {
            Ok(Some(completed)) => ExperimentEnding::Finished(Box::new(completed)),
            Ok(None) => ExperimentEnding::Failed(CommandFailure {
                code: Outcome::Aborted.exit_code(),
                message: "the run was not followed to its end".into(),
            }),
            Err(failure) => ExperimentEnding::Failed(failure),
        };
        self.print_ending(entry, &ending);
        if !is_parallel {
            self.reports.end(place);
        }
        if is_not_clean(&ending) {
            self.queue
                .stop(format!("{} is not clean", shown_path(&entry.file)));
        }
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results[place] = Some(ending);
        drop(results);
        self.queue.done(place);
    }

    /// Shows how one experiment ended.
    fn print_ending(&self, entry: &SuiteEntry, ending: &ExperimentEnding) {
        match ending {
            ExperimentEnding::Finished(completed) if self.command.json => {
                let CompletedRun {
                    finished, journal, ..
                } = &**completed;
                print_json_line(&json!({
                    "file": entry.file.display().to_string(),
                    "verdict": finished.verdict,
                    "run": finished.run.id,
                    "journal": journal,
                }));
            }
            ExperimentEnding::Finished(completed) => {
                let CompletedRun {
                    title,
                    finished,
                    journal,
                    ..
                } = &**completed;
                print(&report::format_report(title, finished, journal.as_deref()));
            }
            ExperimentEnding::Failed(failure) => {
                if self.command.json {
                    print_json_line(&json!({
                        "file": entry.file.display().to_string(),
                        "error": failure.message,
                        "exit-code": failure.code,
                    }));
                }
                print_stderr(&format!("error: {}\n", failure.message));
            }
            ExperimentEnding::Skipped(_) => {}
        }
    }

    /// What the experiment would hit now. It is not asked where experiments run one after the other.
    fn footprint(&self, entry: &SuiteEntry) -> Footprint {
        if self.command.suite.parallel() == 1 {
            return Footprint::Unknown;
        }
        // What cannot be planned runs alone, and its own run says why.
        self.plan(entry).unwrap_or(Footprint::Unknown)
    }

    fn plan(&self, entry: &SuiteEntry) -> Result<Footprint, CommandFailure> {
        match &entry.experiment {
            SuiteExperiment::Local(experiment) if !experiment.has_fault() => Ok(Footprint::of([])),
            SuiteExperiment::Local(experiment) => {
                let host = &self.command.host;
                let (start, access) = (host.start()?, host.access()?);
                let seed = entry.seed.unwrap_or_else(runner::random);
                let frequency = self.command.frequency();
                let preview = runner::preview(experiment, seed, frequency, &access, start.into());
                let preview = runtime()?
                    .block_on(preview)
                    .map_err(|refusal| CommandFailure {
                        code: Outcome::NotStarted.exit_code(),
                        message: refusal.to_string(),
                    })?;
                Ok(footprint_of(&preview))
            }
            SuiteExperiment::Fleet(experiment) => {
                let variables = self.command.variables.configuration()?;
                let plan = remote::runs::plan(
                    &self.command.controller,
                    experiment,
                    entry.seed,
                    variables,
                )?;
                Ok(Footprint::of_agents(plan.agents))
            }
        }
    }
}

/// What a previewed run would hit. One of which something would be refused is not known.
fn footprint_of(preview: &Preview) -> Footprint {
    let planned: Option<Vec<(&str, &[Victim])>> = (preview.injections.iter())
        .map(|injection| {
            let plan = injection.plan.as_ref()?;
            Some((injection.agent.as_str(), &plan.victims[..]))
        })
        .collect();
    planned.map_or(Footprint::Unknown, Footprint::of)
}

/// Whether something was not seen to be reverted, so that nothing more may be injected.
fn is_not_clean(ending: &ExperimentEnding) -> bool {
    let code = match ending {
        ExperimentEnding::Finished(run) => run.finished.verdict.exit_code,
        ExperimentEnding::Failed(failure) => failure.code,
        ExperimentEnding::Skipped(_) => return false,
    };
    code == Outcome::NotClean.exit_code()
}

/// Shows how all experiments ended: their verdicts in order, and how many had each.
fn print_summary(command: &RunCommand, results: &[ExperimentResult], code: u8) {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for result in results {
        let word = result.word();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    if command.json {
        let counts: serde_json::Map<_, _> = counts
            .into_iter()
            .map(|(word, count)| (word.replace(' ', "-"), count.into()))
            .collect();
        let skipped: Vec<String> = (results.iter())
            .filter(|result| matches!(result.ending, ExperimentEnding::Skipped(_)))
            .map(|result| result.file.display().to_string())
            .collect();
        print_json_line(
            &json!({"suite": {"experiments": results.len(), "outcomes": counts, "not-run": skipped, "exit-code": code}}),
        );
        return;
    }
    let mut out = String::from("\n");
    for result in results {
        out.push_str(&format!(
            "{:<12}  {}\n",
            result.word(),
            shown_path(&result.file)
        ));
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    let counts = match counts.is_empty() {
        true => "none".to_owned(),
        false => counts.join(", "),
    };
    out.push_str(&format!("suite: {counts}\n"));
    print(&out);
}
