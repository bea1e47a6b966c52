//! The way back. Used by the worker for what acts, by the guardian when the worker is dead, by
//! the next start, and by hand: it needs the ledger, the host and nothing else.

use super::still_there;
use crate::changes::Alter as _;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use backburn_experiments::Span;
use backburn_experiments::wire::{Cause, Ended, Owed};
use std::time::{Duration, Instant};

/// How often undoing is tried before an entry is called stuck.
const TRIES: u32 = 5;

/// Undoes an entry's changes, last first, looks whether they are gone, and strikes the entry
/// out only then. What is not gone stays in the ledger, as stuck.
pub fn revert_entry(host: &Host, ledger: &Ledger, entry: &LedgerEntry, cause: Cause) -> Ended {
    let started = Instant::now();
    let mut residue = Vec::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            // What fails at once rarely succeeds at once: a process that is just leaving, a full table.
            std::thread::sleep(Duration::from_millis(10) * 4u32.pow(attempt - 1));
        }
        residue = undo_all(host, entry);
        if residue.is_empty() {
            match ledger.remove(host, &entry.injection) {
                Ok(()) => break,
                // Removed, though not yet durably: at worst the next start looks again.
                Err(_) if !ledger.owes(&entry.injection) => break,
                Err(error) => residue.push(format!(
                    "all is put back, but the ledger still names it: {error}"
                )),
            }
        }
    }
    if !residue.is_empty() {
        let stuck = LedgerEntry {
            stuck: residue.clone(),
            ..entry.clone()
        };
        if let Err(error) = ledger.write(host, &stuck) {
            tracing::warn!(injection = entry.injection, %error, "what is stuck could not be written down");
        }
    }
    Ended {
        injection: entry.injection.clone(),
        cause,
        clean: residue.is_empty(),
        residue,
        took: Span(started.elapsed()),
        effect: None,
    }
}

/// One attempt; what is still there, in words for people.
fn undo_all(host: &Host, entry: &LedgerEntry) -> Vec<String> {
    let mut residue = Vec::new();
    for change in entry.changes.iter().rev() {
        let failed = change.undo(host).err();
        host.reap();
        if let Some(seen) = still_there(host, change) {
            residue.push(match failed {
                Some(error) => format!("{seen} ({error})"),
                None => seen,
            });
        } else if let Some(error) = failed {
            tracing::warn!(injection = entry.injection, %error, "undo complained, and yet it is gone");
        }
    }
    residue
}

/// Puts back what is owed by agents that died: every entry whose owner `is_dead` says so.
/// Also returns what could not be put back, from now or from before.
pub fn revert_dead(
    host: &Host,
    ledger: &Ledger,
    is_dead: impl Fn(&LedgerEntry) -> bool,
    cause: Cause,
) -> (Vec<Ended>, Vec<Owed>) {
    let _lock = ledger.lock_or_go_on(super::LOCK_PATIENCE);
    let (entries, unreadable) = match ledger.entries() {
        Ok(found) => found,
        Err(error) => {
            let residue = vec![format!(
                "{} can't be read: {error}",
                ledger.folder().display()
            )];
            return (
                Vec::new(),
                vec![Owed {
                    injection: String::new(),
                    fault: "unknown".into(),
                    residue,
                }],
            );
        }
    };
    let mut ended = Vec::new();
    let mut owed: Vec<Owed> = unreadable
        .iter()
        .map(crate::ledger::Unreadable::owed)
        .collect();
    for entry in entries.iter().filter(|entry| is_dead(entry)) {
        let end = revert_entry(host, ledger, entry, cause);
        if !end.clean {
            owed.push(Owed {
                injection: entry.injection.clone(),
                fault: entry.fault.clone(),
                residue: end.residue.clone(),
            });
        }
        ended.push(end);
    }
    (ended, owed)
}
