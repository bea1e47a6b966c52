//! What becomes of each time: run, left out because the last run still goes on or because nobody was
//! there, or kept waiting. Each is dealt with once, whatever the clock does in between.

use super::{ScheduledTime, Timetable};
use crate::document::{CatchUp, Overlap};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What is kept of a schedule from one look at the clock to the next, and over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The nominal time of the last one that was dealt with; at first, when the schedule came into force.
    pub last: Timestamp,
    /// One that waits for the run before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Timestamp>,
}

/// What is to be done about a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleDecision {
    /// It is run.
    Run(ScheduledTime),
    /// It is left out: the last run still goes on.
    Overlapped(ScheduledTime),
    /// It waits until the last run has ended.
    Waits(ScheduledTime),
    /// It is left out: it had passed when somebody looked.
    Missed(ScheduledTime),
}

impl Timetable {
    /// What is to be done now, in order, and what is to be kept before it is done. `running` says whether a run of it goes on; what is
    /// later than `grace` has been missed. Of what is to be run there is one at the most.
    pub fn decide(
        &self,
        progress: Progress,
        now: Timestamp,
        running: bool,
        grace: SignedDuration,
    ) -> (Progress, Vec<ScheduleDecision>) {
        let mut progress = progress;
        let mut calls = Vec::new();
        let mut busy = running;
        if !busy && let Some(nominal) = progress.waiting.take() {
            busy = true;
            calls.push(ScheduleDecision::Run(ScheduledTime {
                nominal,
                at: nominal,
            }));
        }
        let mut missed: Option<ScheduledTime> = None;
        while let Some(due) = self.next(progress.last).filter(|due| due.at <= now) {
            progress.last = due.nominal;
            if due.at.duration_until(now) > grace {
                // Of all that were missed the last is the one to catch up on.
                if let Some(earlier) = missed.replace(due) {
                    calls.push(ScheduleDecision::Missed(earlier));
                }
                continue;
            }
            if let Some(earlier) = missed.take() {
                calls.push(ScheduleDecision::Missed(earlier));
            }
            self.decide_one(due, &mut busy, &mut progress, &mut calls);
        }
        if let Some(due) = missed {
            match self.catch_up {
                CatchUp::Skip => calls.push(ScheduleDecision::Missed(due)),
                CatchUp::Once => self.decide_one(due, &mut busy, &mut progress, &mut calls),
            }
        }
        (progress, calls)
    }

    /// When there is something to do next, where nothing runs.
    pub fn next_wake(&self, progress: Progress) -> Option<Timestamp> {
        self.next(progress.last).map(|due| due.at)
    }

    fn decide_one(
        &self,
        due: ScheduledTime,
        busy: &mut bool,
        progress: &mut Progress,
        calls: &mut Vec<ScheduleDecision>,
    ) {
        calls.push(if !*busy {
            *busy = true;
            ScheduleDecision::Run(due)
        } else if self.overlap == Overlap::Queue && progress.waiting.is_none() {
            progress.waiting = Some(due.nominal);
            ScheduleDecision::Waits(due)
        } else {
            ScheduleDecision::Overlapped(due)
        });
    }
}
