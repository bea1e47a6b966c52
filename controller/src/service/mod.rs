//! The controller as a daemon: it starts runs on the fleet, on demand and by schedule, keeps what it must remember in
//! the store, and pulls the halt lever. The API, and whoever else commands it, calls the methods of [`Service`].
//!
//! A run has a thread and a runtime of its own, since it blocks until each of its events is durable; what all share
//! (the fleet, the store) may be used from any thread.

mod approvals;

mod failpoint;
mod halt;
mod local_program_policy;
mod otlp;
mod policy;
mod recovery;
mod requested_document;
mod retention;
mod revocation;
mod runs;
mod schedules;

pub use approvals::PendingApproval;

pub use halt::{ActiveHalt, HaltReport};
pub use policy::{FleetPolicy, FleetPolicyError, PolicyDecision, PolicyRequest, PolicyRule};
pub use requested_document::RequestedDocument;
pub use runs::{RunSpec, StartError};
pub use schedules::ScheduledExperiment;

use crate::fleet::Fleet;
use crate::store::{AuditRecord, Role, Store, StoreError};
use backburn_experiments::Problem;
use backburn_experiments::check::{Experiment, Sources};
use backburn_experiments::journal::JournalEntry;
use backburn_experiments::wire::FaultDescription;
use failpoint::{JournalWriter, WriteFailpoint};
use jiff::Timestamp;
use runs::ActiveRun;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Checks an experiment's text against the faults that this program knows.
pub type Check = Box<dyn Fn(&str, &Sources<'_>) -> Result<Experiment, Vec<Problem>> + Send + Sync>;

/// What a service is made of.
pub struct ServiceConfig {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// Its agents.
    pub fleet: Arc<Fleet>,
    /// What its owner allows.
    pub policy: FleetPolicy,
    /// Checks documents.
    pub check: Check,
    /// The faults that this program knows, for people.
    pub catalogue: Vec<FaultDescription>,
    /// Where an OpenTelemetry collector takes traces of runs: a URL without `/v1/otlp`.
    pub collector: Option<String>,
}

/// The controller.
pub struct Service {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    policy: FleetPolicy,
    check: Check,
    catalogue: Vec<FaultDescription>,
    collector: Option<String>,
    runs: Mutex<BTreeMap<String, Arc<ActiveRun>>>,
    halted: Mutex<Option<ActiveHalt>>,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    /// Held while what waits for a second person is read and written anew: two who approve at once start it once.
    approving: Mutex<()>,
    failpoint: WriteFailpoint,
    /// Changes when a schedule may have.
    schedules: tokio::sync::watch::Sender<u64>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Service {
    /// A service of these parts, halted if it was when it last ended.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn new(parts: ServiceConfig) -> Result<Arc<Self>, StoreError> {
        let halted = halt::remembered(parts.store.as_ref())?;
        if halted.is_some() {
            parts.fleet.halt();
        }
        Ok(Arc::new(Service {
            store: parts.store,
            fleet: parts.fleet,
            policy: parts.policy,
            check: parts.check,
            catalogue: parts.catalogue,
            collector: parts.collector,
            runs: Mutex::default(),
            halted: Mutex::new(halted),
            outcomes: Mutex::default(),
            approving: Mutex::default(),
            failpoint: WriteFailpoint::from_environment(),
            schedules: tokio::sync::watch::Sender::new(0),
        }))
    }

    /// What it remembers.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its agents.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The faults that it knows.
    pub fn catalogue(&self) -> &[FaultDescription] {
        &self.catalogue
    }

    /// Writes events of a run down, all or none. They are durable when this returns.
    fn append(
        &self,
        writer: JournalWriter,
        run: &str,
        entries: &[JournalEntry],
    ) -> Result<(), StoreError> {
        self.failpoint.write(writer, || match entries {
            [entry] => self.store.append(run, entry).map(|_| ()),
            entries => self.store.append_all(run, entries),
        })
    }

    /// How many runs ended how, since the start.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.outcomes).clone()
    }

    /// Writes down who did what. What cannot be written down must not be done.
    ///
    /// # Errors
    /// The store's.
    pub fn audit(
        &self,
        who: &Actor,
        what: &str,
        about: &str,
        outcome: &str,
        detail: Value,
    ) -> Result<(), StoreError> {
        let deed = AuditRecord {
            at: Timestamp::now(),
            who: who.name.clone(),
            role: Some(who.role),
            what: what.to_owned(),
            about: about.to_owned(),
            outcome: outcome.to_owned(),
            detail,
        };
        self.store.audit(&deed).map(|_| ())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
