//! The report of a game day: the reports of its runs and its own notes, as one. It is computed from their journals and notes, and
//! from the actions as of a change that the report names, so that the same ones give the same bytes.

use super::evidence::ReportEvidence;
use super::game_day_objectives::objectives;
use super::game_day_sections::sections;
use super::model::{Objective, ReportAction, RunReport, TimelineItem};
use super::timeline::{first_mark, of_notes};
use super::{ReportFormat, html, markdown};
use crate::store::{ExperimentRef, Hash, RunNoteEntry};
use backburn_experiments::game_day::{
    GameDay, GameDayMode, GameDayProgress, MarkKind, RunbookLink, happened_times,
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the report of a game day is made from.
#[derive(Debug, Clone)]
pub struct GameDayReportContext {
    /// The id of the game day.
    pub id: String,
    /// The name and version of the stored game day; none if its document came with the request.
    pub reference: Option<ExperimentRef>,
    /// Whether its experiments ran.
    pub mode: GameDayMode,
    /// The document by which it was held.
    pub day: GameDay,
    /// How far it went, by its notes.
    pub progress: GameDayProgress,
    /// The notes of its stream, oldest first.
    pub notes: Vec<RunNoteEntry>,
    /// The report of the run of each step, or why there is none.
    pub runs: BTreeMap<u32, Result<RunReport, String>>,
    /// The actions that came of it or of its runs, or name one of its experiments, as of the change `actions_change`.
    pub actions: Vec<ReportAction>,
    /// The number of the last change of an action that is included.
    pub actions_change: u64,
}

/// The report of a game day.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GameDayReport {
    /// What the report is made from. Its `journal` is the SHA-256 of a line for each run: step, run, SHA-256 of the journal, number of
    /// notes, and the hash of the last one.
    pub evidence: ReportEvidence,
    /// What the game day was about, in one line.
    pub title: String,
    /// What the team wanted to learn.
    pub purpose: String,
    /// Who took part or watched.
    pub audience: Vec<String>,
    /// The runbooks that were to be tried out.
    pub runbooks: Vec<RunbookLink>,
    /// Whether experiments ran, or the team only talked about them.
    pub mode: GameDayMode,
    /// When its first step was started.
    pub begun: Option<Timestamp>,
    /// When it ended, regularly or early.
    pub ended: Option<Timestamp>,
    /// Why it ended early, if it did.
    pub why: Option<String>,
    /// Who held each duty at its end.
    pub duties: BTreeMap<String, Vec<String>>,
    /// The steps, in order.
    pub steps: Vec<GameDayStepReport>,
    /// What was wanted, beside what was measured.
    pub objectives: Vec<Objective>,
    /// What was decided, by time.
    pub decisions: Vec<ReportDecision>,
    /// What happened, of the machine and of people, by time. Seconds count from the beginning of the game day.
    pub timeline: Vec<TimelineItem>,
    /// How many changes of probes the timeline leaves out.
    pub timeline_left_out: usize,
    /// What people marked as a wrong or missing runbook, one sentence each.
    pub wrong_runbooks: Vec<String>,
    /// What people marked as a question, one sentence each.
    pub questions: Vec<String>,
    /// What will be done.
    pub actions: Vec<ReportAction>,
    /// The command that holds the game day again.
    pub rerun: String,
    /// The name and version of the stored game day.
    pub document: Option<ExperimentRef>,
    /// What was not tested, one sentence each.
    pub untested: Vec<String>,
}

/// A step of a game day in its report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GameDayStepReport {
    /// The number of the step, from 1.
    pub number: u32,
    /// What the step was about.
    pub title: Option<String>,
    /// The stored experiment that the step names.
    pub experiment: Option<String>,
    /// When it went on first, in seconds since the game day began; none if it never did.
    pub from: Option<f64>,
    /// Why it was over, if that was not its regular end.
    pub why: Option<String>,
    /// The id of the run that the step started.
    pub run: Option<String>,
    /// The report of the run. Its timeline is part of that of the game day, and so are its actions.
    pub report: Option<Box<RunReport>>,
    /// Why there is no report of the run.
    pub missing: Option<String>,
}

/// A decision in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReportDecision {
    /// When it was decided, in seconds since the game day began. A time that was corrected counts.
    pub seconds: f64,
    /// Who decided.
    pub by: String,
    /// What was decided.
    pub text: String,
    /// The reason, if it was given.
    pub why: Option<String>,
}

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

    /// The report as text in this format, with a line break at its end.
    pub fn render(&self, format: ReportFormat) -> String {
        match format {
            ReportFormat::Html => html::page(&self.title, &self.evidence, &sections(self)),
            ReportFormat::Markdown => markdown::text(&self.title, &sections(self)),
            ReportFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
        }
    }

    /// The steps with the report of their run.
    pub(super) fn reported(&self) -> impl Iterator<Item = (&GameDayStepReport, &RunReport)> {
        let steps = self.steps.iter();
        steps.filter_map(|step| Some((step, step.report.as_deref()?)))
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
                found.push(format!("step {number}: there is no result of experiment {experiment}{why}"));
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
