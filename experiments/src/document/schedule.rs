//! When an experiment runs by itself.

use super::Activity;
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When an experiment runs by itself. Exactly one of `cron`, `at` and `random`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The zone of every time here, e.g. `Europe/Amsterdam`. `UTC` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Once, at this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// At random, the Chaos Monkey's way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomSchedule>,
    /// Only in these days and hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Never on these dates: `2026-12-24` or `2026-12-24/2027-01-01`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
    /// Up to this much later, at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// What to do when the last run still goes on. `skip` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// What to do about times missed while no controller ran. `skip` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// A probe that must pass before a run; what cannot be measured does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Activity>>,
}

/// Runs at random.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct RandomSchedule {
    /// The mean time from one run to the next.
    pub mean_time_between: HumanDuration,
    /// Only in these days and hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// Days and hours.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Window {
    /// Days, e.g. `["MON", "TUE"]` or `["MON-FRI"]`. Every day where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Hours, e.g. `"09:00-17:00"`. All day where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
}

/// What to do when the last run still goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Leave this time out.
    Skip,
    /// Wait for it.
    Queue,
}

/// What to do about times missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// Leave them out.
    Skip,
    /// Run once for all of them.
    Once,
}
