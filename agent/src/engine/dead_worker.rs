//! What a guardian does once its worker is dead.

use super::revert::{revert_lost_entry, revert_matching};
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, boot_id};
use crate::processes::ProcessId;
use backburn_experiments::wire::{Cause, EndedInjection, UnrevertedInjection};
use std::path::Path;

/// Reverts what a dead worker owes: what the ledger says, and what only `remembered` still says because the ledger was removed or
/// damaged. The latter never counts as clean, even if everything is observed to be gone: somebody has to check the ledger. `remembered`
/// is none if the guardian knows nothing but the ledger.
///
/// Returns what was reverted, and what somebody has to check.
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
    // A worker that died before it created the ledger's folder owes nothing.
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
            // An entry that cannot be read is among those owed already.
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
