//! What a guardian does once its worker is dead.

use super::revert::{revert_lost_entry, revert_matching};
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, boot_id};
use crate::processes::ProcessId;
use backburn_experiments::wire::{Cause, EndedInjection, UnrevertedInjection};
use std::path::Path;

/// Puts back what a dead worker owes: what the ledger tells, and what only `remembered` tells any more, because the ledger was removed
/// or spoiled. The latter is never clean, even where all of it is seen to be gone: somebody has to look at the ledger. `remembered`
/// is none where the guardian knows nothing but the ledger.
///
/// Returns what was put back, and what somebody has to look at.
pub fn revert_dead_worker(
    host: &Host,
    state: &Path,
    worker: ProcessId,
    remembered: Option<&[LedgerEntry]>,
) -> (Vec<EndedInjection>, Vec<UnrevertedInjection>) {
    let ledger = Ledger::at(state);
    let boot = boot_id().ok();
    let its = |entry: &LedgerEntry| {
        entry.owner.worker == worker && boot.as_ref() == Some(&entry.owner.boot)
    };
    // A worker that died before it made the ledger's folder owes nothing.
    if remembered.is_some_and(<[_]>::is_empty) && !ledger.folder().exists() {
        return (Vec::new(), Vec::new());
    }
    let (mut ended, mut owed) = revert_matching(host, &ledger, its, Cause::AgentDied);
    let known = |ended: &[EndedInjection], entry: &LedgerEntry| {
        ended.iter().any(|end| end.injection == entry.injection)
    };
    for entry in remembered.unwrap_or_default() {
        if !known(&ended, entry) {
            let end = revert_lost_entry(host, state, entry, Cause::AgentDied);
            // An entry that can't be read is among those owed already.
            owed.retain(|owed| owed.injection != entry.injection);
            owed.push(UnrevertedInjection {
                injection: entry.injection.clone(),
                fault: entry.fault.clone(),
                residue: end.residue.clone(),
            });
            ended.push(end);
        }
    }
    (ended, owed)
}
