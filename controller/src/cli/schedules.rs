//! `backburn schedules`: pauses and resumes schedules, and lists upcoming scheduled runs, of files or of the experiments that a controller stores.

use super::experiment_source::{self, Variables};
use super::output::shown_path;
use super::remote::ControllerOptions;
use super::table::print_table;
use super::{CommandFailure, EXIT_INVALID, HostOptions, print, print_json, print_stderr, runtime};
use backburn::api::types::{PauseInfo, PauseRequest, ResumeScheduleResult, UpcomingRuns};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Schedule;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::timetable::{ScheduledTime, Timetable};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SchedulesCommand {
    #[command(subcommand)]
    action: Option<ScheduleAction>,
    /// Experiment files; `-` reads standard input. Without files, the controller's stored experiments are listed
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Number of upcoming runs of each experiment
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// List runs after this time, e.g. `2026-12-01T10:00:00Z` [default: now]
    #[arg(long, value_name = "TIME")]
    after: Option<Timestamp>,
    /// Seed for random schedules and jitter, used together with the experiment's title
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// What to do about a schedule of the controller.
#[derive(Debug, Subcommand)]
enum ScheduleAction {
    /// Pause the schedule of a stored experiment: it starts nothing until it is resumed
    Pause {
        /// Name of the stored experiment
        #[arg(value_name = "NAME")]
        name: String,
        /// Reason for the pause
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        #[command(flatten)]
        controller: ControllerOptions,
    },
    /// Resume a paused schedule; times that passed meanwhile are not made up for
    Resume {
        /// Name of the stored experiment
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        controller: ControllerOptions,
    },
}

impl ScheduleAction {
    fn run(&self) -> Result<u8, CommandFailure> {
        match self {
            ScheduleAction::Pause {
                name,
                why,
                controller,
            } => {
                let path = format!("/api/v1/schedules/{name}/pause");
                let request = PauseRequest { why: why.clone() };
                let _pause: PauseInfo = controller.client()?.post(&path, &request)?;
                print_stderr(&format!(
                    "the schedule of `{name}` is paused\nhint: `backburn schedules resume {name}` resumes it; an open run is not stopped\n"
                ));
            }
            ScheduleAction::Resume { name, controller } => {
                let path = format!("/api/v1/schedules/{name}/resume");
                let client = controller.client()?;
                let request = client.request("POST", &path, None);
                let resumed: ResumeScheduleResult = runtime()?.block_on(request)?;
                print_stderr(&match resumed.was_paused {
                    true => format!("the schedule of `{name}` is resumed\n"),
                    false => format!("the schedule of `{name}` was not paused\n"),
                });
            }
        }
        Ok(0)
    }
}

/// What keeps a schedule from starting runs, if anything does.
fn state(schedule: &UpcomingRuns) -> String {
    let mut words = Vec::new();
    if let Some(why) = &schedule.stopped {
        words.push(format!("stopped: {why}; apply again"));
    }
    if let Some(pause) = &schedule.paused {
        let why = pause.why.as_ref().map(|why| format!(": {why}"));
        words.push(format!(
            "paused by {} at {}{}",
            pause.who,
            pause.at,
            why.unwrap_or_default()
        ));
    }
    match words.is_empty() {
        true => "active".into(),
        false => words.join("; "),
    }
}

/// Lists the upcoming runs of the experiments that the controller stores.
fn list_stored(command: &SchedulesCommand) -> Result<u8, CommandFailure> {
    let client = command.controller.client()?;
    let path = format!("/api/v1/schedules?count={}", command.count.min(1000));
    let schedules: Vec<UpcomingRuns> = client.get(&path)?;
    if command.json {
        print_json(&schedules);
        return Ok(0);
    }
    let rows = schedules.iter().flat_map(|schedule| {
        let row = |time: &str| {
            [
                schedule.experiment.clone(),
                schedule.version.to_string(),
                time.to_owned(),
                schedule.time_zone.clone(),
                schedule.who.clone(),
                state(schedule),
            ]
        };
        match schedule.times.is_empty() {
            true if schedule.paused.is_some() => vec![row("-")],
            true => vec![row("no further runs")],
            false => schedule.times.iter().map(|time| row(time)).collect(),
        }
    });
    print_table(
        [
            "EXPERIMENT",
            "VERSION",
            "AT",
            "TIME ZONE",
            "RIGHTS OF",
            "STATE",
        ],
        rows,
        "no stored experiment has a schedule",
    );
    Ok(0)
}

/// Runs `backburn schedules`.
pub(super) fn main(command: &SchedulesCommand) -> Result<u8, CommandFailure> {
    if let Some(action) = &command.action {
        return action.run();
    }
    if command.files.is_empty() {
        return list_stored(command);
    }
    Ok(list_files(command))
}

/// Lists the upcoming runs of experiment files. Returns the exit code.
fn list_files(command: &SchedulesCommand) -> u8 {
    let after = command.after.unwrap_or_else(Timestamp::now);
    let mut code = 0;
    let mut found = Vec::new();
    for file in &command.files {
        let document = match experiment_source::load(
            file,
            &command.variables,
            &HostOptions::from_environment(),
        ) {
            Ok(experiment) => experiment.document,
            Err(wrong) => {
                code = EXIT_INVALID;
                print_stderr(&format!(
                    "error: {}\n",
                    experiment_source::format_load_error(file, &wrong)
                ));
                continue;
            }
        };
        let table = document.schedule.as_ref().and_then(|schedule| {
            // The problems of a schedule were reported when the experiment was checked.
            Timetable::of(schedule, command.seed, &document.title).ok()
        });
        let times = table
            .as_ref()
            .map(|table| times(table, after, command.count.into()));
        if command.json {
            let times = times.unwrap_or_default();
            found.push(json!({
                "file": file.display().to_string(),
                "title": document.title,
                "schedule": document.schedule,
                "times": times.iter().map(as_json).collect::<Vec<_>>(),
            }));
            continue;
        }
        print(&format!(
            "{}: {}\n",
            shown_path(file),
            escape(&document.title)
        ));
        match (&document.schedule, &table) {
            (Some(schedule), Some(table)) => {
                print(&format!("  {}\n", describe(schedule)));
                print(&lines(table, &times.unwrap_or_default(), after));
            }
            _ => print("  no schedule: it runs only on request\n"),
        }
    }
    if command.json {
        print_json(&found);
    }
    code
}

fn times(table: &Timetable, after: Timestamp, count: usize) -> Vec<ScheduledTime> {
    std::iter::successors(table.next(after), |due| table.next(due.nominal))
        .take(count)
        .collect()
}

fn as_json(due: &ScheduledTime) -> Value {
    match due.at == due.nominal {
        true => json!({"at": due.at}),
        false => json!({"at": due.at, "nominal": due.nominal}),
    }
}

fn lines(table: &Timetable, times: &[ScheduledTime], after: Timestamp) -> String {
    if times.is_empty() {
        return "  over: no further runs\n".into();
    }
    let line = |due: &ScheduledTime| {
        let local = due.at.to_zoned(table.zone().clone());
        let until = after.duration_until(due.at).unsigned_abs().as_secs();
        // Days or minutes are enough here.
        let away = match until {
            0..60 => "within a minute".to_owned(),
            60..172_800 => format!("in {}", HumanDuration::seconds(until / 60 * 60)),
            _ => format!("in {} days", until / 86_400),
        };
        format!(
            "    {}  {away}\n",
            local.strftime("%a %Y-%m-%d %H:%M:%S %:z")
        )
    };
    times.iter().map(line).collect()
}

/// Describes a schedule in one line.
fn describe(schedule: &Schedule) -> String {
    let mut words = match (&schedule.cron, &schedule.at, &schedule.random) {
        (Some(cron), ..) => format!("cron {cron}"),
        (_, Some(at), _) => format!("once at {at}"),
        (_, _, Some(random)) => format!("random, every {} on average", random.mean_time_between),
        _ => String::new(),
    };
    if let Some(zone) = &schedule.time_zone {
        words += &format!(", {zone}");
    }
    let random = schedule.random.as_ref();
    let windows = [
        schedule.window.as_ref(),
        random.and_then(|random| random.window.as_ref()),
    ];
    for window in windows.into_iter().flatten() {
        words += ", only";
        if !window.days.is_empty() {
            words += &format!(" {}", window.days.join(" "));
        }
        if let Some(hours) = &window.hours {
            words += &format!(" {hours}");
        }
    }
    if !schedule.blackouts.is_empty() {
        words += &format!(", not {}", schedule.blackouts.join(", "));
    }
    if let Some(jitter) = schedule.jitter {
        words += &format!(", up to {jitter} later");
    }
    if schedule.guard.is_some() {
        words += ", if its guard passes";
    }
    words
}
