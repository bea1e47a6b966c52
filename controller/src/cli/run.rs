//! `backburn run`: runs an experiment, on this host or on a fleet, and reports its verdict.

use super::comparison::format_comparison;
use super::completed_run::CompletedRun;
use super::experiment_source::{self, Variables, document_value};
use super::history;
use super::job::{ExperimentEnding, ExperimentResult, JobOptions, JobReports};
use super::output::{ReportFile, shown_path};
use super::progress::{OutputStyle, ProgressThread};
use super::remote::{self, ControllerOptions, LockOptions, RemoteExperiment};
use super::shell_words::shell_words;
use super::signals::{self, RunSignal, RunSignals};
use super::suite_options::SuiteOptions;
use super::{CommandFailure, HostOptions, print, print_stderr, report, runtime};
use backburn::local_page::LocalPage;
use backburn::runner::{self, RunSettings};
use backburn_experiments::HumanDuration;
use backburn_experiments::chaostoolkit::{ToolkitHost, toolkit_differences, toolkit_journal};
use backburn_experiments::check::{DEFAULT_SAMPLING_INTERVAL, Experiment};
use backburn_experiments::document::{HypothesisStrategy, RollbackStrategy};
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    /// Experiment file; `-` reads standard input. With a controller, the file runs on the fleet without being stored, and a NAME
    /// that is not a file is a stored experiment
    #[arg(value_name = "FILE|NAME", required_unless_present = "suite")]
    file: Option<PathBuf>,
    /// Run on this host even if a controller is given
    #[arg(long)]
    local: bool,
    /// Follow a run on the fleet to its end and exit with its exit code
    #[arg(long)]
    wait: bool,
    /// Seed for random selection [default: random]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Print the journal's events and the verdict as JSON lines
    #[arg(long)]
    pub(super) json: bool,
    /// Write a journal in the Chaos Toolkit's format
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// Serve a page that shows the run, on a free port of the loopback, and print its address, which one browser can use
    #[arg(long, conflicts_with = "suite")]
    page: bool,
    #[command(flatten)]
    pub(super) job: JobOptions,
    #[command(flatten)]
    pub(super) suite: SuiteOptions,
    /// When to check the hypothesis: default, before-method-only, after-method-only, during-method-only, continuously
    #[arg(long, value_name = "STRATEGY", value_parser = document_value::<HypothesisStrategy>)]
    hypothesis_strategy: Option<HypothesisStrategy>,
    /// How often to check the hypothesis during the method [default: 1s]
    #[arg(long, value_name = "DURATION")]
    hypothesis_frequency: Option<HumanDuration>,
    /// When to execute the rollbacks: default, always, never, deviated
    #[arg(long, value_name = "STRATEGY", value_parser = document_value::<RollbackStrategy>)]
    rollback_strategy: Option<RollbackStrategy>,
    /// Show the figures of an earlier run beside those of this one: `last-held` is the latest that held
    #[arg(long, value_name = "last-held|RUN", conflicts_with_all = ["json", "suite"])]
    compare_with: Option<String>,
    #[command(flatten)]
    pub(super) variables: Variables,
    #[command(flatten)]
    pub(super) host: HostOptions,
    #[command(flatten)]
    pub(super) controller: ControllerOptions,
    #[command(flatten)]
    lock: LockOptions,
}

impl RunCommand {
    /// Whether it runs a suite in place of one experiment.
    pub(super) fn is_suite(&self) -> bool {
        self.file.is_none()
    }

    /// Whether the command is about a controller's fleet.
    pub(super) fn is_on_fleet(&self) -> bool {
        self.controller.is_given() && !self.local
    }

    /// How to show the progress of a run.
    fn style(&self) -> OutputStyle {
        match self.json {
            true => OutputStyle::Json,
            false => OutputStyle::for_people(),
        }
    }

    /// Whether the run waits for a lock.
    pub(super) fn has_lock(&self) -> bool {
        self.lock.is_given()
    }

    /// How often to check the hypothesis during the method.
    pub(super) fn frequency(&self) -> HumanDuration {
        self.hypothesis_frequency
            .unwrap_or(DEFAULT_SAMPLING_INTERVAL)
    }

    /// The command that runs this experiment again, with the same random selection if there is a seed.
    pub(super) fn rerun(&self, file: &Path, seed: Option<u64>) -> String {
        let mut words: Vec<OsString> = ["backburn", "run"].map(OsString::from).into();
        words.push(file.into());
        words.extend(self.variables.words());
        for (flag, value) in [
            (
                "--hypothesis-strategy",
                self.hypothesis_strategy.map(|strategy| json!(strategy)),
            ),
            (
                "--rollback-strategy",
                self.rollback_strategy.map(|strategy| json!(strategy)),
            ),
            (
                "--hypothesis-frequency",
                self.hypothesis_frequency
                    .map(|frequency| json!(frequency.to_string())),
            ),
        ] {
            if let Some(value) = value.as_ref().and_then(Value::as_str) {
                words.extend([flag.into(), value.into()]);
            }
        }
        if let Some(seed) = seed {
            words.extend(["--seed".into(), seed.to_string().into()]);
        }
        if self.is_on_fleet() {
            words.push("--wait".into());
        }
        shell_words(words)
    }

    /// Refuses what only a run on the other side can do.
    pub(super) fn refuse_misplaced_flags(&self) -> Result<(), CommandFailure> {
        if let Some(flag) = self.suite.flag_without_suite() {
            return Err(CommandFailure::invalid(format!(
                "`{flag}` requires `--suite`\nhint: `--suite DIR` runs all experiments of a directory"
            )));
        }
        if !self.is_on_fleet() {
            let fleet = [(self.wait, "--wait"), (self.lock.is_given(), "--lock")];
            return match fleet.into_iter().find(|(given, _)| *given) {
                Some((_, flag)) => Err(CommandFailure::invalid(format!(
                    "`{flag}` requires a run on a fleet\nhint: give the controller with `--controller` or BACKBURN_CONTROLLER, without `--local`"
                ))),
                None => Ok(()),
            };
        }
        let local = [
            (self.hypothesis_strategy.is_some(), "--hypothesis-strategy"),
            (
                self.hypothesis_frequency.is_some(),
                "--hypothesis-frequency",
            ),
            (self.rollback_strategy.is_some(), "--rollback-strategy"),
            (self.journal.is_some(), "--journal"),
            (self.page, "--page"),
        ];
        match local.into_iter().find(|(given, _)| *given) {
            Some((_, "--page")) => Err(CommandFailure::invalid(
                "`--page` requires a run on this host\nhint: a controller serves a page of its own, at its address",
            )),
            Some((_, flag)) => Err(CommandFailure::invalid(format!(
                "`{flag}` requires a run on this host\nhint: write it into the experiment, or run on this host with `--local`"
            ))),
            None => Ok(()),
        }
    }

    /// Reads and checks an experiment for a run on this host, with the strategies of the command line.
    ///
    /// # Errors
    /// It cannot be read, or it has problems.
    pub(super) fn load(&self, file: &Path) -> Result<Experiment, CommandFailure> {
        let mut experiment = experiment_source::experiment(file, &self.variables, &self.host)?;
        if let Some(strategy) = self.hypothesis_strategy {
            experiment.hypothesis_timing = experiment.hypothesis_timing_by(Some(strategy));
        }
        if let Some(strategy) = self.rollback_strategy {
            experiment.rollback_strategy = strategy;
        }
        Ok(experiment)
    }

    /// Runs an experiment on this host.
    ///
    /// # Errors
    /// See [`execute`].
    pub(super) fn run_here(
        &self,
        experiment: Experiment,
        seed: Option<u64>,
        style: OutputStyle,
    ) -> Result<CompletedRun, CommandFailure> {
        let page = self.page.then(serve_page).transpose()?;
        let options = ExecuteOptions {
            seed,
            frequency: self.frequency(),
            style,
            page: page.as_ref(),
        };
        execute(experiment, &self.host, options)
    }

    /// Runs an experiment on the fleet. Returns the exit code, and the run if it was followed to its end.
    ///
    /// # Errors
    /// It cannot be started or followed.
    pub(super) fn run_on_fleet(
        &self,
        experiment: RemoteExperiment,
        seed: Option<u64>,
        style: OutputStyle,
        wait: bool,
    ) -> Result<(u8, Option<CompletedRun>), CommandFailure> {
        let options = remote::runs::RemoteRunOptions {
            experiment,
            seed,
            variables: self.variables.configuration()?,
            wait,
            style,
            lock: self.lock.clone(),
        };
        remote::runs::run(&self.controller, options)
    }

    /// The experiment of this file, or of this name, for the fleet.
    pub(super) fn remote_experiment(
        &self,
        file: &Path,
    ) -> Result<RemoteExperiment, CommandFailure> {
        RemoteExperiment::resolve(&self.controller, file, &self.variables)
    }

    /// Shows the result of a run on this host.
    pub(super) fn print_result(&self, completed: &CompletedRun) {
        let CompletedRun {
            title,
            finished,
            journal,
            ..
        } = completed;
        match self.json {
            true => {
                let line = json!({"verdict": finished.verdict, "run": finished.run.id, "journal": journal});
                print(&format!("{line}\n"));
            }
            false => print(&report::format_report(title, finished, journal.as_deref())),
        }
        if let (Some(illegal), Some(journal)) = (&finished.illegal, journal) {
            print_stderr(&format!(
                "error: {illegal}\nhint: this is a bug in Backburn; please report it with the journal {}\n",
                shown_path(journal)
            ));
        }
    }
}

/// Runs the experiment on a controller's fleet.
fn on_fleet(command: &RunCommand, file: &Path) -> Result<u8, CommandFailure> {
    let reports = command.job.open(&[], command.json)?;
    let wait = command.wait || command.job.needs_end() || command.compare_with.is_some();
    let mut before = None;
    let ran = command.remote_experiment(file).and_then(|experiment| {
        if let Some(which) = &command.compare_with {
            let found = remote::runs::earlier_run(&command.controller, &experiment, which)?;
            before = Some(found);
        }
        command.run_on_fleet(experiment, command.seed, command.style(), wait)
    });
    match ran {
        Ok((code, Some(completed))) => {
            remote::runs::print_result(&completed, command.json);
            if let Some(before) = &before {
                print(&format_comparison(&completed.finished.verdict, before));
            }
            reports.write(&[command.result(file, completed)]);
            Ok(code)
        }
        Ok((code, None)) => Ok(code),
        Err(failure) => Err(command.reported(reports, file, failure)),
    }
}

impl RunCommand {
    fn result(&self, file: &Path, completed: CompletedRun) -> ExperimentResult {
        ExperimentResult {
            file: file.to_owned(),
            title: Some(completed.title.clone()),
            rerun: self.rerun(file, Some(completed.finished.run.seed)),
            ending: ExperimentEnding::Finished(Box::new(completed)),
        }
    }

    /// The failure, which the reports of the job have as well.
    fn reported(
        &self,
        reports: JobReports,
        file: &Path,
        failure: CommandFailure,
    ) -> CommandFailure {
        let CommandFailure { code, message } = failure;
        reports.write_failure(ExperimentResult {
            file: file.to_owned(),
            title: None,
            rerun: self.rerun(file, self.seed),
            ending: ExperimentEnding::Failed(CommandFailure {
                code,
                message: message.clone(),
            }),
        });
        CommandFailure { code, message }
    }
}

/// Runs `backburn run` with one experiment.
pub(super) fn main(command: RunCommand) -> Result<u8, CommandFailure> {
    command.refuse_misplaced_flags()?;
    let Some(file) = command.file.clone() else {
        return Err(CommandFailure::invalid("no experiment is given"));
    };
    if command.is_on_fleet() {
        return on_fleet(&command, &file);
    }
    // A report that cannot be written is found before anything is injected.
    let toolkit_file = command
        .journal
        .as_deref()
        .map(ReportFile::open)
        .transpose()?;
    let reports = command
        .job
        .open(&[("--journal", toolkit_file.as_ref())], command.json)?;
    let experiment = match command.load(&file) {
        Ok(experiment) => experiment,
        Err(failure) => return Err(command.reported(reports, &file, failure)),
    };
    let title = &experiment.document.title;
    let before = match &command.compare_with {
        Some(which) => {
            let state = command.host.state()?;
            match history::earlier_run(&state, title, which) {
                Ok(before) => Some(before),
                Err(failure) => return Err(command.reported(reports, &file, failure)),
            }
        }
        None => None,
    };
    let (timing, has_fault) = (experiment.hypothesis_timing, experiment.has_fault());
    let for_toolkit = toolkit_file.is_some().then(|| experiment.clone());
    let completed = match command.run_here(experiment, command.seed, command.style()) {
        Ok(completed) => completed,
        Err(failure) => return Err(command.reported(reports, &file, failure)),
    };
    let verdict = &completed.finished.verdict;
    command.print_result(&completed);
    if let Some(before) = &before {
        print(&format_comparison(verdict, before));
    }
    if !command.json && !has_fault {
        for difference in toolkit_differences(timing, &completed.finished.run, verdict) {
            print_stderr(&format!("note: {}\n", escape(&difference)));
        }
    }
    if let (Some(file), Some(experiment)) = (toolkit_file, &for_toolkit) {
        let shape = toolkit_journal(&experiment.raw, &completed.entries, verdict, &host());
        file.write(&format!("{shape:#}\n"));
    }
    let code = verdict.exit_code;
    reports.write(&[command.result(&file, completed)]);
    Ok(code)
}

/// This host as the Chaos Toolkit's journal describes it.
fn host() -> ToolkitHost {
    let Ok(system) = nix::sys::utsname::uname() else {
        return ToolkitHost {
            platform: std::env::consts::OS.into(),
            node: "localhost".into(),
        };
    };
    let [name, release, machine, node] = [
        system.sysname(),
        system.release(),
        system.machine(),
        system.nodename(),
    ]
    .map(|part| part.to_string_lossy());
    ToolkitHost {
        platform: format!("{name}-{release}-{machine}"),
        node: node.into_owned(),
    }
}

/// How to run an experiment on this host.
pub(crate) struct ExecuteOptions<'a> {
    /// The seed for random selection; random if there is none.
    pub(crate) seed: Option<u64>,
    /// How often the hypothesis is sampled while the method runs.
    pub(crate) frequency: HumanDuration,
    /// How progress is shown.
    pub(crate) style: OutputStyle,
    /// The page that shows the run, too.
    pub(crate) page: Option<&'a LocalPage>,
}

/// Serves the page of runs on this host, and prints its address.
///
/// # Errors
/// It cannot be served.
pub(crate) fn serve_page() -> Result<LocalPage, CommandFailure> {
    let page = LocalPage::start()
        .map_err(|error| CommandFailure::invalid(format!("the page cannot be served: {error}")))?;
    print_stderr(&format!("page: {}\n", page.url()));
    Ok(page)
}

/// Runs an experiment on this host and shows its progress.
///
/// # Errors
/// The journal, the agent or the runtime could not be started.
pub(crate) fn execute(
    experiment: Experiment,
    host: &HostOptions,
    options: ExecuteOptions<'_>,
) -> Result<CompletedRun, CommandFailure> {
    let ExecuteOptions {
        seed,
        frequency,
        style,
        page,
    } = options;
    let run = runner::run_id();
    let seed = seed.unwrap_or_else(runner::random);
    let title = experiment.document.title.clone();
    let state = host.state()?;
    let journal = runner::JournalFile::create(&state, &run).map_err(|error| {
        let what = format!(
            "the journal cannot be written to {}: {error}",
            state.display()
        );
        CommandFailure::invalid(format!(
            "{what}\nhint: give a writable directory with `--state`"
        ))
    })?;
    let path = journal.path().to_owned();
    let start = host.start()?;
    let access = host.access()?;
    let runtime = runtime()?;
    let progress = ProgressThread::start(style);
    let (ask_to_stop, stop) = mpsc::unbounded_channel();
    let mut observers = vec![progress.watcher()];
    observers.extend(page.map(|page| page.begin(&run, seed, &experiment, ask_to_stop.clone())));
    let warn = progress.warner();
    let shown_run = run.clone();
    let finished = runtime.block_on(async {
        stop_by_signals(warn, ask_to_stop)
            .map_err(|error| CommandFailure::invalid(format!("cannot receive signals: {error}")))?;
        let settings = RunSettings {
            run,
            seed,
            frequency,
            sha256: None,
            access,
            approval: None,
            agent_pool: start.into(),
            journal: Box::new(journal),
            observers,
            stop,
        };
        Ok::<_, CommandFailure>(runner::run(experiment, settings).await)
    });
    // A lookup at a name server that does not answer may still hold a thread, which nobody waits for.
    runtime.shutdown_background();
    let entries = progress.end();
    let mut finished = finished?;
    report::name_local_revert(&mut finished.verdict, &state);
    if let Some(page) = page {
        page.close(&shown_run, &finished.verdict);
    }
    Ok(CompletedRun {
        title,
        finished,
        entries,
        journal: Some(path),
    })
}

/// Receives an operator's signals. The first one that ends the run ends it; later ones skip what may be skipped, but never the
/// revert.
fn stop_by_signals(
    mut warn: impl FnMut(String) + Send + 'static,
    tell: mpsc::UnboundedSender<String>,
) -> std::io::Result<()> {
    let mut received = RunSignals::listen()?;
    tokio::spawn(async move {
        let mut times = 0;
        loop {
            let name = match received.next().await {
                RunSignal::End(name) => name,
                RunSignal::Ignored(name) => {
                    warn(signals::ignored(name));
                    continue;
                }
            };
            times += 1;
            warn(match times {
                1 => format!("{name}: ending the run; its faults are reverted first"),
                _ => format!("{name}: the faults are still reverted; everything else is skipped"),
            });
            if tell.send(format!("{name} received")).is_err() {
                return;
            }
        }
    });
    Ok(())
}
