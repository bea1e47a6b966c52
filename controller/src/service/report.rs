//! Reports of runs and of game days that are over.

use super::Service;
use crate::report::{
    EarlierRun, GameDayReport, GameDayReportContext, ReportBuilder, ReportContext, RunReport,
};
use crate::store::{
    NoteStream, OwnedKind, RunFilter, RunNoteEntry, RunRecord, StoreError, StoreErrorKind,
};
use backburn_experiments::game_day::{GameDayProgress, GameDayStage};
use backburn_experiments::journal::Verdict;
use std::collections::BTreeMap;

/// The most earlier runs that a report compares with.
const MAX_EARLIER_RUNS: u32 = 10;

/// As of when a report is made. The default is now.
#[derive(Debug, Clone, Default)]
pub struct ReportMoment {
    /// How many notes the run or the game day has.
    pub notes: Option<u64>,
    /// The number of the last change of an action.
    pub actions: Option<u64>,
    /// How many notes each run of a game day has, by step.
    pub run_notes: Option<Vec<u64>>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The store failed, or there is no such run.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run is not over.
    #[error("run `{0}` is not over, and its report is written when it is")]
    IsOpen(String),
    /// The game day is not over.
    #[error("game day `{0}` is not over, and its report is written when it is")]
    GameDayIsOpen(String),
    /// The journal cannot be read.
    #[error("the journal of run `{run}` cannot be read: {why}")]
    Journal {
        /// The run that is reported.
        run: String,
        /// What is wrong with the journal.
        why: String,
    },
}

impl Service {
    /// The report of a run that is over, as of a moment.
    ///
    /// # Errors
    /// The run is open, or its journal cannot be read.
    pub fn report(&self, run: &str, moment: &ReportMoment) -> Result<RunReport, ReportError> {
        self.report_among(run, moment, 1)
    }

    /// The report of a run that is reported together with others, so many in all.
    fn report_among(
        &self,
        run: &str,
        moment: &ReportMoment,
        parts: usize,
    ) -> Result<RunReport, ReportError> {
        let record = self.store.run(run)?;
        if record.end.is_none() {
            return Err(ReportError::IsOpen(run.to_owned()));
        }
        let mut read = ReportBuilder::default();
        let mut problem = None;
        self.store.journal_lines(run, 0, &mut |line| {
            problem = read.line(line).err();
            problem.is_none()
        })?;
        if let Some(why) = problem {
            return Err(ReportError::Journal {
                run: run.to_owned(),
                why,
            });
        }
        let notes = first(self.store.notes(run)?, moment.notes);
        let (actions, actions_change) = self.actions_for_report(&record, moment.actions)?;
        Ok(read.finish(ReportContext {
            actions,
            actions_change,
            earlier: self.earlier_runs(&record)?,
            experiment: record.new.experiment,
            who: Some(record.new.who),
            notes,
            parts,
        }))
    }

    /// The report of a game day that is over, as of a moment.
    ///
    /// # Errors
    /// The game day or one of its runs is open, or the store failed.
    pub fn game_day_report(
        &self,
        id: &str,
        moment: &ReportMoment,
    ) -> Result<GameDayReport, ReportError> {
        let held = self.held_game_day(id)?;
        if held.progress.stage != GameDayStage::Ended {
            return Err(ReportError::GameDayIsOpen(id.to_owned()));
        }
        let notes = self.store.notes_of(NoteStream::GameDay, id, 0)?;
        let notes = first(notes, moment.notes);
        let mut progress = GameDayProgress::prepared(&held.day);
        for entry in &notes {
            progress.apply(entry.note.at, &entry.note.kind, &entry.note.body);
        }
        let mut runs = BTreeMap::new();
        for (index, (step, run)) in progress.runs.iter().enumerate() {
            let counts = moment.run_notes.as_ref();
            let of_run = ReportMoment {
                notes: counts.map(|counts| counts.get(index).copied().unwrap_or_default()),
                // Those of all runs are listed once.
                actions: Some(0),
                run_notes: None,
            };
            let report = self.report_of_step(id, run, &of_run, progress.runs.len())?;
            runs.insert(*step, report);
        }
        let (actions, actions_change) = self.actions_for_game_day(&held, moment.actions)?;
        Ok(GameDayReport::new(GameDayReportContext {
            id: id.to_owned(),
            reference: held.record.reference,
            mode: held.record.mode,
            day: held.day,
            progress,
            notes,
            runs,
            actions,
            actions_change,
        }))
    }

    /// The report of a run of a game day, or why there is none that may be part of the game day's.
    fn report_of_step(
        &self,
        game_day: &str,
        run: &str,
        moment: &ReportMoment,
        parts: usize,
    ) -> Result<Result<RunReport, String>, ReportError> {
        // Whoever sees the game day must see the run, too.
        let owners = self.store.owners(OwnedKind::GameDay, game_day)?;
        if !owners.is_subset(&self.store.owners(OwnedKind::Run, run)?) {
            return Ok(Err("it belongs to other teams than the game day".into()));
        }
        match self.report_among(run, moment, parts) {
            Err(ReportError::Store(error)) if error.kind == StoreErrorKind::NotThere => Ok(Err(
                "it was never started, or its journal was removed because of its age".into(),
            )),
            Err(error @ ReportError::Journal { .. }) => Ok(Err(error.to_string())),
            report => report.map(Ok),
        }
    }

    /// The runs of the same stored experiment that started before this one and are over, latest first.
    fn earlier_runs(&self, run: &RunRecord) -> Result<Vec<EarlierRun>, StoreError> {
        let Some(experiment) = &run.new.experiment else {
            return Ok(Vec::new());
        };
        let filter = RunFilter {
            experiment: Some(experiment.name.clone()),
            outcome: None,
            open: Some(false),
        };
        let found = self
            .store
            .runs(&filter, Some(&run.new.id), MAX_EARLIER_RUNS)?;
        let owners = self.store.owners(OwnedKind::Run, &run.new.id)?;
        // One that ended later was not known when this run ended, and would change the report.
        let ended = run.end.as_ref().map(|end| end.ended);
        let mut earlier = Vec::new();
        for found in found {
            let Some(end) = found.end.filter(|end| Some(end.ended) <= ended) else {
                continue;
            };
            // Whoever sees this run must see that one, too.
            let is_seen = owners.is_subset(&self.store.owners(OwnedKind::Run, &found.new.id)?);
            if let Ok(verdict) = serde_json::from_value::<Verdict>(end.verdict)
                && is_seen
            {
                let version = found.new.experiment.map(|experiment| experiment.version);
                let (id, started) = (found.new.id, found.new.started);
                earlier.push(EarlierRun::new(id, started, version, &verdict));
            }
        }
        Ok(earlier)
    }
}

/// The first notes, so many if that is given.
fn first(mut notes: Vec<RunNoteEntry>, count: Option<u64>) -> Vec<RunNoteEntry> {
    if let Some(count) = count {
        notes.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
    notes
}
