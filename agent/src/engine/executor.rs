//! The thread that writes the ledger and applies changes. There is one for the whole life of a worker, since the kernel kills helpers
//! when the thread that started them exits. No revert waits for it: a job can be cancelled at any time.

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

/// How long to wait for the ledger's lock. The lock is held only while entries are read and one file is renamed, so even many agents
/// get it in time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// One injection, or one round of it, to apply.
#[derive(Debug)]
pub(super) struct ApplyJob {
    pub(super) request: InjectionRequest,
    /// The plan; none if this round of a repeated fault is skipped.
    pub(super) plan: Option<Plan>,
    /// The entry of the round before, which is undone first; none for the first round.
    pub(super) before: Option<LedgerEntry>,
    /// Cancels the job when it is raised.
    pub(super) interrupt: Arc<Interrupt>,
}

/// What the executor's thread works with.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) host: Host,
    pub(super) ledger: Ledger,
    pub(super) owner: Owner,
}

impl Executor {
    /// Starts the thread, which applies the jobs that are sent to it in turn.
    ///
    /// # Errors
    /// No thread is left.
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
            // The round before is undone first, because the entry is about to describe the next one.
            for change in before.changes.iter().rev() {
                if let Err(error) = change.undo(&host) {
                    let refusal = Refusal::new(
                        "failed",
                        format!("the previous round could not be undone: {error}"),
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
            // Reverting by hand takes no lock, so it may have happened while this was being applied.
            let refusal = Refusal::new("failed", "reverted by hand in the meantime");
            return Err(self.revert_failed(&entry, refusal, Cause::Manual));
        }
        Ok((entry, started))
    }

    /// Writes the ledger entry. The lock is held from reading what other injections hold to the rename, and never over anything slow.
    fn write(
        &self,
        job: &ApplyJob,
        plan: &Plan,
        entry: &LedgerEntry,
    ) -> Result<(), InjectionFailure> {
        let is_new = job.before.is_none();
        let refused = |error: &dyn std::fmt::Display| {
            Refusal::new("ledger", error.to_string())
                .hint("nothing is injected without a ledger entry; free some space, or name another folder with `--state`")
        };
        // The previous round of a repeated fault is undone already, and the entry still describes it.
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
                    "the lock of the ledger in {} could not be taken: {error}",
                    self.ledger.folder().display()
                );
                not_begun(discard(Refusal::new("ledger", what).hint(
                    "another process on this host holds it; `status` shows what is owed",
                )))
            })?;
        if is_new && self.ledger.owes(&entry.injection) {
            let what = format!("injection `{}` exists already", entry.injection);
            let refusal =
                Refusal::new("overlap", what).hint("give every injection an id of its own");
            return Err(not_begun(discard(refusal)));
        }
        let overlap = held(&self.ledger, &job.request).and_then(|held| refuse_overlap(&held, plan));
        if let Err(refusal) = overlap {
            return Err(InjectionFailure {
                // It was free when the plan was made: another plan may find something that still is.
                lost_race: is_new,
                ..not_begun(discard(refusal))
            });
        }
        if let Err(error) = self.ledger.commit(&self.host, &entry.injection, lock) {
            // The rename may have happened although the sync after it failed: then the entry is owed like any other.
            return Err(if self.ledger.owes(&entry.injection) {
                self.revert_failed(entry, refused(&error), Cause::Failed)
            } else {
                discard(refused(&error)).into()
            });
        }
        Ok(())
    }

    /// Reverts what an entry describes, because the injection has failed.
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
        let refusal = Refusal::new("failed", "cancelled before it took effect");
        match entry {
            // Whoever cancelled it reports the actual cause.
            Some(entry) => self.revert_failed(entry, refusal, Cause::ControllerRequest),
            None => refusal.into(),
        }
    }
}
