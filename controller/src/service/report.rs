//! Reports of runs that are over.

use super::Service;
use crate::report::{EarlierRun, ReportBuilder, ReportContext, RunReport};
use crate::store::{OwnedKind, RunFilter, RunRecord, StoreError};
use backburn_experiments::journal::Verdict;

/// The most earlier runs that a report compares with.
const MAX_EARLIER_RUNS: u32 = 10;

/// Why there is no report of a run.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The store failed, or there is no such run.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run is not over.
    #[error("run `{0}` is not over, and its report is written when it is")]
    IsOpen(String),
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
    /// The report of a run that is over. With `notes`, only of so many of its notes: the report as it was when there were no
    /// more. With `actions`, with actions as they were after that change.
    ///
    /// # Errors
    /// The run is open, or its journal cannot be read.
    pub fn report(
        &self,
        run: &str,
        notes: Option<u64>,
        actions: Option<u64>,
    ) -> Result<RunReport, ReportError> {
        let record = self.store.run(run)?;
        if record.end.is_none() {
            return Err(ReportError::IsOpen(run.to_owned()));
        }
        let mut read = ReportBuilder::default();
        let mut problem = None;
        self.store.journal_lines(run, &mut |line| {
            problem = read.line(line).err();
            problem.is_none()
        })?;
        if let Some(why) = problem {
            return Err(ReportError::Journal {
                run: run.to_owned(),
                why,
            });
        }
        let mut kept = self.store.notes(run)?;
        if let Some(notes) = notes {
            kept.truncate(usize::try_from(notes).unwrap_or(usize::MAX));
        }
        let (actions, actions_change) = self.actions_for_report(&record, actions)?;
        Ok(read.finish(ReportContext {
            actions,
            actions_change,
            earlier: self.earlier_runs(&record)?,
            experiment: record.new.experiment,
            who: Some(record.new.who),
            notes: kept,
        }))
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
