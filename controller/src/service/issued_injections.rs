//! Which injections the controller itself has given to an agent, by the journals in its store. What an agent says that it owes counts only if
//! it was given to that agent: an invented debt neither keeps a run from starting nor makes its verdict *not clean*.

use super::Service;
use backburn_experiments::journal::Event;
use backburn_experiments::wire::{InjectionId, UnrevertedInjection};
use std::collections::{BTreeMap, BTreeSet};

/// How many events are read at a time.
const EVENTS_PER_PAGE: u32 = 1000;
/// How many runs are looked up for one agent. Nothing that it says of further ones counts.
const MAX_RUNS: usize = 100;

impl Service {
    /// Keeps only the debts that the controller has given to this agent. What cannot be looked up counts.
    pub(super) fn issued_to(
        &self,
        agent: &str,
        owed: Vec<UnrevertedInjection>,
    ) -> Vec<UnrevertedInjection> {
        let mut issued: BTreeMap<String, Option<BTreeSet<InjectionId>>> = BTreeMap::new();
        let (known, invented): (Vec<_>, Vec<_>) = owed.into_iter().partition(|owed| {
            let Some((run, _)) = owed.injection.rsplit_once('-') else {
                return false;
            };
            if !issued.contains_key(run) {
                if issued.len() >= MAX_RUNS {
                    return false;
                }
                issued.insert(run.to_owned(), self.injections_of(run, agent));
            }
            match issued.get(run) {
                Some(Some(injections)) => injections.contains(&owed.injection),
                _ => true,
            }
        });
        if !invented.is_empty() {
            tracing::warn!(
                agent,
                count = invented.len(),
                "an agent says that it owes injections that this controller never gave it; they do not count"
            );
        }
        known
    }

    /// The injections that this run has requested of this agent. None if the store cannot be read.
    fn injections_of(&self, run: &str, agent: &str) -> Option<BTreeSet<InjectionId>> {
        let mut found = BTreeSet::new();
        let mut after = 0;
        loop {
            let page = match self.store.events(run, after, EVENTS_PER_PAGE) {
                Ok(page) => page,
                Err(error) if error.kind == crate::store::StoreErrorKind::NotThere => {
                    return Some(found);
                }
                Err(error) => {
                    tracing::error!(run, %error, "a journal could not be read");
                    return None;
                }
            };
            let Some(last) = page.last() else {
                return Some(found);
            };
            after = last.number;
            for event in page {
                if let Event::InjectionRequested {
                    injection,
                    agent: its,
                    ..
                } = event.entry.event
                    && its == agent
                {
                    found.insert(injection);
                }
            }
        }
    }
}
