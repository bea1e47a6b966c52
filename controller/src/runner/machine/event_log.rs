//! The run's events on their way to the journal: each is folded into the run first, which says whether it may follow what came
//! before, and loses the secrets that it quotes. Events that come together, from many agents, are written together.

use crate::runner::events::StepTime;
use backburn_experiments::journal::{Event, IllegalEvent, JournalEntry, Run};
use backburn_experiments::redact::Redactor;

/// What has happened so far, and what of it is not in the journal yet.
pub(super) struct EventLog {
    pub(super) run: Run,
    redactor: Redactor,
    unwritten: Vec<JournalEntry>,
}

impl EventLog {
    pub(super) fn new(redactor: Redactor) -> Self {
        EventLog {
            run: Run::default(),
            redactor,
            unwritten: Vec::new(),
        }
    }

    /// Takes an event in, to be written with the next entries.
    ///
    /// # Errors
    /// The event cannot follow what came before. That is a bug of the state machine, or of an agent.
    pub(super) fn append(&mut self, mut event: Event, now: StepTime) -> Result<(), IllegalEvent> {
        event.redact(&self.redactor);
        let entry = JournalEntry {
            at: now.wall,
            elapsed: now.elapsed.as_secs_f64(),
            event,
        };
        self.run.apply(&entry)?;
        self.unwritten.push(entry);
        Ok(())
    }

    /// What has to be written now; empty where nothing has.
    pub(super) fn take_unwritten(&mut self) -> Vec<JournalEntry> {
        std::mem::take(&mut self.unwritten)
    }
}
