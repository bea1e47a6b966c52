//! Waiting for a supervisor to restart processes that a one-shot fault killed. A disposable child does the waiting, since a selector may
//! name a path that hangs.

use super::effect_sum::join;
use crate::faults;
use crate::processes::{ProcessId, ProcessTable, Protection};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

pub use faults::Expectation;

/// How long to wait between two searches for restarted processes.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(20);

/// Whether a supervisor restarted the processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupervisorReturn {
    /// The restarted processes; none if too few were restarted in time.
    pub back: Option<Vec<ProcessId>>,
}

/// Waits until as many new processes exist as expected, or the time for that is over.
pub fn await_return(expected: &Expectation) -> SupervisorReturn {
    let until = Instant::now() + expected.within.0;
    let table = ProcessTable::default();
    loop {
        // Finding no process yet is no error.
        let found = expected
            .selector
            .find("$.process", &table, &Protection::default(), 0);
        let victims = found.map(|found| found.victims).unwrap_or_default();
        let new: Vec<ProcessId> = victims
            .iter()
            .map(|process| process.id)
            .filter(|id| !expected.known.contains(id))
            .collect();
        if new.len() >= expected.number {
            return SupervisorReturn { back: Some(new) };
        }
        if Instant::now() >= until {
            return SupervisorReturn { back: None };
        }
        std::thread::sleep(OBSERVE_INTERVAL);
    }
}

/// The wait for a supervisor, and its outcome.
#[derive(Debug)]
pub(super) struct AwaitedReturn {
    within: HumanDuration,
    since: Instant,
    answer: Option<ReturnOutcome>,
}

#[derive(Debug)]
enum ReturnOutcome {
    Back(Duration, Vec<ProcessId>),
    NotBack(String),
}

impl AwaitedReturn {
    /// A wait that begins at `since`.
    pub(super) fn new(expected: &Expectation, since: Instant) -> Self {
        AwaitedReturn {
            within: expected.within,
            since,
            answer: None,
        }
    }

    /// Whether the outcome is still unknown.
    pub(super) fn is_open(&self) -> bool {
        self.answer.is_none()
    }

    /// Records the child's answer, or why it could not search.
    pub(super) fn take(&mut self, answer: Result<SupervisorReturn, String>) {
        self.answer = Some(match answer {
            Ok(SupervisorReturn { back: Some(new) }) => {
                ReturnOutcome::Back(self.since.elapsed(), new)
            }
            Ok(SupervisorReturn { back: None }) => {
                ReturnOutcome::NotBack(format!("not back within {}", self.within))
            }
            Err(why) => ReturnOutcome::NotBack(format!("not known to be back: {why}")),
        });
    }

    /// Adds the outcome to an effect.
    pub(super) fn add_to(&self, effect: &mut Effect) {
        match &self.answer {
            Some(ReturnOutcome::Back(after, new)) => {
                let said = format!(
                    "back after {} as {}",
                    HumanDuration::from(*after),
                    crate::changes::listed(new)
                );
                effect.seen = join(&effect.seen, &said);
                let longest = effect
                    .figures
                    .entry("back-after-seconds".into())
                    .or_insert(0.0);
                *longest = longest.max(after.as_secs_f64());
            }
            None => effect.seen = join(&effect.seen, "not back yet"),
            Some(ReturnOutcome::NotBack(said)) => {
                effect.seen = join(&effect.seen, said);
                effect.unmet = Some(format!("what was killed was {said}"));
            }
        }
    }
}
