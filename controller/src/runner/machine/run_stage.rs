//! What a run waits for.

use crate::runner::selection::Selection;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::Phase;
use backburn_experiments::wire::{InjectionId, Refusal};
use std::time::Duration;

/// What the run waits for.
pub(super) enum RunStage {
    /// Its first event.
    Created,
    /// Which programs are missing.
    CheckingPrograms,
    /// Which agents there are.
    Discovering,
    /// The agents that were selected; or why none could be.
    Reserving(Result<Box<Selection>, Refusal>),
    /// What each agent would do.
    Planning,
    /// The hypothesis, before anything is done.
    Gate,
    /// The method's end.
    Method,
    /// Agents that were told to revert.
    Reverting { until: Duration },
    /// A lost agent's guardian, which reverts and ends.
    AwaitingGuardian { agent: String, until: Duration },
    /// A lost agent's successor.
    Reconnecting { agent: String, lost: LostAgent },
    /// Samples that were started while a fault acted.
    LastSamples { until: Duration },
    /// The rollbacks' end, or so many requests to stop.
    Rollbacks { stops: usize },
    /// One sample of the hypothesis after the revert, or a request to stop beyond these.
    After { stops: usize },
    /// That the hypothesis holds again.
    Recovery {
        reverted_at: Duration,
        within: HumanDuration,
        until: Duration,
    },
    /// Agents that were told to leave.
    Releasing { until: Duration },
    /// Nothing: the run is over.
    Ended,
}

/// What is kept of an agent that is gone, for its successor.
pub(super) struct LostAgent {
    /// What it was asked for.
    pub(super) asked: Vec<InjectionId>,
    /// Where it was reached, if anything is known of it.
    pub(super) address: Option<String>,
    /// That its process has ended, and with which exit code.
    pub(super) exited: Option<Option<i32>>,
    /// The id of the last boot of its host that it told.
    pub(super) boot: Option<String>,
    /// When it was lost, since the run began.
    pub(super) lost: Duration,
}

impl RunStage {
    /// When the stage ends at the latest.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            RunStage::Reverting { until }
            | RunStage::AwaitingGuardian { until, .. }
            | RunStage::LastSamples { until }
            | RunStage::Recovery { until, .. }
            | RunStage::Releasing { until } => Some(*until),
            _ => None,
        }
    }

    /// The phase that samples belong to which come in this stage.
    pub(super) fn sampled_phase(&self) -> Option<Phase> {
        match self {
            RunStage::Gate => Some(Phase::Gate),
            RunStage::Method
            | RunStage::Reverting { .. }
            | RunStage::AwaitingGuardian { .. }
            | RunStage::Reconnecting { .. }
            | RunStage::LastSamples { .. } => Some(Phase::Method),
            RunStage::After { .. } | RunStage::Recovery { .. } => Some(Phase::After),
            _ => None,
        }
    }

    pub(super) fn is_before_method(&self) -> bool {
        matches!(
            self,
            RunStage::CheckingPrograms
                | RunStage::Discovering
                | RunStage::Reserving(_)
                | RunStage::Planning
                | RunStage::Gate
        )
    }
}
