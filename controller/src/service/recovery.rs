//! After a crash of the controller, the runs that it left open are closed. A method is never resumed: agents have reverted
//! everything by themselves when their connection closed, and are asked whether they have.

use super::active_runs::ActiveRun;
use super::failpoint::WriteSource;
use super::{RunLoad, Service, lock};
use crate::fleet::Reservation;
use crate::store::StoreError;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, JournalEntry, Run, verdict};
use backburn_experiments::wire::{Cause, EndedInjection, Hello, InjectionId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many events are read at a time.
const EVENTS_PER_PAGE: u32 = 1000;
/// How many events are written at a time.
const EVENTS_PER_WRITE: usize = 512;

impl Service {
    /// Closes every run that a crash left open, each on a thread of its own, because its agents have to reconnect first. They
    /// are reserved before this returns, so that no other run gets them in between.
    ///
    /// # Errors
    /// The store failed.
    pub fn recover(self: &Arc<Self>) -> Result<usize, StoreError> {
        let open = self.store.open_runs()?;
        let count = open.len();
        for kept in open {
            let id = kept.new.id;
            let journal = self.read(&id)?;
            let who = &kept.new.who;
            let mut reservation = Reservation::new(Arc::clone(&self.fleet), &id).asked_by(who);
            journal
                .run
                .open()
                .for_each(|(_, injection)| reservation.claim(&injection.agent));
            let load = self.interrupted_load(&id, who, &journal.run);
            lock(&self.admitted).insert(id.clone(), load);
            let (running, stopped) = ActiveRun::new();
            lock(&self.runs).insert(id.clone(), running);
            let service = Arc::clone(self);
            std::thread::spawn(move || {
                if let Err(error) = service.close_interrupted(journal, reservation) {
                    tracing::error!(run = id, %error, "a run that a crash left open could not be closed; the controller tries again when it next starts");
                    lock(&service.runs).remove(&id);
                    lock(&service.admitted).remove(&id);
                }
                drop(stopped);
            });
        }
        Ok(count)
    }

    /// What an interrupted run still takes of the ceilings: the faults that are not known to be over. Their agents are not
    /// connected yet, so their labels are those in the store.
    fn interrupted_load(&self, id: &str, who: &str, run: &Run) -> RunLoad {
        let mut load = RunLoad {
            run: id.to_owned(),
            who: who.to_owned(),
            person: who.to_owned(),
            ..RunLoad::default()
        };
        for (_, injection) in run.open() {
            *load.faults.entry(injection.agent.clone()).or_default() += 1;
        }
        for name in load.faults.keys() {
            let labels = self.store.agent(name).map(|agent| agent.labels);
            load.agents.insert(name.clone(), labels.unwrap_or_default());
        }
        load
    }

    /// Reads a journal up to its end, or up to its first illegal event.
    pub(super) fn read(&self, id: &str) -> Result<ContinuedJournal, StoreError> {
        let mut journal = ContinuedJournal {
            id: id.to_owned(),
            run: Run::default(),
            last: None,
            is_legal: true,
        };
        loop {
            let page = self
                .store
                .events(id, journal.run.events as u64, EVENTS_PER_PAGE)?;
            if page.is_empty() {
                return Ok(journal);
            }
            for numbered in page {
                if let Err(illegal) = journal.run.apply(&numbered.entry) {
                    // An older program wrote it, or somebody changed it: the legal part counts.
                    tracing::error!(run = id, %illegal, "a journal has an illegal event");
                    journal.is_legal = false;
                    return Ok(journal);
                }
                journal.last = Some(numbered.entry);
            }
        }
    }

    fn close_interrupted(
        self: &Arc<Self>,
        mut journal: ContinuedJournal,
        reservation: Reservation,
    ) -> Result<(), StoreError> {
        if journal.run.events == 0 {
            journal.run.not_started = Some((
                "interrupted".into(),
                "the controller died before the run began".into(),
                None,
            ));
        } else if journal.is_legal && !journal.run.ended {
            let reason = "the controller died during the run".into();
            self.put(&mut journal, [Event::Interrupted { reason }])?;
            self.settle(&mut journal, reservation)?;
            self.put(&mut journal, [Event::RunEnded])?;
        }
        self.close(WriteSource::Recovery, &journal.id, &verdict(&journal.run));
        Ok(())
    }

    /// Asks every agent that may owe something, as soon as it reconnects.
    fn settle(
        &self,
        journal: &mut ContinuedJournal,
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
                tracing::error!(%error, "no runtime could be built; the agents of the run are not asked what they owe");
                return Ok(());
            }
        };
        let began = std::time::Instant::now();
        let mut ends = Vec::new();
        // An agent's introduction has its whole ledger; later events do not matter.
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        for (name, injections) in open {
            // If an agent never reconnects, its injections stay open and the run is not clean.
            let hello = match runtime.block_on(reservation.reconnect(&name, began, None, &events)) {
                Ok(joined) => joined.hello,
                Err(why) => {
                    tracing::error!(run = journal.id, why, "it is not known what an agent owes");
                    continue;
                }
            };
            for injection in &injections {
                let ended = end_of(&hello, injection, began.elapsed().into());
                ends.push(Event::InjectionEnded(ended));
            }
            if ends.len() >= EVENTS_PER_WRITE {
                self.put(journal, std::mem::take(&mut ends))?;
            }
        }
        self.put(journal, ends)
    }

    /// Appends these events to the journal, in one write.
    fn put(
        &self,
        journal: &mut ContinuedJournal,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), StoreError> {
        let entries = events.into_iter().filter_map(|event| journal.take(event));
        let entries: Vec<JournalEntry> = entries.collect();
        match entries.is_empty() {
            true => Ok(()),
            false => self.append(WriteSource::Recovery, &journal.id, &entries),
        }
    }
}

impl ContinuedJournal {
    /// Applies an event, as of now. None if it would be illegal.
    fn take(&mut self, event: Event) -> Option<JournalEntry> {
        let now = Timestamp::now();
        // The run's monotonic clock ended with the controller: the wall clock stands in, and never goes back.
        let elapsed = self.last.as_ref().map_or(0.0, |last| {
            last.elapsed + last.at.duration_until(now).as_secs_f64().max(0.0)
        });
        let entry = JournalEntry {
            at: now,
            elapsed,
            event,
        };
        if let Err(illegal) = self.run.apply(&entry) {
            tracing::error!(run = self.id, %illegal, "an event of the recovery is illegal");
            return None;
        }
        self.last = Some(entry.clone());
        Some(entry)
    }
}

/// The end of an injection, by the introduction of an agent that has reconnected: what its ledger does not hold is gone.
fn end_of(hello: &Hello, injection: &str, took: HumanDuration) -> EndedInjection {
    let owed = hello.owed.iter().find(|owed| owed.injection == injection);
    let mut residue = owed.map(|owed| owed.residue.clone()).unwrap_or_default();
    if hello.held.iter().any(|held| held == injection) {
        residue.push("another agent of the host still holds it".into());
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

/// A journal that is continued after its writer died.
pub(super) struct ContinuedJournal {
    id: String,
    pub(super) run: Run,
    last: Option<JournalEntry>,
    /// Whether every event is legal after those before it.
    is_legal: bool,
}
