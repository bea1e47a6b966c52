//! The report of a game day: the reports of its runs and its own notes, as one. It is computed from their journals and notes, and
//! from the actions as of a change that the report names, so that the same ones give the same bytes.

use super::evidence::ReportEvidence;
use super::game_day_model::{
    GameDayReport, GameDayReportContext, GameDayStepReport, ReportDecision,
};
use super::game_day_objectives::objectives;
use super::model::TimelineItem;
use super::timeline::{first_mark, of_notes};
use crate::store::{Hash, RunNoteEntry};
use backburn_experiments::game_day::{GameDayMode, MarkKind, happened_times};
use jiff::Timestamp;
use std::fmt::Write as _;

impl GameDayReport {
    /// The report of a game day.
    pub fn new(mut context: GameDayReportContext) -> Self {
        let begun = context.progress.begun;
        let steps = steps_of(&mut context);
        let (mut timeline, mut timeline_left_out) = (of_notes(&context.notes, begun), 0);
        let (mut evidence, mut hashes) = (evidence_of(&context), String::new());
        let mut steps = steps;
        for step in &mut steps {
            let Some(run) = &step.run else { continue };
            let Some(report) = &mut step.report else {
                evidence.run_notes.push(0);
                // Writing to a string cannot fail.
                writeln!(hashes, "{} {run} none", step.number).ok();
                continue;
            };
            let of_run = &report.evidence;
            evidence.events += of_run.events;
            evidence.run_notes.push(of_run.notes);
            writeln!(
                hashes,
                "{} {run} {} {} {}",
                step.number, of_run.journal, of_run.notes, of_run.head
            )
            .ok();
            timeline_left_out += report.timeline_left_out;
            for mut item in std::mem::take(&mut report.timeline) {
                item.seconds = seconds_between(begun, item.at);
                if item.who.is_none() {
                    item.text = format!("step {}: {}", step.number, item.text);
                }
                timeline.push(item);
            }
        }
        // Stable: what happened at one time stays in the order in which it was written.
        timeline.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        evidence.journal = Hash::of(hashes.as_bytes()).to_string();
        let rerun = match &context.reference {
            Some(stored) => format!("backburn gameday run {} --controller HOST", stored.name),
            None => "backburn gameday run FILE --controller HOST".into(),
        };
        let duties = context.progress.duties.iter();
        let duties =
            duties.map(|(duty, names)| (duty.to_string(), names.iter().cloned().collect()));
        let objectives = objectives(&context.day, context.mode, &steps, &timeline, begun);
        let untested = untested(&context, &steps, &timeline);
        GameDayReport {
            objectives,
            untested,
            decisions: decisions(&context.notes, begun),
            wrong_runbooks: marked_texts(&timeline, MarkKind::WrongRunbook),
            questions: marked_texts(&timeline, MarkKind::Question),
            duties: duties.collect(),
            evidence,
            timeline,
            timeline_left_out,
            rerun,
            steps,
            title: context.day.title,
            purpose: context.day.purpose,
            audience: context.day.audience,
            runbooks: context.day.runbooks,
            mode: context.mode,
            begun,
            ended: context.progress.ended,
            why: context.progress.why,
            actions: context.actions,
            document: context.reference,
        }
    }
}

/// The seconds from the beginning of a game day to this time.
fn seconds_between(begun: Option<Timestamp>, at: Timestamp) -> f64 {
    begun.map_or(0.0, |begun| at.duration_since(begun).as_secs_f64())
}

fn evidence_of(context: &GameDayReportContext) -> ReportEvidence {
    let last = context.notes.last();
    ReportEvidence {
        run: context.id.clone(),
        notes: context.notes.len() as u64,
        head: last.map_or(String::new(), |note| note.hash.to_string()),
        actions: context.actions_change,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ..ReportEvidence::default()
    }
}

/// The steps, with the reports of their runs, which are taken out of the context.
fn steps_of(context: &mut GameDayReportContext) -> Vec<GameDayStepReport> {
    let begun = context.progress.begun;
    let mut runs = std::mem::take(&mut context.runs);
    let state_of = |number: u32, state: &str| {
        context.notes.iter().map(|entry| &entry.note).find(|note| {
            let body = &note.body;
            note.kind == "state" && body["state"] == state && body["step"] == number
        })
    };
    let numbers = 1..=context.day.last_step();
    let steps = numbers.filter_map(|number| {
        let step = context.day.step(number)?;
        let why = state_of(number, "discussion").and_then(|note| note.body["why"].as_str());
        let (report, missing) = match runs.remove(&number) {
            Some(Ok(report)) => (Some(Box::new(report)), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        Some(GameDayStepReport {
            number,
            title: step.title.clone(),
            experiment: step.experiment.clone(),
            from: state_of(number, "running").map(|note| seconds_between(begun, note.at)),
            why: why.map(str::to_owned),
            run: context.progress.runs.get(&number).cloned(),
            report,
            missing,
        })
    });
    steps.collect()
}

fn decisions(notes: &[RunNoteEntry], begun: Option<Timestamp>) -> Vec<ReportDecision> {
    let times = happened_times(notes.iter().map(|entry| {
        let note = &entry.note;
        (entry.number, note.at, note.kind.as_str(), &note.body)
    }));
    let decisions = notes.iter().filter(|entry| entry.note.kind == "decision");
    let mut decisions: Vec<ReportDecision> = decisions
        .map(|entry| {
            let note = &entry.note;
            let at = times.get(&entry.number).map_or(note.at, |(at, _)| *at);
            let text = |key: &str| note.body[key].as_str().map(str::to_owned);
            ReportDecision {
                seconds: seconds_between(begun, at),
                by: text("by").unwrap_or_else(|| note.who.clone()),
                text: text("text").unwrap_or_default(),
                why: text("why"),
            }
        })
        .collect();
    decisions.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    decisions
}

/// What people marked so, a sentence each.
fn marked_texts(timeline: &[TimelineItem], mark: MarkKind) -> Vec<String> {
    let begins = match mark {
        MarkKind::WrongRunbook => "mark: wrong-runbook",
        _ => "mark: question",
    };
    let mut found = Vec::new();
    for item in timeline.iter().filter(|item| item.who.is_some()) {
        if let Some(text) = item.text.strip_prefix(begins) {
            let text = text.trim_start_matches("; ");
            let clock = item.at.strftime("%H:%M:%S");
            found.push(match text.is_empty() {
                true => format!("marked at {clock}, without a text"),
                false => format!("{text} (marked at {clock})"),
            });
        }
    }
    found
}

/// What was not tested, a line each.
fn untested(
    context: &GameDayReportContext,
    steps: &[GameDayStepReport],
    timeline: &[TimelineItem],
) -> Vec<String> {
    let (day, progress) = (&context.day, &context.progress);
    let mut found = Vec::new();
    for step in steps {
        let number = step.number;
        match (&step.experiment, &step.report, step.from) {
            (_, Some(report), _) => {
                let lines = report.untested.iter();
                found.extend(lines.map(|line| format!("step {number}: {line}")));
            }
            (Some(experiment), None, _) if context.mode == GameDayMode::Tabletop => found.push(
                format!("step {number}: experiment {experiment} did not run: nothing is injected at a tabletop game day"),
            ),
            (Some(experiment), None, _) => {
                let why = step.missing.as_ref().or(step.why.as_ref());
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                let title = step.title.as_ref().map(|title| format!(" ({title})"));
                let title = title.unwrap_or_default();
                found.push(match (&step.run, step.from) {
                    (None, None) => format!("step {number}{title} did not start: experiment {experiment} did not run{why}"),
                    _ => format!("step {number}{title}: there is no result of experiment {experiment}{why}"),
                });
            }
            (None, None, None) => found.push(format!("step {number} did not start")),
            (None, None, Some(_)) => {}
        }
        let prompts = day.step(number).into_iter().flat_map(|step| &step.prompts);
        let missed = prompts.filter(|prompt| !progress.prompts.contains(&prompt.name));
        found.extend(missed.map(|prompt| {
            format!(
                "step {number}: prompt {} was not given: {}",
                prompt.name, prompt.text
            )
        }));
    }
    for number in progress.unmet(day) {
        let index = usize::try_from(number).unwrap_or(1) - 1;
        let what = day.prerequisites.get(index).map_or("", String::as_str);
        found.push(format!("prerequisite {number} was not met: {what}"));
    }
    let is_marked = |name| first_mark(timeline, name, f64::NEG_INFINITY).is_some();
    if !is_marked("detected") {
        found.push("when people noticed it: nobody marked it as detected".into());
    }
    found
}
