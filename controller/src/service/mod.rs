//! What the controller does: it starts runs on the fleet, on demand and by schedule, records everything in the store, and
//! halts the fleet. The API calls the methods of [`Service`].
//!
//! Each run has a thread and a runtime of its own, because it blocks until each of its events is durable. The fleet and the
//! store, which all runs share, may be used from any thread.

mod actions;
mod active_runs;
mod approvals;
mod cleaned;
mod coverage;
mod failpoint;
mod game_day_keeper;
mod game_days;
mod halt;
mod hidden_words;
mod issued_injections;
mod local_program_policy;
mod login;
mod mail_target;
mod membership;
mod notes;
mod notification_text;
mod notifications;
mod otlp;
mod owner_certificate;
mod policy;
mod policy_file;
mod policy_rule;
mod recovery;
mod report;
mod requested_document;
mod retention;
mod revocation;
mod rights;
mod rule_watch;
mod run_audit;
mod run_documents;
mod run_load;
mod run_locks;
mod run_spec;
mod runs;
mod schedule_keeper;
mod schedules;
mod status_page;
mod status_updates;
mod suggestions;
mod teams;

pub use actions::{Action, ActionCounts, ActionError, NewAction};
pub use approvals::ApprovalPlan;
pub use coverage::{FaultCoverage, ServiceCoverage};
pub use game_days::{GAME_DAY_PREFIX, GameDayError, GameDaySpec, HeldGameDay};
pub use halt::{ActiveHalt, HaltReport, LastHalt};
pub use hidden_words::{HIDDEN, HiddenWords};
pub use login::{DeviceLogin, LoggedIn, LoginDesk, LoginError};
pub use mail_target::MailTarget;
pub use notes::NoteWritten;
pub use notification_text::{NotificationFormat, NotificationKind};
pub use notifications::NotificationTarget;
pub use policy::{FleetPolicy, FleetPolicyError, LogLevel};
pub use policy_file::PolicyReloadError;
pub use policy_rule::{CeilingScope, PolicyDecision, PolicyRequest, PolicyRule};
pub use report::{ReportError, ReportMoment};
pub use requested_document::RequestedDocument;
pub use run_load::RunLoad;
pub(crate) use run_locks::LOCK_RULE;
pub use run_spec::{RunSpec, RunStartError};
pub use schedules::{SchedulePause, ScheduledExperiment};
pub use status_page::StatusPage;
pub use suggestions::AgentSuggestions;

use crate::fleet::Fleet;
use crate::pki::owner_certificate::OwnerCertificate;
use crate::request_id;
use crate::store::{ApiTokenRecord, AuditHead, AuditRecord, Role, Store, StoreError};
use active_runs::ActiveRun;
use backburn_experiments::check::{Experiment, Sources};
use backburn_experiments::journal::JournalEntry;
use backburn_experiments::wire::FaultDescription;
use backburn_experiments::{HumanDuration, Problem};
use failpoint::{WriteFailpoint, WriteSource};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// Parses an experiment's text and checks it against the faults that this program knows.
pub type ParseExperiment =
    Box<dyn Fn(&str, &Sources<'_>) -> Result<Experiment, Vec<Problem>> + Send + Sync>;

/// The parts of a service.
pub struct ServiceConfig {
    /// The store of everything that must survive a restart.
    pub store: Arc<dyn Store>,
    /// The agents that are connected.
    pub fleet: Arc<Fleet>,
    /// The policy of the controller's owner.
    pub policy: FleetPolicy,
    /// The file of the policy, which can be loaded again. None if there is none.
    pub policy_file: Option<PathBuf>,
    /// How long a run waits for approval.
    pub approval_expires: HumanDuration,
    /// Parses and checks documents.
    pub check: ParseExperiment,
    /// Descriptions of the faults that this program knows.
    pub catalogue: Vec<FaultDescription>,
    /// Where an OpenTelemetry collector takes traces of runs: a URL without `/v1/otlp`.
    pub collector: Option<String>,
}

/// The controller, as one object that all requests share.
pub struct Service {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    policy: RwLock<Arc<FleetPolicy>>,
    policy_file: Option<PathBuf>,
    approval_expires: HumanDuration,
    check: ParseExperiment,
    catalogue: Vec<FaultDescription>,
    collector: Option<String>,
    runs: Mutex<BTreeMap<String, Arc<ActiveRun>>>,
    halted: Mutex<Option<ActiveHalt>>,
    /// The halts of teams in force, by team.
    halted_teams: Mutex<BTreeMap<String, ActiveHalt>>,
    login_desk: OnceLock<LoginDesk>,
    /// A certificate of the owner's for browsers.
    owner_certificate: OnceLock<Arc<OwnerCertificate>>,
    /// Whether the files of that certificate could not be used when they were read last.
    owner_certificate_stale: AtomicBool,
    /// Whether the controller ends: no run starts any more.
    ending: AtomicBool,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    /// The last halt, and how long it took until everything was observed gone.
    last_halt: Mutex<Option<LastHalt>>,
    /// How many due times of schedules passed without a run.
    missed_times: AtomicU64,
    /// Runs that ended not clean, and what is left of each.
    unclean: Mutex<BTreeMap<String, cleaned::Unproved>>,
    /// Changes when a run has ended not clean.
    unclean_changed: tokio::sync::watch::Sender<u64>,
    /// What each run takes of the policy's ceilings, from its reservation of agents to its end.
    admitted: Mutex<BTreeMap<String, RunLoad>>,
    /// The locks that open runs hold.
    locks: Arc<run_locks::RunLocks>,
    failpoint: WriteFailpoint,
    /// Held while an action is checked and changed, so that nobody changes it in between.
    action_lock: Mutex<()>,
    notifier: notifications::Notifier,
    /// The faults that were seen to act in runs that are over, by the runs' ids, as far as they were asked for.
    acted_faults: Mutex<BTreeMap<String, Arc<Vec<coverage::ActedFault>>>>,
    /// Changes when a schedule may have changed.
    schedules: tokio::sync::watch::Sender<u64>,
    /// How often the public's status page could not be written.
    status_page_failures: AtomicU64,
    /// Changes when there is an outward status update.
    status: tokio::sync::watch::Sender<u64>,
    /// Changes when something may be due at a game day.
    game_days: tokio::sync::watch::Sender<u64>,
    /// Held while the stream of a game day is read and continued, so that nothing is done twice.
    game_day_turn: Mutex<()>,
    /// Tells of each note that was written.
    notes: tokio::sync::broadcast::Sender<NoteWritten>,
}

/// The name that the controller has in the audit log in place of a token's.
const OWN_NAME: &str = "controller";

/// Who asks for something: the bearer of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The id of the token.
    pub token: String,
    /// The name of the token.
    pub name: String,
    /// The person or job that the token belongs to.
    pub person: String,
    /// The teams that the token is limited to; none means all.
    pub teams: BTreeSet<String>,
    /// The role that the token has.
    pub role: Role,
    /// Whether it is the token of a participant of game days, who may not know what they do before it is revealed.
    pub is_blind: bool,
}

impl From<&ApiTokenRecord> for Actor {
    fn from(token: &ApiTokenRecord) -> Self {
        Actor {
            token: token.id.clone(),
            name: token.name.clone(),
            person: token.person.clone(),
            teams: token.teams.clone(),
            role: token.role,
            is_blind: token.is_blind,
        }
    }
}

impl Service {
    /// A service of these parts. A halt that was in force when the controller ended is in force again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(parts: ServiceConfig) -> Result<Arc<Self>, StoreError> {
        let mut halted = halt::stored(parts.store.as_ref())?;
        let halted_teams = match halt::stored_of_teams(parts.store.as_ref())? {
            Ok(halted_teams) => halted_teams,
            Err(unreadable) => {
                halted.get_or_insert(unreadable);
                BTreeMap::new()
            }
        };
        halted_teams
            .keys()
            .for_each(|team| parts.fleet.halt_team(team));
        if halted.is_some() {
            parts.fleet.halt();
        }
        Ok(Arc::new(Service {
            store: parts.store,
            fleet: parts.fleet,
            policy: RwLock::new(Arc::new(parts.policy)),
            policy_file: parts.policy_file,
            approval_expires: parts.approval_expires,
            check: parts.check,
            catalogue: parts.catalogue,
            collector: parts.collector,
            runs: Mutex::default(),
            halted: Mutex::new(halted),
            halted_teams: Mutex::new(halted_teams),
            login_desk: OnceLock::new(),
            owner_certificate: OnceLock::new(),
            owner_certificate_stale: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            outcomes: Mutex::default(),
            last_halt: Mutex::default(),
            missed_times: AtomicU64::new(0),
            status_page_failures: AtomicU64::new(0),
            unclean: Mutex::default(),
            unclean_changed: tokio::sync::watch::Sender::new(0),
            admitted: Mutex::default(),
            locks: Arc::default(),
            failpoint: WriteFailpoint::from_environment(),
            action_lock: Mutex::default(),
            notifier: notifications::Notifier::default(),
            acted_faults: Mutex::default(),
            schedules: tokio::sync::watch::Sender::new(0),
            status: tokio::sync::watch::Sender::new(0),
            game_days: tokio::sync::watch::Sender::new(0),
            game_day_turn: Mutex::default(),
            notes: tokio::sync::broadcast::Sender::new(notes::NOTE_BACKLOG),
        }))
    }

    /// Returns the store of the controller.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the fleet of connected agents.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// How long a run waits for approval.
    pub fn approval_expires(&self) -> HumanDuration {
        self.approval_expires
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<FleetPolicy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Descriptions of the faults that this program knows.
    pub fn catalogue(&self) -> &[FaultDescription] {
        &self.catalogue
    }

    /// Appends events to a run's journal, all or none. They are durable when this returns.
    fn append(
        &self,
        writer: WriteSource,
        run: &str,
        entries: &[JournalEntry],
    ) -> Result<(), StoreError> {
        self.failpoint.write(writer, || match entries {
            [entry] => self.store.append(run, entry).map(|_| ()),
            entries => self.store.append_all(run, entries),
        })
    }

    /// How many runs have ended since the start, by outcome.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.outcomes).clone()
    }

    /// Records in the audit log what the controller did on its own, without anybody's token.
    ///
    /// # Errors
    /// The store failed.
    pub fn audit_own(
        &self,
        what: &str,
        about: &str,
        outcome: &str,
        detail: Value,
    ) -> Result<AuditHead, StoreError> {
        self.store.audit(&AuditRecord {
            at: Timestamp::now(),
            who: OWN_NAME.into(),
            role: None,
            what: what.to_owned(),
            about: about.to_owned(),
            outcome: outcome.to_owned(),
            detail,
        })
    }

    /// Records in the audit log who did what, and in which request. What cannot be recorded must not be done.
    ///
    /// # Errors
    /// The store failed.
    pub fn audit(
        &self,
        who: &Actor,
        what: &str,
        about: &str,
        outcome: &str,
        detail: Value,
    ) -> Result<(), StoreError> {
        let record = audit_record(who, what, about, outcome, detail);
        self.store.audit(&record).map(|_| ())
    }
}

/// An entry of the audit log that says who does what now, and in which request.
pub(crate) fn audit_record(
    who: &Actor,
    what: &str,
    about: &str,
    outcome: &str,
    mut detail: Value,
) -> AuditRecord {
    if let Some(detail) = detail.as_object_mut().filter(|_| who.person != who.name) {
        detail.insert("person".into(), who.person.clone().into());
    }
    if let (Some(id), Some(detail)) = (request_id::current(), detail.as_object_mut()) {
        detail.insert("request-id".into(), id.into());
    }
    AuditRecord {
        at: Timestamp::now(),
        who: who.name.clone(),
        role: Some(who.role),
        what: what.to_owned(),
        about: about.to_owned(),
        outcome: outcome.to_owned(),
        detail,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
