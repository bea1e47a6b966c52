//! After a crash of the controller: what it left open is looked into and closed. A method is never resumed: agents have
//! put everything back by themselves when their link closed, and are asked whether they have.

use super::runs::Running;
use super::{Service, lock};
use crate::fleet::Held;
use crate::store::{Run as Kept, StoreError};
use backburn_experiments::Span;
use backburn_experiments::journal::{Entry, Event, Run, verdict};
use backburn_experiments::wire::{Cause, Ended, Hello, InjectionId};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many events are read at a time.
const PAGE: u32 = 1000;

impl Service {
    /// Closes every run that a crash left open, each on a thread of its own: its agents have to come again first.
    ///
    /// # Errors
    /// The store's.
    pub fn recover(self: &Arc<Self>) -> Result<usize, StoreError> {
        let open = self.store.open_runs()?;
        let count = open.len();
        for kept in open {
            let (running, stopped) = Running::new();
            lock(&self.runs).insert(kept.new.id.clone(), running);
            let service = Arc::clone(self);
            std::thread::spawn(move || {
                let run = kept.new.id.clone();
                if let Err(error) = service.close_interrupted(&kept) {
                    tracing::error!(run, %error, "a run that a crash left open could not be closed; the next start tries again");
                    lock(&service.runs).remove(&run);
                }
                drop(stopped);
            });
        }
        Ok(count)
    }

    fn close_interrupted(self: &Arc<Self>, kept: &Kept) -> Result<(), StoreError> {
        let id = &kept.new.id;
        let mut run = Run::default();
        let mut last: Option<Entry> = None;
        loop {
            let page = self.store.events(id, run.events as u64, PAGE)?;
            let Some(newest) = page.last() else { break };
            last = Some(newest.entry.clone());
            for numbered in &page {
                if let Err(illegal) = run.apply(&numbered.entry) {
                    // An older program's, or a tampered one: what can be said of it is said.
                    tracing::error!(run = id, %illegal, "a journal does not stand");
                    self.close(id, &verdict(&run));
                    return Ok(());
                }
            }
        }
        if run.ended {
            // Only the word that it is closed was missing.
            self.close(id, &verdict(&run));
            return Ok(());
        }
        let mut journal = Continued {
            service: self,
            id,
            run,
            last,
        };
        if journal.run.events > 0 {
            journal.put(Event::Interrupted {
                reason: "the controller died while the run went on".into(),
            })?;
            self.settle(&mut journal)?;
            journal.put(Event::RunEnded)?;
        } else {
            journal.run.not_started = Some((
                "interrupted".into(),
                "the controller died before the run began".into(),
                None,
            ));
        }
        self.close(id, &verdict(&journal.run));
        Ok(())
    }

    /// Asks every agent that may owe something, as soon as it comes again.
    fn settle(&self, journal: &mut Continued<'_>) -> Result<(), StoreError> {
        let open: Vec<(InjectionId, String)> = (journal.run.open())
            .map(|(id, injection)| (id.clone(), injection.agent.clone()))
            .collect();
        let names: BTreeSet<String> = open.iter().map(|(_, agent)| agent.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime could be built; the run's faults are not asked after");
                return Ok(());
            }
        };
        let began = std::time::Instant::now();
        for name in names {
            let mut held = Held::new(Arc::clone(&self.fleet), journal.id);
            // Who never comes again leaves its injections open, and the run not clean.
            let found = runtime.block_on(held.again(&name));
            let hello = match found {
                Ok((hello, _)) => hello,
                Err(why) => {
                    tracing::error!(run = journal.id, why, "what an agent owes is not known");
                    continue;
                }
            };
            for (injection, _) in open.iter().filter(|(_, agent)| *agent == name) {
                let ended = told(&hello, injection, began.elapsed().into());
                journal.put(Event::InjectionEnded(ended))?;
            }
        }
        Ok(())
    }
}

/// What an agent that has come again says of an injection: what its ledger does not hold is gone.
fn told(hello: &Hello, injection: &str, took: Span) -> Ended {
    let owed = hello.owed.iter().find(|owed| owed.injection == injection);
    let mut residue = owed.map(|owed| owed.residue.clone()).unwrap_or_default();
    if hello.held.iter().any(|held| held == injection) {
        residue.push("another agent of the host still answers for it".into());
    }
    Ended {
        injection: injection.to_owned(),
        cause: Cause::Link,
        clean: owed.is_none() && residue.is_empty(),
        residue,
        took,
        effect: None,
    }
}

/// A journal that goes on after its writer died.
struct Continued<'a> {
    service: &'a Service,
    id: &'a str,
    run: Run,
    last: Option<Entry>,
}

impl Continued<'_> {
    fn put(&mut self, event: Event) -> Result<(), StoreError> {
        let now = Timestamp::now();
        // No clock of ours went on in between: the wall's has to do, and never goes back.
        let elapsed = self.last.as_ref().map_or(0.0, |last| {
            last.elapsed + last.at.duration_until(now).as_secs_f64().max(0.0)
        });
        let entry = Entry {
            at: now,
            elapsed,
            event,
        };
        if let Err(illegal) = self.run.apply(&entry) {
            tracing::error!(run = self.id, %illegal, "an event of the recovery does not stand");
            return Ok(());
        }
        self.service.store.append(self.id, &entry)?;
        self.last = Some(entry);
        Ok(())
    }
}
