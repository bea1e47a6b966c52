//! A run's journal in brief.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A run's journal in brief: everything but samples as it is, and of each probe the samples that stand for all of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = CondensedRun)]
#[serde(rename_all = "kebab-case")]
pub struct CondensedRunInfo {
    /// The number of the last event that is covered; 0 if there is none. The stream after it has what follows.
    pub after: u64,
    /// When that event happened, in seconds since the run started.
    pub elapsed: f64,
    /// All events that are no samples, and the samples whose judgement differs from the one before, oldest first, in the same form as in the
    /// journal.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub events: Vec<Box<RawValue>>,
    /// How many samples whose judgement differs from the one before are not among the events: only the latest 1000 are.
    pub changes_left_out: u64,
    /// The probes, in the order of their first samples.
    pub probes: Vec<CondensedProbeInfo>,
}

/// The samples of a probe in brief.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = CondensedProbe)]
#[serde(rename_all = "kebab-case")]
pub struct CondensedProbeInfo {
    /// The name of the probe.
    pub probe: String,
    /// Whether it is one of the hypothesis'.
    pub hypothesis: bool,
    /// How many samples were within the tolerance.
    pub within: u64,
    /// How many samples were outside the tolerance.
    pub outside: u64,
    /// How many samples could not be judged.
    pub unknown: u64,
    /// How many of the last samples were outside, one after the other. Those that could not be judged do not count.
    pub failures_in_a_row: u64,
    /// Whether no sample that was judged had anything but a number.
    pub numeric: bool,
    /// The samples that stand for all of them.
    pub points: SamplePoints,
    /// The last 20 samples, oldest first, in the same form as in the journal.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub latest: Vec<Box<RawValue>>,
}

/// Samples by columns, oldest first: of each piece of time the first, the last, those with the extremes of what is drawn (the value, or how
/// long answers took), the first that is outside and the first that could not be judged. Up to 1000 samples of a probe are all there.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SamplePoints {
    /// When each was answered, in seconds since the run started.
    pub at: Vec<f64>,
    /// The number that each measured; null for those that measured something else.
    pub value: Vec<Option<f64>>,
    /// How long each took, in milliseconds.
    pub took_ms: Vec<f64>,
    /// The places, from 0, of those that are outside.
    pub outside: Vec<usize>,
    /// The places, from 0, of those that could not be judged.
    pub unknown: Vec<usize>,
}
