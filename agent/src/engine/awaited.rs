//! What should come after a one-shot fault: that a supervisor brings processes back. Looked for by a disposable child, since
//! a selector may name a path.

use crate::faults;
use crate::processes::{ProcessId, ProcessTable, Protection};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

pub use faults::Expectation;

/// How far two looks are apart.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// What came of waiting for a supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Return {
    /// The processes that came back; none where not enough came in time.
    pub back: Option<Vec<ProcessId>>,
}

/// Waits until as many new processes as expected are there, or the time for that is over.
pub fn await_return(expected: &Expectation) -> Return {
    let until = Instant::now() + expected.within.0;
    let table = ProcessTable::default();
    loop {
        // Nobody there yet is what one waits through.
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
            return Return { back: Some(new) };
        }
        if Instant::now() >= until {
            return Return { back: None };
        }
        std::thread::sleep(LOOK_EACH);
    }
}

/// A supervisor is awaited.
#[derive(Debug)]
pub(super) struct Awaited {
    within: HumanDuration,
    since: Instant,
    answer: Option<Answer>,
}

#[derive(Debug)]
enum Answer {
    Back(Duration, Vec<ProcessId>),
    NotBack(String),
}

impl Awaited {
    /// Awaited from now on.
    pub(super) fn new(expected: &Expectation, since: Instant) -> Self {
        Awaited {
            within: expected.within,
            since,
            answer: None,
        }
    }

    /// Whether there is no answer yet.
    pub(super) fn is_open(&self) -> bool {
        self.answer.is_none()
    }

    /// Takes the answer of the child that looked; an error where it could not look.
    pub(super) fn take(&mut self, answer: Result<Return, String>) {
        self.answer = Some(match answer {
            Ok(Return { back: Some(new) }) => Answer::Back(self.since.elapsed(), new),
            Ok(Return { back: None }) => {
                Answer::NotBack(format!("not back within {}", self.within))
            }
            Err(why) => Answer::NotBack(format!("not seen to be back: {why}")),
        });
    }

    /// Adds what is known to an effect.
    pub(super) fn tell(&self, effect: &mut Effect) {
        match &self.answer {
            Some(Answer::Back(after, new)) => {
                let said = format!(
                    "back after {} as {}",
                    HumanDuration::from(*after),
                    crate::changes::listed(new)
                );
                effect.seen = super::active::join(&effect.seen, &said);
                let longest = effect
                    .figures
                    .entry("back-after-seconds".into())
                    .or_insert(0.0);
                *longest = longest.max(after.as_secs_f64());
            }
            None => effect.seen = super::active::join(&effect.seen, "not back yet"),
            Some(Answer::NotBack(said)) => {
                effect.seen = super::active::join(&effect.seen, said);
                effect.unmet = Some(format!("what was killed was {said}"));
            }
        }
    }
}
