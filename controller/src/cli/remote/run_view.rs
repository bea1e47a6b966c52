//! One run of a controller, for people.

use super::super::report::{format_open_run, format_report, seconds_since};
use super::super::table::to_the_second;
use super::super::{CommandFailure, print, print_stderr};
use super::client::Client;
use backburn::api::types::{RunInfo, RunJournalEntry};
use backburn::runner::FinishedRun;
use backburn_experiments::journal::{JournalEntry, Run, Verdict, verdict};
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;

/// The length of a run's id: a time to the second and four letters.
const RUN_ID_LENGTH: usize = 20;

/// The fold of a run's journal. Events of another version's controller that do not fold here are left out of the
/// fold: the controller's own verdict counts.
pub(super) fn journal(client: &Client, run: &str) -> Result<Run, CommandFailure> {
    let run = percent_encoded(run);
    let mut fold = Run::default();
    let mut after = 0;
    loop {
        let path = format!("/api/v1/runs/{run}/events?limit=1000&after={after}");
        let page: Vec<RunJournalEntry> = client.get(&path)?;
        let Some(last) = page.last() else {
            return Ok(fold);
        };
        after = last.number;
        for numbered in page {
            if let Ok(entry) = serde_json::from_value::<JournalEntry>(numbered.entry) {
                fold.apply(&entry).ok();
            }
        }
    }
}

/// The id of the run that is meant: the text itself, or the only id that begins with it.
///
/// # Errors
/// The text is shorter than an id, and none or several of the latest runs begin with it.
pub(super) fn resolve(client: &Client, given: &str) -> Result<String, CommandFailure> {
    if given.len() >= RUN_ID_LENGTH {
        return Ok(given.to_owned());
    }
    let runs: Vec<RunInfo> = client.get("/api/v1/runs?limit=1000")?;
    let mut found: Vec<String> = runs.into_iter().map(|run| run.id).collect();
    if found.iter().any(|id| id == given) {
        return Ok(given.to_owned());
    }
    found.retain(|id| id.starts_with(given));
    let shown = escape(given);
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => Err(CommandFailure::invalid(format!(
            "none of the controller's latest runs has the id `{shown}`, or an id that begins with it\nhint: `backburn runs` lists the runs of the controller, `backburn runs --local` those of this host"
        ))),
        several => Err(CommandFailure::invalid(format!(
            "{} runs have ids that begin with `{shown}`, for example {}\nhint: give more of the id",
            several.len(),
            escape(&several[0])
        ))),
    }
}

/// Prints a run: its verdict as at the end of `run --wait`, or what it does now.
pub(super) fn print_run(client: &Client, info: RunInfo) -> Result<(), CommandFailure> {
    let context = context(&info);
    if info.state == "waiting-for-approval" {
        print(&format!(
            "waiting for approval: {}\n  run {}, seed {}\n{context}",
            escape(&info.title),
            escape(&info.id),
            info.seed
        ));
        print_stderr(&format!(
            "hint: `backburn approvals {}` shows what it would do\n",
            escape(&info.id)
        ));
        return Ok(());
    }
    let run = journal(client, &info.id)?;
    if info.outcome.is_none() {
        let started = info.started.parse().ok();
        let now = started.map_or(run.elapsed, seconds_since);
        print(&format_open_run(&run, now));
        print(&context);
        return Ok(());
    }
    let own = info.verdict.map(serde_json::from_value::<Verdict>);
    let verdict = match own {
        Some(Ok(verdict)) => verdict,
        _ => verdict(&run),
    };
    let mut finished = FinishedRun {
        run,
        verdict,
        illegal: None,
    };
    // A run that could not begin has no journal.
    if finished.run.id.is_empty() {
        finished.run.id = info.id;
        finished.run.seed = info.seed;
    }
    print(&format_report(&info.title, &finished, None));
    print(&context);
    Ok(())
}

/// What the controller knows of a run besides its journal.
fn context(info: &RunInfo) -> String {
    let stored = match (&info.experiment, info.version) {
        (Some(name), Some(version)) => {
            format!("experiment {}, version {version}; ", escape(name))
        }
        _ => String::new(),
    };
    let because = match info.because.as_str() {
        "schedule" => "started by the schedule of",
        _ => "requested by",
    };
    let ended = match &info.ended {
        Some(ended) => format!(" to {}", escape(&to_the_second(ended))),
        None => String::new(),
    };
    let cleaned = match &info.cleaned {
        Some(at) => format!(
            "  cleaned at {}: its agents have observed that nothing is left\n",
            escape(at)
        ),
        None => String::new(),
    };
    format!(
        "{cleaned}  {stored}{because} {}, from {}{ended}\n",
        escape(&info.who),
        escape(&to_the_second(&info.started))
    )
}
