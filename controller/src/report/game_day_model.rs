//! What the report of a game day says, as data.

use super::evidence::ReportEvidence;
use super::model::{Objective, ReportAction, RunReport, TimelineItem};
use crate::store::{ExperimentRef, RunNoteEntry};
use backburn_experiments::game_day::{GameDay, GameDayMode, GameDayProgress, RunbookLink};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// The steps with the report of their run.
    pub(super) fn reported(&self) -> impl Iterator<Item = (&GameDayStepReport, &RunReport)> {
        let steps = self.steps.iter();
        steps.filter_map(|step| Some((step, step.report.as_deref()?)))
    }
}
