//! What a controller and an agent say to each other: one JSON object a line, either way. The
//! same messages go over a socket pair to a local agent and over TLS to a fleet's.
//!
//! Times never travel as clock readings, only as lengths: no two machines' clocks are compared.

pub mod protocol;

pub use crate::probes::ProbeOutcome;

use crate::document::{HostProvider, HostRule, Provider};
use crate::terminal_text::escape;
use crate::{HumanDuration, Problem};
use protocol::ProtocolRange;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What an injection is called, everywhere: in the journal, the ledger, and in the name of
/// whatever is made for it on a host. Lower-case letters, digits and `-`, at most 32 of them.
pub type InjectionId = String;

/// What a controller says to an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Command {
    /// I am here; the lease is renewed for this long.
    #[serde(rename = "beat")]
    Heartbeat {
        /// How long the agent may keep its faults without hearing the next one.
        lease: HumanDuration,
        /// Whether the agent is to answer with [`Report::HeartbeatAnswer`]. Only asked of one whose [`Hello::answers_heartbeats`] says that it can.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        answer: bool,
    },
    /// What would be done? Nothing is touched.
    Plan {
        /// Comes back with the answer.
        request: u64,
        /// The injection that is to be planned, with nothing done.
        injection: InjectionRequest,
    },
    /// Injects: the agent plans, records what it will owe, and then does it.
    Inject {
        /// Comes back with the answer.
        request: u64,
        /// The injection that is to be done.
        injection: InjectionRequest,
    },
    /// Put this one back. The answer is [`Report::Ended`].
    Revert {
        /// The injection that is to be reverted.
        injection: InjectionId,
    },
    /// Put everything of this agent back. The answers are [`Report::Ended`], each, then [`Report::AllReverted`].
    RevertAll {
        /// Comes back with the answer.
        request: u64,
        /// Only what belongs to this run; where left out, every run's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
    },
    /// Measure a figure of the host.
    Measure {
        /// Comes back with the answer.
        request: u64,
        /// The figure of the host that is to be measured.
        metric: HostProvider,
    },
    /// Measure this from where you are.
    Probe {
        /// Comes back with the answer.
        request: u64,
        /// What is to be asked, with all variables in place.
        provider: Provider,
        /// The longest it may take, where the provider says nothing of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<HumanDuration>,
    },
    /// Say what the host can do, and what is missing. Some of it is tried, so an agent whose faults act does not.
    Examine {
        /// Comes back with the answer, a [`Report::Probed`] with a list of findings.
        request: u64,
    },
    /// Say which services run on the host, whom they are connected to, and which unit or container they are of, without those that the
    /// agent's policy protects.
    Services {
        /// Comes back with the answer, a [`Report::Probed`] with a list of services.
        request: u64,
    },
    /// Tell all about the faults. Not part of the introduction: most controllers never ask, and it is long.
    Describe {
        /// Comes back with the answer.
        request: u64,
    },
    /// From now on, watch these by yourself and revert everything of this run when one strikes.
    Watch {
        /// Whose rules they are.
        run: String,
        /// The rules; they take the place of those that the run had before.
        rules: Vec<WatchRule>,
    },
    /// The answer to a [`Hello`] that says which versions of the protocol the agent speaks.
    Welcome {
        /// The version that is spoken from now on.
        protocol: u32,
        /// The version of the controller's program.
        #[serde(default)]
        version: String,
    },
    /// The controller does not serve this agent, and closes the connection.
    Refused {
        /// The rule that refuses it, and what would be allowed.
        refusal: Refusal,
    },
    /// Revert what is left and end.
    #[serde(rename = "goodbye")]
    Shutdown,
}

/// A host rule that an agent watches by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WatchRule {
    /// The abort rule's name.
    pub name: String,
    /// The figure and its limit.
    pub host: HostRule,
    /// How often it is looked at.
    pub every: HumanDuration,
    /// How many failures in a row strike.
    pub failures: u32,
}

/// One fault on one agent, for a limited time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InjectionRequest {
    /// The injection's id, chosen by whoever asks for it.
    pub id: InjectionId,
    /// The run it belongs to.
    pub run: String,
    /// Name of the fault, as `backburn faults` lists it.
    pub fault: String,
    /// Arguments of the fault, checked by its own schema.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// How long it lasts; none for a one-shot fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// How often a one-shot fault is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// What random picks come from.
    pub seed: u64,
    /// The most victims, from the run's blast radius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_victims: Option<u32>,
}

/// What an agent says to a controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Report {
    /// The first thing an agent says, after its ledger is settled.
    Hello(Hello),
    /// The answer to a [`Command::Heartbeat`] that asks for one.
    #[serde(rename = "alive")]
    HeartbeatAnswer,
    /// The answer to [`Command::Plan`].
    Planned {
        /// Number of the command that this answers.
        request: u64,
        /// What would be done.
        plan: PlanView,
    },
    /// The answer to [`Command::Inject`]: it is done, and was seen to be.
    Injected {
        /// Number of the command that this answers.
        request: u64,
        /// The injection that acts now.
        injection: InjectionId,
        /// What was done, and to whom.
        plan: PlanView,
    },
    /// The answer to a `Plan` or an `Inject` that will not be done. Nothing is left of it
    /// unless an [`Report::Ended`] for the same injection, sent before this, says so.
    Refused {
        /// Number of the command that this answers.
        request: u64,
        /// The rule that refuses it, and what would be allowed.
        refusal: Refusal,
    },
    /// What a fault is seen to do while it acts. Sent when it first takes effect, when that changes, and about each second.
    Effect {
        /// The injection that this was seen of.
        injection: InjectionId,
        /// The effect, as the agent has observed it.
        effect: Effect,
    },
    /// An injection has ended and what it owed was looked at.
    Ended(EndedInjection),
    /// The answer to [`Command::RevertAll`], after every [`Report::Ended`].
    AllReverted {
        /// Number of the command that this answers.
        request: u64,
        /// What could not be proved gone.
        owed: Vec<UnrevertedInjection>,
        /// What other agents of the host owe that are alive.
        #[serde(default)]
        held: Vec<InjectionId>,
    },
    /// The answer to [`Command::Describe`].
    Described {
        /// Number of the command that this answers.
        request: u64,
        /// Each fault, with its arguments' schema.
        faults: Vec<FaultDescription>,
    },
    /// The answer to [`Command::Measure`].
    Measured {
        /// Number of the command that this answers.
        request: u64,
        /// The figure, or why there is none.
        value: Result<f64, String>,
    },
    /// The answer to [`Command::Probe`], to [`Command::Examine`] and to [`Command::Services`].
    Probed {
        /// Number of the command that this answers.
        request: u64,
        /// The answer that came, or why none did.
        outcome: ProbeOutcome,
    },
    /// A rule of [`Command::Watch`] struck; everything of its run is being reverted.
    #[serde(rename = "struck")]
    AbortRuleTriggered {
        /// Whose rule it is.
        run: String,
        /// Name of the abort rule.
        rule: String,
        /// What was seen, in a few words.
        seen: String,
    },
}

/// An agent introduces itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's name; the host's where nothing else is said.
    pub agent: String,
    /// The version of its program.
    pub version: String,
    /// Labels that were given at the join, and facts that the agent has found out about its host.
    pub labels: BTreeMap<String, String>,
    /// The names of the faults that it can inject; [`Command::Describe`] asks for more.
    #[serde(default)]
    pub faults: Vec<String>,
    /// What it found owed by agents that died, and put back.
    pub recovered: Vec<EndedInjection>,
    /// What it found owed and could not put back.
    pub owed: Vec<UnrevertedInjection>,
    /// What other agents of this host owe that are alive, and will put back.
    #[serde(default)]
    pub held: Vec<InjectionId>,
    /// Whether it answers beats that ask for it. Of one that does not, silence means nothing.
    #[serde(
        default,
        rename = "answers_beats",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub answers_heartbeats: bool,
    /// The versions of the protocol that it speaks. Left out by agents that speak version 1 only and know of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolRange>,
    /// The id of its host's boot: with another one, the host was restarted. Left out by agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Whether its connection goes through a proxy, whose address is not that of its host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub through_proxy: bool,
}

/// A fault, as people and controllers see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FaultDescription {
    /// Its name, e.g. `process-pause`.
    pub name: String,
    /// What it does, in one line.
    pub summary: String,
    /// Whether it is over once done; else it has a duration.
    pub one_shot: bool,
    /// The JSON Schema of its arguments.
    pub schema: Value,
    /// Arguments that make sense.
    pub example: Value,
}

/// What would be done, exactly, with its undo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The processes, connections or places that are hit.
    pub victims: Vec<Victim>,
    /// What is done, in order. Undone in the opposite order.
    pub changes: Vec<ChangeView>,
    /// What people should know: a fallback taken, somebody spared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where the host would do another harm than the arguments ask for, e.g. because its kernel lacks something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is hit on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// What it is, e.g. `process`, `file-system`, `memory`.
    pub kind: String,
    /// Which one, for the ledger: `4711@123456` is a process's id and start time in ticks since boot.
    pub id: String,
    /// Which one, for people, e.g. `nginx (4711)`.
    pub name: String,
}

/// One reversible alteration, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The kind of change, e.g. `helper`, `signal`.
    pub kind: String,
    /// What is done to the host, in words.
    pub apply: String,
    /// What puts it back.
    pub undo: String,
    /// What ends it when every process of ours is dead.
    #[serde(rename = "if_we_die")]
    pub if_agent_dies: String,
}

/// What a fault is seen to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether it is seen to act at all.
    pub acts: bool,
    /// What is seen, in a few words, e.g. `3 of 3 processes stopped`.
    pub seen: String,
    /// Figures, by name with the unit at its end, e.g. `cpu-seconds`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// What the fault was told to expect and did not see, e.g. that a supervisor brings a process back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
}

/// Why something is not done: which rule, and what would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule, e.g. `no-match`, `protected`, `overlap`, `policy`, `blast-radius`, `arguments`, `not-permitted`, `ledger`, `failed`.
    pub rule: String,
    /// What was wrong, in one line.
    pub what: String,
    /// What would be allowed or would help, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For `arguments`: each problem; paths start at the arguments' own root `$`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Refusal {
    /// A refusal by this rule.
    pub fn new(rule: &str, what: impl Into<String>) -> Self {
        Refusal {
            rule: rule.into(),
            what: what.into(),
            hint: None,
            problems: Vec::new(),
        }
    }

    /// The same refusal, saying what would do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (rule: {})", escape(&self.what), escape(&self.rule))?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", escape(hint))?;
        }
        Ok(())
    }
}

/// Why an injection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its duration was over, or a one-shot fault was done.
    #[serde(rename = "done")]
    Finished,
    /// The controller asked for it.
    #[serde(rename = "asked")]
    ControllerRequest,
    /// No beat came in time.
    #[serde(rename = "lease")]
    LeaseExpired,
    /// The link to the controller closed.
    #[serde(rename = "link")]
    ConnectionClosed,
    /// A host rule struck.
    #[serde(rename = "rule")]
    AbortRule,
    /// A change failed or had gone by itself.
    Failed,
    /// The agent was told to end.
    Shutdown,
    /// The agent died; its guardian or the next start put it back.
    #[serde(rename = "died")]
    AgentDied,
    /// Somebody reverted it by hand.
    #[serde(rename = "by-hand")]
    Manual,
}

/// An injection has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedInjection {
    /// The injection that has ended.
    pub injection: InjectionId,
    /// Why the injection has ended.
    pub cause: Cause,
    /// Whether every change of it was observed to be gone.
    pub clean: bool,
    /// What was not, in words for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residue: Vec<String>,
    /// From the decision to end it to observed gone.
    pub took: HumanDuration,
    /// What a one-shot fault found out, e.g. whether a supervisor brought the process back: the last effect seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// What an agent owes and could not put back: somebody has to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnrevertedInjection {
    /// The injection that is still owed.
    pub injection: InjectionId,
    /// Name of the injection's fault.
    pub fault: String,
    /// What is still there, in words for people.
    pub residue: Vec<String>,
}
