//! How a run ends: everything is put back, always; then the author's own steps.

use super::Runner;
use backburn_experiments::document::RollbackStrategy;
use backburn_experiments::journal::{Event, Judgement, Phase};

impl Runner {
    /// Puts everything back, then waits for the looks that began before.
    pub(super) async fn revert(&mut self) {
        self.record(Event::PhaseStarted {
            phase: Phase::Revert,
        });
        self.revert_all().await;
        self.reverted_at = Some(self.log.elapsed());
        self.last_looks().await;
    }

    /// Whether rollbacks wait for the last look, which may be what deviates.
    pub(super) fn waits_for_deviation(&self) -> bool {
        self.experiment.rollback_strategy == RollbackStrategy::Deviated
    }

    /// The author's own steps, where the strategy has them played.
    pub(super) async fn rollbacks(&mut self) {
        let always = self.experiment.rollback_strategy == RollbackStrategy::Always;
        let play = match self.experiment.rollback_strategy {
            RollbackStrategy::Always => true,
            RollbackStrategy::Never => false,
            RollbackStrategy::Deviated => self.has_deviated(),
            RollbackStrategy::Default => self.log.run.aborts.is_empty(),
        };
        let already = self.asked_to_stop;
        if !play || self.experiment.rollbacks.is_empty() || already > 1 {
            return;
        }
        self.record(Event::PhaseStarted {
            phase: Phase::Rollbacks,
        });
        self.start_playing(Phase::Rollbacks);
        // With `always` it takes a second word to leave them out.
        let enough = if always { 2 } else { already + 1 };
        while !self.is_played() && self.asked_to_stop < enough {
            self.step().await;
        }
        self.stop_playing();
    }

    fn has_deviated(&self) -> bool {
        let run = &self.log.run;
        run.probes
            .values()
            .any(|probe| probe.during.outside + probe.after.outside > 0)
            || run
                .activities
                .iter()
                .any(|activity| activity.judgement == Some(Judgement::Outside))
            || matches!(run.recovery, Some(Err(_)))
    }
}
