//! After a crash of the controller: what it left open is looked into and closed. A method is never resumed: agents have
//! put everything back by themselves when their link closed, and are asked whether they have.

use super::failpoint::JournalWriter;
use super::runs::ActiveRun;
use super::{Service, lock};
use crate::fleet::Reservation;
use crate::store::StoreError;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{JournalEntry, Event, Run, verdict};
use backburn_experiments::wire::{Cause, EndedInjection, Hello, InjectionId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many events are read at a time.
const PAGE: u32 = 1000;
/// How many are written at a time.
const AT_ONCE: usize = 512;

impl Service {
    /// Closes every run that a crash left open, each on a thread of its own: its agents have to come again first. They are
    /// claimed before this returns, so that nobody else gets them in between.
    ///
    /// # Errors
    /// The store's.
    pub fn recover(self: &Arc<Self>) -> Result<usize, StoreError> {
        let open = self.store.open_runs()?;
        let count = open.len();
        for kept in open {
            let id = kept.new.id;
            let journal = self.read(&id)?;
            let mut reservation = Reservation::new(Arc::clone(&self.fleet), &id);
            journal
                .run
                .open()
                .for_each(|(_, injection)| reservation.claim(&injection.agent));
            let (running, stopped) = ActiveRun::new();
            lock(&self.runs).insert(id.clone(), running);
            let service = Arc::clone(self);
            std::thread::spawn(move || {
                if let Err(error) = service.close_interrupted(journal, reservation) {
                    tracing::error!(run = id, %error, "a run that a crash left open could not be closed; the next start tries again");
                    lock(&service.runs).remove(&id);
                }
                drop(stopped);
            });
        }
        Ok(count)
    }

    /// A journal, as far as it goes.
    fn read(&self, id: &str) -> Result<Continued, StoreError> {
        let mut journal = Continued {
            id: id.to_owned(),
            run: Run::default(),
            last: None,
            stands: true,
        };
        loop {
            let page = self.store.events(id, journal.run.events as u64, PAGE)?;
            if page.is_empty() {
                return Ok(journal);
            }
            for numbered in page {
                if let Err(illegal) = journal.run.apply(&numbered.entry) {
                    // An older program's, or a tampered one: what can be said of it is said.
                    tracing::error!(run = id, %illegal, "a journal does not stand");
                    journal.stands = false;
                    return Ok(journal);
                }
                journal.last = Some(numbered.entry);
            }
        }
    }

    fn close_interrupted(
        self: &Arc<Self>,
        mut journal: Continued,
        reservation: Reservation,
    ) -> Result<(), StoreError> {
        if journal.run.events == 0 {
            journal.run.not_started = Some((
                "interrupted".into(),
                "the controller died before the run began".into(),
                None,
            ));
        } else if journal.stands && !journal.run.ended {
            let reason = "the controller died while the run went on".into();
            self.put(&mut journal, [Event::Interrupted { reason }])?;
            self.settle(&mut journal, reservation)?;
            self.put(&mut journal, [Event::RunEnded])?;
        }
        self.close(JournalWriter::Recovery, &journal.id, &verdict(&journal.run));
        Ok(())
    }

    /// Asks every agent that may owe something, as soon as it comes again.
    fn settle(
        &self,
        journal: &mut Continued,
        mut reservation: Reservation,
    ) -> Result<(), StoreError> {
        let mut open: BTreeMap<String, Vec<InjectionId>> = BTreeMap::new();
        for (id, injection) in journal.run.open() {
            let of = open.entry(injection.agent.clone()).or_default();
            of.push(id.clone());
        }
        if open.is_empty() {
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
        let mut told_of = Vec::new();
        // Its ledger says it all; what it would say later concerns nobody.
        let (ear, _) = tokio::sync::mpsc::unbounded_channel();
        for (name, injections) in open {
            // Who never comes again leaves its injections open, and the run not clean.
            let hello = match runtime.block_on(reservation.reconnect(&name, began, None, &ear)) {
                Ok(joined) => joined.hello,
                Err(why) => {
                    tracing::error!(run = journal.id, why, "what an agent owes is not known");
                    continue;
                }
            };
            for injection in &injections {
                let ended = told(&hello, injection, began.elapsed().into());
                told_of.push(Event::InjectionEnded(ended));
            }
            if told_of.len() >= AT_ONCE {
                self.put(journal, std::mem::take(&mut told_of))?;
            }
        }
        self.put(journal, told_of)
    }

    /// Writes these down, together.
    fn put(
        &self,
        journal: &mut Continued,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), StoreError> {
        let entries = events.into_iter().filter_map(|event| journal.take(event));
        let entries: Vec<JournalEntry> = entries.collect();
        match entries.is_empty() {
            true => Ok(()),
            false => self.append(JournalWriter::Recovery, &journal.id, &entries),
        }
    }
}

impl Continued {
    /// Takes an event in, as of now. None where it does not stand.
    fn take(&mut self, event: Event) -> Option<JournalEntry> {
        let now = Timestamp::now();
        // No clock of ours went on in between: the wall's has to do, and never goes back.
        let elapsed = self.last.as_ref().map_or(0.0, |last| {
            last.elapsed + last.at.duration_until(now).as_secs_f64().max(0.0)
        });
        let entry = JournalEntry {
            at: now,
            elapsed,
            event,
        };
        if let Err(illegal) = self.run.apply(&entry) {
            tracing::error!(run = self.id, %illegal, "an event of the recovery does not stand");
            return None;
        }
        self.last = Some(entry.clone());
        Some(entry)
    }
}

/// What an agent that has come again says of an injection: what its ledger does not hold is gone.
fn told(hello: &Hello, injection: &str, took: HumanDuration) -> EndedInjection {
    let owed = hello.owed.iter().find(|owed| owed.injection == injection);
    let mut residue = owed.map(|owed| owed.residue.clone()).unwrap_or_default();
    if hello.held.iter().any(|held| held == injection) {
        residue.push("another agent of the host still answers for it".into());
    }
    EndedInjection {
        injection: injection.to_owned(),
        cause: Cause::ConnectionClosed,
        clean: owed.is_none() && residue.is_empty(),
        residue,
        took,
        effect: None,
    }
}

/// A journal that goes on after its writer died.
struct Continued {
    id: String,
    run: Run,
    last: Option<JournalEntry>,
    /// Whether every event could follow the one before.
    stands: bool,
}
