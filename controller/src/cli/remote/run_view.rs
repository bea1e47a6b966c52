//! One run of a controller, for people.

use super::super::report::{format_open_run, format_report, seconds_since};
use super::super::{CommandFailure, print, print_stderr};
use super::client::{Client, path_segment};
use backburn::api::types::{RunInfo, RunJournalEntry};
use backburn::runner::FinishedRun;
use backburn_experiments::journal::{JournalEntry, Run, Verdict, verdict};
use backburn_experiments::terminal_text::escape;

/// The fold of a run's journal. Events of another version's controller that do not fold here are left out of the
/// fold: the controller's own verdict counts.
pub(super) fn journal(client: &Client, run: &str) -> Result<Run, CommandFailure> {
    let run = path_segment(run);
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
        Some(ended) => format!(" to {}", escape(ended)),
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
        escape(&info.started)
    )
}
