//! Schedules as people see and change them: their next times, whose rights they have, and their pauses.

use super::{Actor, RunStartError, Service};
use crate::store::{ExperimentRecord, StoreError};
use backburn_experiments::document::Schedule;
use backburn_experiments::timetable::{Progress, ScheduledTime, Timetable};
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::atomic::Ordering;

/// How many experiments or agents are read at a time.
pub(super) const PAGE_SIZE: u32 = 500;

/// An experiment's schedule, with its next times.
#[derive(Debug, Clone)]
pub struct ScheduledExperiment {
    /// The name of the stored experiment.
    pub experiment: String,
    /// The version of the stored experiment.
    pub version: u64,
    /// The schedule in the document.
    pub schedule: Schedule,
    /// The schedule's time zone.
    pub zone: String,
    /// The next times, earliest first.
    pub times: Vec<ScheduledTime>,
    /// The name of the token whose rights its runs have: the last that applied the experiment.
    pub who: String,
    /// Who paused it, if it is paused.
    pub paused: Option<SchedulePause>,
    /// Why it starts nothing any more, if the rights of that token are gone.
    pub stopped: Option<String>,
}

/// Whose rights a schedule has, and what keeps it from starting runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ScheduleState {
    /// The name of the token that applied the experiment last.
    #[serde(default)]
    pub(super) who: Option<String>,
    /// The person to whom it belongs.
    #[serde(default)]
    pub(super) person: Option<String>,
    #[serde(default)]
    pub(super) paused: Option<SchedulePause>,
    /// Why it was stopped, once that is recorded as a run.
    #[serde(default)]
    pub(super) stopped: Option<String>,
}

/// A pause of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulePause {
    /// The name of the token that paused it.
    pub who: String,
    /// When it was paused.
    pub at: Timestamp,
    /// The reason, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Service {
    /// Checks the schedules again, because they may have changed.
    pub fn reschedule(&self) {
        self.schedules.send_modify(|count| *count += 1);
    }

    /// All stored experiments.
    ///
    /// # Errors
    /// The store failed.
    pub fn experiments(&self) -> Result<Vec<ExperimentRecord>, StoreError> {
        let mut all: Vec<ExperimentRecord> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let page = self.store.experiments(after.as_deref(), PAGE_SIZE)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// How many due times passed without a run since the start, because no controller was running.
    pub fn missed_times(&self) -> u64 {
        self.missed_times.load(Ordering::Relaxed)
    }

    /// All schedules, with their next `count` times after this one.
    ///
    /// # Errors
    /// The store failed.
    pub fn scheduled(
        &self,
        after: Timestamp,
        count: usize,
    ) -> Result<Vec<ScheduledExperiment>, StoreError> {
        let mut found = Vec::new();
        for experiment in self.experiments()? {
            let Some((schedule, table)) = timetable(&experiment) else {
                continue;
            };
            let mut times: Vec<ScheduledTime> = Vec::new();
            let mut from = after;
            while let Some(due) = table.next(from).filter(|_| times.len() < count) {
                from = due.nominal;
                times.push(due);
            }
            let state = self.schedule_state(&experiment.name)?;
            let who = state.who.unwrap_or(experiment.who);
            let person = state.person.unwrap_or_else(|| who.clone());
            let stopped = self
                .standing(&who, &person)?
                .err()
                .map(|refusal| refusal.what);
            found.push(ScheduledExperiment {
                experiment: experiment.name,
                version: experiment.version,
                who,
                paused: state.paused,
                stopped,
                schedule,
                zone: table.zone().iana_name().unwrap_or("UTC").to_owned(),
                times,
            });
        }
        Ok(found)
    }

    pub(super) fn schedule_state(&self, experiment: &str) -> Result<ScheduleState, StoreError> {
        let kept = self.store.setting(&state_setting(experiment))?;
        let kept = kept.filter(|kept| !kept.is_null());
        Ok(kept.map_or_else(ScheduleState::default, |kept| {
            serde_json::from_value(kept).unwrap_or_default()
        }))
    }

    pub(super) fn set_schedule_state(
        &self,
        experiment: &str,
        state: &ScheduleState,
    ) -> Result<(), StoreError> {
        self.store.set(&state_setting(experiment), &json!(state))
    }

    /// From now on the schedule of an experiment has the rights of this token, which has applied it.
    ///
    /// # Errors
    /// The store failed.
    pub fn own_schedule(&self, experiment: &str, who: &Actor) -> Result<(), StoreError> {
        let owned = ScheduleState {
            who: Some(who.name.clone()),
            person: Some(who.person.clone()),
            stopped: None,
            ..self.schedule_state(experiment)?
        };
        self.set_schedule_state(experiment, &owned)
    }

    /// Whether the schedule of an experiment has the rights of this token, and is not stopped.
    ///
    /// # Errors
    /// The store failed.
    pub fn owns_schedule(&self, experiment: &str, who: &Actor) -> Result<bool, StoreError> {
        let state = self.schedule_state(experiment)?;
        let is_own =
            state.who.as_deref() == Some(&who.name) && state.person.as_deref() == Some(&who.person);
        Ok(is_own && state.stopped.is_none())
    }

    /// Forgets whose rights a schedule has, and its pause: its experiment was removed.
    ///
    /// # Errors
    /// The store failed.
    pub fn forget_schedule(&self, experiment: &str) -> Result<(), StoreError> {
        self.set_schedule_state(experiment, &ScheduleState::default())
    }

    /// Pauses an experiment's schedule: nothing is started for its times until it is resumed, and nothing is made up for.
    ///
    /// # Errors
    /// There is no such experiment, it has no schedule, or it is paused already.
    pub fn pause_schedule(
        &self,
        experiment: &str,
        why: Option<String>,
        who: &Actor,
    ) -> Result<SchedulePause, RunStartError> {
        let mut state = self.state_of_scheduled(experiment)?;
        if let Some(pause) = &state.paused {
            let what = format!(
                "the schedule of `{experiment}` is paused by `{}` since {}",
                pause.who,
                pause.at.strftime("%F %T UTC")
            );
            return Err(Refusal::new("schedule", what).into());
        }
        let pause = SchedulePause {
            who: who.name.clone(),
            at: Timestamp::now(),
            why,
        };
        self.audit(
            who,
            "pause-schedule",
            experiment,
            "asked",
            json!({"why": pause.why}),
        )?;
        state.paused = Some(pause.clone());
        self.set_schedule_state(experiment, &state)?;
        self.reschedule();
        Ok(pause)
    }

    /// Resumes an experiment's schedule, from now on. Returns whether it was paused.
    ///
    /// # Errors
    /// There is no such experiment, or it has no schedule.
    pub fn resume_schedule(&self, experiment: &str, who: &Actor) -> Result<bool, RunStartError> {
        let mut state = self.state_of_scheduled(experiment)?;
        self.audit(who, "resume-schedule", experiment, "asked", json!({}))?;
        let was_paused = state.paused.take().is_some();
        if was_paused {
            // Times that passed during the pause are not made up for.
            let name = progress_setting(experiment);
            if let Some(mut kept) = self.store.setting(&name)?
                && kept.get("progress").is_some()
            {
                kept["progress"] = json!(Progress {
                    last: Timestamp::now(),
                    waiting: None
                });
                self.store.set(&name, &kept)?;
            }
            self.set_schedule_state(experiment, &state)?;
            self.reschedule();
        }
        Ok(was_paused)
    }

    fn state_of_scheduled(&self, experiment: &str) -> Result<ScheduleState, RunStartError> {
        let kept = self.store.experiment(experiment, None)?;
        if timetable(&kept).is_none() {
            let what = format!("experiment `{experiment}` has no schedule");
            return Err(Refusal::new("schedule", what)
                .hint("`backburn schedules` lists those that have one")
                .into());
        }
        Ok(self.schedule_state(experiment)?)
    }
}

/// The setting that holds how far a schedule was acted on.
pub(super) fn progress_setting(experiment: &str) -> String {
    format!("schedule/{experiment}")
}

/// The setting that holds whose rights a schedule has, and its pause.
fn state_setting(experiment: &str) -> String {
    format!("schedule-state/{experiment}")
}

/// The schedule of an experiment, if it has one. Whether it is valid was checked when the experiment was stored.
pub(super) fn timetable(experiment: &ExperimentRecord) -> Option<(Schedule, Timetable)> {
    let schedule: Schedule =
        serde_json::from_value(experiment.document.get("schedule")?.clone()).ok()?;
    let table = Timetable::of(&schedule, 0, &experiment.name).ok()?;
    Some((schedule, table))
}
