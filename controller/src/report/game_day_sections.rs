//! The thirteen sections of the report of a game day.

use super::blocks::{ReportBlock, ReportSection, TableRow};
use super::game_day_model::{GameDayReport, GameDayStepReport};
use super::model::RunReport;
use super::sections::{self, actions_blocks, list_or, objectives_table, or_dash, timeline_table};
use super::summary::length;
use backburn_experiments::game_day::GameDayMode;

/// All sections, in their order.
pub(super) fn sections(report: &GameDayReport) -> Vec<ReportSection<'_>> {
    let section = |title, blocks| ReportSection { title, blocks };
    vec![
        section("Question and answer", question(report)),
        section(
            "Verdict and what it is worth",
            of_each(report, sections::verdict),
        ),
        section(
            "Objectives and measurements",
            vec![objectives_table(&report.objectives)],
        ),
        section(
            "What was to be hit, and what was",
            of_each(report, sections::hits),
        ),
        section("Timeline", timeline(report)),
        section("Measurements", of_each(report, sections::plots)),
        section("What held, what surprised", held(report)),
        section(
            "Proof that everything is reverted",
            of_each(report, sections::reverted),
        ),
        section("Actions", actions_blocks(&report.actions)),
        section(
            "Compared with earlier runs",
            of_each(report, sections::earlier),
        ),
        section("How to run it again", rerun(report)),
        section(
            "What was not tested",
            vec![list_or(
                report.untested.clone(),
                "Nothing that the game day names.",
            )],
        ),
        section("Evidence", evidence(report)),
    ]
}

/// What a step is called.
fn name_of(step: &GameDayStepReport) -> String {
    let title = step.title.as_ref().or(step.experiment.as_ref());
    match title {
        Some(title) => format!("Step {}: {title}", step.number),
        None => format!("Step {}", step.number),
    }
}

/// The same section of each run, under the name of its step.
fn of_each<'a>(
    report: &'a GameDayReport,
    blocks: impl Fn(&'a RunReport) -> Vec<ReportBlock<'a>>,
) -> Vec<ReportBlock<'a>> {
    let mut all = Vec::new();
    for step in &report.steps {
        let Some(run) = &step.run else { continue };
        match (&step.report, &step.missing) {
            (Some(of_run), _) => {
                all.push(ReportBlock::Text(format!("{} (run {run})", name_of(step))));
                all.extend(blocks(of_run));
            }
            (None, missing) => {
                let why = missing.as_deref().unwrap_or("it has no report");
                let text = format!("{} (run {run}): {why}.", name_of(step));
                all.push(ReportBlock::Text(text));
            }
        }
    }
    if all.is_empty() {
        all.push(ReportBlock::Text("No experiment ran.".into()));
    }
    all
}

fn question(report: &GameDayReport) -> Vec<ReportBlock<'_>> {
    let mode = match report.mode {
        GameDayMode::Live => "a live game day",
        GameDayMode::Tabletop => "a tabletop game day, at which nothing is injected",
    };
    let took = report.begun.zip(report.ended).map(|(begun, ended)| {
        format!(
            " It began on {} UTC and took {}.",
            begun.strftime("%Y-%m-%d %H:%M:%S"),
            length(ended.duration_since(begun).as_secs_f64())
        )
    });
    let early = report
        .why
        .as_ref()
        .map(|why| format!(" It ended early: {why}."));
    let mut blocks = vec![
        ReportBlock::Text(report.purpose.clone()),
        ReportBlock::Text(format!(
            "This was {mode}.{}{}",
            took.unwrap_or_default(),
            early.unwrap_or_default()
        )),
    ];
    if !report.audience.is_empty() {
        let text = format!("It was for {}.", report.audience.join(", "));
        blocks.push(ReportBlock::Text(text));
    }
    let answers = report.steps.iter().map(|step| {
        let name = name_of(step);
        match (&step.report, step.from, &step.run) {
            (Some(of_run), ..) => format!("{name}. {} {}", of_run.question, of_run.answer),
            (None, None, _) => format!("{name}. It did not start."),
            (None, _, Some(run)) => format!("{name}. There is no report of run {run}."),
            (None, Some(_), None) => {
                format!("{name}. Nothing was injected; people talked about it.")
            }
        }
    });
    blocks.push(list_or(answers.collect(), "It had no steps."));
    if !report.duties.is_empty() {
        let duties = report.duties.iter();
        let rows = duties.map(|(duty, names)| {
            TableRow::plain(vec![
                duty.clone(),
                or_dash((!names.is_empty()).then(|| names.join(", "))),
            ])
        });
        blocks.push(ReportBlock::Table {
            head: &["Duty", "Held by"],
            rows: rows.collect(),
        });
    }
    blocks
}

fn timeline(report: &GameDayReport) -> Vec<ReportBlock<'_>> {
    let mut blocks = Vec::new();
    if report.decisions.is_empty() {
        blocks.push(ReportBlock::Text("No decision was recorded.".into()));
    } else {
        let rows = report.decisions.iter().map(|decision| {
            TableRow::plain(vec![
                format!("{:+.1} s", decision.seconds),
                decision.text.clone(),
                decision.by.clone(),
                or_dash(decision.why.clone()),
            ])
        });
        blocks.push(ReportBlock::Table {
            head: &["Since start", "Decision", "By", "Because"],
            rows: rows.collect(),
        });
    }
    blocks.push(ReportBlock::Text(
        "Everything in order; all times are in UTC. Notes for facilitators only are left out."
            .into(),
    ));
    blocks.extend(timeline_table(&report.timeline, report.timeline_left_out));
    blocks
}

fn held(report: &GameDayReport) -> Vec<ReportBlock<'_>> {
    let mut blocks = of_each(report, sections::held);
    let runbooks = report.runbooks.iter();
    let runbooks: Vec<String> = runbooks
        .map(|runbook| format!("{}: {}", runbook.title, runbook.url))
        .collect();
    for (title, lines, none) in [
        ("Runbooks that were tried out:", runbooks, "None is named."),
        (
            "Runbooks that were wrong or missing:",
            report.wrong_runbooks.clone(),
            "None was marked.",
        ),
        (
            "Questions for the discussion:",
            report.questions.clone(),
            "None was marked.",
        ),
    ] {
        blocks.push(ReportBlock::Text(title.into()));
        blocks.push(list_or(lines, none));
    }
    blocks
}

fn rerun(report: &GameDayReport) -> Vec<ReportBlock<'_>> {
    let document = match &report.document {
        Some(stored) => format!(
            "Stored game day {}, version {}; it was held with Backburn {}.",
            stored.name, stored.version, report.evidence.program
        ),
        None => format!(
            "The document was not stored under a name; the command backburn gameday show {} prints it.",
            report.evidence.run
        ),
    };
    let mut blocks = vec![
        ReportBlock::Text(document),
        ReportBlock::Code(report.rerun.clone()),
    ];
    let rows: Vec<TableRow> = report
        .reported()
        .map(|(step, of_run)| {
            let rerun = &of_run.rerun;
            TableRow::plain(vec![
                step.number.to_string(),
                or_dash(rerun.experiment.clone()),
                or_dash(rerun.version.map(|version| version.to_string())),
                rerun.seed.to_string(),
            ])
        })
        .collect();
    if !rows.is_empty() {
        blocks.push(ReportBlock::Table {
            head: &["Step", "Experiment", "Version", "Seed"],
            rows,
        });
    }
    blocks
}

fn evidence(report: &GameDayReport) -> Vec<ReportBlock<'_>> {
    let rows: Vec<TableRow> = report
        .reported()
        .map(|(_, of_run)| {
            let evidence = &of_run.evidence;
            TableRow::plain(vec![
                evidence.run.clone(),
                evidence.events.to_string(),
                evidence.journal.clone(),
                evidence.notes.to_string(),
            ])
        })
        .collect();
    let mut blocks = Vec::new();
    if !rows.is_empty() {
        blocks.push(ReportBlock::Table {
            head: &["Run", "Events", "SHA-256 of the journal", "Notes"],
            rows,
        });
    }
    let own = &report.evidence;
    let last = match own.head.is_empty() {
        true => String::new(),
        false => format!(", hash of the last one {}", own.head),
    };
    blocks.push(ReportBlock::Text(format!(
        "Notes of the game day: {}{last}.",
        own.notes
    )));
    blocks.push(ReportBlock::Text("The command backburn report --verify FILE makes this report again from the store and compares them.".into()));
    blocks.push(ReportBlock::Code(own.to_string()));
    blocks
}
