//! How far a game day is: a fold over its stream, so that it can be computed again after a restart.

use super::duties::Duty;
use super::{GameDay, GameDayMode, RevealTime};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A change of the state of a game day, as an entry of kind `state` records it. Steps are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum GameDayEvent {
    /// A step is about to start.
    Starting {
        /// The number of the step.
        step: u32,
    },
    /// A step goes on.
    Running {
        /// The number of the step.
        step: u32,
        /// The run; none if the step has no experiment, or if the game day is a tabletop one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
        /// The name of the stored experiment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        experiment: Option<String>,
        /// The version of the experiment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// A step is over and is discussed.
    Discussion {
        /// The number of the step.
        step: u32,
        /// Why it is over, if that is not its regular end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Nothing goes on by itself until somebody resumes.
    Paused {
        /// The reason, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The pause is over.
    Resumed,
    /// The game day is over.
    Ended {
        /// Why it ended early, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

/// The stage of a game day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GameDayStage {
    /// It has not begun.
    #[default]
    Prepared,
    /// A step goes on.
    Running,
    /// A step is discussed.
    Discussion,
    /// It is over, regularly or early.
    Ended,
}

/// How far a game day is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GameDayProgress {
    /// The stage that it is in.
    pub stage: GameDayStage,
    /// The number of the last step that started; 0 before the first.
    pub step: u32,
    /// When the stage began, moved by the pauses since.
    pub since: Option<Timestamp>,
    /// When its first step was started.
    pub begun: Option<Timestamp>,
    /// When it ended, regularly or early.
    pub ended: Option<Timestamp>,
    /// Why it ended early, if it did.
    pub why: Option<String>,
    /// When the pause began that is in force.
    pub paused: Option<Timestamp>,
    /// The runs of its steps.
    pub runs: BTreeMap<u32, String>,
    /// Whether the current step is about to start, and it is not recorded that it did.
    pub is_starting: bool,
    /// The names of the prompts that were given.
    pub prompts: BTreeSet<String>,
    /// The prerequisites that are met, by number.
    pub met: BTreeSet<u32>,
    /// Who holds each duty.
    pub duties: BTreeMap<Duty, BTreeSet<String>>,
    /// When the next status update is due.
    pub next_update: Option<Timestamp>,
    /// The due time of which a reminder is recorded.
    pub reminded: Option<Timestamp>,
    /// The steps that somebody revealed.
    pub revealed: BTreeSet<u32>,
    /// Whether somebody revealed all.
    pub is_all_revealed: bool,
    /// How often status updates are due.
    update_interval: Option<SignedDuration>,
}

impl GameDayProgress {
    /// The progress of a game day that has not begun, with these holders of duties.
    pub fn prepared(day: &GameDay) -> Self {
        let duties = day.duties.listed();
        let duties = duties.map(|(duty, names)| (duty, names.iter().cloned().collect()));
        let interval = day.updates.as_ref().and_then(|updates| updates.every);
        GameDayProgress {
            duties: duties.collect(),
            update_interval: interval.and_then(|every| SignedDuration::try_from(every.0).ok()),
            ..GameDayProgress::default()
        }
    }

    /// Takes in an entry of the stream. Entries that say nothing about the progress change nothing.
    pub fn apply(&mut self, at: Timestamp, kind: &str, body: &Value) {
        let number = |key: &str| {
            let number = body.get(key).and_then(Value::as_u64)?;
            u32::try_from(number).ok()
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let time = |key: &str| text(key)?.parse::<Timestamp>().ok();
        match kind {
            "state" => {
                if let Ok(event) = serde_json::from_value(body.clone()) {
                    self.change(at, event);
                }
            }
            "prompt" => self.prompts.extend(text("name").map(str::to_owned)),
            "prerequisite" => {
                if let Some(number) = number("number") {
                    match body.get("met") == Some(&Value::Bool(true)) {
                        true => self.met.insert(number),
                        false => self.met.remove(&number),
                    };
                }
            }
            "duty" => {
                if let (Some(duty), Some(to)) = (text("duty").and_then(Duty::from_word), text("to"))
                {
                    let holders = self.duties.entry(duty).or_default();
                    match text("from") {
                        Some(from) => drop(holders.remove(from)),
                        None if duty != Duty::Observers => holders.clear(),
                        None => {}
                    }
                    holders.insert(to.to_owned());
                }
            }
            "update" => {
                let usual = self
                    .update_interval
                    .and_then(|every| at.checked_add(every).ok());
                self.next_update = time("next").or(usual);
            }
            "reminder" => self.reminded = time("due"),
            "reveal" => match number("step") {
                Some(step) => drop(self.revealed.insert(step)),
                None => self.is_all_revealed = true,
            },
            _ => {}
        }
    }

    fn change(&mut self, at: Timestamp, event: GameDayEvent) {
        match event {
            GameDayEvent::Starting { step } => {
                if self.begun.is_none() {
                    self.begun = Some(at);
                    let first = self
                        .update_interval
                        .and_then(|every| at.checked_add(every).ok());
                    self.next_update = self.next_update.or(first);
                }
                self.enter(GameDayStage::Running, step, at);
                self.is_starting = true;
            }
            GameDayEvent::Running { step, run, .. } => {
                self.enter(GameDayStage::Running, step, at);
                if let Some(run) = run {
                    self.runs.insert(step, run);
                }
            }
            GameDayEvent::Discussion { step, .. } => self.enter(GameDayStage::Discussion, step, at),
            GameDayEvent::Paused { .. } => self.paused = self.paused.or(Some(at)),
            GameDayEvent::Resumed => {
                if let (Some(paused), Some(since)) = (self.paused.take(), self.since) {
                    // The time of the pause does not count, unless the stage began during the pause: then only its part does.
                    let from = paused.max(since);
                    self.since = since
                        .checked_add(at.duration_since(from))
                        .ok()
                        .or(Some(since));
                }
            }
            GameDayEvent::Ended { why } => {
                self.stage = GameDayStage::Ended;
                self.ended = Some(at);
                self.paused = None;
                self.is_starting = false;
                self.why = why;
            }
        }
    }

    fn enter(&mut self, stage: GameDayStage, step: u32, at: Timestamp) {
        self.stage = stage;
        self.step = step;
        self.since = Some(at);
        self.is_starting = false;
    }

    /// Whether it has begun and is not over.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, GameDayStage::Running | GameDayStage::Discussion)
    }

    /// Whether participants with a blind token may know this step.
    pub fn is_revealed(&self, day: &GameDay, step: u32) -> bool {
        let is_hidden = day.step(step).is_none_or(|step| step.is_hidden());
        if !is_hidden || self.is_all_revealed || self.revealed.contains(&step) {
            return true;
        }
        match day.reveal {
            RevealTime::ByHand => false,
            RevealTime::AtEnd => self.stage == GameDayStage::Ended,
            RevealTime::AtDiscussion => match self.stage {
                GameDayStage::Prepared => false,
                GameDayStage::Running => step < self.step,
                GameDayStage::Discussion => step <= self.step,
                GameDayStage::Ended => true,
            },
        }
    }

    /// The numbers of prerequisites that are not met.
    pub fn unmet(&self, day: &GameDay) -> Vec<u32> {
        let all = 1..=u32::try_from(day.prerequisites.len()).unwrap_or(u32::MAX);
        all.filter(|number| !self.met.contains(number)).collect()
    }

    /// The listed duties that nobody holds.
    pub fn unheld(&self) -> Vec<Duty> {
        let unheld = self.duties.iter().filter(|(_, names)| names.is_empty());
        unheld.map(|(duty, _)| *duty).collect()
    }

    /// Whether the step of this number has a run when the game day is held in this mode.
    pub fn runs_experiment(day: &GameDay, mode: GameDayMode, step: u32) -> bool {
        let experiment = day.step(step).and_then(|step| step.experiment.as_ref());
        mode == GameDayMode::Live && experiment.is_some()
    }
}
