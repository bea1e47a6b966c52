//! A controller without a network: a service with a store in a folder, tokens, and agents that are tasks.

use crate::support::{self, Manners};
use backburn::fleet::{Fleet, GrantedLabels};
use backburn::service::{
    Actor, FleetPolicy, RequestedDocument, RunSpec, RunStartError, Service, ServiceConfig,
};
use backburn::store::{
    ApiTokenRecord, AuditEntry, ExperimentRef, Hash, Role, RunFilter, RunRecord, SqliteStore,
    Store, Trigger, WaitingRun,
};
use backburn_experiments::HumanDuration;
use backburn_experiments::check::{self, KnownFault};
use backburn_experiments::journal::{Event, Outcome};
use backburn_experiments::wire::{FaultDescription, Refusal};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub service: Arc<Service>,
    pub fleet: Arc<Fleet>,
    pub folder: tempfile::TempDir,
    approval_expires: HumanDuration,
}

/// Does what blocks on a thread that may.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

impl World {
    /// With this policy, tokens of `ada` (also `ada-laptop`), `bob` and `eve`, and an agent for each name with `role=web`.
    pub async fn new(policy: Value, agents: &[&str]) -> Self {
        World::expiring(policy, agents, HumanDuration::seconds(3600)).await
    }

    pub async fn expiring(policy: Value, agents: &[&str], expires: HumanDuration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.json"), policy.to_string()).unwrap();
        let fleet = Arc::new(Fleet::new(HumanDuration::seconds(30)));
        let service = blocking(|| {
            let store = Arc::new(SqliteStore::open(&folder.path().join("store")).unwrap());
            for (name, person, role) in [
                ("ada", "ada", Role::Operator),
                ("ada-laptop", "ada", Role::Operator),
                ("bob", "bob", Role::Operator),
                ("eve", "eve", Role::Viewer),
            ] {
                store.put_api_token(&token(name, person, role)).unwrap();
            }
            service(store, &fleet, &folder.path().join("policy.json"), expires)
        });
        let world = World {
            service,
            fleet,
            folder,
            approval_expires: expires,
        };
        for name in agents {
            world.connect(name, Manners::default()).await;
        }
        world
    }

    /// As after a restart of the controller. Its agents are gone.
    pub fn restart(self) -> Self {
        let World {
            service: old,
            folder,
            approval_expires,
            fleet,
        } = self;
        drop((old, fleet));
        let fleet = Arc::new(Fleet::new(HumanDuration::seconds(30)));
        let service = blocking(|| {
            let until = Instant::now() + PATIENCE;
            let store = loop {
                // Threads of runs that are over may still hold the store.
                match SqliteStore::open(&folder.path().join("store")) {
                    Ok(store) => break Arc::new(store),
                    Err(error) => assert!(Instant::now() < until, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(10));
            };
            let path = folder.path().join("policy.json");
            service(store, &fleet, &path, approval_expires)
        });
        blocking(|| service.recover()).unwrap();
        World {
            service,
            fleet,
            folder,
            approval_expires,
        }
    }

    pub async fn connect(&self, name: &str, mut manners: Manners) {
        manners.labels.push(("host".into(), name.to_owned()));
        let labels = [("role", "web"), ("host", name)];
        let granted = GrantedLabels {
            labels: (labels.map(|(key, value)| (key.to_owned(), value.to_owned()))).into(),
            is_confirmed: true,
        };
        self.fleet.grant(name, granted);
        let file = self.file(name);
        std::fs::write(&file, "").unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let before = self.fleet.count();
        tokio::spawn(support::agent(
            theirs,
            name.to_owned(),
            manners,
            Arc::default(),
            file,
            1,
        ));
        let (fleet, name) = (Arc::clone(&self.fleet), name.to_owned());
        tokio::spawn(async move {
            let peer = ([127, 0, 0, 1], 1).into();
            fleet.serve(&name, peer, ours, || false).await
        });
        let mut changes = self.fleet.changes();
        let come = changes.wait_for(|_| self.fleet.count() > before);
        tokio::time::timeout(PATIENCE, come).await.unwrap().unwrap();
    }

    pub fn file(&self, agent: &str) -> PathBuf {
        self.folder.path().join(agent)
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.service.store()
    }

    pub fn apply(&self, name: &str, document: &Value, who: &str) {
        blocking(|| {
            (self
                .store()
                .put_experiment(name, document, who, Timestamp::now()))
            .unwrap();
            self.service.own_schedule(name, &actor(who)).unwrap();
        });
    }

    /// A request for a run of a stored experiment.
    pub fn spec(&self, name: &str, who: &str) -> RunSpec {
        let kept = blocking(|| self.store().experiment_with_secrets(name, None)).unwrap();
        let who = actor(who);
        RunSpec {
            teams: Default::default(),
            document: RequestedDocument::Stored(kept.document),
            reference: Some(ExperimentRef {
                name: kept.name,
                version: kept.version,
            }),
            seed: Some(7),
            variables: Map::new(),
            who: who.name,
            person: who.person,
            because: Trigger::Asked,
            lock: None,
        }
    }

    pub fn start(&self, name: &str, who: &str) -> Result<String, RunStartError> {
        let spec = self.spec(name, who);
        blocking(|| self.service.start(spec))
    }

    /// The run that waits for approval after this request.
    pub fn wait(&self, name: &str, who: &str) -> WaitingRun {
        match self.start(name, who) {
            Err(RunStartError::Waits(waiting)) => *waiting,
            other => panic!("it does not wait: {other:?}"),
        }
    }

    pub fn approve(&self, id: &str, who: &str) -> Result<String, RunStartError> {
        blocking(|| self.service.approve(id, None, &actor(who)))
    }

    pub fn run(&self, id: &str) -> RunRecord {
        blocking(|| self.store().run(id)).unwrap()
    }

    pub fn runs(&self) -> Vec<RunRecord> {
        blocking(|| self.store().runs(&RunFilter::default(), None, 999)).unwrap()
    }

    pub fn events(&self, id: &str) -> Vec<Event> {
        let events = blocking(|| self.store().events(id, 0, 999)).unwrap();
        events.into_iter().map(|event| event.entry.event).collect()
    }

    pub fn audit(&self, what: &str) -> Vec<AuditEntry> {
        let mut all = blocking(|| self.store().audited(0, 9999)).unwrap();
        all.retain(|entry| entry.record.what == what);
        all
    }

    /// Waits until a run is over, and returns it with the reasons of its verdict.
    pub async fn over(&self, id: &str) -> (Outcome, String) {
        self.until("the run is over", || self.run(id).end.is_some())
            .await;
        let end = self.run(id).end.unwrap();
        (end.outcome, end.verdict["reasons"].to_string())
    }

    pub async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < until, "it is not so: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a fault of a run acts on this agent.
    pub async fn until_hit(&self, agent: &str) {
        self.until("the fault acts", || !self.file(agent).exists())
            .await;
    }

    pub fn set_policy(&self, policy: &Value) -> Result<Vec<String>, String> {
        std::fs::write(self.folder.path().join("policy.json"), policy.to_string()).unwrap();
        blocking(|| self.service.reload_policy()).map_err(|error| error.to_string())
    }
}

/// The bearer of one of the world's tokens.
pub fn actor(name: &str) -> Actor {
    let person = name.split('-').next().unwrap_or(name);
    Actor::from(&token(name, person, Role::Operator))
}

pub fn token(name: &str, person: &str, role: Role) -> ApiTokenRecord {
    ApiTokenRecord {
        id: format!("id-{name}"),
        hash: Hash::of(name.as_bytes()),
        name: name.into(),
        person: person.into(),
        teams: Default::default(),
        origin: Default::default(),
        role,
        is_blind: false,
        created: Timestamp::now(),
        expires: None,
        revoked: None,
    }
}

fn service(
    store: Arc<SqliteStore>,
    fleet: &Arc<Fleet>,
    policy: &std::path::Path,
    approval_expires: HumanDuration,
) -> Arc<Service> {
    Service::new(ServiceConfig {
        store,
        fleet: Arc::clone(fleet),
        policy: FleetPolicy::load(policy, &["process-pause"]).unwrap(),
        policy_file: Some(policy.to_owned()),
        approval_expires,
        check: Box::new(|text, sources| {
            let faults = [KnownFault {
                name: "process-pause",
                one_shot: false,
                check: Box::new(|_| Vec::new()),
            }];
            check::load(text, sources, &faults)
        }),
        catalogue: vec![FaultDescription {
            name: "process-pause".into(),
            summary: String::new(),
            one_shot: false,
            schema: json!({}),
            example: json!({}),
        }],
        collector: None,
    })
    .unwrap()
}

/// Pauses a process on agents with these labels, and measures nothing.
pub fn pause(labels: Value, select: Value, duration: &str) -> Value {
    json!({
        "title": "a pause", "description": "a test",
        "targets": {"all": {"labels": labels, "select": select}},
        "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "duration": duration, "targets": "all"}}],
    })
}

pub fn on_host(name: &str, duration: &str) -> Value {
    pause(json!({"host": name}), json!("all"), duration)
}

/// The refusal, and the run that was recorded.
pub fn not_started(result: Result<String, RunStartError>) -> (String, Refusal) {
    match result {
        Err(RunStartError::NotStarted { run, refusal }) => (run, refusal),
        other => panic!("it was not refused: {other:?}"),
    }
}

/// The refusal, where nothing is recorded as a run.
pub fn refused(result: Result<String, RunStartError>) -> Refusal {
    match result {
        Err(RunStartError::Refusal(refusal)) => refusal,
        other => panic!("it was not refused: {other:?}"),
    }
}
