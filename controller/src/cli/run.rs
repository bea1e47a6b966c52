//! `backburn run`: one experiment on this host, from its file to its verdict.

use super::experiment_source::{self, Variables};
use super::output::ReportFile;
use super::progress::{OutputStyle, ProgressThread};
use super::remote::{self, ControllerOptions};
use super::{CommandError, HostOptions, junit, print, print_stderr, report, runtime};
use backburn::runner::{self, FinishedRun, RunSettings};
use backburn_experiments::HumanDuration;
use backburn_experiments::check::{DEFAULT_SAMPLING_INTERVAL, Experiment};
use backburn_experiments::document::{HypothesisStrategy, RollbackStrategy};
use backburn_experiments::chaostoolkit::{ToolkitHost, toolkit_differences, toolkit_journal};
use backburn_experiments::journal::JournalEntry;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    /// The experiment's file; `-` is standard input. With a controller it runs on the fleet and is not kept; a NAME that is no
    /// file is an experiment that the controller keeps
    #[arg(value_name = "FILE|NAME")]
    file: PathBuf,
    /// Run the file on this host, although a controller is named
    #[arg(long)]
    local: bool,
    /// Wait until a run on the fleet is over, show it, and end with its exit code
    #[arg(long)]
    wait: bool,
    /// What every pick comes from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Print the journal's events and the verdict as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Write a journal in the Chaos Toolkit's shape
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// When the hypothesis is looked at: default, before-method-only, after-method-only, during-method-only, continuously
    #[arg(long, value_name = "STRATEGY", value_parser = named::<HypothesisStrategy>)]
    hypothesis_strategy: Option<HypothesisStrategy>,
    /// How often it is looked at while the method goes on [default: 1s]
    #[arg(long, value_name = "DURATION")]
    hypothesis_frequency: Option<HumanDuration>,
    /// When the rollbacks are played: default, always, never, deviated
    #[arg(long, value_name = "STRATEGY", value_parser = named::<RollbackStrategy>)]
    rollback_strategy: Option<RollbackStrategy>,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    place: HostOptions,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// A word that the document knows, too.
pub(super) fn named<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(&Value::from(word)).map_err(|error| error.to_string())
}

/// A run on the fleet.
fn on_fleet(command: &RunCommand) -> Result<u8, CommandError> {
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
        return Err(CommandError::invalid(format!(
            "`{flag}` is for a run on this host\nhint: write it into the experiment, or run the file here with `--local`"
        )));
    }
    let wanted = remote::runs::RemoteRunOptions {
        experiment: remote::RemoteExperiment::of(
            &command.remote,
            &command.file,
            &command.variables,
        )?,
        seed: command.seed,
        variables: command.variables.configuration()?,
        wait: command.wait || command.junit.is_some(),
        json: command.json,
    };
    let junit_file = command.junit.as_deref().map(ReportFile::open).transpose()?;
    let (code, followed) = remote::runs::run(&command.remote, &wanted)?;
    if let (Some(file), Some(followed)) = (junit_file, &followed) {
        file.write(&junit::report(
            &followed.title,
            &followed.finished,
            &followed.entries,
        ));
    }
    Ok(code)
}

pub(super) fn main(command: RunCommand) -> Result<u8, CommandError> {
    if command.remote.is_named() && !command.local {
        return on_fleet(&command);
    }
    if command.wait {
        return Err(CommandError::invalid(
            "`--wait` is for a run on a fleet\nhint: name the controller with `--controller` or BACKBURN_CONTROLLER, and leave `--local` out",
        ));
    }
    let mut experiment = experiment_source::experiment(&command.file, &command.variables)?;
    if let Some(strategy) = command.hypothesis_strategy {
        experiment.hypothesis_timing = experiment.hypothesis_timing_by(Some(strategy));
    }
    if let Some(strategy) = command.rollback_strategy {
        experiment.rollback_strategy = strategy;
    }
    // A report that cannot be written is found out before anything is broken.
    let toolkit_file = command
        .journal
        .as_deref()
        .map(ReportFile::open)
        .transpose()?;
    let junit_file = command.junit.as_deref().map(ReportFile::open).transpose()?;
    if let (Some(one), Some(other)) = (&toolkit_file, &junit_file)
        && one.is_same(other)
    {
        return Err(CommandError::invalid(
            "`--journal` and `--junit` name the same file: one report would overwrite the other",
        ));
    }
    let title = experiment.document.title.clone();
    let (looks, has_fault) = (experiment.hypothesis_timing, experiment.has_fault());
    let kept = toolkit_file.is_some().then(|| experiment.clone());

    let style = if command.json {
        OutputStyle::Json
    } else {
        OutputStyle::for_people()
    };
    let told = execute(
        experiment,
        &command.place,
        command.seed,
        command.hypothesis_frequency.unwrap_or(DEFAULT_SAMPLING_INTERVAL),
        style,
    )?;
    let CompletedRun {
        finished,
        entries,
        journal,
    } = told;
    let verdict = &finished.verdict;
    if command.json {
        let line = json!({"verdict": verdict, "run": finished.run.id, "journal": journal});
        print(&format!("{line}\n"));
    } else {
        print(&report::shown(&title, &finished, Some(&journal)));
        if !has_fault {
            for difference in toolkit_differences(looks, &finished.run, verdict) {
                print_stderr(&format!("note: {difference}\n"));
            }
        }
    }
    if let (Some(file), Some(experiment)) = (toolkit_file, &kept) {
        let shape = toolkit_journal(&experiment.raw, &entries, verdict, &host());
        file.write(&format!("{shape:#}\n"));
    }
    if let Some(file) = junit_file {
        file.write(&junit::report(&title, &finished, &entries));
    }
    if let Some(illegal) = &finished.illegal {
        print_stderr(&format!(
            "error: {illegal}\nhint: this is a bug of ours; please report it with the journal {}\n",
            journal.display()
        ));
    }
    Ok(verdict.exit_code)
}

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

/// A run that was shown while it went on.
pub(crate) struct CompletedRun {
    /// How it ended.
    pub(crate) finished: FinishedRun,
    /// Its events.
    pub(crate) entries: Vec<JournalEntry>,
    /// Where its journal is.
    pub(crate) journal: PathBuf,
}

/// Runs an experiment on this host and shows it.
pub(crate) fn execute(
    experiment: Experiment,
    place: &HostOptions,
    seed: Option<u64>,
    frequency: HumanDuration,
    style: OutputStyle,
) -> Result<CompletedRun, CommandError> {
    let run = runner::run_id();
    let state = place.state()?;
    let journal = runner::JournalFile::create(&state, &run).map_err(|error| {
        let what = format!(
            "the journal cannot be written below {}: {error}",
            state.display()
        );
        CommandError::invalid(format!(
            "{what}\nhint: name a folder that you may write to with `--state`"
        ))
    })?;
    let path = journal.path().to_owned();
    let start = place.start()?;
    let runtime = runtime()?;
    let lengths = experiment
        .faults()
        .filter_map(|(_, action, fault)| Some((action.name.clone(), fault.duration?)));
    let progress = ProgressThread::start(style, lengths.collect());
    let watcher = progress.watcher();
    let warn = progress.warner();
    let finished = runtime.block_on(async {
        let stop = signals(warn).map_err(|error| {
            CommandError::invalid(format!("signals cannot be received: {error}"))
        })?;
        let settings = RunSettings {
            run,
            seed: seed.unwrap_or_else(runner::random),
            frequency,
            sha256: None,
            agent_pool: start.into(),
            journal: Box::new(journal),
            observers: vec![watcher],
            stop,
        };
        Ok(runner::run(experiment, settings).await)
    });
    // A name server that does not answer may still hold a thread: nothing is left to wait for.
    runtime.shutdown_background();
    let entries = progress.end();
    Ok(CompletedRun {
        finished: finished?,
        entries,
        journal: path,
    })
}

/// An operator's signals: the first ends the run, later ones only leave out what may be left out.
fn signals(
    mut warn: impl FnMut(String) + Send + 'static,
) -> std::io::Result<mpsc::UnboundedReceiver<String>> {
    let (tell, told) = mpsc::unbounded_channel();
    let mut kinds = vec![
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::terminate(), "SIGTERM"),
    ];
    if !hangup_is_ignored() {
        kinds.push((SignalKind::hangup(), "SIGHUP"));
    }
    let mut received = Vec::new();
    for (kind, name) in kinds {
        received.push((signal(kind)?, name));
    }
    tokio::spawn(async move {
        let mut times = 0;
        loop {
            let name = next(&mut received).await;
            times += 1;
            warn(match times {
                1 => format!("{name}: ending the run; everything is put back first"),
                _ => format!(
                    "{name}: what was injected is put back all the same; the rest is left out"
                ),
            });
            if tell.send(format!("{name} received")).is_err() {
                return;
            }
        }
    });
    Ok(told)
}

/// The next signal of any kind.
async fn next(signals: &mut [(Signal, &'static str)]) -> &'static str {
    std::future::poll_fn(|context| {
        for (signal, name) in signals.iter_mut() {
            if signal.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*name);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Whether `nohup` has us go on without our terminal. Source: proc(5), `SigIgn`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
