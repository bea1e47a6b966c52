//! Game days: their stored documents, and those that are or were held.

use super::safe_integer::optional_safe_integer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A game day that the controller stores.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = GameDayDocument)]
pub struct GameDayDocumentInfo {
    /// The name of the stored game day, unique on the controller.
    pub name: String,
    /// The version of the document, counted from 1.
    pub version: u64,
    /// The JSON document of the game day.
    pub document: Value,
    /// The name of the token that stored this version.
    pub who: String,
    /// When this version was stored.
    pub at: String,
    /// When the game day begins next by its schedule; null if it has none.
    pub next: Option<String>,
}

/// A request to prepare a game day: of a stored document, or of one that comes with the request.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareGameDayRequest {
    /// The name of a stored game day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version of the stored game day. The default is the latest.
    #[serde(
        default,
        deserialize_with = "optional_safe_integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(maximum = 9007199254740991_i64)]
    pub version: Option<u64>,
    /// The document of a game day that is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
    /// Whether its experiments run: `live` or `tabletop`. The default is what the document says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(live|tabletop)$")]
    pub mode: Option<String>,
    /// Holders of duties, in place of those in the document: `{"scribe": ["ada"]}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub duties: BTreeMap<String, Vec<String>>,
    /// Whether all prerequisites are met, so that they need not be checked off.
    #[serde(
        default,
        rename = "prerequisites-met",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub prerequisites_met: bool,
    /// Whether to begin at once. If that is refused, the game day is not prepared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begin: bool,
}

/// A game day that is or was held.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = GameDay)]
#[serde(rename_all = "kebab-case")]
pub struct GameDayInfo {
    /// The id of the game day. It begins with `gd-`.
    pub id: String,
    /// The name of the stored game day; null if its document was not stored.
    pub name: Option<String>,
    /// The version of the stored game day.
    pub version: Option<u64>,
    /// The title of the game day, in one line.
    pub title: String,
    /// What the team wants to learn.
    pub purpose: String,
    /// Whether its experiments run: `live` or `tabletop`.
    pub mode: String,
    /// `prepared`, `running`, `discussion` or `ended`.
    pub state: String,
    /// When it was paused; null if it is not.
    pub paused: Option<String>,
    /// The number of the last step that started; 0 before the first.
    pub step: u32,
    /// When the current step or discussion began, moved by the pauses since.
    pub since: Option<String>,
    /// When the discussion ends by itself; null if it does not.
    pub discussion_ends: Option<String>,
    /// The steps, in order.
    pub steps: Vec<GameDayStepInfo>,
    /// The prerequisites, in order.
    pub prerequisites: Vec<PrerequisiteInfo>,
    /// Who holds each duty.
    pub duties: BTreeMap<String, Vec<String>>,
    /// When the next status update is due; null if none is.
    pub update_due: Option<String>,
    /// The name of the token that prepared it.
    pub who: String,
    /// When it was prepared.
    pub prepared: String,
    /// When its first step was started.
    pub begun: Option<String>,
    /// When it ended, regularly or early.
    pub ended: Option<String>,
    /// Why it ended early; null if it did not.
    pub why: Option<String>,
    /// The document as it is held, with objectives, runbooks and stop criteria; null for participants with a blind token until every
    /// step is revealed.
    pub document: Option<Value>,
}

/// A step of a game day.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = GameDayStep)]
#[serde(rename_all = "kebab-case")]
pub struct GameDayStepInfo {
    /// The number of the step, from 1.
    pub number: u32,
    /// What the step is about; null if no title is given, or if the step is not revealed to the reader.
    pub title: Option<String>,
    /// The stored experiment; null if the step has none, or is not revealed to the reader.
    pub experiment: Option<String>,
    /// The run; null if none has started.
    pub run: Option<String>,
    /// Whether participants with a blind token may know the step.
    pub revealed: bool,
    /// The prompts of the step; those that were given, for readers to whom the step is not revealed.
    pub prompts: Vec<PromptInfo>,
}

/// A prompt of a step.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = GameDayPrompt)]
pub struct PromptInfo {
    /// The name of the prompt.
    pub name: String,
    /// What is said or done.
    pub text: String,
    /// When it is given, from the start of the step.
    pub after: String,
    /// The duty whose holders get it; null for everybody.
    pub to: Option<String>,
    /// Whether it was given.
    pub given: bool,
}

/// A prerequisite of a game day.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Prerequisite)]
pub struct PrerequisiteInfo {
    /// The number of the prerequisite, from 1.
    pub number: u32,
    /// What must be so.
    pub text: String,
    /// Whether it is met.
    pub met: bool,
}

/// A request to pause or to stop a game day.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GameDayReason {
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A request to reveal what a game day does to participants with a blind token.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevealRequest {
    /// The number of the step. The default is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
}
