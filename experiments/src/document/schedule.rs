//! When a controller runs an experiment automatically.

use super::Activity;
use crate::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a controller runs an experiment automatically. Exactly one of `cron`, `at` and `random`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct Schedule {
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Time zone of all times in the schedule, e.g. `Europe/Amsterdam`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Run once, at this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Run at random times, as Chaos Monkey does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomSchedule>,
    /// Run only on these days and at these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Dates without runs: `2026-12-24` or `2026-12-24/2027-01-01`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
    /// Longest random delay that is added to each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// What to do if the previous run is still going. Default: `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// What to do about times that passed while no controller was running. Default: `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// Probe that must pass before a run starts. A probe that cannot be measured does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Activity>>,
}

/// Random times for runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct RandomSchedule {
    /// Mean time between two runs.
    pub mean_time_between: HumanDuration,
    /// Run only on these days and at these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// Days and hours in which runs may start.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Window {
    /// Days, e.g. `["MON", "TUE"]` or `["MON-FRI"]`. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Hours, e.g. `"09:00-17:00"`. Default: all day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
}

/// What to do if the previous run is still going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Skip this time.
    Skip,
    /// Wait for the previous run to end.
    Queue,
}

/// What to do about times that passed while no controller was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// Skip them.
    Skip,
    /// Run once for all of them.
    Once,
}
