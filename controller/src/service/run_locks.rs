//! Locks by name: of the runs that were started with the same lock, one is open at a time. A lock is held from the start of its run until that
//! run is closed, so it can neither be forgotten nor outlive the run: a controller that starts again has closed all open runs.

use super::{Service, lock};
use crate::store::NewRun;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The longest name of a lock, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The rule that refuses a run whose lock is held.
pub(crate) const LOCK_RULE: &str = "lock";

/// The locks that are held now.
#[derive(Debug, Default)]
pub(super) struct RunLocks {
    held: Mutex<BTreeMap<String, LockHolder>>,
    /// Changes when a lock is released.
    released: watch::Sender<u64>,
}

/// The run that holds a lock.
#[derive(Debug)]
struct LockHolder {
    run: String,
    who: String,
}

/// A lock that is held as long as this value lives.
#[derive(Debug)]
pub(super) struct HeldRunLock {
    name: String,
    locks: Arc<RunLocks>,
}

impl Drop for HeldRunLock {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.name);
        self.locks.released.send_modify(|count| *count += 1);
    }
}

/// What is wrong with the name of a lock; none if it is valid.
pub(super) fn name_problem(name: &str) -> Option<Problem> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(is_valid);
    (!fits).then(|| Problem {
        at: "$.lock".into(),
        what: format!("`{}` is not the name of a lock", name.escape_debug()),
        hint: Some(format!(
            "use 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_`, `/` and `-`, for example `staging`"
        )),
    })
}

impl Service {
    /// Takes the lock for a run; none if the run has no lock.
    ///
    /// # Errors
    /// Another open run holds it.
    pub(super) fn take_lock(
        &self,
        name: Option<&str>,
        run: &NewRun,
    ) -> Result<Option<HeldRunLock>, Refusal> {
        let Some(name) = name else {
            return Ok(None);
        };
        match lock(&self.locks.held).entry(name.to_owned()) {
            Entry::Occupied(held) => Err(held_by(name, held.get())),
            Entry::Vacant(free) => {
                free.insert(LockHolder {
                    run: run.id.clone(),
                    who: run.who.clone(),
                });
                Ok(Some(HeldRunLock {
                    name: name.to_owned(),
                    locks: Arc::clone(&self.locks),
                }))
            }
        }
    }

    /// Waits until no open run holds this lock, for at most `patience`. Another run may take it before the caller does.
    ///
    /// # Errors
    /// It is still held.
    pub async fn until_unlocked(&self, name: &str, patience: Duration) -> Result<(), Refusal> {
        let mut released = self.locks.released.subscribe();
        let is_free = |_: &u64| !lock(&self.locks.held).contains_key(name);
        if let Ok(Ok(_)) = tokio::time::timeout(patience, released.wait_for(is_free)).await {
            return Ok(());
        }
        match lock(&self.locks.held).get(name) {
            Some(holder) => Err(held_by(name, holder)),
            None => Ok(()),
        }
    }
}

fn held_by(name: &str, holder: &LockHolder) -> Refusal {
    let LockHolder { run, who } = holder;
    Refusal::new(
        LOCK_RULE,
        format!("lock `{name}` is held by run `{run}` of `{who}`"),
    )
    .hint(format!(
        "start it when that run is over; `backburn stop {run}` ends it"
    ))
}

#[cfg(test)]
mod tests {
    use super::name_problem;

    #[test]
    fn lock_name_with_other_characters_is_refused() {
        for name in ["staging", "team-a/eu_1.prod", &"x".repeat(64)] {
            assert!(name_problem(name).is_none(), "{name}");
        }
        for name in ["", "a b", "ü", "a\n", &"x".repeat(65)] {
            assert!(name_problem(name).is_some(), "{name:?}");
        }
    }
}
