//! Simulated agents: they inject, revert, refuse, fail, hang, die and come back. Each knows the truth about its host.

use super::random::Random;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, EndedInjection, Hello, InjectionId, UnrevertedInjection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An agent and its host.
#[derive(Default)]
pub(super) struct SimulatedAgent {
    /// The connection of the process that runs now, or ran last.
    pub(super) connection: u64,
    /// Whether that process runs.
    pub(super) is_alive: bool,
    /// Until when it hangs.
    pub(super) hangs_until: Duration,
    /// Whether the run has hung up.
    pub(super) is_hung_up: bool,
    /// What acts on the host.
    pub(super) acting: BTreeSet<InjectionId>,
    /// What could not be reverted.
    pub(super) residue: BTreeSet<InjectionId>,
    /// What it was ever asked for: nothing is injected again.
    pub(super) known: BTreeSet<InjectionId>,
    /// When the last message of each direction arrives: a connection keeps their order.
    pub(super) last_arrival: BTreeMap<bool, Duration>,
}

impl SimulatedAgent {
    /// Reverts an injection, if it can. Whether it is gone.
    pub(super) fn revert(&mut self, injection: &str, random: &mut Random) -> bool {
        self.acting.remove(injection);
        let is_gone = random.chance(95);
        if !is_gone {
            self.residue.insert(injection.to_owned());
        }
        is_gone
    }

    /// What cannot be reverted.
    pub(super) fn owed(&self) -> Vec<UnrevertedInjection> {
        let residue = self.residue.iter();
        residue
            .map(|injection| UnrevertedInjection {
                injection: injection.clone(),
                fault: "pause".into(),
                residue: vec!["still there".into()],
            })
            .collect()
    }

    /// The introduction of the process that comes after one that died: it settles what that one left, unless it
    /// `forgets` what that was.
    pub(super) fn introduction(&mut self, name: &str, random: &mut Random, forgets: bool) -> Hello {
        let mut hello = Hello {
            agent: name.to_owned(),
            labels: [("role".to_owned(), "web".to_owned())].into(),
            ..Hello::default()
        };
        if forgets {
            return hello;
        }
        for injection in self.acting.clone() {
            if random.chance(15) {
                // Another process of the host that is alive holds it, and will revert it.
                hello.held.push(injection);
            } else if self.revert(&injection, random) && random.chance(50) {
                hello
                    .recovered
                    .push(ended(&injection, Cause::AgentDied, true));
            }
        }
        hello.owed = self.owed();
        hello
    }
}

/// The report of an injection's end.
pub(super) fn ended(injection: &str, cause: Cause, clean: bool) -> EndedInjection {
    EndedInjection {
        injection: injection.to_owned(),
        cause,
        clean,
        residue: match clean {
            true => Vec::new(),
            false => vec!["still there".into()],
        },
        took: HumanDuration::millis(1),
        effect: None,
    }
}
