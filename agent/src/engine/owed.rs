//! What the ledger says is owed, as reported to controllers.

use super::Engine;
use crate::ledger::UnreadableEntry;
use backburn_experiments::wire::{InjectionId, UnrevertedInjection};

impl Engine {
    /// The injections in this host's ledger that belong to other agents, which are alive and will revert them.
    pub fn held_by_others(&self) -> Vec<InjectionId> {
        let Ok((entries, _)) = self.ledger.entries() else {
            // `owed` reports this error.
            return Vec::new();
        };
        let others = entries.into_iter().filter(|entry| {
            entry.stuck.is_empty()
                && entry.owner != self.owner
                && entry.is_abandoned(&self.host.table) == Ok(false)
        });
        others.map(|entry| entry.injection).collect()
    }

    /// What this host's ledger contains that could not be reverted, or that cannot be judged from here.
    pub fn owed(&self) -> Vec<UnrevertedInjection> {
        match self.ledger.entries() {
            Ok((entries, unreadable)) => entries
                .iter()
                .filter_map(|entry| entry.owed(&self.host.table))
                .chain(unreadable.iter().map(UnreadableEntry::owed))
                .collect(),
            Err(error) => vec![UnrevertedInjection {
                injection: String::new(),
                fault: "unknown".into(),
                residue: vec![format!(
                    "{} cannot be read: {error}",
                    self.ledger.folder().display()
                )],
            }],
        }
    }
}
