//! Runs on a fleet: started and followed, planned, stopped, listed, approved.

use super::super::progress::{OutputStyle, ProgressThread};
use super::super::report;
use super::super::{CommandError, print, print_json, print_stderr, runtime};
use super::client::Client;
use super::follow::follow;
use super::{ControllerOptions, columns, text};
use backburn::runner::FinishedRun;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{JournalEntry, Run, Verdict, WAITING_FOR_APPROVAL, verdict};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What is run, and how.
pub(in crate::cli) struct RemoteRunOptions {
    pub(in crate::cli) experiment: super::RemoteExperiment,
    pub(in crate::cli) seed: Option<u64>,
    pub(in crate::cli) variables: Map<String, Value>,
    /// Whether to stay until the run is over.
    pub(in crate::cli) wait: bool,
    pub(in crate::cli) json: bool,
}

/// A run that was followed to its end.
pub(in crate::cli) struct FollowedRun {
    pub(in crate::cli) title: String,
    pub(in crate::cli) finished: FinishedRun,
    pub(in crate::cli) entries: Vec<JournalEntry>,
}

/// Starts a run, and follows it where that is wanted. The run's exit code is ours.
pub(in crate::cli) fn run(
    remote: &ControllerOptions,
    wanted: &RemoteRunOptions,
) -> Result<(u8, Option<FollowedRun>), CommandError> {
    let client = remote.client()?;
    let mut request = json!({"seed": wanted.seed, "variables": wanted.variables});
    let path = wanted.experiment.path(&mut request, "runs");
    let (_, begun) = client.call("POST", &path, Some(&request))?;
    let Some(run) = begun["run"].as_str() else {
        let approval = &begun["approval"];
        let (id, rule) = (text(approval, "id"), text(approval, "rule"));
        print_stderr(&format!(
            "waits for a second person, by the controller's rule `{rule}`\nhint: somebody else says `backburn approve {id}`, and the run has this id then: `backburn runs {id} --follow`\n"
        ));
        match wanted.json {
            true => print(&format!("{begun}\n")),
            false => print(&format!("{id}\n")),
        }
        return Ok((WAITING_FOR_APPROVAL, None));
    };
    if !wanted.wait {
        print(&format!("{run}\n"));
        return Ok((0, None));
    }
    print_stderr(&format!(
        "run {run} on the fleet; Ctrl-C ends the run, and everything is put back first\n"
    ));
    let followed = watch(&client, run, wanted.json, OnInterrupt::Stop)?;
    Ok(match followed {
        Some(followed) => (followed.finished.verdict.exit_code, Some(followed)),
        None => (EXIT_INTERRUPTED, None),
    })
}

/// What Ctrl-C does to a run that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInterrupt {
    /// It ends the run, which whoever watches has begun.
    Stop,
    /// Nobody watches any more; the run goes on.
    Detach,
}

/// The exit code of whoever stopped watching: that of a command which SIGINT ended, as shells say it. It is no run's.
const EXIT_INTERRUPTED: u8 = 130;

/// Follows a run to its end, and shows it as a local one is shown. None where somebody stopped watching before.
fn watch(
    client: &Client,
    run: &str,
    as_json: bool,
    on_interrupt: OnInterrupt,
) -> Result<Option<FollowedRun>, CommandError> {
    let style = match as_json {
        true => OutputStyle::Json,
        false => OutputStyle::for_people(),
    };
    let progress = ProgressThread::start(style, BTreeMap::<String, HumanDuration>::new());
    let mut watcher = progress.watcher();
    let mut warn = progress.warner();
    let mut fold = Run::default();
    let followed = runtime()?.block_on(async {
        let followed = follow(client, run, |entry| {
            // What an older or newer controller says may not fit; its own verdict is what counts.
            fold.apply(&entry).ok();
            watcher(&entry);
        });
        tokio::pin!(followed);
        loop {
            tokio::select! {
                closed = followed.as_mut() => return closed.map(Some),
                signal = tokio::signal::ctrl_c() => {
                    if on_interrupt == OnInterrupt::Detach {
                        return Ok(None);
                    }
                    if signal.is_ok() {
                        warn("SIGINT: ending the run; everything is put back first".into());
                        let path = format!("/api/v1/runs/{run}/stop");
                        let why = json!({"why": "SIGINT received"});
                        client.ask("POST", &path, Some(&why)).await?;
                    }
                }
            }
        }
    });
    drop(watcher);
    drop(warn);
    let entries = progress.end();
    let Some(closed) = followed? else {
        print_stderr(&format!(
            "detached: run {run} goes on\nhint: `backburn stop {run}` ends it, and everything is put back first; `backburn runs {run} --follow` shows it again\n"
        ));
        return Ok(None);
    };
    // The controller has seen more than its journal may hold: a store that failed keeps only the beginning.
    let verdict = match Verdict::deserialize(&closed["verdict"]) {
        Ok(verdict) => verdict,
        Err(_) => verdict(&fold),
    };
    let title = text(&closed, "title").to_owned();
    let finished = FinishedRun {
        run: fold,
        verdict,
        illegal: None,
    };
    if as_json {
        let line = json!({"verdict": finished.verdict, "run": run});
        print(&format!("{line}\n"));
    } else {
        print(&report::shown(&title, &finished, None));
    }
    Ok(Some(FollowedRun {
        title,
        finished,
        entries,
    }))
}

/// What a run would hit on the fleet now: the controller's words.
pub(in crate::cli) fn plan(
    remote: &ControllerOptions,
    experiment: &super::RemoteExperiment,
    seed: Option<u64>,
    variables: Map<String, Value>,
) -> Result<Value, CommandError> {
    let client = remote.client()?;
    let mut request = json!({"seed": seed, "variables": variables});
    let path = experiment.path(&mut request, "plan");
    client
        .call("POST", &path, Some(&request))
        .map(|(_, plan)| plan)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsCommand {
    /// Only one: with its verdict
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Only runs of this experiment
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Only runs that came to this: held, deviated, not-started, aborted, inconclusive, not-clean, not-injected
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Follow it to its end, and end with its exit code. Ctrl-C stops following, with exit code 130; the run goes on
    #[arg(long, requires = "run")]
    follow: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// `backburn runs`
pub(in crate::cli) fn runs(command: &RunsCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    if let Some(run) = &command.run {
        if command.follow {
            let followed = watch(&client, run, command.json, OnInterrupt::Detach)?;
            let code = followed.map(|followed| followed.finished.verdict.exit_code);
            return Ok(code.unwrap_or(EXIT_INTERRUPTED));
        }
        let (_, run) = client.call("GET", &format!("/api/v1/runs/{run}"), None)?;
        print_json(&run);
        return Ok(0);
    }
    let mut path = format!("/api/v1/runs?limit={}", command.count);
    for (key, value) in [
        ("experiment", &command.experiment),
        ("outcome", &command.outcome),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={value}"));
        }
    }
    let (_, runs) = client.call("GET", &path, None)?;
    if command.json {
        print_json(&runs);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = runs
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| {
            let outcome = run["outcome"].as_str().unwrap_or("goes on");
            vec![
                text(run, "id").to_owned(),
                outcome.to_owned(),
                text(run, "experiment").to_owned(),
                text(run, "who").to_owned(),
                text(run, "title").to_owned(),
            ]
        })
        .collect();
    print(&columns(&rows));
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StopCommand {
    /// The run's id
    #[arg(value_name = "RUN")]
    run: String,
    /// Why, for people; it is in the verdict
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// `backburn stop`
pub(in crate::cli) fn stop(command: &StopCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let path = format!("/api/v1/runs/{}/stop", command.run);
    let (_, stopping) = client.call("POST", &path, Some(&json!({"why": command.why})))?;
    print_stderr(match stopping["stopping"] == true {
        true => "the run is being ended; everything is put back first\n",
        false => "the run was over\n",
    });
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApprovalsCommand {
    #[command(flatten)]
    remote: ControllerOptions,
}

/// `backburn approvals`
pub(in crate::cli) fn approvals(command: &ApprovalsCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let (_, waiting) = client.call("GET", "/api/v1/approvals", None)?;
    let rows: Vec<Vec<String>> = waiting
        .as_array()
        .into_iter()
        .flatten()
        .map(|waits| {
            ["id", "experiment", "who", "rule", "at"]
                .map(|field| text(waits, field).to_owned())
                .into()
        })
        .collect();
    print(&columns(&rows));
    Ok(0)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveCommand {
    /// What waits, as `backburn approvals` shows it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// `backburn approve`
pub(in crate::cli) fn approve(command: &ApproveCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let path = format!("/api/v1/approvals/{}", command.id);
    let (_, started) = client.call("POST", &path, None)?;
    print(&format!("{}\n", text(&started, "run")));
    Ok(0)
}
