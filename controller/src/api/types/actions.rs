//! Actions: what will be done about what runs have found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An action, as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Action)]
#[serde(rename_all = "kebab-case")]
pub struct ActionInfo {
    /// The number that the controller gave it.
    pub id: u64,
    /// What will be done.
    pub title: String,
    /// The person who does it.
    pub owner: String,
    /// By when, as `2026-12-31`; the day counts in UTC. Null if there is no date.
    pub due: Option<String>,
    /// How severe the finding is: `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// The stored experiment that proves the fix; null if none does.
    pub experiment: Option<String>,
    /// The run or the game day that it came of.
    pub run: Option<String>,
    /// The state: `open`, `overdue` or `closed`.
    pub state: String,
    /// The name of the token that added it.
    pub who: String,
    /// When it was added.
    pub at: String,
    /// When it was closed.
    pub closed: Option<String>,
    /// The run that closed it: its experiment held in it.
    pub proved_by: Option<String>,
    /// Why it was closed, in words.
    pub why: Option<String>,
    /// For an open action: a run that would close it.
    #[serde(default)]
    pub proof: Option<String>,
    /// For an overdue action without such a run: the experiment that should be run now.
    #[serde(default)]
    pub proposed: Option<String>,
}

/// An action that is to be added.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewActionRequest {
    /// What will be done.
    #[schema(min_length = 1, max_length = 2000)]
    pub title: String,
    /// The person who does it.
    #[schema(min_length = 1, max_length = 200)]
    pub owner: String,
    /// By when, as `2026-12-31`. It cannot be in the past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    pub due: Option<String>,
    /// How severe the finding is: `low`, `medium` (the default), `high` or `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(low|medium|high|critical)$")]
    pub severity: Option<String>,
    /// The stored experiment that proves the fix. The action closes only by a held run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// The run or the game day that it came of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// What of an open action is to be changed. What is left out stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeActionRequest {
    /// What will be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 2000)]
    pub title: Option<String>,
    /// The person who does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub owner: Option<String>,
    /// By when, as `2026-12-31`. It cannot be in the past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    pub due: Option<String>,
    /// How severe the finding is: `low`, `medium`, `high` or `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(low|medium|high|critical)$")]
    pub severity: Option<String>,
}

/// How an action is to be closed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseActionRequest {
    /// The run that proves the fix. The default is the latest one that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 2000)]
    pub why: Option<String>,
}
