//! Stored experiments, their plans and schedules, and requests to run them.

use super::runs::ApprovalInfo;
use super::safe_integer::{optional_safe_integer, safe_integer};
use crate::store::ExperimentVersionRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The longest time that a request to start a run waits for its lock before it is answered, in seconds.
const MAX_LOCK_WAIT_SECONDS: u8 = 20;

/// An experiment that the controller stores.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Experiment)]
pub struct ExperimentInfo {
    /// The experiment's name, unique on the controller.
    pub name: String,
    /// The version of the document, counted from 1.
    pub version: u64,
    /// The experiment document. In the places of secrets that it writes out stands `{"type": "stored"}`.
    pub document: Value,
    /// The name of the token that stored this version.
    pub who: String,
    /// When this version was stored.
    pub at: String,
}

/// A version of a stored experiment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Version)]
pub struct VersionInfo {
    /// The number of the version, counted from 1.
    pub version: u64,
    /// The name of the token that made this version.
    pub who: String,
    /// When this version was made.
    pub at: String,
    /// Whether this version removed the experiment.
    pub removed: bool,
}

impl From<ExperimentVersionRecord> for VersionInfo {
    fn from(stored: ExperimentVersionRecord) -> Self {
        VersionInfo {
            version: stored.version,
            who: stored.who,
            at: stored.at.to_string(),
            removed: stored.removed,
        }
    }
}

/// The result of storing an experiment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ApplyResult {
    /// The experiment's name.
    pub name: String,
    /// The version that is current now.
    pub version: u64,
    /// Whether the document differs from the version before, so that a new version was made.
    pub changed: bool,
    /// The document of the version before; null if there was none or nothing changed.
    pub before: Option<Value>,
    /// The JSON paths of Chaos Toolkit controls that were removed from the document.
    #[serde(rename = "left-out")]
    pub left_out: Vec<String>,
}

/// How to run a stored experiment.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = RunRequest)]
#[serde(deny_unknown_fields)]
pub struct StartRunRequest {
    /// The version of the experiment. The default is the latest.
    #[serde(
        default,
        deserialize_with = "optional_safe_integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(maximum = 9007199254740991_i64)]
    pub version: Option<u64>,
    /// Seed for random selection, up to 2^53. The default is a random seed.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[schema(maximum = 9007199254740991_i64)]
    pub seed: Option<u64>,
    /// Configuration values that override those of the document.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// The name of a lock: of the runs that are started with it, one is open at a time. While another one is, the answer is 423. The default is
    /// no lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._/-]{1,64}$")]
    pub lock: Option<String>,
    /// How long the request waits for the lock before it is answered, in seconds, up to 20. The default is 0.
    #[serde(
        default,
        rename = "lock-wait",
        deserialize_with = "lock_wait_seconds",
        skip_serializing_if = "is_zero"
    )]
    #[schema(maximum = 20)]
    pub lock_wait: u8,
}

/// An experiment that the controller does not store, and how to run it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineRunRequest {
    /// The text of the experiment document, as in its file. It may not read the controller's environment or files.
    pub experiment: String,
    /// Seed for random selection, up to 2^53. The default is a random seed.
    #[serde(default, deserialize_with = "optional_safe_integer")]
    #[schema(maximum = 9007199254740991_i64)]
    pub seed: Option<u64>,
    /// Configuration values that override those of the document.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Whether to remove the document's Chaos Toolkit controls, which are not supported. A document with controls is refused otherwise.
    #[serde(
        default,
        rename = "ignore-controls",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub ignore_controls: bool,
    /// The name of a lock: of the runs that are started with it, one is open at a time. While another one is, the answer is 423. The default is
    /// no lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._/-]{1,64}$")]
    pub lock: Option<String>,
    /// How long the request waits for the lock before it is answered, in seconds, up to 20. The default is 0.
    #[serde(
        default,
        rename = "lock-wait",
        deserialize_with = "lock_wait_seconds",
        skip_serializing_if = "is_zero"
    )]
    #[schema(maximum = 20)]
    pub lock_wait: u8,
}

/// A run that has started, or waits for an approval.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StartRunResult {
    /// The id of the run; null if it waits for an approval.
    pub run: Option<String>,
    /// The approval that the run waits for; null if it has started.
    pub approval: Option<ApprovalInfo>,
}

/// The upcoming scheduled runs of a stored experiment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Schedule)]
#[serde(rename_all = "kebab-case")]
pub struct UpcomingRuns {
    /// The experiment's name.
    pub experiment: String,
    /// The version of the experiment.
    pub version: u64,
    /// The schedule, as in the experiment document.
    pub schedule: Value,
    /// The time zone of the schedule.
    pub time_zone: String,
    /// The start times of the next runs, with their jitter; empty while the schedule is paused.
    pub times: Vec<String>,
    /// The name of the token whose rights the runs have: the last that applied the experiment.
    #[serde(default)]
    pub who: String,
    /// Who paused the schedule, and when; null if it is not paused.
    #[serde(default)]
    pub paused: Option<PauseInfo>,
    /// Why the schedule starts nothing any more, e.g. that the token was revoked; null if it does.
    #[serde(default)]
    pub stopped: Option<String>,
}

/// A pause of a schedule.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Pause)]
pub struct PauseInfo {
    /// The name of the token that paused it.
    pub who: String,
    /// When it was paused.
    pub at: String,
    /// The reason, if one was given.
    pub why: Option<String>,
}

/// A request to pause a schedule.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The reason, for people.
    #[serde(default)]
    pub why: Option<String>,
}

/// The result of resuming a schedule.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ResumeScheduleResult {
    /// Whether the schedule was paused.
    pub was_paused: bool,
}

/// Reads how long a request waits for a lock. Longer waits are several requests.
fn lock_wait_seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let seconds = safe_integer(from)?;
    (u8::try_from(seconds).ok())
        .filter(|seconds| *seconds <= MAX_LOCK_WAIT_SECONDS)
        .ok_or_else(|| {
            serde::de::Error::custom(format!(
                "a request waits for a lock for at most {MAX_LOCK_WAIT_SECONDS} seconds, not {seconds}"
            ))
        })
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lock_wait_is_a_whole_number_up_to_its_limit() {
        let read = |value: Value| {
            let request = serde_json::from_value(json!({"lock-wait": value}));
            request.map(|request: StartRunRequest| request.lock_wait)
        };
        assert_eq!(read(json!(4)).unwrap(), 4);
        assert_eq!(read(json!(4.0)).unwrap(), 4);
        assert_eq!(read(json!(20)).unwrap(), 20);
        for wrong in [json!(21), json!(300), json!(-1), json!(4.5), json!("4")] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
