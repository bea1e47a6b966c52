//! `backburn schedules`: when experiments come by themselves, by their own schedules.

use super::experiment_source::{self, Variables};
use super::remote::ControllerOptions;
use super::{CommandError, EXIT_INVALID, print, print_json, print_stderr};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Schedule;
use backburn_experiments::timetable::{ScheduledTime, Timetable};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct SchedulesCommand {
    /// Experiments; `-` is standard input. Left out: those that the controller keeps
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many times of each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// After this time, e.g. `2026-12-01T10:00:00Z`, rather than now
    #[arg(long, value_name = "TIME")]
    after: Option<Timestamp>,
    /// What chance is decided by, besides the experiment's title
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    remote: ControllerOptions,
}

/// What the controller says of its schedules.
fn kept(command: &SchedulesCommand) -> Result<u8, CommandError> {
    let client = command.remote.client()?;
    let path = format!("/api/v1/schedules?count={}", command.count.min(1000));
    let (_, schedules) = client.call("GET", &path, None)?;
    if command.json {
        print_json(&schedules);
        return Ok(0);
    }
    for schedule in schedules.as_array().into_iter().flatten() {
        let field = |name: &str| schedule[name].as_str().unwrap_or_default().to_owned();
        print(&format!(
            "{} ({})\n",
            field("experiment"),
            field("time-zone")
        ));
        for time in schedule["times"].as_array().into_iter().flatten() {
            print(&format!("  {}\n", time.as_str().unwrap_or_default()));
        }
    }
    Ok(0)
}

pub(super) fn main(command: &SchedulesCommand) -> Result<u8, CommandError> {
    if command.files.is_empty() {
        return kept(command);
    }
    Ok(of_files(command))
}

fn of_files(command: &SchedulesCommand) -> u8 {
    let after = command.after.unwrap_or_else(Timestamp::now);
    let mut code = 0;
    let mut found = Vec::new();
    for file in &command.files {
        let document = match experiment_source::load(file, &command.variables) {
            Ok(experiment) => experiment.document,
            Err(wrong) => {
                code = EXIT_INVALID;
                print_stderr(&format!(
                    "error: {}\n",
                    experiment_source::shown(file, &wrong)
                ));
                continue;
            }
        };
        let table = document.schedule.as_ref().and_then(|schedule| {
            // What a whole look would show wrong was shown by the check.
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
        print(&format!("{}: {}\n", file.display(), document.title));
        match (&document.schedule, &table) {
            (Some(schedule), Some(table)) => {
                print(&format!("  {}\n", in_words(schedule)));
                print(&lines(table, &times.unwrap_or_default(), after));
            }
            _ => print("  no schedule: it runs when somebody runs it\n"),
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
        return "  over: no time of it is left\n".into();
    }
    let line = |due: &ScheduledTime| {
        let local = due.at.to_zoned(table.zone().clone());
        let until = after.duration_until(due.at).unsigned_abs().as_secs();
        // People ask how many days, not how many milliseconds.
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

/// A schedule in one line.
fn in_words(schedule: &Schedule) -> String {
    let mut words = match (&schedule.cron, &schedule.at, &schedule.random) {
        (Some(cron), ..) => format!("cron {cron}"),
        (_, Some(at), _) => format!("once, at {at}"),
        (_, _, Some(random)) => format!(
            "by chance, {} in between in the mean",
            random.mean_time_between
        ),
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
        words += ", where its guard passes";
    }
    words
}
