//! Game days: preparing one, and what people do with it. How far it is follows from its stream alone, so that it goes on after a
//! restart of the controller.

use super::{Actor, RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::fleet::Reservation;
use crate::runner;
use crate::store::{
    ExperimentRef, GameDayRecord, GameDayRun, NoteStream, OwnedKind, RunNote, StoreError,
    StoreErrorKind, Trigger,
};
use backburn_experiments::Problem;
use backburn_experiments::game_day::{
    Duty, DutyHolders, GameDay, GameDayEvent, GameDayMode, GameDayProgress, GameDayStage,
    check_dates, load_game_day,
};
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::Refusal;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The beginning of the ids of game days, which tells them from those of runs.
pub const GAME_DAY_PREFIX: &str = "gd-";

/// A game day that is or was held.
#[derive(Debug, Clone)]
pub struct HeldGameDay {
    /// What the store has of it.
    pub record: GameDayRecord,
    /// The document by which it is held.
    pub day: GameDay,
    /// How far it is.
    pub progress: GameDayProgress,
}

/// A game day that somebody wants to prepare.
#[derive(Debug, Clone)]
pub struct GameDaySpec {
    /// The JSON document of the game day.
    pub document: Value,
    /// The name and version of a stored game day.
    pub reference: Option<ExperimentRef>,
    /// Whether its experiments run, if that differs from the document.
    pub mode: Option<GameDayMode>,
    /// Holders of duties, in place of those in the document.
    pub duties: BTreeMap<Duty, Vec<String>>,
    /// Whether all prerequisites are met, so that they are recorded as checked off.
    pub prerequisites_met: bool,
    /// Whether to begin at once. If that is refused, it is not prepared.
    pub begin: bool,
}

/// Why something about a game day was not done.
#[derive(Debug)]
pub enum GameDayError {
    /// What was given has these problems.
    Invalid(Vec<Problem>),
    /// A rule forbids it.
    Refusal(Refusal),
    /// The store could not read or record something.
    Store(StoreError),
}

impl From<StoreError> for GameDayError {
    fn from(error: StoreError) -> Self {
        GameDayError::Store(error)
    }
}

impl From<Refusal> for GameDayError {
    fn from(refusal: Refusal) -> Self {
        GameDayError::Refusal(refusal)
    }
}

fn refused(what: impl Into<String>, hint: impl Into<String>) -> GameDayError {
    Refusal::new("game-day", what).hint(hint).into()
}

impl Service {
    /// Lets the keeper of game days check them again.
    pub fn game_days_changed(&self) {
        self.game_days.send_modify(|count| *count += 1);
    }

    /// Reads a game day and checks it against what this controller has.
    ///
    /// # Errors
    /// All problems of the document; or the store failed.
    pub fn load_game_day(&self, document: &Value, who: &Actor) -> Result<GameDay, GameDayError> {
        let day = load_game_day(&document.to_string()).map_err(GameDayError::Invalid)?;
        let mut problems = check_dates(&day, Timestamp::now());
        for (index, step) in day.steps.iter().enumerate() {
            let Some(name) = &step.experiment else {
                continue;
            };
            let at = format!("$.game-day.steps[{index}].experiment");
            let kept = match self.sees(who, OwnedKind::Experiment, name)? {
                true => self.store.experiment_with_secrets(name, step.version),
                false => Err(StoreError::not_found(format!(
                    "there is no experiment `{name}`"
                ))),
            };
            match kept {
                Ok(kept) => {
                    if let Err(wrong) = self.load_experiment(&kept.document, &step.variables) {
                        let what = format!("experiment `{name}` cannot run: {}", wrong[0].what);
                        problems.push(
                            Problem::new(at, what)
                                .hint(format!("see `{}` in the experiment", wrong[0].at)),
                        );
                    }
                }
                Err(error) if error.kind == StoreErrorKind::NotThere => {
                    problems.push(self.missing_experiment(&at, name, &error, who)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match problems.is_empty() {
            true => Ok(day),
            false => Err(GameDayError::Invalid(problems)),
        }
    }

    fn missing_experiment(
        &self,
        at: &str,
        name: &str,
        error: &StoreError,
        who: &Actor,
    ) -> Result<Problem, StoreError> {
        let mut known = Vec::new();
        for stored in self.experiments()? {
            if self.sees(who, OwnedKind::Experiment, &stored.name)? {
                known.push(stored.name);
            }
        }
        let near = nearest(name, known.iter().map(String::as_str));
        let hint = match near {
            Some(near) if near != name => format!("did you mean `{near}`?"),
            _ => "store the experiment first, with `backburn apply FILE`".into(),
        };
        Ok(Problem::new(at, error.to_string()).hint(hint))
    }

    /// Prepares a game day: from now on people can check it, add notes, and begin. Returns its id.
    ///
    /// # Errors
    /// All problems of the document; a rule forbids it; or the store failed.
    pub fn prepare_game_day(
        self: &Arc<Self>,
        who: &Actor,
        mut spec: GameDaySpec,
    ) -> Result<String, GameDayError> {
        let mut day = self.load_game_day(&spec.document, who)?;
        for (duty, names) in &spec.duties {
            if day.duties.holders(*duty).is_none() {
                let listed: Vec<&str> = day.duties.listed().map(|(duty, _)| duty.word()).collect();
                let what = format!("the game day has no duty `{duty}`");
                return Err(refused(
                    what,
                    format!("list it in the document; listed are: {}", listed.join(", ")),
                ));
            }
            let holders = Some(DutyHolders::Several(names.clone()));
            let place = match duty {
                Duty::IncidentCommander => &mut day.duties.incident_commander,
                Duty::Scribe => &mut day.duties.scribe,
                Duty::Communications => &mut day.duties.communications,
                Duty::Facilitator => &mut day.duties.facilitator,
                Duty::Observers => &mut day.duties.observers,
            };
            *place = holders;
        }
        if !spec.duties.is_empty() {
            spec.document["game-day"]["duties"] = json!(day.duties);
            day = self.load_game_day(&spec.document, who)?;
        }
        let mode = spec.mode.unwrap_or(day.mode);
        let id = format!("{GAME_DAY_PREFIX}{}", runner::run_id());
        let record = GameDayRecord {
            id: id.clone(),
            reference: spec.reference,
            document: spec.document,
            mode,
            who: who.name.clone(),
            person: who.person.clone(),
            prepared: Timestamp::now(),
            ended: None,
        };
        let mut held = HeldGameDay {
            progress: GameDayProgress::prepared(&day),
            day,
            record,
        };
        let record = &held.record;
        let mut owners = who.teams.clone();
        if let Some(reference) = &record.reference {
            owners.extend(
                self.store
                    .owners(OwnedKind::GameDayDocument, &reference.name)?,
            );
        }
        let name = record.reference.as_ref().map(|kept| &kept.name);
        let detail =
            json!({"name": name, "mode": mode, "title": held.day.title, "begin": spec.begin});
        self.audit(who, "prepare game day", &id, "asked", detail)?;
        self.store.set_owners(OwnedKind::GameDay, &id, &owners)?;
        let _turn = lock(&self.game_day_turn);
        let numbers = 1..=u32::try_from(held.day.prerequisites.len()).unwrap_or(u32::MAX);
        let numbers: Vec<u32> = numbers.filter(|_| spec.prerequisites_met).collect();
        if spec.begin {
            self.may_start()?;
            let mut begun = held.clone();
            begun.progress.met.extend(&numbers);
            self.may_begin(&begun)?;
        }
        self.store.open_game_day(&held.record)?;
        for number in numbers {
            let body = json!({"number": number, "met": true});
            self.add_game_day_entry(&mut held, &who.name, "prerequisite", body)?;
        }
        if spec.begin {
            self.start_step(&mut held, &who.name, 1)?;
        }
        Ok(id)
    }

    /// A game day, with how far it is.
    ///
    /// # Errors
    /// There is none of this id, or the store failed.
    pub fn held_game_day(&self, id: &str) -> Result<HeldGameDay, StoreError> {
        let record = self.store.game_day(id)?;
        let day = load_game_day(&record.document.to_string()).map_err(|problems| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "the document of game day `{id}` cannot be read: {}",
                    backburn_experiments::json::in_one_line(&problems)
                ),
            )
        })?;
        let mut progress = GameDayProgress::prepared(&day);
        for entry in self.store.notes_of(NoteStream::GameDay, id, 0)? {
            progress.apply(entry.note.at, &entry.note.kind, &entry.note.body);
        }
        Ok(HeldGameDay {
            record,
            day,
            progress,
        })
    }

    /// Records a change of the state of a game day.
    pub(super) fn change_game_day(
        &self,
        held: &mut HeldGameDay,
        who: &str,
        event: &GameDayEvent,
    ) -> Result<(), StoreError> {
        self.add_game_day_entry(held, who, "state", json!(event))
    }

    /// Adds an entry of the controller to a game day, and takes it in.
    pub(super) fn add_game_day_entry(
        &self,
        held: &mut HeldGameDay,
        who: &str,
        kind: &str,
        body: Value,
    ) -> Result<(), StoreError> {
        let note = RunNote {
            at: Timestamp::now(),
            who: who.to_owned(),
            kind: kind.to_owned(),
            body,
        };
        self.record_note(NoteStream::GameDay, &held.record.id, &note)?;
        held.progress.apply(note.at, &note.kind, &note.body);
        self.game_days_changed();
        Ok(())
    }

    /// Begins a game day, or goes on to its next step: also sooner than the discussion would end.
    ///
    /// # Errors
    /// A rule forbids it, or the store failed.
    pub fn next_of_game_day(
        self: &Arc<Self>,
        who: &Actor,
        id: &str,
    ) -> Result<HeldGameDay, GameDayError> {
        let _turn = lock(&self.game_day_turn);
        let mut held = self.held_game_day(id)?;
        let progress = &held.progress;
        if progress.paused.is_some() {
            return Err(refused(
                "the game day is paused",
                format!("`backburn gameday resume {id}` resumes it"),
            ));
        }
        let step = match progress.stage {
            GameDayStage::Ended => {
                return Err(refused(
                    "the game day is over",
                    "`backburn gameday run` holds it again",
                ));
            }
            GameDayStage::Prepared => {
                self.may_begin(&held)?;
                1
            }
            GameDayStage::Discussion => progress.step + 1,
            GameDayStage::Running => {
                let (mode, step) = (held.record.mode, progress.step);
                if GameDayProgress::runs_experiment(&held.day, mode, step) {
                    let run = progress.runs.get(&step).cloned().unwrap_or_default();
                    return Err(refused(
                        format!("the run of step {step} is not over"),
                        format!("`backburn stop {run}` stops it"),
                    ));
                }
                self.audit(who, "next step", id, "asked", json!({"ends": step}))?;
                let event = GameDayEvent::Discussion { step, why: None };
                self.change_game_day(&mut held, &who.name, &event)?;
                return Ok(held);
            }
        };
        self.may_start()?;
        self.audit(who, "next step", id, "asked", json!({"step": step}))?;
        match step > held.day.last_step() {
            true => {
                let event = GameDayEvent::Ended { why: None };
                self.change_game_day(&mut held, &who.name, &event)?;
            }
            false => self.start_step(&mut held, &who.name, step)?,
        }
        Ok(held)
    }

    /// Whether a prepared game day may begin.
    pub(super) fn may_begin(&self, held: &HeldGameDay) -> Result<(), GameDayError> {
        let (day, progress, id) = (&held.day, &held.progress, &held.record.id);
        if let Some(duty) = progress.unheld().first() {
            return Err(Refusal::new("duty", format!("nobody holds duty `{duty}`"))
                .hint(format!(
                    "`backburn gameday duty {id} {duty} PERSON` fills it"
                ))
                .into());
        }
        let unmet = progress.unmet(day);
        if let Some(first) = unmet.first() {
            let index = usize::try_from(*first).unwrap_or(1) - 1;
            let what = format!(
                "{} of {} prerequisites are not checked off; the first is {first}: {}",
                unmet.len(),
                day.prerequisites.len(),
                day.prerequisites.get(index).map_or("", String::as_str)
            );
            return Err(Refusal::new("prerequisites", what)
                .hint(format!(
                    "`backburn gameday check {id} {first}` checks it off"
                ))
                .into());
        }
        self.meets_nobody(held, 1)
    }

    /// Refuses a game day that could target an agent which another one that is going on could target, too.
    pub(super) fn meets_nobody(&self, held: &HeldGameDay, from: u32) -> Result<(), GameDayError> {
        if held.record.mode == GameDayMode::Tabletop {
            return Ok(());
        }
        let own = self.agents_of_game_day(held, from)?;
        for other in self.store.open_game_days()? {
            if other.id == held.record.id || other.mode == GameDayMode::Tabletop {
                continue;
            }
            let other = self.held_game_day(&other.id)?;
            if !other.progress.is_active() {
                continue;
            }
            let theirs = self.agents_of_game_day(&other, other.progress.step)?;
            if let Some(agent) = own.intersection(&theirs).next() {
                let what = format!(
                    "agent `{agent}` may be a target of game day `{}` (`{}`), which is going on",
                    other.record.id, other.day.title
                );
                return Err(refused(
                    what,
                    "wait until that one is over, or let them target different agents",
                ));
            }
        }
        Ok(())
    }

    /// The agents that the steps of a game day could target, from this step on.
    fn agents_of_game_day(
        &self,
        held: &HeldGameDay,
        from: u32,
    ) -> Result<BTreeSet<String>, GameDayError> {
        let teams = self.store.owners(OwnedKind::GameDay, &held.record.id)?;
        let reservation = Reservation::new(Arc::clone(&self.fleet), "game-day").within(&teams);
        // Without agents there is nobody to meet.
        let Ok(inventory) = reservation.inventory() else {
            return Ok(BTreeSet::new());
        };
        let mut agents = BTreeSet::new();
        let skipped = usize::try_from(from.max(1) - 1).unwrap_or(0);
        for step in held.day.steps.iter().skip(skipped) {
            let Some(name) = &step.experiment else {
                continue;
            };
            let Ok(kept) = self.store.experiment_with_secrets(name, step.version) else {
                continue;
            };
            if let Ok(experiment) = self.load_experiment(&kept.document, &step.variables) {
                agents.extend(runner::candidate_agents(&experiment, &inventory));
            }
        }
        Ok(agents)
    }

    /// Starts a step. That it is about to start is recorded first, so that a restart in between starts nothing twice. A step that
    /// cannot start is discussed.
    pub(super) fn start_step(
        self: &Arc<Self>,
        held: &mut HeldGameDay,
        who: &str,
        step: u32,
    ) -> Result<(), StoreError> {
        self.change_game_day(held, who, &GameDayEvent::Starting { step })?;
        let running = |run, reference: Option<ExperimentRef>| {
            let (experiment, version) = match reference {
                Some(reference) => (Some(reference.name), Some(reference.version)),
                None => (None, None),
            };
            GameDayEvent::Running {
                step,
                run,
                experiment,
                version,
            }
        };
        if !GameDayProgress::runs_experiment(&held.day, held.record.mode, step) {
            return self.change_game_day(held, who, &running(None, None));
        }
        match self.start_run_of_step(held, step) {
            Ok((run, reference)) => {
                self.change_game_day(held, who, &running(Some(run), Some(reference)))
            }
            Err(why) => {
                let why = Some(why);
                self.change_game_day(held, who, &GameDayEvent::Discussion { step, why })
            }
        }
    }

    /// Starts the run of a step, with the rights of whoever prepared the game day. Otherwise says why it did not start.
    fn start_run_of_step(
        self: &Arc<Self>,
        held: &HeldGameDay,
        step: u32,
    ) -> Result<(String, ExperimentRef), String> {
        let said = |error: StoreError| error.to_string();
        let record = &held.record;
        let asked = held.day.step(step).ok_or("there is no such step")?;
        let name = asked.experiment.as_deref().unwrap_or_default();
        if let Err(GameDayError::Refusal(refusal)) = self.meets_nobody(held, step) {
            return Err(refusal.to_string());
        }
        let owner = self.standing(&record.who, &record.person).map_err(said)?;
        let owner = owner.map_err(|refusal| refusal.to_string())?;
        let teams = match owner.teams.is_empty() {
            true => self
                .store
                .owners(OwnedKind::GameDay, &record.id)
                .map_err(said)?,
            false => owner.teams.clone(),
        };
        let kept = self.store.experiment_with_secrets(name, asked.version);
        let kept = kept.map_err(said)?;
        let reference = ExperimentRef {
            name: kept.name,
            version: kept.version,
        };
        let spec = RunSpec {
            document: RequestedDocument::Stored(kept.document),
            reference: Some(reference.clone()),
            seed: asked.seed,
            variables: asked.variables.clone(),
            who: record.who.clone(),
            person: record.person.clone(),
            teams,
            because: Trigger::GameDay,
            lock: None,
        };
        match self.start_of_game_day(spec, (&record.id, step)) {
            Ok(run) | Err(RunStartError::NotStarted { run, .. }) => Ok((run, reference)),
            Err(RunStartError::Waits(waiting)) => Ok((waiting.approval.run, reference)),
            Err(RunStartError::Refusal(refusal)) => Err(refusal.to_string()),
            Err(RunStartError::Store(error)) => Err(error.to_string()),
            Err(RunStartError::Invalid(problems)) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(problems.join("; "))
            }
        }
    }

    /// Pauses a game day: nothing goes on by itself. A run that is open goes on.
    ///
    /// # Errors
    /// It is not going on or paused already, or the store failed.
    pub fn pause_game_day(
        &self,
        who: &Actor,
        id: &str,
        why: Option<String>,
    ) -> Result<HeldGameDay, GameDayError> {
        let _turn = lock(&self.game_day_turn);
        let mut held = self.held_game_day(id)?;
        self.require_active(&held)?;
        if held.progress.paused.is_some() {
            return Err(refused(
                "the game day is paused already",
                format!("`backburn gameday resume {id}` resumes it"),
            ));
        }
        self.audit(who, "pause game day", id, "asked", json!({"why": why}))?;
        self.change_game_day(&mut held, &who.name, &GameDayEvent::Paused { why })?;
        Ok(held)
    }

    /// Resumes a game day that is paused.
    ///
    /// # Errors
    /// It is not paused, or the store failed.
    pub fn resume_game_day(&self, who: &Actor, id: &str) -> Result<HeldGameDay, GameDayError> {
        let _turn = lock(&self.game_day_turn);
        let mut held = self.held_game_day(id)?;
        if held.progress.paused.is_none() {
            return Err(refused(
                "the game day is not paused",
                format!("`backburn gameday next {id}` goes on to its next step"),
            ));
        }
        self.audit(who, "resume game day", id, "asked", json!({}))?;
        self.change_game_day(&mut held, &who.name, &GameDayEvent::Resumed)?;
        Ok(held)
    }

    /// Stops a game day, and its run.
    ///
    /// # Errors
    /// It is over already, or the store failed.
    pub fn stop_game_day(
        self: &Arc<Self>,
        who: &Actor,
        id: &str,
        why: Option<String>,
    ) -> Result<HeldGameDay, GameDayError> {
        let said = why.as_deref().map(|why| format!(": {why}"));
        let text = format!("stopped by `{}`{}", who.name, said.unwrap_or_default());
        // The faults end first, whatever the store does.
        let runs = self.store.game_day_runs(id)?;
        for link in &runs {
            self.stop_or_withdraw(&link.run, text.clone()).ok();
        }
        let _turn = lock(&self.game_day_turn);
        let mut held = self.held_game_day(id)?;
        if held.progress.stage == GameDayStage::Ended {
            return Err(refused(
                "the game day is over",
                "`backburn gameday` lists game days",
            ));
        }
        self.audit(who, "stop game day", id, "asked", json!({"why": why}))?;
        self.end_game_day(&mut held, &who.name, Some(text))?;
        Ok(held)
    }

    /// Ends a game day, and stops its run.
    pub(super) fn end_game_day(
        self: &Arc<Self>,
        held: &mut HeldGameDay,
        who: &str,
        why: Option<String>,
    ) -> Result<(), StoreError> {
        if let Some(run) = held.progress.runs.get(&held.progress.step) {
            let text = why.clone().unwrap_or_else(|| "the game day is over".into());
            self.stop_or_withdraw(run, text).ok();
        }
        self.change_game_day(held, who, &GameDayEvent::Ended { why })
    }

    /// Reveals a step to participants with a blind token, or all steps.
    ///
    /// # Errors
    /// There is no such step, or the store failed.
    pub fn reveal(
        &self,
        who: &Actor,
        id: &str,
        step: Option<u32>,
    ) -> Result<HeldGameDay, GameDayError> {
        let _turn = lock(&self.game_day_turn);
        let mut held = self.held_game_day(id)?;
        if let Some(step) = step.filter(|step| held.day.step(*step).is_none()) {
            let what = format!("there is no step {step}");
            let hint = format!("the game day has {} steps", held.day.last_step());
            return Err(GameDayError::Invalid(vec![
                Problem::new("$.step", what).hint(hint),
            ]));
        }
        let body = match step {
            Some(step) => json!({"step": step}),
            None => json!({}),
        };
        self.audit(who, "reveal", id, "asked", body.clone())?;
        self.add_game_day_entry(&mut held, &who.name, "reveal", body)?;
        Ok(held)
    }

    fn require_active(&self, held: &HeldGameDay) -> Result<(), GameDayError> {
        match held.progress.stage {
            GameDayStage::Running | GameDayStage::Discussion => Ok(()),
            GameDayStage::Prepared => Err(refused(
                "the game day has not begun",
                format!("`backburn gameday next {}` begins it", held.record.id),
            )),
            GameDayStage::Ended => Err(refused(
                "the game day is over",
                "`backburn gameday` lists game days",
            )),
        }
    }

    /// Whether participants with a blind token may know this run: it is of no game day, or its step is revealed.
    ///
    /// # Errors
    /// The store failed.
    pub fn is_run_revealed(&self, run: &crate::store::RunRecord) -> Result<bool, StoreError> {
        if run.new.because != Trigger::GameDay {
            return Ok(true);
        }
        let Some(GameDayRun { game_day, step, .. }) = self.store.game_day_of_run(&run.new.id)?
        else {
            return Ok(false);
        };
        let held = self.held_game_day(&game_day)?;
        Ok(held.progress.is_revealed(&held.day, step))
    }
}
