//! `backburn run`: runs an experiment, on this host or on a fleet, and reports its verdict.

use super::comparison::format_comparison;
use super::experiment_source::{self, Variables};
use super::history;
use super::output::{ReportFile, shown_path};
use super::progress::{OutputStyle, ProgressThread};
use super::remote::{self, ControllerOptions};
use super::signals::{self, RunSignal, RunSignals};
use super::{CommandFailure, HostOptions, junit, print, print_stderr, report, runtime};
use backburn::runner::{self, FinishedRun, RunSettings};
use backburn_experiments::HumanDuration;
use backburn_experiments::chaostoolkit::{ToolkitHost, toolkit_differences, toolkit_journal};
use backburn_experiments::check::{DEFAULT_SAMPLING_INTERVAL, Experiment};
use backburn_experiments::document::{HypothesisStrategy, RollbackStrategy};
use backburn_experiments::journal::JournalEntry;
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    /// Experiment file; `-` reads standard input. With a controller, the file runs on the fleet without being stored, and a NAME
    /// that is not a file is a stored experiment
    #[arg(value_name = "FILE|NAME")]
    file: PathBuf,
    /// Run on this host even if a controller is given
    #[arg(long)]
    local: bool,
    /// Follow a run on the fleet to its end and exit with its exit code
    #[arg(long)]
    wait: bool,
    /// Seed for random selection [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Print the journal's events and the verdict as JSON lines
    #[arg(long)]
    json: bool,
    /// Write a journal in the Chaos Toolkit's format
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
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
    #[arg(long, value_name = "last-held|RUN", conflicts_with = "json")]
    compare_with: Option<String>,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Parses a value that is written like in an experiment document.
pub(super) fn document_value<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(&Value::from(word)).map_err(|error| error.to_string())
}

/// Runs the experiment on a controller's fleet.
fn on_fleet(command: &RunCommand) -> Result<u8, CommandFailure> {
    let local = [
        (
            command.hypothesis_strategy.is_some(),
            "--hypothesis-strategy",
        ),
        (
            command.hypothesis_frequency.is_some(),
            "--hypothesis-frequency",
        ),
        (command.rollback_strategy.is_some(), "--rollback-strategy"),
        (command.journal.is_some(), "--journal"),
    ];
    if let Some((_, flag)) = local.into_iter().find(|(given, _)| *given) {
        return Err(CommandFailure::invalid(format!(
            "`{flag}` requires a run on this host\nhint: write it into the experiment, or run on this host with `--local`"
        )));
    }
    let options = remote::runs::RemoteRunOptions {
        experiment: remote::RemoteExperiment::resolve(
            &command.controller,
            &command.file,
            &command.variables,
        )?,
        seed: command.seed,
        variables: command.variables.configuration()?,
        wait: command.wait || command.junit.is_some() || command.compare_with.is_some(),
        json: command.json,
    };
    let junit_file = command.junit.as_deref().map(ReportFile::open).transpose()?;
    let before = match &command.compare_with {
        Some(which) => Some(remote::runs::earlier_run(
            &command.controller,
            &options.experiment,
            which,
        )?),
        None => None,
    };
    let (code, followed) = remote::runs::run(&command.controller, options)?;
    if let (Some(before), Some(followed)) = (&before, &followed) {
        print(&format_comparison(&followed.finished.verdict, before));
    }
    if let (Some(file), Some(followed)) = (junit_file, &followed) {
        file.write(&junit::report(
            &followed.title,
            &followed.finished,
            &followed.entries,
        ));
    }
    Ok(code)
}

/// Runs `backburn run`.
pub(super) fn main(command: RunCommand) -> Result<u8, CommandFailure> {
    if command.controller.is_given() && !command.local {
        return on_fleet(&command);
    }
    if command.wait {
        return Err(CommandFailure::invalid(
            "`--wait` requires a run on a fleet\nhint: give the controller with `--controller` or BACKBURN_CONTROLLER, without `--local`",
        ));
    }
    let mut experiment = experiment_source::experiment(&command.file, &command.variables)?;
    if let Some(strategy) = command.hypothesis_strategy {
        experiment.hypothesis_timing = experiment.hypothesis_timing_by(Some(strategy));
    }
    if let Some(strategy) = command.rollback_strategy {
        experiment.rollback_strategy = strategy;
    }
    // A report that cannot be written is found before anything is injected.
    let toolkit_file = command
        .journal
        .as_deref()
        .map(ReportFile::open)
        .transpose()?;
    let junit_file = command.junit.as_deref().map(ReportFile::open).transpose()?;
    if let (Some(one), Some(other)) = (&toolkit_file, &junit_file)
        && one.is_same(other)
    {
        return Err(CommandFailure::invalid(
            "`--journal` and `--junit` are the same file, and one report would overwrite the other",
        ));
    }
    let title = experiment.document.title.clone();
    let before = match &command.compare_with {
        Some(which) => Some(history::earlier_run(&command.host.state()?, &title, which)?),
        None => None,
    };
    let (timing, has_fault) = (experiment.hypothesis_timing, experiment.has_fault());
    let for_toolkit = toolkit_file.is_some().then(|| experiment.clone());

    let style = if command.json {
        OutputStyle::Json
    } else {
        OutputStyle::for_people()
    };
    let completed = execute(
        experiment,
        &command.host,
        command.seed,
        command
            .hypothesis_frequency
            .unwrap_or(DEFAULT_SAMPLING_INTERVAL),
        style,
    )?;
    let CompletedRun {
        finished,
        entries,
        journal,
    } = completed;
    let verdict = &finished.verdict;
    if command.json {
        let line = json!({"verdict": verdict, "run": finished.run.id, "journal": journal});
        print(&format!("{line}\n"));
    } else {
        print(&report::format_report(&title, &finished, Some(&journal)));
        if let Some(before) = &before {
            print(&format_comparison(verdict, before));
        }
        if !has_fault {
            for difference in toolkit_differences(timing, &finished.run, verdict) {
                print_stderr(&format!("note: {}\n", escape(&difference)));
            }
        }
    }
    if let (Some(file), Some(experiment)) = (toolkit_file, &for_toolkit) {
        let shape = toolkit_journal(&experiment.raw, &entries, verdict, &host());
        file.write(&format!("{shape:#}\n"));
    }
    if let Some(file) = junit_file {
        file.write(&junit::report(&title, &finished, &entries));
    }
    if let Some(illegal) = &finished.illegal {
        print_stderr(&format!(
            "error: {illegal}\nhint: this is a bug in Backburn; please report it with the journal {}\n",
            shown_path(&journal)
        ));
    }
    Ok(verdict.exit_code)
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

/// A run on this host that is over.
pub(crate) struct CompletedRun {
    /// The run's state and verdict.
    pub(crate) finished: FinishedRun,
    /// The events of the run's journal.
    pub(crate) entries: Vec<JournalEntry>,
    /// The path of the run's journal.
    pub(crate) journal: PathBuf,
}

/// Runs an experiment on this host and shows its progress.
///
/// # Errors
/// The journal, the agent or the runtime could not be started.
pub(crate) fn execute(
    experiment: Experiment,
    host: &HostOptions,
    seed: Option<u64>,
    frequency: HumanDuration,
    style: OutputStyle,
) -> Result<CompletedRun, CommandFailure> {
    let run = runner::run_id();
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
    let watcher = progress.watcher();
    let warn = progress.warner();
    let finished = runtime.block_on(async {
        let stop = stop_by_signals(warn)
            .map_err(|error| CommandFailure::invalid(format!("cannot receive signals: {error}")))?;
        let settings = RunSettings {
            run,
            seed: seed.unwrap_or_else(runner::random),
            frequency,
            sha256: None,
            access,
            approval: None,
            agent_pool: start.into(),
            journal: Box::new(journal),
            observers: vec![watcher],
            stop,
        };
        Ok::<_, CommandFailure>(runner::run(experiment, settings).await)
    });
    // A lookup at a name server that does not answer may still hold a thread, which nobody waits for.
    runtime.shutdown_background();
    let entries = progress.end();
    let mut finished = finished?;
    report::name_local_revert(&mut finished.verdict, &state);
    Ok(CompletedRun {
        finished,
        entries,
        journal: path,
    })
}

/// Receives an operator's signals. The first one that ends the run ends it; later ones skip what may be skipped, but never the
/// revert.
fn stop_by_signals(
    mut warn: impl FnMut(String) + Send + 'static,
) -> std::io::Result<mpsc::UnboundedReceiver<String>> {
    let (tell, told) = mpsc::unbounded_channel();
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
    Ok(told)
}
