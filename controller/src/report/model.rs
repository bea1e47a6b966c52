//! What a report says, as data.

use super::ReportEvidence;
use crate::store::{ExperimentRef, RunNoteEntry};
use backburn_experiments::journal::{Outcome, Verdict};
use jiff::Timestamp;
use serde::Serialize;

/// What a report needs besides the journal.
#[derive(Debug, Clone, Default)]
pub struct ReportContext {
    /// The stored experiment; none for a local run, or a document that was not stored.
    pub experiment: Option<ExperimentRef>,
    /// The name of the token that asked for the run, or whose schedule started it; none for a local run.
    pub who: Option<String>,
    /// The run's notes, oldest first.
    pub notes: Vec<RunNoteEntry>,
    /// The actions that came of the run or name its experiment, as of the change `actions_change`.
    pub actions: Vec<ReportAction>,
    /// The number of the last change of an action that is included.
    pub actions_change: u64,
    /// Earlier runs of the same experiment, latest first.
    pub earlier: Vec<EarlierRun>,
    /// How many runs are reported together and share the room for plots; 0 counts as one.
    pub parts: usize,
}

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunReport {
    /// What the report is made from.
    pub evidence: ReportEvidence,
    /// The title of the experiment that was run.
    pub title: String,
    /// What was asked, in one sentence.
    pub question: String,
    /// The answer, in one sentence.
    pub answer: String,
    /// When the run started.
    pub started: Option<Timestamp>,
    /// When its last event was written.
    pub ended: Option<Timestamp>,
    /// The length of the run in seconds, by the monotonic clock.
    pub seconds: f64,
    /// The verdict, with what it is worth.
    pub verdict: Verdict,
    /// What was wanted, beside what was measured.
    pub objectives: Vec<Objective>,
    /// Which agents were to be hit.
    pub targets: Vec<TargetReach>,
    /// What was hit, and the proof that it was reverted.
    pub hits: Vec<FaultHit>,
    /// What happened, of the machine and of people, by time.
    pub timeline: Vec<TimelineItem>,
    /// How many changes of probes the timeline leaves out.
    pub timeline_left_out: usize,
    /// What each probe measured.
    pub plots: Vec<ProbePlot>,
    /// What held during the run, one sentence each.
    pub held: Vec<String>,
    /// What surprised during the run, one sentence each.
    pub surprises: Vec<String>,
    /// What will be done.
    pub actions: Vec<ReportAction>,
    /// Earlier runs of the same experiment, latest first.
    pub earlier: Vec<EarlierRun>,
    /// How to run it again.
    pub rerun: Rerun,
    /// What was not tested.
    pub untested: Vec<String>,
}

/// Something that was wanted, beside what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Objective {
    /// What is measured, e.g. `time to detect`.
    pub name: String,
    /// What was wanted; none if the experiment does not say.
    pub wanted: Option<String>,
    /// What was measured, in words.
    pub measured: String,
    /// What was measured, in seconds; none if it is no length of time, or was not measured.
    pub seconds: Option<f64>,
    /// Whether it was met; none if nothing was wanted or measured.
    pub met: Option<bool>,
}

/// Which agents a target matched, and which of them were picked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetReach {
    /// The name of the target in the document.
    pub target: String,
    /// The names of the agents that matched.
    pub matched: Vec<String>,
    /// The names of those that were picked.
    pub picked: Vec<String>,
}

/// A fault on an agent: what it was to hit, what it hit, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultHit {
    /// The id of the injection.
    pub injection: String,
    /// The name of the action in the document.
    pub activity: String,
    /// The name of the fault, e.g. `process-kill`.
    pub fault: String,
    /// The name of the agent that injected it.
    pub agent: String,
    /// What the plan before the run named, if there was one.
    pub planned: Vec<String>,
    /// The victims that were hit, in words.
    pub victims: Vec<String>,
    /// When it had been injected, in seconds since the run started.
    pub from: Option<f64>,
    /// When its end was reported, in seconds since the run started.
    pub until: Option<f64>,
    /// Whether it was seen to act.
    pub acted: bool,
    /// What was seen of it last.
    pub seen: Option<String>,
    /// Why the fault ended, in words.
    pub cause: Option<String>,
    /// Whether everything of it was seen to be gone; none if there was nothing to revert.
    pub clean: Option<bool>,
    /// How long the revert took until it was seen to be gone, in seconds.
    pub revert_seconds: Option<f64>,
    /// What was not seen to be gone, or why nothing was injected.
    pub residue: Vec<String>,
}

/// Who a line of the timeline is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineSource {
    /// The journal of the run.
    Machine,
    /// A note of a person, or of the controller after the run.
    Note,
}

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimelineItem {
    /// When it happened. A time that was corrected counts.
    pub at: Timestamp,
    /// The same in seconds since the run started.
    pub seconds: f64,
    /// Who says so: the machine, or a person.
    pub source: TimelineSource,
    /// The name of the token that wrote a note, or its duty; none for the machine.
    pub who: Option<String>,
    /// `success`, `warning`, `failure`, `dim` or `plain`.
    pub tone: &'static str,
    /// What happened, in one sentence.
    pub text: String,
    /// When a note was written, where its time was corrected.
    pub written: Option<Timestamp>,
}

/// What a probe measured, with at most a few hundred columns: each is the lowest and highest value of its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProbePlot {
    /// The name of the probe in the document.
    pub probe: String,
    /// Whether it belongs to the hypothesis.
    pub hypothesis: bool,
    /// `value` if what was measured is a number, otherwise `milliseconds`: how long the check took.
    pub figure: &'static str,
    /// The lowest value in tolerance, where the tolerance has one.
    pub low: Option<f64>,
    /// The highest value in tolerance, where the tolerance has one.
    pub high: Option<f64>,
    /// The number of checks.
    pub samples: usize,
    /// How many of them were out of tolerance.
    pub outside: usize,
    /// How many of them could not be judged.
    pub unknown: usize,
    /// The lowest, the median and the highest value; none if there is no value.
    pub range: Option<(f64, f64, f64)>,
    /// The columns, by time.
    pub columns: Vec<PlotColumn>,
}

/// Some samples of a probe next to each other: seconds since the run started, lowest value, highest value, how many were out
/// of tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PlotColumn(pub f64, pub Option<f64>, pub Option<f64>, pub u32);

/// An action that a report names.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReportAction {
    /// The number of the action.
    pub id: u64,
    /// What will be done.
    pub title: String,
    /// The person who does it.
    pub owner: String,
    /// By when, as `2026-12-31`.
    pub due: Option<String>,
    /// How severe the finding is.
    pub severity: String,
    /// The stored experiment that proves the fix.
    pub experiment: Option<String>,
    /// Whether it is closed.
    pub closed: bool,
    /// The run that proved the fix.
    pub proved_by: Option<String>,
}

/// An earlier run of the same experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EarlierRun {
    /// The id of the earlier run.
    pub run: String,
    /// When the earlier run started.
    pub started: Timestamp,
    /// The version of the stored experiment.
    pub version: Option<u64>,
    /// The outcome of the earlier run.
    pub outcome: Outcome,
    /// How long some probe was out of tolerance, in seconds.
    pub outage_seconds: f64,
    /// How long after the last revert the hypothesis held again, in seconds.
    pub recovered_seconds: Option<f64>,
    /// How many checks counted.
    pub samples: usize,
    /// How many of them failed.
    pub failures: usize,
}

/// How to run it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rerun {
    /// The name of the stored experiment.
    pub experiment: Option<String>,
    /// The version of the stored experiment.
    pub version: Option<u64>,
    /// The SHA-256 of the document, where it is not stored.
    pub sha256: Option<String>,
    /// The seed of the random selection.
    pub seed: u64,
    /// The version of the program that ran it.
    pub program: String,
    /// The command that runs it again.
    pub command: String,
}

impl EarlierRun {
    /// What this verdict says of a run.
    pub fn new(run: String, started: Timestamp, version: Option<u64>, verdict: &Verdict) -> Self {
        EarlierRun {
            run,
            started,
            version,
            outcome: verdict.outcome,
            outage_seconds: outage_seconds(verdict),
            recovered_seconds: (verdict.recovered_after).map(|after| after.0.as_secs_f64()),
            samples: verdict.probes.iter().map(|probe| probe.samples).sum(),
            failures: verdict.probes.iter().map(|probe| probe.failures).sum(),
        }
    }
}

/// How long some probe was out of tolerance, in seconds: times at which several were count once.
pub(super) fn outage_seconds(verdict: &Verdict) -> f64 {
    let outages = verdict.outages.iter();
    let mut spans: Vec<(f64, f64)> = outages.map(|(_, span)| (span.from, span.until)).collect();
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut seconds = 0.0;
    let mut reached = 0.0_f64;
    for (from, until) in spans {
        seconds += (until - from.max(reached)).max(0.0);
        reached = reached.max(until);
    }
    seconds
}
