//! The events of a run's journal, in the order in which they may come (see `fold`).

use crate::HumanDuration;
use crate::redact::Redactor;
use crate::wire::{Effect, EndedInjection, InjectionId, PlanView, Refusal, UnrevertedInjection};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The longest text within an output that a journal keeps, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// The most members of a list or an object within an output that a journal keeps.
const MAX_MEMBERS: usize = 256;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// When, by the wall clock, for people (RFC 3339).
    pub at: jiff::Timestamp,
    /// When, by the monotonic clock, in seconds since the run started. Every length is computed from this one.
    pub elapsed: f64,
    /// The event itself, in the same object.
    #[serde(flatten)]
    pub event: Event,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The hypothesis is checked before anything is injected.
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
    /// The value is in tolerance.
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
        /// The id of the run.
        run: String,
        /// The title of the experiment.
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
        /// The name of the token that approved the run, where a rule of the controller's policy requires an approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approved_by: Option<String>,
        /// The hypothesis' title: what is asked. None in journals of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<String>,
        /// The tolerances of the hypothesis' probes as the document writes them, by the names of the probes. Empty in journals of
        /// earlier versions.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tolerances: BTreeMap<String, Value>,
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
        /// The names of the agents that matched.
        matched: Vec<String>,
        /// The names of the agents that were picked.
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
        /// The phase that began.
        phase: Phase,
    },
    /// Nothing was or will be injected.
    NotStarted {
        /// Which rule said so: `gate`, `blast-radius`, `policy`, `no-match`, …
        rule: String,
        /// Why nothing was injected, for people.
        reason: String,
        /// What would be accepted, for people.
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
        /// The name of the fault.
        fault: String,
        /// On which agent.
        agent: String,
        /// How long the fault acts; none for a one-shot fault, and in journals of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration: Option<HumanDuration>,
        /// Whether the fault is over once it is done, so that nothing has to be reverted. False in journals of earlier versions.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        one_shot: bool,
    },
    /// The agent will not, and nothing is left of it unless an ended injection before this says so.
    InjectionRefused {
        /// The id of the injection.
        injection: InjectionId,
        /// Why.
        refusal: Refusal,
    },
    /// The agent did it and saw it done.
    Injected {
        /// The id of the injection.
        injection: InjectionId,
        /// The changes that were made.
        plan: PlanView,
    },
    /// What a fault is seen to do.
    EffectSeen {
        /// The id of the injection.
        injection: InjectionId,
        /// The effect that was observed.
        effect: Effect,
    },
    /// An injection ended, by itself or because it was reverted.
    InjectionEnded(EndedInjection),
    /// The run ends at once; whatever acts is reverted.
    Aborted(Abort),
    /// An agent does not answer any more. What it owes is reverted without us; whether it was is not known.
    AgentLost {
        /// The name of the agent.
        agent: String,
        /// What shows that, for people.
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
        /// What shows that, for people.
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
    /// It could not do what it was to do.
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
    /// A probe of an abort rule failed too often in a row.
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

/// How a piece of text about an event is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Less than other text.
    Dim,
    /// As good news.
    Success,
    /// As something to know.
    Warning,
    /// As bad news.
    Failure,
}

impl Judgement {
    /// A sign for people, and how it is to be shown.
    pub fn mark(self) -> (Tone, &'static str) {
        match self {
            Judgement::Within => (Tone::Success, "✓"),
            Judgement::Outside => (Tone::Failure, "✗"),
            Judgement::Unknown => (Tone::Warning, "?"),
        }
    }
}

impl Event {
    /// The event in words for people, in pieces that follow each other; empty where there is nothing to say.
    pub fn describe(&self) -> Vec<(Tone, String)> {
        use Tone::{Dim, Failure, Plain, Success, Warning};
        let because = |why: &Option<String>| match why {
            Some(why) => format!(": {why}"),
            None => String::new(),
        };
        let marked = |judgement: Judgement| {
            let (tone, mark) = judgement.mark();
            (tone, mark.to_owned())
        };
        let piece = match self {
            Event::InjectionRequested { .. } | Event::RunEnded => return Vec::new(),
            Event::RunStarted {
                run,
                title,
                seed,
                approved_by,
                ..
            } => {
                let approved = match approved_by {
                    Some(who) => format!(", approved by {who}"),
                    None => String::new(),
                };
                (Plain, format!("{title} (run {run}, seed {seed}{approved})"))
            }
            Event::AgentJoined {
                agent, recovered, ..
            } => match recovered.len() {
                0 => (Plain, format!("agent {agent} takes part")),
                count => (
                    Plain,
                    format!(
                        "agent {agent} takes part; it reverted {count} injections of agents that died earlier"
                    ),
                ),
            },
            Event::TargetPicked {
                target,
                matched,
                picked,
            } => {
                let (count, of) = (picked.len(), matched.len());
                let names = picked.join(", ");
                (
                    Plain,
                    format!("target {target}: {count} of {of} agents: {names}"),
                )
            }
            Event::Planned { activity, plan, .. } => {
                let names: Vec<&str> = (plan.victims.iter())
                    .map(|victim| victim.name.as_str())
                    .collect();
                let whom = match names.is_empty() {
                    true => "this host".to_owned(),
                    false => names.join(", "),
                };
                let mut pieces = vec![(Plain, format!("{activity}: would hit {whom}"))];
                for warning in &plan.warnings {
                    pieces.push((Plain, "\n".into()));
                    pieces.push((Warning, format!("WARNING: {warning}")));
                }
                return pieces;
            }
            Event::PhaseStarted { phase } => (Dim, phase.headline().to_owned()),
            Event::NotStarted { rule, reason, .. } => {
                (Failure, format!("not started: {reason} (rule: {rule})"))
            }
            Event::Sampled {
                probe,
                judgement,
                why,
                ..
            } => {
                let rest = format!(" {probe}{}", because(why));
                return vec![marked(*judgement), (Plain, rest)];
            }
            Event::ActivityStarted {
                activity,
                background,
                ..
            } => match background {
                true => (Plain, format!("{activity} (in the background)")),
                false => (Plain, activity.clone()),
            },
            Event::ActivityFinished {
                activity,
                status,
                why,
                judgement,
                ..
            } => {
                let status = format!("{status:?}").to_lowercase();
                let mut pieces = vec![(Plain, format!("{activity}: {status}"))];
                if let Some(judgement) = judgement {
                    pieces.push((Plain, " ".into()));
                    pieces.push(marked(*judgement));
                }
                pieces.push((Plain, because(why)));
                return pieces;
            }
            Event::InjectionRefused { refusal, .. } => {
                (Failure, format!("refused: {}", refusal.what))
            }
            Event::Injected { injection, plan } => {
                let changes: Vec<&str> = (plan.changes.iter())
                    .map(|change| change.apply.as_str())
                    .collect();
                let changes = changes.join("; ");
                (Plain, format!("{injection} injected: {changes}"))
            }
            Event::EffectSeen { effect, .. } => match effect.acts {
                true => (Plain, format!("effect observed: {}", effect.seen)),
                false => (Warning, format!("no effect: {}", effect.seen)),
            },
            Event::InjectionEnded(ended) => {
                let (injection, residue) = (&ended.injection, ended.residue.join("; "));
                let took = ended.took.0.as_secs_f64() * 1e3;
                match ended.clean {
                    true => (Plain, format!("{injection} reverted in {took:.1} ms")),
                    false => (Failure, format!("{injection} NOT reverted: {residue}")),
                }
            }
            Event::Aborted(Abort { rule, reason, .. }) => {
                (Failure, format!("aborted by {rule}: {reason}"))
            }
            Event::AgentLost { agent, reason } => {
                (Failure, format!("agent {agent} is lost: {reason}"))
            }
            Event::Recovered { after } => (
                Success,
                format!("the hypothesis holds again, {after} after the last revert"),
            ),
            Event::NotRecovered { within } => (
                Failure,
                format!("the hypothesis did not hold again within {within}"),
            ),
            Event::Interrupted { reason } => (Failure, format!("interrupted: {reason}")),
        };
        vec![piece]
    }

    /// Takes secrets out of whatever the event quotes, then shortens it. Names and numbers that Backburn itself made
    /// are left alone: a secret `1` must not make a journal unreadable.
    pub fn redact(&mut self, redactor: &Redactor) {
        match self {
            Event::AgentJoined {
                recovered, owed, ..
            } => {
                (recovered.iter_mut()).for_each(|ended| redactor.redact_ended(ended));
                (owed.iter_mut()).for_each(|owed| redactor.redact_unreverted(owed));
            }
            Event::Planned { plan, .. } | Event::Injected { plan, .. } => {
                redactor.redact_plan(plan);
            }
            Event::NotStarted { reason, hint, .. } => {
                redactor.errors().redact(reason);
                redactor.errors().redact_all(hint);
            }
            Event::Sampled { output, why, .. } | Event::ActivityFinished { output, why, .. } => {
                *output = shortened(redactor.value(std::mem::take(output)));
                redactor.errors().redact_all(why.as_mut());
                why.iter_mut().for_each(shorten);
            }
            Event::InjectionRefused { refusal, .. } => redactor.redact_refusal(refusal),
            Event::EffectSeen { effect, .. } => redactor.redact_effect(effect),
            Event::InjectionEnded(ended) => redactor.redact_ended(ended),
            Event::Aborted(Abort { reason, .. }) | Event::AgentLost { reason, .. } => {
                redactor.errors().redact(reason);
            }
            Event::RunStarted {
                question,
                tolerances,
                ..
            } => {
                redactor.errors().redact_all(question.as_mut());
                question.iter_mut().for_each(shorten);
                for tolerance in tolerances.values_mut() {
                    *tolerance = shortened(redactor.value(std::mem::take(tolerance)));
                }
            }
            Event::TargetPicked { .. }
            | Event::PhaseStarted { .. }
            | Event::ActivityStarted { .. }
            | Event::InjectionRequested { .. }
            | Event::Recovered { .. }
            | Event::NotRecovered { .. }
            | Event::Interrupted { .. }
            | Event::RunEnded => {}
        }
    }
}

impl Phase {
    /// The line that people see when the phase begins.
    pub fn headline(self) -> &'static str {
        match self {
            Phase::Gate => "── gate: does the hypothesis hold?",
            Phase::Method => "── method",
            Phase::Revert => "── revert",
            Phase::Rollbacks => "── rollbacks",
            Phase::After => "── does the hypothesis hold again?",
        }
    }
}

/// Cuts a long text at a character boundary and appends its length.
fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let whole = text.len();
        let end = (0..=MAX_TEXT_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str(&format!("… ({whole} bytes)"));
    }
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            shorten(&mut text);
            Value::String(text)
        }
        Value::Array(list) => {
            let whole = list.len();
            let mut kept: Vec<Value> = list.into_iter().take(MAX_MEMBERS).map(shortened).collect();
            if whole > MAX_MEMBERS {
                kept.push(format!("… ({whole} members)").into());
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let whole = fields.len();
            let mut kept: serde_json::Map<String, Value> = fields
                .into_iter()
                .take(MAX_MEMBERS)
                .map(|(key, value)| (key, shortened(value)))
                .collect();
            if whole > MAX_MEMBERS {
                kept.insert("…".into(), format!("({whole} members)").into());
            }
            Value::Object(kept)
        }
        other => other,
    }
}
