//! What a run comes to, and the exit code of each command line that ends: the one table of them.
//! The help of the program is made from it, and a test holds the tables of the docs against it.

use serde::Serialize;
use std::fmt;

/// The exit code of a command that did what it was to do, but could not write a report of it.
pub const REPORT_NOT_WRITTEN: u8 = 7;

/// The exit code of a run that waits for approval.
pub const WAITING_FOR_APPROVAL: u8 = 8;

/// What a run comes to, with its exit code.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The hypothesis held before, during and after, the faults took effect, and all is clean.
    Held,
    /// The hypothesis failed while or after the fault acted.
    Deviated,
    /// The command line or the definition is wrong.
    Invalid,
    /// Nothing was injected: gate, blast radius, policy, or no target.
    NotStarted,
    /// Ended by an operator, an abort rule other than the hypothesis, or a lost agent.
    Aborted,
    /// Nothing was measured, a probe broke, or a fault had no effect or stopped before its time.
    Inconclusive,
    /// Something is not proved to be reverted. Outranks every other outcome.
    NotClean,
    /// An agent tried to inject a fault and could not; what was done of it is reverted.
    NotInjected,
}

impl Outcome {
    /// Every outcome, in the order of their exit codes.
    pub const ALL: [Outcome; 8] = [
        Outcome::Held,
        Outcome::Deviated,
        Outcome::Invalid,
        Outcome::NotStarted,
        Outcome::Aborted,
        Outcome::Inconclusive,
        Outcome::NotClean,
        Outcome::NotInjected,
    ];

    /// The exit code of a command that ends with this outcome.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Held => 0,
            Outcome::Deviated => 1,
            Outcome::Invalid => 2,
            Outcome::NotStarted => 3,
            Outcome::Aborted => 4,
            Outcome::Inconclusive => 5,
            Outcome::NotClean => 6,
            Outcome::NotInjected => 9,
        }
    }

    /// The outcome as one word, as it is serialized: `not-clean`.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Held => "held",
            Outcome::Deviated => "deviated",
            Outcome::Invalid => "invalid",
            Outcome::NotStarted => "not-started",
            Outcome::Aborted => "aborted",
            Outcome::Inconclusive => "inconclusive",
            Outcome::NotClean => "not-clean",
            Outcome::NotInjected => "not-injected",
        }
    }

    /// The outcome in words for people: `not clean`.
    fn name(self) -> &'static str {
        match self {
            Outcome::NotStarted => "not started",
            Outcome::NotClean => "not clean",
            Outcome::NotInjected => "not injected",
            Outcome::Held
            | Outcome::Deviated
            | Outcome::Invalid
            | Outcome::Aborted
            | Outcome::Inconclusive => self.word(),
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Outcome::Held => {
                "the hypothesis held before, during and after, the faults took effect, and everything is reverted"
            }
            Outcome::Deviated => "the hypothesis failed while or after a fault acted",
            Outcome::Invalid => "the command line or the document is wrong; there was no run",
            Outcome::NotStarted => {
                "the gate failed, or something was refused; nothing was injected"
            }
            Outcome::Aborted => {
                "ended by an operator, by an abort rule other than the hypothesis, or because an agent was lost"
            }
            Outcome::Inconclusive => {
                "nothing was measured, a probe broke, or a fault had no effect or stopped before its time"
            }
            Outcome::NotClean => "something was not seen to be reverted",
            Outcome::NotInjected => {
                "a fault could not be injected; what was done of it is reverted"
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode {
    /// The code.
    pub code: u8,
    /// What it is called.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// Every exit code of the command line, in their order.
pub fn exit_codes() -> Vec<ExitCode> {
    let outcomes = Outcome::ALL.map(|outcome| ExitCode {
        code: outcome.exit_code(),
        name: outcome.name(),
        meaning: outcome.meaning(),
    });
    let mut all = outcomes.to_vec();
    all.push(ExitCode {
        code: REPORT_NOT_WRITTEN,
        name: "report not written",
        meaning: "the command succeeded, but its output or a report could not be written",
    });
    all.push(ExitCode {
        code: WAITING_FOR_APPROVAL,
        name: "waiting for approval",
        meaning: "a run on the fleet waits for approval; nothing has begun",
    });
    all.sort_unstable_by_key(|exit| exit.code);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_each_number_means_one_thing() {
        let codes: Vec<u8> = exit_codes().iter().map(|exit| exit.code).collect();
        assert_eq!(codes, (0..=9).collect::<Vec<u8>>());
    }

    #[test]
    fn outcome_word_is_what_is_serialized() {
        for outcome in Outcome::ALL {
            let read: Outcome = serde_json::from_value(outcome.word().into()).unwrap();
            assert_eq!(read, outcome);
        }
    }
}
