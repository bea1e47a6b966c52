//! The way back. Used by the worker for what acts, by the guardian when the worker is dead, by
//! the next start, and by hand: it needs the ledger, the host and nothing else.

use super::observer::effect_of;
use crate::changes::{Change, Observed, ReversibleChange as _};
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Effect, EndedInjection, UnrevertedInjection};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How often undoing is tried before an entry is called stuck.
const MAX_UNDO_ATTEMPTS: u32 = 5;

/// How long a last look at an effect may take: an end does not wait for it any longer.
const LAST_LOOK_TIMEOUT: Duration = Duration::from_millis(200);
/// How long what is reverted side by side may take until it counts as not put back. It goes on after that.
const REVERT_TIMEOUT: Duration = Duration::from_secs(20);

/// Reverts an entry on a thread of its own, and then calls `then` there with the end and the effect that was last seen. Ends
/// do not wait for one another.
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

/// What an entry's changes are seen to do; none where that can't be looked at in time.
fn last_effect(host: &Host, entry: &LedgerEntry) -> Option<Effect> {
    let (sender, receiver) = channel();
    let (host, entry) = (host.for_thread(), entry.clone());
    // Nobody may listen any more.
    let look = move || drop(sender.send(effect_of(&host, &entry)));
    let thread = std::thread::Builder::new().spawn(look).ok()?;
    drop(thread);
    receiver.recv_timeout(LAST_LOOK_TIMEOUT).ok()
}

/// Does it on a thread of its own; at once, where there are no threads left.
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

/// Undoes an entry's changes, last first, looks whether they are gone, and strikes the entry
/// out only then. What is not gone stays in the ledger, as stuck.
pub fn revert_entry(host: &Host, ledger: &Ledger, entry: &LedgerEntry, cause: Cause) -> EndedInjection {
    let started = Instant::now();
    if let Err(hidden) = entry.visible(&host.table) {
        // Nothing was tried, so nothing is stuck: the entry stays as whoever can see to it wrote it.
        return ended(entry, cause, vec![hidden.to_string()], started);
    }
    let mut residue = Vec::new();
    for attempt in 0..MAX_UNDO_ATTEMPTS {
        wait_before(attempt);
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
    // Somebody else may have put it back meanwhile: then there is nothing to write down.
    if !residue.is_empty() && ledger.owes(&entry.injection) {
        let stuck = LedgerEntry {
            stuck: residue.clone(),
            ..entry.clone()
        };
        if let Err(error) = ledger.write(host, &stuck) {
            tracing::warn!(injection = entry.injection, %error, "what is stuck could not be written down");
        }
    }
    ended(entry, cause, residue, started)
}

fn ended(entry: &LedgerEntry, cause: Cause, residue: Vec<String>, started: Instant) -> EndedInjection {
    EndedInjection {
        injection: entry.injection.clone(),
        cause,
        clean: residue.is_empty(),
        residue,
        took: HumanDuration(started.elapsed()),
        effect: None,
    }
}

/// What fails at once rarely succeeds at once: a process that is just leaving, a full table.
fn wait_before(attempt: u32) {
    if attempt > 0 {
        std::thread::sleep(Duration::from_millis(10) * 4u32.pow(attempt - 1));
    }
}

/// Undoes an entry that is known, while the ledger does not tell of it: it was removed or spoiled. That is never clean. What is not
/// seen to be gone is written into the ledger again, so that it stays owed.
pub(super) fn revert_lost_entry(
    host: &Host,
    state: &Path,
    entry: &LedgerEntry,
    cause: Cause,
) -> EndedInjection {
    let started = Instant::now();
    let lost = match Ledger::at(state).read(&entry.injection) {
        Ok(_) => format!(
            "its entry has vanished from the ledger in {}",
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
            let done = format!("{lost}; what the guardian remembered of it is put back, seen gone");
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
        tracing::warn!(injection = entry.injection, %error, "what is stuck could not be written down");
    }
    ended(entry, cause, residue, started)
}

/// One attempt; what is still there, in words for people.
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
            tracing::warn!(injection = entry.injection, %error, "undo complained, and yet it is gone");
        }
    }
    residue
}

/// Puts back what is owed by agents that died: every entry whose owner `is_dead` says so, side by side.
/// Also returns what could not be put back, from now or from before.
pub fn revert_matching(
    host: &Host,
    ledger: &Ledger,
    is_dead: impl Fn(&LedgerEntry) -> bool,
    cause: Cause,
) -> (Vec<EndedInjection>, Vec<UnrevertedInjection>) {
    ledger.clear_stale(host);
    let (entries, unreadable) = match ledger.entries() {
        Ok(found) => found,
        Err(error) => {
            let residue = vec![format!(
                "{} can't be read: {error}",
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
    let dead: Vec<LedgerEntry> = entries.into_iter().filter(is_dead).collect();
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

/// Reverts these side by side. One that takes longer than [`REVERT_TIMEOUT`] counts as not put back.
fn revert_all(host: &Host, ledger: &Ledger, entries: &[LedgerEntry], cause: Cause) -> Vec<EndedInjection> {
    let (sender, receiver) = channel();
    for (number, entry) in entries.iter().enumerate() {
        let (sender, host, ledger) = (sender.clone(), host.for_thread(), ledger.clone());
        let entry = entry.clone();
        spawn_or_run("revert", move || {
            // Nobody may listen any more.
            drop(sender.send((number, revert_entry(&host, &ledger, &entry, cause))));
        });
    }
    drop(sender);
    let until = Instant::now() + REVERT_TIMEOUT;
    let mut ends: Vec<Option<EndedInjection>> = vec![None; entries.len()];
    // Until all have told, or the time is over.
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
            "it is still being put back after {} s",
            REVERT_TIMEOUT.as_secs()
        )],
        took: HumanDuration(REVERT_TIMEOUT),
        effect: None,
    };
    let ends = ends.into_iter().zip(entries);
    ends.map(|(end, entry)| end.unwrap_or_else(|| late(entry)))
        .collect()
}

/// Whether a change is seen to be gone; if not, in words for people.
pub fn residue_of(host: &Host, change: &Change) -> Option<String> {
    match change.observe(host) {
        Ok(Observed::Absent) => None,
        Ok(Observed::Present(seen) | Observed::Contested(seen)) => Some(seen),
        Err(error) => Some(format!(
            "{} can't be looked at: {error}",
            change.view().kind
        )),
    }
}
