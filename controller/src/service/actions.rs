//! Actions: what will be done about what runs have found. An action that names an experiment is closed only by a run of it that
//! started after the action was added, and held.

use super::{Actor, GAME_DAY_PREFIX, HeldGameDay, Service, lock};
use crate::fleet::TeamSet;
use crate::report::ReportAction;
use crate::store::{
    ActionChange, ActionChangeEntry, ActionSeverity, OwnedKind, RunFilter, RunRecord, StoreError,
    StoreErrorKind,
};
use backburn_experiments::journal::Outcome;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;
use std::collections::BTreeMap;

/// Longest title of an action, or reason to close one, in bytes.
const MAX_TEXT_BYTES: usize = 2000;
/// Longest name of an owner, in bytes.
const MAX_OWNER_BYTES: usize = 200;
/// The most actions that are kept. More would be read by nobody.
const MAX_ACTIONS: usize = 10_000;
/// How many held runs of an experiment are read at a time, to find one that proves a fix.
const RUNS_PER_PAGE: u32 = 100;

/// What is to be done about what a run has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The number that the controller gave it.
    pub id: u64,
    /// What will be done.
    pub title: String,
    /// The person who does it.
    pub owner: String,
    /// By when; the day counts in UTC.
    pub due: Option<Date>,
    /// How severe the finding is.
    pub severity: ActionSeverity,
    /// The stored experiment that proves the fix.
    pub experiment: Option<String>,
    /// The run or the game day that it came of.
    pub run: Option<String>,
    /// The person or token that added it.
    pub who: String,
    /// When it was added.
    pub at: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// The run that closed it.
    pub proved_by: Option<String>,
    /// Why it was closed, in words.
    pub why: Option<String>,
}

/// An action that is to be added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewAction {
    /// What will be done.
    pub title: String,
    /// The person who does it.
    pub owner: String,
    /// By when; the day counts in UTC.
    pub due: Option<Date>,
    /// How severe the finding is.
    pub severity: ActionSeverity,
    /// The stored experiment that proves the fix.
    pub experiment: Option<String>,
    /// The run that it came of.
    pub run: Option<String>,
}

/// How many actions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// Those that are open and not past their date.
    pub open: usize,
    /// Those that are open and past their date.
    pub overdue: usize,
    /// Those that are closed.
    pub closed: usize,
}

/// Why an action is not added, changed or closed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The store failed to read or write actions.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such action.
    #[error("there is no action {0}")]
    Unknown(u64),
    /// What was asked for is wrong.
    #[error("{what}")]
    Invalid {
        /// What is wrong with the request.
        what: String,
        /// What would be accepted, for people.
        hint: String,
    },
    /// A rule refuses it.
    #[error("{what}")]
    Refused {
        /// The rule that keeps the action open.
        rule: &'static str,
        /// What is in the way.
        what: String,
        /// What would close the action, for people.
        hint: String,
    },
}

impl Action {
    /// Whether it is open past its date, on this day.
    pub fn is_overdue(&self, today: Date) -> bool {
        self.closed.is_none() && self.due.is_some_and(|due| due < today)
    }

    fn for_report(&self) -> ReportAction {
        let severity = serde_json::to_value(self.severity).unwrap_or_default();
        ReportAction {
            id: self.id,
            title: self.title.clone(),
            owner: self.owner.clone(),
            due: self.due.map(|due| due.to_string()),
            severity: severity.as_str().unwrap_or_default().to_owned(),
            experiment: self.experiment.clone(),
            closed: self.closed.is_some(),
            proved_by: self.proved_by.clone(),
        }
    }
}

/// The actions that these changes make, by number.
fn fold(changes: &[ActionChangeEntry]) -> BTreeMap<u64, Action> {
    let mut actions: BTreeMap<u64, Action> = BTreeMap::new();
    for entry in changes {
        match (&entry.change, actions.get_mut(&entry.action)) {
            (
                ActionChange::Added {
                    title,
                    owner,
                    due,
                    severity,
                    experiment,
                    run,
                },
                None,
            ) => {
                let action = Action {
                    id: entry.action,
                    title: title.clone(),
                    owner: owner.clone(),
                    due: *due,
                    severity: *severity,
                    experiment: experiment.clone(),
                    run: run.clone(),
                    who: entry.who.clone(),
                    at: entry.at,
                    closed: None,
                    proved_by: None,
                    why: None,
                };
                actions.insert(entry.action, action);
            }
            (
                ActionChange::Changed {
                    title,
                    owner,
                    due,
                    severity,
                },
                Some(action),
            ) => {
                if let Some(title) = title {
                    action.title.clone_from(title);
                }
                if let Some(owner) = owner {
                    action.owner.clone_from(owner);
                }
                action.due = due.or(action.due);
                action.severity = severity.unwrap_or(action.severity);
            }
            (ActionChange::Closed { run, why }, Some(action)) => {
                action.closed = Some(entry.at);
                action.proved_by.clone_from(run);
                action.why.clone_from(why);
            }
            // The service writes no such change.
            (ActionChange::Added { .. }, Some(_)) | (_, None) => {}
        }
    }
    actions
}

/// The day that it is now, in UTC.
fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn check_text(name: &str, text: &str, most: usize) -> Result<(), ActionError> {
    let what = match text.trim().is_empty() {
        true => format!("the action has no {name}"),
        false if text.len() > most => format!("the {name} is longer than {most} bytes"),
        false => return Ok(()),
    };
    Err(ActionError::Invalid {
        what,
        hint: format!("give a {name} in one line"),
    })
}

fn check_date(due: Option<Date>) -> Result<(), ActionError> {
    match due.filter(|due| *due < today()) {
        Some(due) => Err(ActionError::Invalid {
            what: format!("the date {due} is in the past"),
            hint: format!("today is {}, in UTC", today()),
        }),
        None => Ok(()),
    }
}

impl Service {
    /// The actions that the token may see: overdue ones first, then by date, severe ones first.
    ///
    /// # Errors
    /// The store failed.
    pub fn actions(&self, who: &Actor) -> Result<Vec<Action>, StoreError> {
        let mut visible = Vec::new();
        for action in fold(&self.store.action_changes()?).into_values() {
            if self.sees(who, OwnedKind::Action, &action.id.to_string())? {
                visible.push(action);
            }
        }
        let today = today();
        visible.sort_by_key(|action| {
            let due = action.due.unwrap_or(Date::MAX);
            let severity = std::cmp::Reverse(action.severity);
            let is_closed = action.closed.is_some();
            (
                is_closed,
                !action.is_overdue(today),
                due,
                severity,
                action.id,
            )
        });
        Ok(visible)
    }

    /// The action of this number.
    ///
    /// # Errors
    /// There is none, or the store failed.
    pub fn action(&self, id: u64) -> Result<Action, ActionError> {
        let mut actions = fold(&self.store.action_changes()?);
        actions.remove(&id).ok_or(ActionError::Unknown(id))
    }

    /// How many actions there are, of all teams.
    ///
    /// # Errors
    /// The store failed.
    pub fn action_counts(&self) -> Result<ActionCounts, StoreError> {
        let (mut counts, today) = (ActionCounts::default(), today());
        for action in fold(&self.store.action_changes()?).values() {
            match (action.closed.is_some(), action.is_overdue(today)) {
                (true, _) => counts.closed += 1,
                (false, true) => counts.overdue += 1,
                (false, false) => counts.open += 1,
            }
        }
        Ok(counts)
    }

    /// Adds an action.
    ///
    /// # Errors
    /// What it names does not exist, or is wrong.
    pub fn add_action(&self, who: &Actor, new: NewAction) -> Result<Action, ActionError> {
        check_text("title", &new.title, MAX_TEXT_BYTES)?;
        check_text("owner", &new.owner, MAX_OWNER_BYTES)?;
        check_date(new.due)?;
        let mut owners = who.teams.clone();
        if let Some(experiment) = &new.experiment {
            self.require(who, OwnedKind::Experiment, experiment)?;
            owners.extend(self.store.owners(OwnedKind::Experiment, experiment)?);
        }
        if let Some(run) = &new.run {
            let kind = match run.starts_with(GAME_DAY_PREFIX) {
                true => OwnedKind::GameDay,
                false => OwnedKind::Run,
            };
            self.require(who, kind, run)?;
            owners.extend(self.store.owners(kind, run)?);
        }
        let lock = lock(&self.action_lock);
        if fold(&self.store.action_changes()?).len() >= MAX_ACTIONS {
            return Err(ActionError::Refused {
                rule: "limit",
                what: format!("there are {MAX_ACTIONS} actions already"),
                hint: "change one that is open instead".into(),
            });
        }
        let detail = json!({"title": new.title, "owner": new.owner, "experiment": new.experiment, "run": new.run});
        self.audit(who, "add-action", &new.title, "asked", detail)?;
        let change = ActionChange::Added {
            title: new.title,
            owner: new.owner,
            due: new.due,
            severity: new.severity,
            experiment: new.experiment,
            run: new.run,
        };
        let at = Timestamp::now();
        let id = (self.store).append_action_change(None, at, &who.name, &change)?;
        self.store
            .set_owners(OwnedKind::Action, &id.to_string(), &owners)?;
        drop(lock);
        self.action(id)
    }

    /// Requires that the experiment, the run or the game day that an action names exists, and that the token may see it.
    fn require(&self, who: &Actor, kind: OwnedKind, id: &str) -> Result<(), ActionError> {
        let found = match kind {
            OwnedKind::Experiment => self.store.experiment(id, None).map(|_| ()),
            OwnedKind::GameDay => self.store.game_day(id).map(|_| ()),
            _ => self.store.run(id).map(|_| ()),
        };
        let is_there = match found {
            Ok(()) => self.sees(who, kind, id)?,
            Err(error) if error.kind == StoreErrorKind::NotThere => false,
            Err(error) => return Err(error.into()),
        };
        let (what, command) = match kind {
            OwnedKind::Experiment => ("experiment", "experiments"),
            OwnedKind::GameDay => ("game day", "gameday"),
            _ => ("run", "runs"),
        };
        match is_there {
            true => Ok(()),
            false => Err(ActionError::Invalid {
                what: format!("there is no {what} `{}`", id.escape_debug()),
                hint: format!("`backburn {command}` lists those that the controller has"),
            }),
        }
    }

    /// Changes what is named of an open action.
    ///
    /// # Errors
    /// It is closed, or what was given is wrong.
    pub fn change_action(
        &self,
        who: &Actor,
        id: u64,
        change: ActionChange,
    ) -> Result<Action, ActionError> {
        if let ActionChange::Changed {
            title, owner, due, ..
        } = &change
        {
            if let Some(title) = title {
                check_text("title", title, MAX_TEXT_BYTES)?;
            }
            if let Some(owner) = owner {
                check_text("owner", owner, MAX_OWNER_BYTES)?;
            }
            check_date(*due)?;
        }
        let lock = lock(&self.action_lock);
        self.open_action(id)?;
        self.write_change(who, "change-action", id, &change)?;
        drop(lock);
        self.action(id)
    }

    /// Closes an action. One that names an experiment is closed by the latest run that proves the fix, or by the given one if that
    /// proves it.
    ///
    /// # Errors
    /// No run proves the fix, or the action is closed.
    pub fn close_action(
        &self,
        who: &Actor,
        id: u64,
        run: Option<String>,
        why: Option<String>,
    ) -> Result<Action, ActionError> {
        if let Some(why) = &why {
            check_text("reason", why, MAX_TEXT_BYTES)?;
        }
        let lock = lock(&self.action_lock);
        let action = self.open_action(id)?;
        let run = match (&action.experiment, run) {
            (Some(experiment), Some(run)) => {
                self.require(who, OwnedKind::Run, &run)?;
                let proof = self.store.run(&run)?;
                match why_no_proof(&action, experiment, &proof) {
                    None => Some(run),
                    Some(what) => return Err(no_proof(what, experiment)),
                }
            }
            (Some(experiment), None) => match self.proof(&action)? {
                Some(run) => Some(run),
                None => {
                    let what = format!(
                        "no run of experiment `{experiment}` that started after the action was added has held"
                    );
                    return Err(no_proof(what, experiment));
                }
            },
            (None, Some(run)) => {
                self.require(who, OwnedKind::Run, &run)?;
                Some(run)
            }
            (None, None) => None,
        };
        self.write_change(who, "close-action", id, &ActionChange::Closed { run, why })?;
        drop(lock);
        self.action(id)
    }

    /// The latest run that proves an action's fix, if there is one.
    ///
    /// # Errors
    /// The store failed.
    pub fn proof(&self, action: &Action) -> Result<Option<String>, StoreError> {
        let Some(experiment) = &action.experiment else {
            return Ok(None);
        };
        let filter = RunFilter {
            experiment: Some(experiment.clone()),
            outcome: Some(Outcome::Held),
            open: Some(false),
        };
        let found = self.store.runs(&filter, None, RUNS_PER_PAGE)?;
        let mut proofs = found
            .into_iter()
            .filter(|run| why_no_proof(action, experiment, run).is_none());
        Ok(proofs.next().map(|run| run.new.id))
    }

    /// The actions that came of a run, or name its experiment, as of a change.
    pub(super) fn actions_for_report(
        &self,
        run: &RunRecord,
        until: Option<u64>,
    ) -> Result<(Vec<ReportAction>, u64), StoreError> {
        let experiment = run.new.experiment.as_ref().map(|of| &of.name);
        let owners = self.store.owners(OwnedKind::Run, &run.new.id)?;
        self.actions_about(&owners, until, |action| {
            action.run.as_ref() == Some(&run.new.id)
                || (experiment.is_some() && action.experiment.as_ref() == experiment)
        })
    }

    /// The actions that came of a game day or of one of its runs, or name one of its experiments, as of a change.
    pub(super) fn actions_for_game_day(
        &self,
        held: &HeldGameDay,
        until: Option<u64>,
    ) -> Result<(Vec<ReportAction>, u64), StoreError> {
        let id = &held.record.id;
        let owners = self.store.owners(OwnedKind::GameDay, id)?;
        let came_of = |run: &String| run == id || held.progress.runs.values().any(|of| of == run);
        let steps = &held.day.steps;
        let names = |name: &String| {
            steps
                .iter()
                .any(|step| step.experiment.as_ref() == Some(name))
        };
        self.actions_about(&owners, until, |action| {
            action.run.as_ref().is_some_and(came_of)
                || action.experiment.as_ref().is_some_and(names)
        })
    }

    /// Some actions as of a change, and the number of their last change.
    fn actions_about(
        &self,
        owners: &TeamSet,
        until: Option<u64>,
        is_about: impl Fn(&Action) -> bool,
    ) -> Result<(Vec<ReportAction>, u64), StoreError> {
        let mut changes = self.store.action_changes()?;
        changes.retain(|entry| until.is_none_or(|until| entry.number <= until));
        let mut actions = fold(&changes);
        actions.retain(|_, action| is_about(action));
        for id in actions.keys().copied().collect::<Vec<_>>() {
            // Whoever sees the run or the game day must see the action, too.
            let of_action = self.store.owners(OwnedKind::Action, &id.to_string())?;
            if !owners.is_subset(&of_action) {
                actions.remove(&id);
            }
        }
        let known: Vec<ReportAction> = actions.values().map(Action::for_report).collect();
        // Changes of other actions change nothing in the report.
        let last = (changes.iter().rev()).find(|entry| actions.contains_key(&entry.action));
        Ok((known, last.map_or(0, |entry| entry.number)))
    }

    fn open_action(&self, id: u64) -> Result<Action, ActionError> {
        let action = self.action(id)?;
        match action.closed {
            None => Ok(action),
            Some(at) => Err(ActionError::Refused {
                rule: "closed",
                what: format!("action {id} was closed at {at}"),
                hint: "add another one, if there is more to do".into(),
            }),
        }
    }

    fn write_change(
        &self,
        who: &Actor,
        what: &str,
        id: u64,
        change: &ActionChange,
    ) -> Result<(), ActionError> {
        self.audit(who, what, &id.to_string(), "asked", json!(change))?;
        let at = Timestamp::now();
        (self.store).append_action_change(Some(id), at, &who.name, change)?;
        Ok(())
    }
}

/// Why a run does not prove an action's fix; none if it does.
fn why_no_proof(action: &Action, experiment: &str, run: &RunRecord) -> Option<String> {
    let id = &run.new.id;
    let of = run.new.experiment.as_ref().map(|of| of.name.as_str());
    if of != Some(experiment) {
        return Some(format!("run `{id}` is not of experiment `{experiment}`"));
    }
    if run.new.started <= action.at {
        return Some(format!("run `{id}` started before the action was added"));
    }
    match &run.end {
        None => Some(format!("run `{id}` is not over")),
        Some(end) if end.outcome != Outcome::Held => Some(format!(
            "run `{id}` did not hold: its outcome is {}",
            end.outcome
        )),
        // Notes of a verdict that held say that nothing was measured.
        Some(end) if !end.verdict["notes"].is_null() => Some(format!(
            "nothing was measured in run `{id}`, so that it proves nothing"
        )),
        Some(_) => None,
    }
}

fn no_proof(what: String, experiment: &str) -> ActionError {
    ActionError::Refused {
        rule: "proof",
        what,
        hint: format!(
            "run it again with `backburn run {experiment} --wait`, and close the action when it has held"
        ),
    }
}
