//! A controller in this process: the real service, store and routes, without sockets and TLS.

use super::{Manners, agent, known_faults};
use axum::Router;
use axum::body::Body;
use backburn::api::Api;
use backburn::fleet::{Fleet, GrantedLabels};
use backburn::pki::agent_registry::AgentRegistry;
use backburn::pki::ca::CertificateAuthority;
use backburn::pki::tokens::{create_token, secret_hash};
use backburn::service::{FleetPolicy, Service, ServiceConfig};
use backburn::store::{ApiTokenRecord, EnrolledAgent, Role, SqliteStore, Store, TokenOrigin};
use backburn_experiments::HumanDuration;
use backburn_experiments::check;
use backburn_experiments::token::ApiToken;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The parts of a controller.
pub struct TestController {
    pub folder: tempfile::TempDir,
    pub store: Arc<SqliteStore>,
    pub service: Arc<Service>,
    pub authority: Arc<CertificateAuthority>,
    router: Router,
}

/// A token that a test uses, and its id.
pub struct TestToken {
    pub id: String,
    pub text: String,
}

/// A service of this store and policy, with a fleet of its own.
pub fn service_of(store: Arc<dyn Store>, policy: &Path) -> Arc<Service> {
    Service::new(ServiceConfig {
        store,
        fleet: Arc::new(Fleet::new(HumanDuration::seconds(30))),
        policy: FleetPolicy::load(policy, &["process-pause"]).unwrap(),
        policy_file: Some(policy.to_owned()),
        approval_expires: HumanDuration::seconds(3600),
        check: Box::new(|text, sources| check::load(text, sources, &known_faults())),
        catalogue: Vec::new(),
        collector: None,
    })
    .unwrap()
}

impl TestController {
    pub fn new() -> Self {
        Self::with_policy(json!({}))
    }

    pub fn with_policy(policy: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("store")).unwrap());
        let authority = CertificateAuthority::open(&folder.path().join("authority")).unwrap();
        let authority = Arc::new(authority);
        let file = folder.path().join("policy.json");
        std::fs::write(&file, policy.to_string()).unwrap();
        let service = service_of(Arc::clone(&store) as Arc<dyn Store>, &file);
        let fleet = Arc::clone(service.fleet());
        let registry = AgentRegistry::load(Arc::clone(&store) as Arc<dyn Store>, &fleet).unwrap();
        let router = Api::new(Arc::clone(&service), registry, Arc::clone(&authority)).router();
        TestController {
            folder,
            store,
            service,
            authority,
            router,
        }
    }

    /// A new token of this name and person; `change` may alter what the store keeps of it.
    pub fn token_with(
        &self,
        name: &str,
        role: Role,
        change: impl FnOnce(&mut ApiTokenRecord),
    ) -> TestToken {
        let token: ApiToken = create_token(&self.authority).unwrap();
        let mut kept = ApiTokenRecord {
            id: token.id.clone(),
            hash: secret_hash(&token.secret),
            name: name.into(),
            person: name.into(),
            teams: BTreeSet::new(),
            origin: TokenOrigin::Made,
            role,
            is_blind: false,
            created: Timestamp::now(),
            expires: None,
            revoked: None,
        };
        change(&mut kept);
        self.store.put_api_token(&kept).unwrap();
        TestToken {
            id: token.id.clone(),
            text: token.to_string(),
        }
    }

    pub fn token(&self, name: &str, role: Role) -> TestToken {
        self.token_with(name, role, |_| {})
    }

    /// A token that is limited to these teams.
    pub fn team_token(&self, name: &str, role: Role, teams: &[&str]) -> TestToken {
        self.token_with(name, role, |kept| {
            kept.teams = teams.iter().map(|team| (*team).to_owned()).collect();
        })
    }

    /// Sends a request; the answer as soon as it begins.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        token: &TestToken,
        body: Option<Value>,
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", token.text));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let service = TowerToHyperService::new(self.router.clone());
        service.call(request.body(body).unwrap()).await.unwrap()
    }

    /// Sends a request with these headers and nothing else; the answer as soon as it begins.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = TowerToHyperService::new(self.router.clone());
        let request = request.body(Body::from("{}")).unwrap();
        service.call(request).await.unwrap()
    }

    /// Sends a request; the status and the JSON of the answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        token: &TestToken,
        body: Option<Value>,
    ) -> (u16, Value) {
        let response = self.open(method, path, token, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Enrols an agent with these labels, and connects it.
    pub async fn agent(&self, name: &str, labels: &[(&str, &str)], mut manners: Manners) {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<String, String> = labels.collect();
        // What it says grants it nothing.
        manners.labels.extend(labels.clone());
        let granted = GrantedLabels {
            labels: labels.clone(),
            is_confirmed: true,
        };
        self.service.fleet().grant(name, granted);
        self.store
            .put_agent(&EnrolledAgent {
                name: name.into(),
                serials: vec!["01".into()],
                labels,
                labels_by: Some("ada".into()),
                enrolled: Timestamp::now(),
                revoked: None,
                heard: None,
            })
            .unwrap();
        let file = self.file(name);
        std::fs::write(&file, "").unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let told = Arc::default();
        tokio::spawn(agent(theirs, name.to_owned(), manners, told, file, 1));
        let fleet = Arc::clone(self.service.fleet());
        let mut changes = fleet.changes();
        let owned = name.to_owned();
        let serving = Arc::clone(&fleet);
        tokio::spawn(async move {
            let peer = ([127, 0, 0, 1], 1).into();
            serving.serve(&owned, peer, ours, || false).await
        });
        changes
            .wait_for(|_| fleet.get(name).is_some())
            .await
            .unwrap();
    }

    /// Applies an experiment, starts a run of it, and waits until it has injected its fault. The run's id.
    pub async fn running(
        &self,
        name: &str,
        token: &TestToken,
        document: Value,
        agent: &str,
    ) -> String {
        let path = format!("/api/v1/experiments/{name}");
        let (status, applied) = self.ask("PUT", &path, token, Some(document)).await;
        assert_eq!(status, 200, "{applied}");
        let (status, begun) = self
            .ask("POST", &format!("{path}/runs"), token, Some(json!({})))
            .await;
        assert_eq!(status, 201, "{begun}");
        let file = self.file(agent);
        self.until("the fault is injected", || !file.exists()).await;
        begun["run"].as_str().unwrap().to_owned()
    }

    /// The file that a fault of this agent removes.
    pub fn file(&self, agent: &str) -> PathBuf {
        self.folder.path().join(format!("{agent}.healthy"))
    }

    /// Waits until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        assert!(tokio::time::timeout(limit, waiting).await.is_ok(), "{what}");
    }

    /// What the audit log has of this operation.
    pub fn audited(&self, what: &str) -> Vec<Value> {
        let all = self.store.audited(0, 1000).unwrap().into_iter();
        let all = all.filter(|entry| entry.record.what == what);
        all.map(|entry| json!(entry)).collect()
    }
}
