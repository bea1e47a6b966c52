//! Runs on a fleet: planning, starting, following, stopping, listing and approving them.

use super::super::comparison::LAST_HELD;
use super::super::completed_run::CompletedRun;
use super::super::progress::{OutputStyle, ProgressThread};
use super::super::signals::{self, RunSignal, RunSignals};
use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print, print_json, print_json_line, print_stderr, runtime};
use super::super::{default_state, report};
use super::client::{Client, to_json};
use super::follow::follow;
use super::lock_options::RequestedLock;
use super::run_view;
use super::{ControllerOptions, LockOptions, RemoteExperiment};
use backburn::api::types::{
    ApprovalInfo, RunInfo, RunPlan, StartRunResult, StopRequest, StopResult,
};
use backburn::report::EarlierRun;
use backburn::runner::FinishedRun;
use backburn_experiments::journal::{Run, Verdict, WAITING_FOR_APPROVAL, verdict};
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What to run on a fleet, and how.
pub(in crate::cli) struct RemoteRunOptions {
    pub(in crate::cli) experiment: RemoteExperiment,
    pub(in crate::cli) seed: Option<u64>,
    pub(in crate::cli) variables: Map<String, Value>,
    /// Whether to wait for the end of the run.
    pub(in crate::cli) wait: bool,
    pub(in crate::cli) style: OutputStyle,
    pub(in crate::cli) lock: LockOptions,
}

/// Starts a run and, if wanted, follows it to its end. Returns the exit code, which is the run's if it was followed. The caller shows the result.
pub(in crate::cli) fn run(
    controller: &ControllerOptions,
    options: RemoteRunOptions,
) -> Result<(u8, Option<CompletedRun>), CommandFailure> {
    let client = controller.client()?;
    let json = options.style == OutputStyle::Json;
    let start = |lock: Option<RequestedLock<'_>>| {
        let experiment = &options.experiment;
        experiment.run(&client, options.seed, options.variables.clone(), lock)
    };
    let started: StartRunResult = options.lock.start(start)?;
    if let Some(waiting) = &started.approval {
        if !options.wait {
            print_stderr(&waiting_message(waiting));
            match json {
                true => print_json_line(&started),
                false => print(&format!("{}\n", waiting.id)),
            }
            return Ok((WAITING_FOR_APPROVAL, None));
        }
        print_stderr(&format!(
            "{}waiting for approval; Ctrl-C withdraws the run\n",
            waiting_message(waiting)
        ));
    }
    let approval = started.approval.map(|waiting| waiting.id);
    let is_waiting = approval.is_some();
    let run = started.run.or(approval).unwrap_or_default();
    if !options.wait {
        print(&format!("{run}\n"));
        return Ok((0, None));
    }
    if !is_waiting && options.style != OutputStyle::Quiet {
        print_stderr(&format!(
            "run {run} has started on the fleet; Ctrl-C stops it, and its faults are reverted first\n"
        ));
    }
    let followed = watch(&client, &run, options.style, OnInterrupt::Stop)?;
    Ok(match followed {
        Some(followed) => (followed.finished.verdict.exit_code, Some(followed)),
        None => (EXIT_INTERRUPTED, None),
    })
}

/// The run of a controller to compare a run with: the latest of the stored experiment that held, or the one with this id.
///
/// # Errors
/// There is none.
pub(in crate::cli) fn earlier_run(
    controller: &ControllerOptions,
    experiment: &RemoteExperiment,
    which: &str,
) -> Result<EarlierRun, CommandFailure> {
    let client = controller.client()?;
    let run: RunInfo = match (which == LAST_HELD, experiment) {
        (false, _) => {
            let run = run_view::resolve(&client, which)?;
            client.get(&format!("/api/v1/runs/{}", percent_encoded(&run)))?
        }
        (true, RemoteExperiment::Stored(name)) => {
            let path = format!(
                "/api/v1/runs?limit=1&outcome=held&experiment={}",
                percent_encoded(name)
            );
            let found: Vec<RunInfo> = client.get(&path)?;
            found.into_iter().next().ok_or_else(|| {
                CommandFailure::invalid(format!(
                    "no run of experiment `{name}` has held\nhint: run it without `--compare-with` first"
                ))
            })?
        }
        (true, RemoteExperiment::Inline(_)) => {
            return Err(CommandFailure::invalid(
                "`--compare-with last-held` requires an experiment that the controller stores\nhint: store it with `backburn apply`, or give the id of a run",
            ));
        }
    };
    let verdict = run
        .verdict
        .and_then(|verdict| serde_json::from_value::<Verdict>(verdict).ok());
    let known = run.started.parse().ok().zip(verdict);
    let (started, verdict) = known
        .ok_or_else(|| CommandFailure::invalid(format!("run {} is not over", escape(&run.id))))?;
    Ok(EarlierRun::new(run.id, started, run.version, &verdict))
}

/// Says that a run waits for approval, and who can do what about it.
fn waiting_message(waiting: &ApprovalInfo) -> String {
    let (id, rule) = (&waiting.id, &waiting.rule);
    format!(
        "run {id} waits for an approval, which the controller's rule `{rule}` requires, until {}\nhint: another person looks at its plan with `backburn approvals {id}`, and approves it with `backburn approve {id}`; `backburn runs {id} --follow` follows it\n",
        waiting.expires
    )
}

/// What Ctrl-C, SIGTERM and SIGHUP do while a run is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInterrupt {
    /// It stops the run, which the same command has started.
    Stop,
    /// It ends the command; the run goes on.
    Detach,
}

/// The exit code of a command that Ctrl-C detached from a run: 128 + SIGINT, as shells report it. No outcome has it.
const EXIT_INTERRUPTED: u8 = 130;

/// Follows a run to its end and shows its progress like that of a local run. None if Ctrl-C detached from the run before its end.
fn watch(
    client: &Client,
    run: &str,
    style: OutputStyle,
    on_interrupt: OnInterrupt,
) -> Result<Option<CompletedRun>, CommandFailure> {
    let progress = ProgressThread::start(style);
    let mut watcher = progress.watcher();
    let mut warn = progress.warner();
    let mut fold = Run::default();
    let followed = runtime()?.block_on(async {
        let mut signals = RunSignals::listen()
            .map_err(|error| CommandFailure::invalid(format!("cannot receive signals: {error}")))?;
        let followed = follow(client, run, |entry| {
            // The events of another version's controller may not fold here; its own verdict counts.
            fold.apply(&entry).ok();
            watcher(&entry);
        });
        tokio::pin!(followed);
        loop {
            tokio::select! {
                closed = followed.as_mut() => return closed.map(Some),
                signal = signals.next() => match signal {
                    RunSignal::Ignored(name) => warn(signals::ignored(name)),
                    RunSignal::End(_) if on_interrupt == OnInterrupt::Detach => return Ok(None),
                    RunSignal::End(name) => {
                        warn(format!("{name}: stopping the run; its faults are reverted first"));
                        let path = format!("/api/v1/runs/{run}/stop");
                        let request = StopRequest { why: Some(format!("{name} received")) };
                        let _result: StopResult =
                            client.request("POST", &path, Some(to_json(&request)?)).await?;
                    }
                },
            }
        }
    });
    drop(watcher);
    drop(warn);
    let entries = progress.end();
    let Some(closed) = followed? else {
        print_stderr(&format!(
            "detached: run {run} continues\nhint: `backburn stop {run}` stops it; `backburn runs {run} --follow` follows it again\n"
        ));
        return Ok(None);
    };
    // The controller may have seen more than the journal holds: a store that failed keeps only the beginning.
    let reported = closed.verdict.map(serde_json::from_value::<Verdict>);
    let verdict = match reported {
        Some(Ok(verdict)) => verdict,
        _ => verdict(&fold),
    };
    let title = closed.title;
    let finished = FinishedRun {
        run: fold,
        verdict,
        illegal: None,
    };
    Ok(Some(CompletedRun {
        title,
        finished,
        entries,
        journal: None,
    }))
}

/// Shows the result of a run on the fleet.
pub(in crate::cli) fn print_result(completed: &CompletedRun, as_json: bool) {
    let CompletedRun {
        title, finished, ..
    } = completed;
    match as_json {
        true => {
            print_json_line(&json!({"verdict": finished.verdict, "run": finished.run.id}));
        }
        false => print(&report::format_report(title, finished, None)),
    }
}

/// Asks the controller what a run would affect on its fleet now.
pub(in crate::cli) fn plan(
    controller: &ControllerOptions,
    experiment: &RemoteExperiment,
    seed: Option<u64>,
    variables: Map<String, Value>,
) -> Result<RunPlan, CommandFailure> {
    experiment.plan(&controller.client()?, seed, variables)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsCommand {
    /// Show this run, with its verdict; the beginning of an id is enough, if it is unique
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// List only runs of this stored experiment
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// List only runs with this outcome: held, deviated, not-started, aborted, inconclusive, not-clean, not-injected
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Greatest number of runs to list
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Follow the run to its end and exit with its exit code; Ctrl-C detaches with exit code 130, and the run goes on
    #[arg(long, requires = "run")]
    follow: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the runs of this host even if a controller is given
    #[arg(long)]
    local: bool,
    /// Directory of the journals of this host [default: /var/lib/backburn for root, else ~/.local/state/backburn]
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

/// What the list of this host's runs needs of the command.
impl RunsCommand {
    /// Whether it is about the runs of this host: no controller is given, or it is left out on purpose.
    pub(in crate::cli) fn is_for_host(&self) -> bool {
        self.local || !self.controller.is_given()
    }

    pub(in crate::cli) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    pub(in crate::cli) fn outcome(&self) -> Option<&str> {
        self.outcome.as_deref()
    }

    pub(in crate::cli) fn count(&self) -> usize {
        self.count.into()
    }

    pub(in crate::cli) fn json(&self) -> bool {
        self.json
    }

    /// The directory that has the journals of this host.
    pub(in crate::cli) fn host_state(&self) -> Result<PathBuf, CommandFailure> {
        self.state.clone().map_or_else(default_state, Ok)
    }

    /// A flag that was given and that only a controller understands.
    pub(in crate::cli) fn fleet_flag(&self) -> Option<&'static str> {
        let flags = [
            (self.experiment.is_some(), "--experiment"),
            (self.follow, "--follow"),
        ];
        let given = flags.into_iter().find(|(is_given, _)| *is_given);
        given.map(|(_, flag)| flag)
    }
}

/// Runs `backburn runs` for a controller.
pub(in crate::cli) fn runs(command: &RunsCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    if let Some(run) = &command.run {
        let run = run_view::resolve(&client, run)?;
        if command.follow {
            let style = match command.json {
                true => OutputStyle::Json,
                false => OutputStyle::for_people(),
            };
            let followed = watch(&client, &run, style, OnInterrupt::Detach)?;
            if let Some(completed) = &followed {
                print_result(completed, command.json);
            }
            let code = followed.map(|followed| followed.finished.verdict.exit_code);
            return Ok(code.unwrap_or(EXIT_INTERRUPTED));
        }
        let run: RunInfo = client.get(&format!("/api/v1/runs/{}", percent_encoded(&run)))?;
        match command.json {
            true => print_json(&run),
            false => run_view::print_run(&client, run)?,
        }
        return Ok(0);
    }
    let mut path = format!("/api/v1/runs?limit={}", command.count);
    for (key, value) in [
        ("experiment", &command.experiment),
        ("outcome", &command.outcome),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", percent_encoded(value)));
        }
    }
    let runs: Vec<RunInfo> = client.get(&path)?;
    if command.json {
        print_json(&runs);
        return Ok(0);
    }
    let row = |run: RunInfo| {
        let mut outcome = run.outcome.unwrap_or_else(|| match run.state.as_str() {
            "waiting-for-approval" => "waiting for approval".into(),
            _ => "open".into(),
        });
        if let Some(at) = &run.cleaned {
            outcome = format!("{outcome}, cleaned at {at}");
        }
        [
            run.id,
            outcome,
            to_the_second(&run.started),
            run.experiment.unwrap_or_default(),
            run.who,
            run.title,
        ]
    };
    print_table(
        ["RUN", "OUTCOME", "STARTED", "EXPERIMENT", "WHO", "TITLE"],
        runs.into_iter().map(row),
        "no runs were found",
    );
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StopCommand {
    /// Id of the run
    #[arg(value_name = "RUN")]
    run: String,
    /// Reason for stopping the run; it becomes part of the verdict
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn stop`.
pub(in crate::cli) fn stop(command: &StopCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let path = format!("/api/v1/runs/{}/stop", command.run);
    let request = StopRequest {
        why: command.why.clone(),
    };
    let result: StopResult = client.post(&path, &request)?;
    print_stderr(match result.stopping {
        true => "the run is being stopped; its faults are reverted first\n",
        false => "the run was already over\n",
    });
    Ok(0)
}
