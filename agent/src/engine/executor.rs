//! The thread that applies: write the ledger, apply, observe. One for the whole life of a worker, since the kernel kills helpers
//! with the thread that started them. Whatever takes it long, no end waits for it: what it is about to do can be called off.

use super::completions::{Completion, CompletionSender};
use super::planner::{held, refuse_overlap};
use super::{InjectionFailure, revert_entry};
use crate::changes::ReversibleChange as _;
use crate::faults::Plan;
use crate::host::{Host, Interrupt};
use crate::ledger::{Ledger, LedgerEntry, Owner};
use backburn_experiments::wire::{Cause, InjectionRequest, Refusal};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// How long the ledger's lock is waited for. It is held for a look at the entries and a rename, never longer, so even a
/// crowd of agents takes its turn in time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// What is to be applied.
#[derive(Debug)]
pub(super) struct ApplyJob {
    pub(super) request: InjectionRequest,
    /// Nothing where a round of a repeated fault is passed over.
    pub(super) plan: Option<Plan>,
    /// The round before, of a fault that is repeated: undone first.
    pub(super) before: Option<LedgerEntry>,
    /// Calls it off.
    pub(super) interrupt: Arc<Interrupt>,
}

/// Who applies, on whose behalf.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) host: Host,
    pub(super) ledger: Ledger,
    pub(super) owner: Owner,
}

impl Executor {
    /// Starts the thread. What is sent is applied, in turn.
    ///
    /// # Errors
    /// There are no threads left.
    pub(super) fn start(self, completion_sender: CompletionSender) -> io::Result<Sender<ApplyJob>> {
        let (sender, jobs) = channel::<ApplyJob>();
        let work = move || {
            for job in jobs {
                let outcome = self.execute(&job);
                completion_sender.send(Completion::Applied {
                    injection: job.request.id,
                    outcome,
                });
            }
        };
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(work)?;
        Ok(sender)
    }

    fn execute(&self, job: &ApplyJob) -> Result<(LedgerEntry, Instant), InjectionFailure> {
        let host = self.host.interruptible(&job.interrupt);
        if let Some(before) = &job.before {
            // What the round before still does is put back first: the entry is about to tell of the next.
            for change in before.changes.iter().rev() {
                if let Err(error) = change.undo(&host) {
                    let refusal = Refusal::new(
                        "failed",
                        format!("the round before could not be ended: {error}"),
                    );
                    return Err(self.revert_failed(before, refusal, Cause::Failed));
                }
            }
        }
        let Some(plan) = &job.plan else {
            let nothing = job.before.clone().map(|before| LedgerEntry {
                changes: Vec::new(),
                ..before
            });
            return match nothing {
                Some(entry) => Ok((entry, Instant::now())),
                None => Err(Refusal::new("failed", "there is nothing to apply").into()),
            };
        };
        let entry = match LedgerEntry::new(&job.request, plan, self.owner.clone()) {
            Ok(entry) => entry,
            Err(error) => {
                let refusal = Refusal::new("ledger", error.to_string());
                return Err(match &job.before {
                    Some(before) => self.revert_failed(before, refusal, Cause::Failed),
                    None => refusal.into(),
                });
            }
        };
        if job.interrupt.is_raised() {
            return Err(self.cancelled(job.before.as_ref()));
        }
        self.write(job, plan, &entry)?;
        let started = Instant::now();
        for change in &entry.changes {
            if job.interrupt.is_raised() {
                return Err(self.cancelled(Some(&entry)));
            }
            if let Err(error) = change.apply(&host) {
                if job.interrupt.is_raised() {
                    return Err(self.cancelled(Some(&entry)));
                }
                let refusal = Refusal::new("failed", error.to_string());
                return Err(self.revert_failed(&entry, refusal, Cause::Failed));
            }
        }
        if job.interrupt.is_raised() {
            return Err(self.cancelled(Some(&entry)));
        }
        if !self.ledger.owes(&entry.injection) {
            // Whoever puts back by hand waits for nobody: it may have been while this was being applied.
            let refusal = Refusal::new("failed", "it was reverted by hand meanwhile");
            return Err(self.revert_failed(&entry, refusal, Cause::Manual));
        }
        Ok((entry, started))
    }

    /// Writes the entry. The lock is held from the look at what others hold to the rename, and over nothing slow.
    fn write(
        &self,
        job: &ApplyJob,
        plan: &Plan,
        entry: &LedgerEntry,
    ) -> Result<(), InjectionFailure> {
        let is_new = job.before.is_none();
        let refused = |error: &dyn std::fmt::Display| {
            Refusal::new("ledger", error.to_string())
                .hint("nothing is injected that can't be written down; make room, or name another folder with `--state`")
        };
        // Of a repeated fault the round before is undone, and the entry still names it.
        let not_begun = |refusal: Refusal| match &job.before {
            Some(before) => self.revert_failed(before, refusal, Cause::Failed),
            None => refusal.into(),
        };
        self.ledger
            .stage(&self.host, entry)
            .map_err(|error| not_begun(refused(&error)))?;
        let discard = |refusal: Refusal| {
            self.ledger.discard(&self.host, &entry.injection);
            refusal
        };
        let lock = self
            .ledger
            .lock(LOCK_TIMEOUT, &job.interrupt)
            .map_err(|error| {
                let what = format!(
                    "the ledger's lock in {} can't be had: {error}",
                    self.ledger.folder().display()
                );
                not_begun(discard(Refusal::new("ledger", what).hint(
                    "another process of this host holds it; `status` shows what is owed",
                )))
            })?;
        if is_new && self.ledger.owes(&entry.injection) {
            let what = format!("injection `{}` is there already", entry.injection);
            let refusal =
                Refusal::new("overlap", what).hint("every injection has an id of its own");
            return Err(not_begun(discard(refusal)));
        }
        let overlap = held(&self.ledger, &job.request).and_then(|held| refuse_overlap(&held, plan));
        if let Err(refusal) = overlap {
            return Err(InjectionFailure {
                // It was free when it was planned: another plan may find something that still is.
                lost_race: is_new,
                ..not_begun(discard(refusal))
            });
        }
        if let Err(error) = self.ledger.commit(&self.host, &entry.injection, lock) {
            // The rename may have happened although its sync failed: then it is owed like any other.
            return Err(if self.ledger.owes(&entry.injection) {
                self.revert_failed(entry, refused(&error), Cause::Failed)
            } else {
                discard(refused(&error)).into()
            });
        }
        Ok(())
    }

    /// Puts back what an entry names, since it will not act.
    fn revert_failed(
        &self,
        entry: &LedgerEntry,
        refusal: Refusal,
        cause: Cause,
    ) -> InjectionFailure {
        InjectionFailure {
            refusal,
            ended: Some(revert_entry(&self.host, &self.ledger, entry, cause).into()),
            lost_race: false,
        }
    }

    fn cancelled(&self, entry: Option<&LedgerEntry>) -> InjectionFailure {
        let refusal = Refusal::new("failed", "it was called off before it acted");
        match entry {
            // Whoever called it off knows why, and says so.
            Some(entry) => self.revert_failed(entry, refusal, Cause::ControllerRequest),
            None => refusal.into(),
        }
    }
}
