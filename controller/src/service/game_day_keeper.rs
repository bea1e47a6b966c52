//! Lets game days go on: prompts, discussions, next steps and reminders at their times, and begins those that are scheduled. What
//! is to be done follows from the stream of each, so that nothing is lost and nothing is done twice after a restart.

use super::game_days::{GameDayError, GameDaySpec, HeldGameDay};
use super::{OWN_NAME, Service, lock};
use crate::store::{ExperimentRef, GameDayDocumentRecord, StoreError, StoreErrorKind};
use backburn_experiments::document::Schedule;
use backburn_experiments::game_day::{
    GameDayAction, GameDayEvent, GameDayProgress, RunStanding, decide,
};
use backburn_experiments::timetable::{Progress, ScheduleDecision, Timetable};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often the clock is checked, at least: it may be set, and hosts may sleep.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after the store failed.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(5);
/// A scheduled beginning that is overdue by more than this was missed.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

impl Service {
    /// Lets game days go on, for as long as the controller runs.
    pub async fn keep_game_days(self: Arc<Self>) {
        let mut changed = self.game_days.subscribe();
        loop {
            changed.borrow_and_update();
            let service = Arc::clone(&self);
            let turned = tokio::task::spawn_blocking(move || service.turn_game_days()).await;
            let wait = match turned {
                Ok(Ok(wake)) => {
                    let left = wake.map(|at| Timestamp::now().duration_until(at));
                    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
                    left.unwrap_or(CLOCK_CHECK_INTERVAL)
                        .min(CLOCK_CHECK_INTERVAL)
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "the game days could not go on");
                    STORE_RETRY_DELAY
                }
                Err(_) => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does what is due at all game days. Returns when something is due next.
    fn turn_game_days(self: &Arc<Self>) -> Result<Option<Timestamp>, StoreError> {
        let mut wake = self.begin_scheduled_game_days()?;
        for record in self.store.open_game_days()? {
            let _turn = lock(&self.game_day_turn);
            match self.turn_game_day(&record.id) {
                Ok(next) => wake = wake.into_iter().chain(next).min(),
                // Somebody ended it meanwhile, or it cannot be read: the others go on.
                Err(error)
                    if matches!(
                        error.kind,
                        StoreErrorKind::Conflict | StoreErrorKind::Corrupt
                    ) =>
                {
                    tracing::error!(game_day = record.id, %error, "a game day does not go on");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(wake)
    }

    /// Does what is due at one game day. Returns when something is due next.
    fn turn_game_day(self: &Arc<Self>, id: &str) -> Result<Option<Timestamp>, StoreError> {
        let mut held = self.held_game_day(id)?;
        loop {
            if held.progress.is_active()
                && let Some(halted) = self.halted()
            {
                let why = Some(halted.refusal().what);
                self.end_game_day(&mut held, OWN_NAME, why)?;
            }
            if held.progress.is_starting {
                self.recover_step(&mut held)?;
            }
            let run = self.run_standing(&held)?;
            let (action, wake) = decide(
                &held.day,
                held.record.mode,
                &held.progress,
                run,
                Timestamp::now(),
            );
            let step = held.progress.step;
            match action {
                None => return Ok(wake),
                // No run starts while the controller ends; the next one goes on from here.
                Some(GameDayAction::StartStep(_)) if self.is_ending() => return Ok(None),
                Some(GameDayAction::StartStep(step)) => {
                    self.start_step(&mut held, OWN_NAME, step)?;
                }
                Some(GameDayAction::Discuss) => {
                    let why = None;
                    let event = GameDayEvent::Discussion { step, why };
                    self.change_game_day(&mut held, OWN_NAME, &event)?;
                }
                Some(GameDayAction::End(why)) => self.end_game_day(&mut held, OWN_NAME, why)?,
                Some(GameDayAction::Remind(due)) => {
                    self.add_game_day_entry(&mut held, OWN_NAME, "reminder", json!({"due": due}))?;
                    self.notify_update_due(&held, due);
                }
                Some(GameDayAction::GivePrompt(index)) => {
                    let prompts = held.day.step(step).map(|step| &step.prompts);
                    if let Some(prompt) = prompts.and_then(|prompts| prompts.get(index)) {
                        let mut body =
                            json!({"step": step, "name": prompt.name, "text": prompt.text});
                        if let Some(to) = prompt.to {
                            body["to"] = json!(to);
                        }
                        self.add_game_day_entry(&mut held, OWN_NAME, "prompt", body)?;
                    }
                }
            }
        }
    }

    /// Finds out whether a step has started that was about to when the controller died.
    fn recover_step(&self, held: &mut HeldGameDay) -> Result<(), StoreError> {
        let step = held.progress.step;
        let links = self.store.game_day_runs(&held.record.id)?;
        let linked = links.into_iter().rfind(|link| link.step == step);
        let run = match linked.map(|link| self.store.run(&link.run)) {
            Some(Ok(run)) => Some(run),
            Some(Err(error)) if error.kind != StoreErrorKind::NotThere => return Err(error),
            _ => None,
        };
        let event = match run {
            Some(run) => {
                let (experiment, version) = match run.new.experiment {
                    Some(reference) => (Some(reference.name), Some(reference.version)),
                    None => (None, None),
                };
                GameDayEvent::Running {
                    step,
                    run: Some(run.new.id),
                    experiment,
                    version,
                }
            }
            None if GameDayProgress::runs_experiment(&held.day, held.record.mode, step) => {
                let why = "the controller ended before the step had started";
                GameDayEvent::Discussion {
                    step,
                    why: Some(why.into()),
                }
            }
            None => GameDayEvent::Running {
                step,
                run: None,
                experiment: None,
                version: None,
            },
        };
        self.change_game_day(held, OWN_NAME, &event)
    }

    fn run_standing(&self, held: &HeldGameDay) -> Result<RunStanding, StoreError> {
        let Some(run) = held.progress.runs.get(&held.progress.step) else {
            return Ok(RunStanding::None);
        };
        match self.store.run(run) {
            Ok(run) => Ok(match run.end {
                Some(end) => RunStanding::Over(end.outcome),
                None => RunStanding::Open,
            }),
            Err(error) if error.kind == StoreErrorKind::NotThere => Ok(RunStanding::None),
            Err(error) => Err(error),
        }
    }

    /// Prepares the game days whose time has come, and begins those of which nothing is missing. Returns when the next is due.
    fn begin_scheduled_game_days(self: &Arc<Self>) -> Result<Option<Timestamp>, StoreError> {
        let now = Timestamp::now();
        let mut wake = None::<Timestamp>;
        for document in self.store.game_day_documents()? {
            let Some(table) = timetable(&document) else {
                continue;
            };
            let name = progress_setting(&document.name);
            let kept = self.store.setting(&name)?.unwrap_or_default();
            let anew = Progress {
                last: document.at,
                waiting: None,
            };
            let is_same = kept["version"].as_u64() == Some(document.version);
            let before = serde_json::from_value(kept["progress"].clone())
                .ok()
                .filter(|_| is_same)
                .unwrap_or(anew);
            let (progress, due) = table.decide(before, now, false, GRACE);
            let now_kept = json!({"version": document.version, "progress": progress});
            if now_kept != kept {
                self.store.set(&name, &now_kept)?;
            }
            wake = wake.into_iter().chain(table.next_wake(progress)).min();
            for decision in due {
                let (at, outcome, why) = match decision {
                    ScheduleDecision::Run(at) => match self.begin_scheduled(&document) {
                        Ok((id, why)) => (at, "prepared", json!({"game-day": id, "waits": why})),
                        Err(why) => (at, "refused", json!({"why": why})),
                    },
                    ScheduleDecision::Overlapped(at)
                    | ScheduleDecision::Missed(at)
                    | ScheduleDecision::Waits(at) => {
                        let why = "the controller was not running at that time";
                        (at, "skipped", json!({"why": why}))
                    }
                };
                let mut detail = why;
                detail["due"] = json!(at.nominal);
                self.audit_own("scheduled game day", &document.name, outcome, detail)?;
            }
        }
        Ok(wake)
    }

    /// Prepares a scheduled game day with the rights of whoever stored it, and begins it if nothing is missing. Returns its id, and
    /// what it waits for.
    fn begin_scheduled(
        self: &Arc<Self>,
        document: &GameDayDocumentRecord,
    ) -> Result<(String, Option<String>), String> {
        let said = |error: GameDayError| match error {
            GameDayError::Invalid(problems) => backburn_experiments::json::in_one_line(&problems),
            GameDayError::Refusal(refusal) => refusal.to_string(),
            GameDayError::Store(error) => error.to_string(),
        };
        let person = self
            .store
            .setting(&owner_setting(&document.name))
            .map_err(|error| error.to_string())?;
        let person = person.as_ref().and_then(|person| person.as_str());
        let person = person.unwrap_or(&document.who);
        let owner = self.standing(&document.who, person);
        let owner = owner.map_err(|error| error.to_string())?;
        let owner = owner.map_err(|refusal| refusal.to_string())?;
        let mut content = document.document.clone();
        // Its time has come: it is not the time of the game day that is held.
        if let Some(day) = content
            .get_mut("game-day")
            .and_then(|day| day.as_object_mut())
        {
            day.remove("schedule");
        }
        let spec = GameDaySpec {
            document: content,
            reference: Some(ExperimentRef {
                name: document.name.clone(),
                version: document.version,
            }),
            mode: None,
            duties: BTreeMap::new(),
            prerequisites_met: false,
            begin: false,
        };
        let id = self.prepare_game_day(&owner, spec).map_err(said)?;
        let waits = self.next_of_game_day(&owner, &id).err().map(said);
        Ok((id, waits))
    }

    /// Remembers to whom the token belongs that stored a game day: a scheduled one has the rights of that person.
    ///
    /// # Errors
    /// The store failed.
    pub fn own_game_day_schedule(&self, name: &str, person: &str) -> Result<(), StoreError> {
        self.store.set(&owner_setting(name), &json!(person))
    }

    /// When a stored game day begins next by its schedule, after this time.
    pub fn next_game_day(
        &self,
        document: &GameDayDocumentRecord,
        after: Timestamp,
    ) -> Option<Timestamp> {
        timetable(document)?.next(after).map(|due| due.at)
    }
}

fn progress_setting(name: &str) -> String {
    format!("game-day-schedule/{name}")
}

fn owner_setting(name: &str) -> String {
    format!("game-day-owner/{name}")
}

fn timetable(document: &GameDayDocumentRecord) -> Option<Timetable> {
    let schedule = document.document.get("game-day")?.get("schedule")?;
    let schedule: Schedule = serde_json::from_value(schedule.clone()).ok()?;
    Timetable::of(&schedule, 0, &document.name).ok()
}
