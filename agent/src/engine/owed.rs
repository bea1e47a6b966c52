//! What the ledger says is owed, for controllers.

use super::Engine;
use crate::ledger::UnreadableEntry;
use backburn_experiments::wire::{InjectionId, UnrevertedInjection};

impl Engine {
    /// What other agents of this host that are alive have in its ledger: theirs to put back.
    pub fn held_by_others(&self) -> Vec<InjectionId> {
        let Ok((entries, _)) = self.ledger.entries() else {
            // `owed` says so.
            return Vec::new();
        };
        let others = entries.into_iter().filter(|entry| {
            entry.stuck.is_empty()
                && entry.owner != self.owner
                && entry.is_abandoned(&self.host.table) == Ok(false)
        });
        others.map(|entry| entry.injection).collect()
    }

    /// What this host's ledger holds that could not be put back, or of which nothing can be known here.
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
                    "{} can't be read: {error}",
                    self.ledger.folder().display()
                )],
            }],
        }
    }
}
