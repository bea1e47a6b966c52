//! Which faults the agents of each service have been shown to survive: counted from the journals of runs. A fault that was not
//! seen to act shows nothing, and what was shown long ago is trusted less.

use super::{Actor, Service, lock};
use crate::store::{OwnedKind, RunFilter, RunRecord, StoreError};
use backburn_experiments::journal::{Event, JournalEntry, Outcome, Run};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most runs that are counted: the latest.
const MAX_COUNTED_RUNS: usize = 2000;
/// How many runs or agents are read at a time.
const RECORDS_PER_PAGE: u32 = 500;
/// How long what was shown is trusted in full, in days.
const FULL_TRUST_DAYS: f64 = 30.0;
/// After how many days it is not trusted at all.
const NO_TRUST_DAYS: f64 = 180.0;

/// A fault that was seen to act on an agent in a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ActedFault {
    fault: String,
    agent: String,
}

/// What is known of a service and a fault.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultCoverage {
    /// The name of the fault, e.g. `process-kill`.
    pub fault: String,
    /// The latest run in which the fault acted and the hypothesis held, and when it started.
    pub survived: Option<(String, Timestamp)>,
    /// The latest run in which the fault acted and the hypothesis did not hold, and when it started.
    pub deviated: Option<(String, Timestamp)>,
    /// In how many runs it was seen to act.
    pub runs: usize,
}

/// What is known of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceCoverage {
    /// The value of the label.
    pub service: String,
    /// The names of its agents.
    pub agents: Vec<String>,
    /// Faults that were seen to act on one of them, by name.
    pub tried: Vec<FaultCoverage>,
    /// Faults that this program knows, and that were never seen to act on one of them.
    pub never: Vec<String>,
}

impl FaultCoverage {
    /// Whether the fault is survived as far as is known: the latest run that says something says so.
    pub fn is_survived(&self) -> bool {
        match (&self.survived, &self.deviated) {
            (Some((_, held)), Some((_, deviated))) => held > deviated,
            (survived, _) => survived.is_some(),
        }
    }

    /// How far the claim is trusted at this time, from 0 to 1: in full for a month, and then less each day.
    pub fn trust(&self, now: Timestamp) -> f64 {
        let Some((_, at)) = self.survived.as_ref().filter(|_| self.is_survived()) else {
            return 0.0;
        };
        let days = now.duration_since(*at).as_secs_f64() / 86_400.0;
        let left = (NO_TRUST_DAYS - days) / (NO_TRUST_DAYS - FULL_TRUST_DAYS);
        (left.clamp(0.0, 1.0) * 100.0).round() / 100.0
    }
}

impl Service {
    /// What the agents with each value of this label have been shown to survive, by the value. Only agents and runs that the
    /// token may see count, and labels that a person granted. The labels are those of today.
    ///
    /// # Errors
    /// The store failed.
    pub fn coverage(&self, who: &Actor, label: &str) -> Result<Vec<ServiceCoverage>, StoreError> {
        let mut services: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.agents(after.as_deref(), RECORDS_PER_PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            for agent in page {
                let is_granted = agent.labels_by.is_some() && agent.revoked.is_none();
                if is_granted && self.sees_agent(who, &agent) {
                    let value = agent.labels.get(label).cloned();
                    let members = value.map(|value| services.entry(value).or_default());
                    members.map(|members| members.insert(agent.name));
                }
            }
        }
        let mut tried: BTreeMap<(String, String), FaultCoverage> = BTreeMap::new();
        for run in self.counted_runs(who)? {
            let acted = self.acted_faults(&run)?;
            for (service, agents) in &services {
                let hit = acted.iter().filter(|one| agents.contains(&one.agent));
                let faults: BTreeSet<&String> = hit.map(|one| &one.fault).collect();
                for fault in faults {
                    let key = (service.clone(), fault.clone());
                    count(tried.entry(key).or_default(), fault, &run);
                }
            }
        }
        let mut found = Vec::new();
        for (service, agents) in services {
            let own = tried.iter().filter(|((of, _), _)| *of == service);
            let tried: Vec<FaultCoverage> = own.map(|(_, known)| known.clone()).collect();
            let is_known = |name: &str| tried.iter().any(|known| known.fault == name);
            let catalogue = self.catalogue.iter().map(|fault| fault.name.clone());
            found.push(ServiceCoverage {
                never: catalogue.filter(|name| !is_known(name)).collect(),
                agents: agents.into_iter().collect(),
                service,
                tried,
            });
        }
        Ok(found)
    }

    /// The latest runs that are over and that the token may see, latest first.
    fn counted_runs(&self, who: &Actor) -> Result<Vec<RunRecord>, StoreError> {
        let filter = RunFilter {
            open: Some(false),
            ..RunFilter::default()
        };
        let mut runs: Vec<RunRecord> = Vec::new();
        let mut before: Option<String> = None;
        while runs.len() < MAX_COUNTED_RUNS {
            let page = self
                .store
                .runs(&filter, before.as_deref(), RECORDS_PER_PAGE)?;
            let Some(last) = page.last() else { break };
            before = Some(last.new.id.clone());
            for run in page {
                if self.sees(who, OwnedKind::Run, &run.new.id)? {
                    runs.push(run);
                }
            }
        }
        Ok(runs)
    }

    /// The faults that were seen to act in a run that is over. Its journal does not change any more, so that it is read once.
    fn acted_faults(&self, run: &RunRecord) -> Result<Arc<Vec<ActedFault>>, StoreError> {
        let id = &run.new.id;
        if let Some(known) = lock(&self.acted_faults).get(id) {
            return Ok(Arc::clone(known));
        }
        let mut fold = Run::default();
        self.store.journal_lines(id, 0, &mut |line| {
            // Samples are most of a journal, and say nothing of faults.
            if line.contains("\"event\":\"sampled\"") {
                return true;
            }
            match serde_json::from_str::<JournalEntry>(line) {
                Ok(entry) if matches!(entry.event, Event::Sampled { .. }) => true,
                Ok(entry) => fold.apply(&entry).is_ok(),
                Err(_) => false,
            }
        })?;
        let acted = fold.injections.into_values().filter(|record| record.acted);
        let acted: BTreeSet<ActedFault> = acted
            .map(|record| ActedFault {
                fault: record.fault,
                agent: record.agent,
            })
            .collect();
        let acted = Arc::new(Vec::from_iter(acted));
        let mut known = lock(&self.acted_faults);
        if known.len() >= MAX_COUNTED_RUNS {
            // The earliest by id, which begins with a time.
            known.pop_first();
        }
        known.insert(id.clone(), Arc::clone(&acted));
        Ok(acted)
    }
}

/// Counts a run in which a fault acted. Runs come latest first.
fn count(known: &mut FaultCoverage, fault: &str, run: &RunRecord) {
    known.fault = fault.to_owned();
    known.runs += 1;
    let Some(end) = &run.end else { return };
    let this = || (run.new.id.clone(), run.new.started);
    match end.outcome {
        // Notes of a verdict that held say that nothing was measured.
        Outcome::Held if end.verdict["notes"].is_null() => {
            known.survived.get_or_insert_with(this);
        }
        Outcome::Deviated => {
            known.deviated.get_or_insert_with(this);
        }
        _ => {}
    }
}
