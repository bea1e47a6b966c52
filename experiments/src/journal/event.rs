//! The events of a run's journal, in the order in which they may come (see `fold`).

use crate::HumanDuration;
use crate::wire::{Effect, EndedInjection, InjectionId, PlanView, Refusal, UnrevertedInjection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// When, by the wall clock, for people (RFC 3339).
    pub at: jiff::Timestamp,
    /// When, by the monotonic clock, in seconds since the run started. Every length is computed from this one.
    pub elapsed: f64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The hypothesis, before.
    Gate,
    /// The method, and the hypothesis beside it.
    Method,
    /// Everything is put back.
    Revert,
    /// The author's own steps.
    Rollbacks,
    /// The hypothesis, after, until it holds again or the time for that is over.
    After,
}

/// What a probe's value was judged to be. A broken check is unknown, never outside and never within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// In tolerance.
    Within,
    /// Out of tolerance, or what is measured did not answer.
    Outside,
    /// The check itself is broken.
    Unknown,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run began. Always the first.
    RunStarted {
        /// Its id.
        run: String,
        /// The experiment's title.
        title: String,
        /// What every pick comes from.
        seed: u64,
        /// The version of the program.
        version: String,
        /// The names of the hypothesis' probes.
        hypothesis: Vec<String>,
        /// Whether the hypothesis is looked at before, during and after.
        #[serde(rename = "looks")]
        hypothesis_timing: HypothesisTiming,
        /// The SHA-256 of the document's text, in hexadecimal, where no name and version say which it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// How soon the hypothesis must hold again, where the experiment says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery_within: Option<HumanDuration>,
    },
    /// An agent takes part.
    AgentJoined {
        /// Its name.
        agent: String,
        /// What it put back of agents that died before.
        recovered: Vec<EndedInjection>,
        /// What it could not put back.
        owed: Vec<UnrevertedInjection>,
    },
    /// Agents were picked for a target.
    TargetPicked {
        /// The target's name, or the action's for one in place.
        target: String,
        /// Who matched.
        matched: Vec<String>,
        /// Who was picked.
        picked: Vec<String>,
    },
    /// What an action would do was looked at; nothing was touched.
    Planned {
        /// The action's name.
        activity: String,
        /// On which agent.
        agent: String,
        /// What it would do.
        plan: PlanView,
    },
    /// A phase began.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// Nothing was or will be injected.
    NotStarted {
        /// Which rule said so: `gate`, `blast-radius`, `policy`, `no-match`, …
        rule: String,
        /// Why.
        reason: String,
        /// What would do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// A hypothesis probe or an abort rule's own probe was measured and judged.
    Sampled {
        /// In which phase.
        phase: Phase,
        /// Its name.
        probe: String,
        /// Whether it is one of the hypothesis'.
        hypothesis: bool,
        /// The judgement.
        judgement: Judgement,
        /// The value, shortened where it is long.
        #[serde(default)]
        output: Value,
        /// Why it is outside or unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// How long it took.
        took: HumanDuration,
    },
    /// An activity of the method or the rollbacks began.
    ActivityStarted {
        /// Which phase it belongs to.
        phase: Phase,
        /// Its place in the phase, from 0.
        index: usize,
        /// Its name.
        activity: String,
        /// Whether the method goes on without waiting.
        background: bool,
    },
    /// An activity ended.
    ActivityFinished {
        /// Which phase it belongs to.
        phase: Phase,
        /// Its place in the phase, from 0.
        index: usize,
        /// Its name.
        activity: String,
        /// How it went.
        status: ActivityStatus,
        /// What it gave.
        #[serde(default)]
        output: Value,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The judgement, where it has a tolerance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        judgement: Option<Judgement>,
        /// How long it took.
        took: HumanDuration,
    },
    /// An agent is about to be asked to inject. From here on it may owe.
    InjectionRequested {
        /// Its name.
        injection: InjectionId,
        /// The action it belongs to.
        activity: String,
        /// The fault.
        fault: String,
        /// On which agent.
        agent: String,
    },
    /// The agent will not, and nothing is left of it unless an ended injection before this says so.
    InjectionRefused {
        /// Which.
        injection: InjectionId,
        /// Why.
        refusal: Refusal,
    },
    /// The agent did it and saw it done.
    Injected {
        /// Which.
        injection: InjectionId,
        /// What was done.
        plan: PlanView,
    },
    /// What a fault is seen to do.
    EffectSeen {
        /// Which.
        injection: InjectionId,
        /// What is seen.
        effect: Effect,
    },
    /// An injection ended.
    InjectionEnded(EndedInjection),
    /// The run ends at once; whatever acts is reverted.
    Aborted(Abort),
    /// An agent does not answer any more. What it owes is reverted without us; whether it was is not known.
    AgentLost {
        /// Which.
        agent: String,
        /// How we know.
        reason: String,
    },
    /// The hypothesis holds again.
    Recovered {
        /// From the last revert.
        after: HumanDuration,
    },
    /// The hypothesis did not hold again in time.
    NotRecovered {
        /// The time it had.
        within: HumanDuration,
    },
    /// Whoever drove the run died while it went on; the next start has found it so, and closes it. A method is never resumed.
    Interrupted {
        /// How we know.
        reason: String,
    },
    /// The run is over. Always the last; a journal without it was cut short.
    RunEnded,
}

/// When the hypothesis is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HypothesisTiming {
    pub before: bool,
    pub during: bool,
    pub after: bool,
}

/// How an activity went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivityStatus {
    /// It did what it was to do.
    Succeeded,
    /// It could not.
    Failed,
    /// The run ended before it did.
    Aborted,
}

/// Why a run was ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Abort {
    /// What kind of rule.
    pub by: AbortBy,
    /// The rule's name.
    pub rule: String,
    /// What was seen.
    pub reason: String,
}

/// What kind of rule ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbortBy {
    /// The hypothesis failed too often in a row.
    Hypothesis,
    /// Another probe did.
    Probe,
    /// A figure of a host passed its limit.
    Host,
    /// The time that the blast radius allows was over.
    BlastRadius,
    /// A person or a signal.
    Operator,
    /// A revert failed.
    Revert,
    /// An agent was lost.
    Agent,
    /// An action failed to inject after others had.
    Action,
    /// The journal could not be written.
    Journal,
}
