//! What the run's state machine takes in and gives out: events and commands, both plain data.

use crate::agent_connection::Inventory;
use backburn_experiments::journal::{ActivityStatus, JournalEntry, Judgement, Phase};
use backburn_experiments::wire::{
    self, EndedInjection, Hello, InjectionId, InjectionRequest, UnrevertedInjection,
};
use backburn_experiments::{HumanDuration, Problem};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// When a step happens. The state machine reads no clock of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepTime {
    /// The time since the run began, by the monotonic clock. Every deadline is in this time.
    pub(super) elapsed: Duration,
    /// The wall clock, which only labels journal entries.
    pub(super) wall: jiff::Timestamp,
}

/// What happened outside the state machine.
#[derive(Debug, Clone)]
pub(super) enum RunnerEvent {
    /// The run begins. Always the first event.
    Started,
    /// An operator asks to end the run, with these words, e.g. `SIGINT received`.
    StopRequested(String),
    /// The answer to [`RunnerCommand::CheckPrograms`]: what is missing.
    ProgramsChecked(Vec<Problem>),
    /// The answer to [`RunnerCommand::Discover`].
    Discovered(Result<Inventory, wire::Refusal>),
    /// The answer to [`RunnerCommand::Reserve`]: the agents that take part.
    Reserved(Result<Vec<JoiningAgent>, wire::Refusal>),
    /// The answer to [`RunnerCommand::Plan`].
    Planned {
        /// The planned injection's place in the run's list.
        index: usize,
        /// What the agent would do, or why it would not.
        outcome: Result<wire::PlanView, wire::Refusal>,
    },
    /// The answer to [`RunnerCommand::Sample`].
    Sampled(Sample),
    /// The answer to [`RunnerCommand::StartActivity`].
    ActivityFinished {
        /// The phase that the activity belongs to.
        phase: Phase,
        /// Its place in that phase, from 0.
        index: usize,
        /// What came of it.
        result: ActivityResult,
    },
    /// An agent reported something, or something is known of its connection.
    Agent {
        /// Name of the agent that reports.
        agent: Arc<str>,
        /// The connection that this came over. What an earlier one still delivers is ignored.
        connection: u64,
        /// What the agent reports.
        report: AgentReport,
    },
    /// The answer to [`RunnerCommand::Reconnect`].
    Reconnected {
        /// Name of the agent that is back.
        agent: String,
        /// The agent that came back, or why none did.
        outcome: Result<JoiningAgent, String>,
    },
    /// Journal entries could not be written, and why.
    JournalFailed(String),
    /// An injection was not sent, because its request could not be written to the journal.
    InjectionLeftOut {
        /// Name of the agent that is spared.
        agent: String,
        /// The injection that is not done.
        injection: InjectionId,
    },
}

/// An agent that takes part, without its connection.
#[derive(Debug, Clone)]
pub(super) struct JoiningAgent {
    /// How the agent introduced itself.
    pub(super) hello: Hello,
    /// The connection that its reports come over.
    pub(super) connection: u64,
    /// Whether it is a child process, whose exit is reported too.
    pub(super) has_process: bool,
}

/// What is heard of an agent. Request numbers are already resolved to what was asked.
#[derive(Debug, Clone)]
pub(super) enum AgentReport {
    /// The injection acts from now on.
    Injected {
        /// The injection that acts.
        injection: InjectionId,
        /// What was done, and to whom.
        plan: wire::PlanView,
    },
    /// The agent refuses to inject.
    Refused {
        /// The injection that is refused.
        injection: InjectionId,
        /// The rule that refuses it, and what would be allowed.
        refusal: wire::Refusal,
    },
    /// What the fault is seen to do.
    Effect {
        /// The injection that this was seen of.
        injection: InjectionId,
        /// The effect, as the agent has observed it.
        effect: wire::Effect,
    },
    /// An injection ended, with what is left of it.
    Ended(EndedInjection),
    /// The agent has reverted everything of the run, except this.
    AllReverted(Vec<UnrevertedInjection>),
    /// An abort rule that the agent watches by itself was triggered.
    AbortRuleTriggered {
        /// The run that the rule belongs to.
        run: String,
        /// Name of the abort rule.
        rule: String,
        /// What was seen, in words.
        seen: String,
    },
    /// The agent is connected and has not answered for this long.
    Unresponsive(HumanDuration),
    /// The connection closed, and how that is known.
    Closed(String),
    /// The agent's process ended, with this exit code if it was not killed.
    Exited(Option<i32>),
}

/// One measured and judged value of a probe.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The sampling period that it belongs to; an earlier one's is ignored.
    pub(super) epoch: u64,
    /// The probe's place in the list of sampled probes.
    pub(super) probe: usize,
    /// How the answer was judged.
    pub(super) judgement: Judgement,
    /// The value that was judged, as JSON.
    pub(super) output: Value,
    /// Why it is outside or unknown.
    pub(super) why: Option<String>,
    /// How long it took to measure.
    pub(super) took: Duration,
}

/// What came of an activity.
#[derive(Debug, Clone)]
pub(super) struct ActivityResult {
    /// How the activity went.
    pub(super) status: ActivityStatus,
    /// What the activity returned, as JSON.
    pub(super) output: Value,
    /// Why it failed, or why its output is out of tolerance.
    pub(super) why: Option<String>,
    /// The judgement, where it has a tolerance.
    pub(super) judgement: Option<Judgement>,
}

impl ActivityResult {
    pub(super) fn succeeded(output: Value) -> Self {
        ActivityResult {
            status: ActivityStatus::Succeeded,
            output,
            why: None,
            judgement: None,
        }
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        ActivityResult {
            status: ActivityStatus::Failed,
            output: Value::Null,
            why: Some(why.into()),
            judgement: None,
        }
    }

    pub(super) fn aborted() -> Self {
        ActivityResult {
            status: ActivityStatus::Aborted,
            output: Value::Null,
            why: None,
            judgement: None,
        }
    }
}

/// What the driver is to do, in this order.
#[derive(Debug, Clone)]
pub(super) enum RunnerCommand {
    /// Write these entries to the journal, then show them to observers. After a failure, commands of the same batch that
    /// [need the journal](RunnerCommand::needs_journal) must be [left out](RunnerCommand::left_out).
    Append(Vec<JournalEntry>),
    /// Look whether every program that the experiment will run is there.
    CheckPrograms,
    /// Find out which agents are there.
    Discover,
    /// Reserve these agents for this run.
    Reserve(BTreeSet<String>),
    /// Use these agents for probes that are measured from a target.
    SetTargets(BTreeMap<String, Vec<String>>),
    /// Ask an agent what an injection would do.
    Plan {
        /// The planned injection's place in the run's list.
        index: usize,
        /// Name of the agent that is asked.
        agent: String,
        /// The injection that is to be planned.
        request: InjectionRequest,
    },
    /// Have an agent inject a fault.
    Inject {
        /// Name of the agent that is asked.
        agent: String,
        /// The injection that is to be done.
        request: InjectionRequest,
    },
    /// Have an agent revert everything of this run.
    RevertAll {
        /// Name of the agent that is asked.
        agent: String,
    },
    /// Send a command that has no answer.
    Send {
        /// Name of the agent that is asked.
        agent: String,
        /// The command that is sent.
        command: wire::Command,
    },
    /// Send nothing more to this agent, so that its lease runs out.
    HangUp {
        /// Name of the agent whose connection is closed.
        agent: String,
    },
    /// Wait until a lost agent, or its successor, comes back.
    Reconnect {
        /// Name of the agent that is waited for.
        agent: String,
        /// When it was lost.
        lost: Duration,
        /// The longest wait for an agent that hangs.
        hung: Option<Duration>,
    },
    /// Measure and judge a probe once.
    Sample {
        /// The sampling period, to be returned with the sample.
        epoch: u64,
        /// The probe's place in the list of sampled probes.
        probe: usize,
    },
    /// Drop all measurements that are under way.
    CancelSamples,
    /// Run an activity that is no fault.
    StartActivity {
        /// The phase that it belongs to.
        phase: Phase,
        /// Its place in that phase, from 0.
        index: usize,
    },
    /// Drop an activity that is under way.
    CancelActivity {
        /// Its place in the current phase, from 0.
        index: usize,
    },
    /// Drop whatever is under way: plans, samples and activities.
    CancelAll,
}

impl RunnerCommand {
    /// Whether this may only be done once the entries before it are in the journal. Whatever ends a fault never waits for that.
    pub(super) fn needs_journal(&self) -> bool {
        matches!(
            self,
            RunnerCommand::Inject { .. } | RunnerCommand::StartActivity { .. }
        )
    }

    /// What comes of a command that is left out because the journal failed.
    pub(super) fn left_out(self) -> Option<RunnerEvent> {
        match self {
            RunnerCommand::Inject { agent, request } => Some(RunnerEvent::InjectionLeftOut {
                agent,
                injection: request.id,
            }),
            RunnerCommand::StartActivity { phase, index } => Some(RunnerEvent::ActivityFinished {
                phase,
                index,
                result: ActivityResult::failed(
                    "it was not started: the journal could not be written",
                ),
            }),
            _ => None,
        }
    }
}
