//! Game days: the document that says what a team practises and in which order, what is noted while it does so, and how a game
//! day goes on. Pure functions over plain data, as everywhere in this crate.

mod check;
mod decide;
mod duties;
mod note;
mod progress;
mod update;

pub use check::{MAX_GAME_DAY_BYTES, check_dates, load_game_day};
pub use decide::{GameDayAction, RunStanding, decide};
pub use duties::{Duties, Duty, DutyHolders};
pub use note::{
    MarkKind, NewNoteError, NoteContent, StatusUpdate, UpdateAudience, happened_times, read_note,
};
pub use progress::{GameDayEvent, GameDayProgress, GameDayStage};
pub use update::{UpdateTemplates, UpdateValues, render_update};

use crate::HumanDuration;
use crate::document::Schedule;
use crate::journal::Outcome;
use crate::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The key by which the file of a game day is told from that of an experiment.
pub const GAME_DAY_KEY: &str = "game-day";

/// The file of a game day.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct GameDayFile {
    /// The game day that the file is about.
    pub game_day: GameDay,
}

/// A game day: a team practises with experiments and prompts, and discusses each.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct GameDay {
    /// What the game day is about, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// What the team wants to learn, and why now.
    #[schemars(length(min = 1))]
    pub purpose: String,
    /// Whether experiments run (`live`), or the team only talks about them (`tabletop`). Default: `live`.
    #[serde(default)]
    pub mode: GameDayMode,
    /// Who takes part or watches, e.g. teams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// What the team wants to achieve, to be compared with what is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<GameDayObjectives>,
    /// Who does what. Each duty that is listed must be held when the game day begins.
    #[serde(default)]
    pub duties: Duties,
    /// What must be so before the game day begins. Each is checked off by a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<String>,
    /// Runbooks to try out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runbooks: Vec<RunbookLink>,
    /// When the game day should be stopped, for people to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_criteria: Vec<String>,
    /// Outcomes of a step's run that end the game day. Default: `not-clean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on: Option<Vec<Outcome>>,
    /// What is done, in order.
    #[schemars(length(min = 1))]
    pub steps: Vec<GameDayStep>,
    /// How long each step is discussed unless the step says so itself. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discuss: Option<DiscussionLength>,
    /// When participants with a blind token see what a step did. Default: `at-discussion`.
    #[serde(default)]
    pub reveal: RevealTime,
    /// Status updates that the team practises to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<UpdateTemplates>,
    /// When a controller begins the game day. `guard` and `jitter` are not for game days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// Whether the experiments of a game day run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GameDayMode {
    /// The experiments run, and inject their faults.
    #[default]
    Live,
    /// Nothing is injected; notes, decisions and times are recorded alike.
    Tabletop,
}

/// When participants with a blind token see what a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevealTime {
    /// When the discussion of the step begins.
    #[default]
    AtDiscussion,
    /// When the game day ends.
    AtEnd,
    /// When somebody reveals it.
    ByHand,
}

/// What a team wants to achieve.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct GameDayObjectives {
    /// Longest time from the fault until somebody marks it as detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect_within: Option<HumanDuration>,
    /// Longest time from the fault until somebody marks it as mitigated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigate_within: Option<HumanDuration>,
    /// Longest time from the fault until the hypothesis holds again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_within: Option<HumanDuration>,
    /// Largest part of the samples that may be out of tolerance, e.g. `"2%"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,6})?%$"))]
    pub error_budget: Option<String>,
}

/// A link to a runbook.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunbookLink {
    /// The name of the runbook.
    #[schemars(length(min = 1))]
    pub title: String,
    /// Its address, which begins with `https://` or `http://`.
    pub url: String,
}

/// A step of a game day: an experiment, prompts, or both.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct GameDayStep {
    /// What the step is about, in one line. Participants with a blind token do not see it before the step is revealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub title: Option<String>,
    /// The stored experiment that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub experiment: Option<String>,
    /// The version of the experiment. Default: the latest when the step starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub version: Option<u64>,
    /// Seed for random selection. Default: a random seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
    /// Configuration values that override those of the experiment.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
    /// How long a step without a run lasts: one without an experiment, and any step of a tabletop game day. Default: until its
    /// last prompt was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<HumanDuration>,
    /// What happens that no fault makes, e.g. a phone call or a missing person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<GameDayPrompt>,
    /// How long the step is discussed, or `by-hand`. Default: as the game day says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discuss: Option<DiscussionLength>,
    /// Whether participants with a blind token may not know the step before it is revealed. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
}

/// Something that happens in a step that no fault makes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct GameDayPrompt {
    /// Its name, unique within the game day.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What is said or done.
    #[schemars(length(min = 1))]
    pub text: String,
    /// When it is given, from the start of the step. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HumanDuration>,
    /// The duty whose holders get it. Default: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Duty>,
}

/// How long a step is discussed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DiscussionLength {
    /// Until somebody goes on by hand.
    ByHand(ByHand),
    /// For this long. Somebody may go on sooner.
    For(HumanDuration),
}

/// The word for what somebody does by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ByHand {
    /// Somebody does it by hand.
    ByHand,
}

/// The JSON Schema (draft 2020-12) of the file of a game day.
pub fn game_day_schema() -> Value {
    schema::titled::<GameDayFile>("Backburn game day", "urn:backburn:game-day:1")
}

/// The JSON Schema (draft 2020-12) of what people add to a run or to a game day.
pub fn note_schema() -> Value {
    schema::titled::<NoteContent>("Backburn note", "urn:backburn:note:1")
}

impl GameDay {
    /// The step of this number, from 1.
    pub fn step(&self, number: u32) -> Option<&GameDayStep> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.steps.get(index)
    }

    /// The number of its last step.
    pub fn last_step(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Whether a run with this outcome ends the game day.
    pub fn stops_on(&self, outcome: Outcome) -> bool {
        match &self.stop_on {
            Some(outcomes) => outcomes.contains(&outcome),
            None => outcome == Outcome::NotClean,
        }
    }

    /// How long a step is discussed.
    pub fn discussion_of(&self, step: &GameDayStep) -> Option<DiscussionLength> {
        step.discuss.or(self.discuss)
    }
}

impl GameDayStep {
    /// Whether participants with a blind token may not know it before it is revealed.
    pub fn is_hidden(&self) -> bool {
        self.hidden.unwrap_or(true)
    }
}

impl GameDayPrompt {
    /// When it is given, from the start of its step.
    pub fn delay(&self) -> HumanDuration {
        self.after.unwrap_or_default()
    }
}
