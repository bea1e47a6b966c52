//! A whole controller within the test: its port, its store in a temporary folder, and a client of its API.
#![allow(dead_code)]

use backburn::fleet::Fleet;
use backburn::pki::agent_registry::AgentRegistry;
use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority};
use backburn::pki::tokens::{FIRST_TOKEN_FILE, create_first_token};
use backburn::server::Server;
use backburn::service::{FleetPolicy, Service, ServiceConfig};
use backburn::store::{SqliteStore, Store};
use backburn_experiments::HumanDuration;
use backburn_experiments::check::{self, KnownFault};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A controller that runs.
pub struct Controller {
    pub authority: Arc<CertificateAuthority>,
    pub service: Arc<Service>,
    pub store: Arc<dyn Store>,
    pub registry: Arc<AgentRegistry>,
    pub address: SocketAddr,
    /// The first token, an admin's.
    pub token: String,
    pub end: Option<oneshot::Sender<()>>,
    pub ended: JoinHandle<Vec<String>>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{}: {error}", self.body))
    }
}

impl Controller {
    /// Starts it with its data in this folder.
    pub async fn start(data: &Path) -> Self {
        let store = SqliteStore::open(&data.join("store")).unwrap();
        Self::with_store(data, Arc::new(store)).await
    }

    /// Starts it with its data in this folder, after its service was set up.
    pub async fn start_with(data: &Path, set_up: impl FnOnce(&Service)) -> Self {
        let store = SqliteStore::open(&data.join("store")).unwrap();
        Self::build(data, Arc::new(store), set_up).await
    }

    /// Starts it with this store.
    pub async fn with_store(data: &Path, store: Arc<dyn Store>) -> Self {
        Self::build(data, store, |_| {}).await
    }

    async fn build(data: &Path, store: Arc<dyn Store>, set_up: impl FnOnce(&Service)) -> Self {
        let authority = CertificateAuthority::open(&data.join("authority")).unwrap();
        let authority = Arc::new(authority);
        create_first_token(store.as_ref(), &authority, data).unwrap();
        // None is made if the store has tokens already.
        let token = std::fs::read_to_string(data.join(FIRST_TOKEN_FILE)).unwrap_or_default();
        let fleet = Arc::new(Fleet::new(HumanDuration::seconds(30)));
        let registry = AgentRegistry::load(Arc::clone(&store), &fleet).unwrap();
        let service = Service::new(ServiceConfig {
            store: Arc::clone(&store),
            fleet,
            policy: FleetPolicy::default(),
            policy_file: None,
            approval_expires: HumanDuration::seconds(3600),
            check: Box::new(|text, sources| {
                let faults = [KnownFault {
                    name: "process-pause",
                    one_shot: false,
                    check: Box::new(|_| Vec::new()),
                }];
                check::load(text, sources, &faults)
            }),
            catalogue: Vec::new(),
            collector: None,
        })
        .unwrap();
        set_up(&service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server {
            listener,
            names: vec!["localhost".into(), "127.0.0.1".into()],
            authority: Arc::clone(&authority),
            service: Arc::clone(&service),
            registry: Arc::clone(&registry),
            lifetime: AGENT_CERTIFICATE_LIFETIME,
            renewal_grace: backburn::listener::DEFAULT_RENEWAL_GRACE,
            trim_memory: || {},
        };
        let (end, ending) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let ending = async {
                ending.await.ok();
            };
            server.run(ending).await.unwrap()
        });
        Controller {
            authority,
            service,
            store,
            registry,
            address,
            token: token.trim().to_owned(),
            end: Some(end),
            ended,
        }
    }

    /// Ends it, and waits until nothing of it uses the store any more.
    pub async fn stop(self) {
        let Controller {
            authority,
            service,
            store,
            registry,
            end,
            ended,
            ..
        } = self;
        drop((authority, service, registry));
        drop(end);
        ended.await.unwrap();
        let used = Arc::downgrade(&store);
        drop(store);
        let unused = async {
            while used.strong_count() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, unused).await.unwrap();
    }

    /// A TLS connection to its port, on which nothing was said.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.certificate().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
    }

    /// Sends a request with the first token.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("authorization: Bearer {}\r\n", self.token);
        self.request(method, path, &bearer, body).await
    }

    /// Sends a request with these header lines.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut stream = self.connect().await.unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Answer {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }
}
