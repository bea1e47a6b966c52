//! What is reverted when the run that it belongs to may no longer hear of it. A local run's journal may be sealed by then, so it stands beside
//! that, where `backburn runs` reads it.

use crate::host::Host;
use crate::ledger::LedgerEntry;
use backburn_experiments::late_revert::LateRevert;
use backburn_experiments::wire::Cause;
use std::path::Path;
use std::time::SystemTime;

/// Notes that an injection was reverted and seen to be gone, if its run has a journal in this state folder and does not hear of such ends
/// anyway. A note that cannot be written is logged: the ledger has the last word.
pub(super) fn note(host: &Host, state: &Path, entry: &LedgerEntry, cause: Cause) {
    if !matches!(
        cause,
        Cause::LeaseExpired | Cause::ConnectionClosed | Cause::AgentDied | Cause::Manual
    ) {
        return;
    }
    let runs = state.join("runs");
    let Some(path) = LateRevert::path(&runs, &entry.run, &entry.injection) else {
        return;
    };
    let journal = runs.join(format!("{}.jsonl", entry.run));
    if !journal.symlink_metadata().is_ok_and(|file| file.is_file()) {
        return;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let noted = LateRevert {
        injection: entry.injection.clone(),
        cause,
        at: since.map_or(0, |since| since.as_secs()),
    };
    let written = serde_json::to_vec(&noted).map(|content| host.write_durably(&path, &content));
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!(
            run = entry.run,
            ?written,
            "the late revert of an injection could not be noted"
        );
    }
}
