//! The thirteen sections of a report.

use super::blocks::{ReportBlock, ReportSection, TableRow};
use super::model::{
    EarlierRun, FaultHit, Objective, ReportAction, RunReport, TimelineItem, TimelineSource,
};
use super::summary::{length, listed};
use backburn_experiments::confidence::percent;
use backburn_experiments::journal::Outcome;

/// The most notes of people and events that are written out; those beyond are in the JSON.
const MAX_TIMELINE_ROWS: usize = 1200;

/// All sections, in their order.
pub(super) fn sections(report: &RunReport) -> Vec<ReportSection<'_>> {
    let section = |title, blocks| ReportSection { title, blocks };
    vec![
        section("Question and answer", question(report)),
        section("Verdict and what it is worth", verdict(report)),
        section("Objectives and measurements", objectives(report)),
        section("What was to be hit, and what was", hits(report)),
        section("Timeline", timeline(report)),
        section("Measurements", plots(report)),
        section("What held, what surprised", held(report)),
        section("Proof that everything is reverted", reverted(report)),
        section("Actions", actions_blocks(&report.actions)),
        section("Compared with earlier runs", earlier(report)),
        section("How to run it again", rerun(report)),
        section("What was not tested", untested(report)),
        section("Evidence", evidence(report)),
    ]
}

/// The tone of an outcome.
fn outcome_tone(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "success",
        Outcome::Deviated | Outcome::NotClean | Outcome::Invalid => "failure",
        Outcome::NotStarted | Outcome::Aborted | Outcome::Inconclusive | Outcome::NotInjected => {
            "warning"
        }
    }
}

pub(super) fn list_or(lines: Vec<String>, none: &str) -> ReportBlock<'static> {
    match lines.is_empty() {
        true => ReportBlock::Text(none.to_owned()),
        false => ReportBlock::List(lines),
    }
}

pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "—".into())
}

fn question(report: &RunReport) -> Vec<ReportBlock<'_>> {
    vec![
        ReportBlock::Text(report.question.clone()),
        ReportBlock::Text(report.answer.clone()),
    ]
}

pub(super) fn verdict(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let outcome = report.verdict.outcome;
    let worth = report.verdict.probes.iter();
    let worth: Vec<String> = worth
        .filter(|probe| probe.samples > 0)
        .map(|probe| format!("{}: {probe}", probe.probe))
        .collect();
    vec![
        ReportBlock::Outcome(outcome_tone(outcome), outcome.to_string()),
        list_or(
            worth,
            "No check counts, so the verdict says nothing about how often the hypothesis fails.",
        ),
    ]
}

fn objectives(report: &RunReport) -> Vec<ReportBlock<'_>> {
    vec![objectives_table(&report.objectives)]
}

/// What was wanted, beside what was measured.
pub(super) fn objectives_table(objectives: &[Objective]) -> ReportBlock<'static> {
    if objectives.is_empty() {
        return ReportBlock::Text("No objective is named, and nothing was measured.".into());
    }
    let rows = objectives.iter().map(|objective| {
        let (tone, met) = match objective.met {
            Some(true) => ("success", "met"),
            Some(false) => ("failure", "missed"),
            None => ("plain", "—"),
        };
        TableRow {
            tone,
            cells: vec![
                objective.name.clone(),
                or_dash(objective.wanted.clone()),
                objective.measured.clone(),
                met.to_owned(),
            ],
        }
    });
    ReportBlock::Table {
        head: &["Objective", "Wanted", "Measured", ""],
        rows: rows.collect(),
    }
}

pub(super) fn hits(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let mut blocks = Vec::new();
    let reaches = report.targets.iter().map(|reach| {
        TableRow::plain(vec![
            reach.target.clone(),
            format!("{} of {}", reach.picked.len(), reach.matched.len()),
            listed(&reach.picked),
        ])
    });
    if !report.targets.is_empty() {
        blocks.push(ReportBlock::Table {
            head: &["Target", "Picked", "Agents"],
            rows: reaches.collect(),
        });
    }
    if report.hits.is_empty() {
        blocks.push(ReportBlock::Text("No fault was injected.".into()));
        return blocks;
    }
    let row = |hit: &FaultHit| {
        let span = match (hit.from, hit.until) {
            (Some(from), Some(until)) => format!("{from:.1} s to {until:.1} s"),
            (Some(from), None) => format!("from {from:.1} s"),
            (None, _) => "never".into(),
        };
        let (tone, acted) = match (hit.acted, hit.from) {
            (true, _) => ("plain", "yes"),
            (false, _) => ("warning", "not seen"),
        };
        let seen = hit.seen.as_ref().map(|seen| format!("{acted}: {seen}"));
        TableRow {
            tone,
            cells: vec![
                format!("{} ({})", hit.activity, hit.fault),
                hit.agent.clone(),
                or_dash((!hit.planned.is_empty()).then(|| listed(&hit.planned))),
                or_dash((!hit.victims.is_empty()).then(|| listed(&hit.victims))),
                span,
                seen.unwrap_or_else(|| acted.to_owned()),
            ],
        }
    };
    blocks.push(ReportBlock::Table {
        head: &["Fault", "Agent", "To be hit", "Hit", "When", "Seen to act"],
        rows: report.hits.iter().map(row).collect(),
    });
    blocks
}

fn timeline(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let mut blocks = Vec::new();
    if let Some(started) = report.started {
        let day = started.strftime("%Y-%m-%d %H:%M:%S");
        blocks.push(ReportBlock::Text(format!(
            "The run started on {day} UTC and took {}. All times are in UTC.",
            length(report.seconds)
        )));
    }
    blocks.extend(timeline_table(&report.timeline, report.timeline_left_out));
    blocks
}

/// The lines of a timeline, and how many changes of probes it leaves out.
pub(super) fn timeline_table(
    timeline: &[TimelineItem],
    left_out: usize,
) -> Vec<ReportBlock<'static>> {
    let row = |item: &TimelineItem| {
        let clock = item.at.strftime("%H:%M:%S").to_string();
        let who = match (&item.who, item.source) {
            (Some(who), _) => who.clone(),
            (None, TimelineSource::Machine) => "machine".into(),
            (None, TimelineSource::Note) => "—".into(),
        };
        let corrected = item.written.map(|written| {
            format!(
                " (time corrected; written at {})",
                written.strftime("%H:%M:%S")
            )
        });
        TableRow {
            tone: item.tone,
            cells: vec![
                format!("{:+.1} s", item.seconds),
                clock,
                who,
                format!("{}{}", item.text, corrected.unwrap_or_default()),
            ],
        }
    };
    let mut blocks = Vec::new();
    blocks.push(ReportBlock::Table {
        head: &["Since start", "Clock", "Who", "What"],
        rows: timeline.iter().take(MAX_TIMELINE_ROWS).map(row).collect(),
    });
    let cut = timeline.len().saturating_sub(MAX_TIMELINE_ROWS);
    if cut > 0 {
        blocks.push(ReportBlock::Text(format!(
            "{cut} later lines are left out here; they are in the report as JSON."
        )));
    }
    if left_out > 0 {
        blocks.push(ReportBlock::Text(format!(
            "{left_out} more changes of probes are left out; the plots show them."
        )));
    }
    blocks
}

pub(super) fn plots(report: &RunReport) -> Vec<ReportBlock<'_>> {
    if report.plots.is_empty() {
        return vec![ReportBlock::Text("Nothing was measured.".into())];
    }
    let plots = report.plots.iter();
    plots
        .map(|plot| ReportBlock::Plot(plot, &report.hits, report.seconds))
        .collect()
}

pub(super) fn held(report: &RunReport) -> Vec<ReportBlock<'_>> {
    vec![
        ReportBlock::Text("Held:".into()),
        list_or(report.held.clone(), "Nothing that was measured."),
        ReportBlock::Text("Surprised:".into()),
        list_or(report.surprises.clone(), "Nothing."),
    ]
}

pub(super) fn reverted(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let owed = &report.verdict.owed;
    let touched = report.hits.iter().filter(|hit| hit.clean.is_some()).count();
    let sentence = match (touched, owed.len()) {
        (0, 0) => "Nothing had to be reverted.".to_owned(),
        (1, 0) => "The fault was observed to be gone.".to_owned(),
        (faults, 0) => format!("All {faults} faults were observed to be gone."),
        (_, 1) => "A fault was NOT observed to be gone.".to_owned(),
        (_, left) => format!("{left} faults were NOT observed to be gone."),
    };
    let mut blocks = vec![ReportBlock::Text(sentence)];
    if owed.is_empty() && touched == 0 {
        return blocks;
    }
    let row = |hit: &FaultHit| {
        let (tone, gone) = match hit.clean {
            Some(true) => ("success", "observed"),
            Some(false) => ("failure", "NOT observed"),
            None => ("plain", "nothing to revert"),
        };
        TableRow {
            tone,
            cells: vec![
                hit.injection.clone(),
                hit.agent.clone(),
                or_dash(hit.cause.clone()),
                or_dash(hit.revert_seconds.map(length)),
                gone.to_owned(),
                or_dash((!hit.residue.is_empty()).then(|| hit.residue.join("; "))),
            ],
        }
    };
    blocks.push(ReportBlock::Table {
        head: &[
            "Injection",
            "Agent",
            "Ended because",
            "Until gone",
            "Gone",
            "Left",
        ],
        rows: report.hits.iter().map(row).collect(),
    });
    let known = |id: &str| report.hits.iter().any(|hit| hit.injection == id);
    let others = owed.iter().filter(|owed| !known(&owed.injection));
    let others: Vec<String> = others
        .map(|owed| {
            format!(
                "{} ({}): {}",
                owed.injection,
                owed.fault,
                owed.residue.join("; ")
            )
        })
        .collect();
    if !others.is_empty() {
        blocks.push(ReportBlock::List(others));
    }
    blocks
}

/// What will be done.
pub(super) fn actions_blocks(actions: &[ReportAction]) -> Vec<ReportBlock<'static>> {
    if actions.is_empty() {
        let none = "No action was recorded. The command backburn actions add records one, with an owner, a date, and the experiment that proves the fix.";
        return vec![ReportBlock::Text(none.into())];
    }
    let rows = actions.iter().map(|action| {
        let state = match (action.closed, &action.proved_by) {
            (true, Some(run)) => format!("closed: it held in run {run}"),
            (true, None) => "closed".into(),
            (false, _) => "open".into(),
        };
        TableRow {
            tone: if action.closed { "success" } else { "plain" },
            cells: vec![
                format!("#{}", action.id),
                action.title.clone(),
                action.owner.clone(),
                or_dash(action.due.clone()),
                action.severity.clone(),
                or_dash(action.experiment.clone()),
                state,
            ],
        }
    });
    vec![ReportBlock::Table {
        head: &[
            "",
            "Action",
            "Owner",
            "By",
            "Severity",
            "Proved by",
            "State",
        ],
        rows: rows.collect(),
    }]
}

pub(super) fn earlier(report: &RunReport) -> Vec<ReportBlock<'_>> {
    if report.earlier.is_empty() {
        return vec![ReportBlock::Text(
            "There is no earlier run of this experiment.".into(),
        )];
    }
    let row = |run: &EarlierRun| {
        let failed = match run.samples {
            0 => "—".into(),
            samples => format!(
                "{} of {samples} ({})",
                run.failures,
                percent(run.failures as f64 / samples as f64)
            ),
        };
        TableRow {
            tone: outcome_tone(run.outcome),
            cells: vec![
                run.run.clone(),
                run.started.strftime("%Y-%m-%d %H:%M").to_string(),
                or_dash(run.version.map(|version| version.to_string())),
                run.outcome.to_string(),
                length(run.outage_seconds),
                or_dash(run.recovered_seconds.map(length)),
                failed,
            ],
        }
    };
    let this = report.started.map(|started| {
        let verdict = &report.verdict;
        let run = report.evidence.run.clone();
        EarlierRun::new(run, started, report.rerun.version, verdict)
    });
    let mut rows: Vec<TableRow> = this.iter().map(row).collect();
    if let Some(cell) = rows.first_mut().and_then(|row| row.cells.first_mut()) {
        cell.push_str(" (this run)");
    }
    rows.extend(report.earlier.iter().map(row));
    vec![ReportBlock::Table {
        head: &[
            "Run",
            "Started",
            "Version",
            "Outcome",
            "Out of tolerance",
            "Recovered after",
            "Failed checks",
        ],
        rows,
    }]
}

fn rerun(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let rerun = &report.rerun;
    let document = match (&rerun.experiment, rerun.version, &rerun.sha256) {
        (Some(name), Some(version), _) => format!("Experiment {name}, version {version}"),
        (_, _, Some(sha256)) => format!("The document whose SHA-256 is {sha256}"),
        _ => "The document".into(),
    };
    vec![
        ReportBlock::Text(format!(
            "{document}, with seed {}; it ran with Backburn {}.",
            rerun.seed, rerun.program
        )),
        ReportBlock::Code(rerun.command.clone()),
    ]
}

fn untested(report: &RunReport) -> Vec<ReportBlock<'_>> {
    vec![list_or(
        report.untested.clone(),
        "Nothing that the experiment names.",
    )]
}

fn evidence(report: &RunReport) -> Vec<ReportBlock<'_>> {
    let evidence = &report.evidence;
    vec![
        ReportBlock::Text(format!(
            "Journal: {} events, SHA-256 {}. Notes: {}{}.",
            evidence.events,
            evidence.journal,
            evidence.notes,
            match evidence.head.is_empty() {
                true => String::new(),
                false => format!(", hash of the last one {}", evidence.head),
            }
        )),
        ReportBlock::Text("The command backburn report --verify FILE makes this report again from the store and compares them.".into()),
        ReportBlock::Code(evidence.to_string()),
    ]
}
