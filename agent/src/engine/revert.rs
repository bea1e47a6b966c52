//! Reverting. The worker uses it for active injections, the guardian when the worker is dead, the next agent when it starts, and a person
//! by hand. It needs the ledger and the host, and nothing else.

use super::late_reverts;
use super::observer::effect_of;
use crate::changes::{Change, Observed, ReversibleChange as _};
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Effect, EndedInjection, UnrevertedInjection};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How many times undoing is attempted before an entry is called stuck.
const MAX_UNDO_ATTEMPTS: u32 = 5;

/// How long the last observation of an effect may take. The revert does not wait for it any longer.
const LAST_LOOK_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a revert may take until it is reported as unfinished. It continues after that.
const REVERT_TIMEOUT: Duration = Duration::from_secs(20);

/// Reverts an entry on a thread of its own, then calls `then` on that thread with the outcome and the effect that was last observed.
/// Reverts do not wait for one another.
pub(super) fn revert_on_thread(
    host: Host,
    ledger: Ledger,
    entry: LedgerEntry,
    cause: Cause,
    then: impl FnOnce(EndedInjection, Option<Effect>) + Send + 'static,
) {
    let work = move || {
        let effect = last_effect(&host, &entry);
        then(revert_entry(&host, &ledger, &entry, cause), effect);
    };
    spawn_or_run("revert", work);
}

/// The observed effect of an entry; none if it cannot be observed in time.
fn last_effect(host: &Host, entry: &LedgerEntry) -> Option<Effect> {
    let (sender, receiver) = channel();
    let (host, entry) = (host.for_thread(), entry.clone());
    // The receiver may be gone already.
    let look = move || drop(sender.send(effect_of(&host, &entry)));
    let thread = std::thread::Builder::new().spawn(look).ok()?;
    drop(thread);
    receiver.recv_timeout(LAST_LOOK_TIMEOUT).ok()
}

/// Runs `work` on a thread of its own, or on this thread if no other can be started.
fn spawn_or_run(name: &str, work: impl FnOnce() + Send + 'static) {
    let work = std::sync::Arc::new(std::sync::Mutex::new(Some(work)));
    let take = |work: &std::sync::Mutex<Option<_>>| {
        let mut work = work
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        work.take()
    };
    let others = std::sync::Arc::clone(&work);
    let thread = std::thread::Builder::new().name(name.into());
    let spawned = thread.spawn(move || {
        if let Some(work) = take(&others) {
            work();
        }
    });
    if spawned.is_err()
        && let Some(work) = take(&work)
    {
        work();
    }
}

/// Undoes an entry's changes, last first, observes whether they are gone, and removes the entry only then. Otherwise the entry stays in
/// the ledger, marked as stuck with what is left.
pub fn revert_entry(
    host: &Host,
    ledger: &Ledger,
    entry: &LedgerEntry,
    cause: Cause,
) -> EndedInjection {
    let started = Instant::now();
    if let Err(hidden) = entry.visible(&host.table) {
        // Nothing was attempted, so nothing is stuck: the entry stays as it is for an agent that can see its namespaces.
        return ended(entry, cause, vec![hidden.to_string()], started);
    }
    let mut residue = Vec::new();
    for attempt in 0..MAX_UNDO_ATTEMPTS {
        wait_before(attempt);
        residue = undo_all(host, entry);
        if residue.is_empty() {
            match ledger.remove(host, &entry.injection) {
                Ok(()) => break,
                // The file is removed, though not yet durably: at worst the next agent checks again.
                Err(_) if !ledger.owes(&entry.injection) => break,
                Err(error) => residue.push(format!(
                    "everything is reverted, but the ledger entry could not be removed: {error}"
                )),
            }
        }
    }
    if residue.is_empty()
        && let Some(state) = ledger.folder().parent()
    {
        late_reverts::note(host, state, entry, cause);
    }
    // Somebody else may have reverted it in the meantime: then there is nothing to record.
    if !residue.is_empty() && ledger.owes(&entry.injection) {
        let stuck = LedgerEntry {
            stuck: residue.clone(),
            ..entry.clone()
        };
        if let Err(error) = ledger.write(host, &stuck) {
            tracing::warn!(injection = entry.injection, %error, "the ledger entry could not be marked as stuck");
        }
    }
    ended(entry, cause, residue, started)
}

fn ended(
    entry: &LedgerEntry,
    cause: Cause,
    residue: Vec<String>,
    started: Instant,
) -> EndedInjection {
    let evidence = entry.changes.iter().find_map(restart_evidence);
    let is_clean = residue.is_empty();
    EndedInjection {
        injection: entry.injection.clone(),
        // What was to take the host down has done so.
        cause: match evidence {
            Some(_) => Cause::Finished,
            None => cause,
        },
        clean: is_clean,
        residue,
        took: HumanDuration(started.elapsed()),
        effect: evidence.or_else(|| {
            let mut changes = entry.changes.iter().filter(|_| is_clean);
            changes.find_map(evidence_of_end)
        }),
    }
}

/// How the end of a change is seen that was undone, where that can be told.
fn evidence_of_end(change: &Change) -> Option<Effect> {
    match change {
        Change::StoppedUnits(units) => units.evidence_of_end(),
        _ => None,
    }
}

/// What the present boot proves of a change of an earlier one.
fn restart_evidence(change: &Change) -> Option<Effect> {
    match change {
        Change::Helper(helper) => helper.spec.helper().restart_evidence(),
        _ => None,
    }
}

/// Waits before another attempt. What fails because a process is just exiting or a table is full rarely succeeds at once.
fn wait_before(attempt: u32) {
    if attempt > 0 {
        std::thread::sleep(Duration::from_millis(10) * 4u32.pow(attempt - 1));
    }
}

/// Undoes an entry that is known although the ledger does not contain it any more, because it was removed or damaged. That never counts
/// as clean. What is not observed to be gone is written to the ledger again, so that it stays owed.
pub(super) fn revert_lost_entry(
    host: &Host,
    state: &Path,
    entry: &LedgerEntry,
    cause: Cause,
) -> EndedInjection {
    let started = Instant::now();
    let lost = match Ledger::at(state).read(&entry.injection) {
        Ok(_) => format!(
            "its entry has disappeared from the ledger in {}",
            state.display()
        ),
        Err(error) => error.to_string(),
    };
    if let Err(hidden) = entry.visible(&host.table) {
        return ended(entry, cause, vec![lost, hidden.to_string()], started);
    }
    let mut residue = Vec::new();
    for attempt in 0..MAX_UNDO_ATTEMPTS {
        wait_before(attempt);
        residue = undo_all(host, entry);
        if residue.is_empty() {
            let done = format!("{lost}; the guardian remembered it and has reverted it");
            return ended(entry, cause, vec![done], started);
        }
    }
    residue.push(lost);
    let stuck = LedgerEntry {
        stuck: residue.clone(),
        ..entry.clone()
    };
    let written = Ledger::open(host, state).and_then(|ledger| ledger.write(host, &stuck));
    if let Err(error) = written {
        tracing::warn!(injection = entry.injection, %error, "the ledger entry could not be marked as stuck");
    }
    ended(entry, cause, residue, started)
}

/// Attempts to undo all changes once. Returns a description of each change that is still there.
fn undo_all(host: &Host, entry: &LedgerEntry) -> Vec<String> {
    let mut residue = Vec::new();
    for change in entry.changes.iter().rev() {
        let failed = change.undo(host).err();
        host.reap();
        if let Some(seen) = residue_of(host, change) {
            residue.push(match failed {
                Some(error) => format!("{seen} ({error})"),
                None => seen,
            });
        } else if let Some(error) = failed {
            tracing::warn!(injection = entry.injection, %error, "undo reported an error, but the change is gone");
        }
    }
    residue
}

/// Reverts every entry for which `is_selected` is true, side by side. Returns how each ended, and everything that could not be reverted,
/// now or before.
pub fn revert_matching(
    host: &Host,
    ledger: &Ledger,
    is_selected: impl Fn(&LedgerEntry) -> bool,
    cause: Cause,
) -> (Vec<EndedInjection>, Vec<UnrevertedInjection>) {
    ledger.clear_stale(host);
    let (entries, unreadable) = match ledger.entries() {
        Ok(found) => found,
        Err(error) => {
            let residue = vec![format!(
                "{} cannot be read: {error}",
                ledger.folder().display()
            )];
            return (
                Vec::new(),
                vec![UnrevertedInjection {
                    injection: String::new(),
                    fault: "unknown".into(),
                    residue,
                }],
            );
        }
    };
    let dead: Vec<LedgerEntry> = entries.into_iter().filter(is_selected).collect();
    let ended = revert_all(host, ledger, &dead, cause);
    let stuck = ended.iter().zip(&dead).filter(|(end, _)| !end.clean);
    let stuck = stuck.map(|(end, entry)| UnrevertedInjection {
        injection: entry.injection.clone(),
        fault: entry.fault.clone(),
        residue: end.residue.clone(),
    });
    let owed = unreadable
        .iter()
        .map(crate::ledger::UnreadableEntry::owed)
        .chain(stuck)
        .collect();
    (ended, owed)
}

/// Reverts entries side by side. One that takes longer than [`REVERT_TIMEOUT`] counts as not reverted.
fn revert_all(
    host: &Host,
    ledger: &Ledger,
    entries: &[LedgerEntry],
    cause: Cause,
) -> Vec<EndedInjection> {
    let (sender, receiver) = channel();
    for (number, entry) in entries.iter().enumerate() {
        let (sender, host, ledger) = (sender.clone(), host.for_thread(), ledger.clone());
        let entry = entry.clone();
        spawn_or_run("revert", move || {
            // The receiver may be gone already.
            drop(sender.send((number, revert_entry(&host, &ledger, &entry, cause))));
        });
    }
    drop(sender);
    let until = Instant::now() + REVERT_TIMEOUT;
    let mut ends: Vec<Option<EndedInjection>> = vec![None; entries.len()];
    // Until all have answered, or the time is over.
    while let Ok((number, end)) =
        receiver.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        if let Some(place) = ends.get_mut(number) {
            *place = Some(end);
        }
    }
    let late = |entry: &LedgerEntry| EndedInjection {
        injection: entry.injection.clone(),
        cause,
        clean: false,
        residue: vec![format!(
            "still being reverted after {} s",
            REVERT_TIMEOUT.as_secs()
        )],
        took: HumanDuration(REVERT_TIMEOUT),
        effect: None,
    };
    let ends = ends.into_iter().zip(entries);
    ends.map(|(end, entry)| end.unwrap_or_else(|| late(entry)))
        .collect()
}

/// Describes what is left of a change; none if the change is observed to be gone.
pub fn residue_of(host: &Host, change: &Change) -> Option<String> {
    match change.observe(host) {
        Ok(Observed::Absent) => None,
        Ok(Observed::Present(seen) | Observed::Contested(seen)) => Some(seen),
        Err(error) => Some(format!(
            "{} cannot be observed: {error}",
            change.view().kind
        )),
    }
}
