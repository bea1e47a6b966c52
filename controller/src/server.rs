//! The controller's daemon: one port, behind which agents have their links, newcomers join, and people and jobs speak
//! HTTP. Whoever calls brings the listener and the end.

use crate::api::{self, Api, Token};
use crate::listener::{Connection, Listener, ListenerLimits};
use crate::pki::agent_registry::AgentRegistry;
use crate::pki::ca::CertificateAuthority;
use crate::pki::enrolment;
use crate::service::Service;
use crate::store::{ApiTokenRecord, Role, Store, StoreError};
use jiff::Timestamp;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The file of the first token, in the data folder.
pub const FIRST_TOKEN_FILE: &str = "admin-token";
/// How long runs may take to put everything back when the controller ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is seen whether there is memory to give back: what runs and answers about them took. It takes tens of milliseconds with ten
/// thousand agents.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// How many HTTP connections at a time; more wait.
const MAX_HTTP_CONNECTIONS: usize = 512;

/// What the daemon is made of.
pub struct Server {
    /// Where it listens.
    pub listener: TcpListener,
    /// What the controller's own certificate names.
    pub names: Vec<String>,
    /// Who signs certificates.
    pub authority: Arc<CertificateAuthority>,
    /// What does the work.
    pub service: Arc<Service>,
    /// Who may join.
    pub registry: Arc<AgentRegistry>,
    /// How long an agent's certificate is good.
    pub lifetime: Duration,
    /// Gives back to the host what was freed. Called when no run is on and something was done since the last time.
    pub trim_memory: fn(),
}

impl Server {
    /// Serves until `ending` comes; then every run is ended and put back. Returns the runs that were not closed by then.
    ///
    /// # Errors
    /// The door can't be opened, or the store can't be read.
    pub async fn run(
        self,
        ending: impl Future<Output = ()>,
    ) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
        let known = Arc::clone(&self.registry);
        // Who does not take a lease's beats has let go of its faults by then, and can't tell us.
        let limits = ListenerLimits {
            unacknowledged: self.service.fleet().lease().0,
            ..ListenerLimits::default()
        };
        let mut listener = Listener::open(
            self.listener,
            &self.authority,
            self.names,
            limits,
            move |client_identity| known.is_revoked(client_identity),
        )?;
        let (service, registry, authority) = (self.service, self.registry, self.authority);
        let router = Api::new(
            Arc::clone(&service),
            Arc::clone(&registry),
            Arc::clone(&authority),
        )
        .router();
        let interrupted = service.recover()?;
        if interrupted > 0 {
            tracing::warn!(
                interrupted,
                "runs were cut short when the controller ended; they are being closed"
            );
        }
        let schedules = tokio::spawn(Arc::clone(&service).keep_schedules());
        let served = Arc::new(AtomicU64::new(0));
        tokio::spawn(trim_memory_when_idle(
            Arc::clone(&service),
            Arc::clone(&served),
            self.trim_memory,
        ));
        let (end, ended) = watch::channel(false);
        let clients = Arc::new(Semaphore::new(MAX_HTTP_CONNECTIONS));
        tokio::pin!(ending);
        loop {
            let connection = tokio::select! {
                connection = listener.next_connection() => connection,
                () = ending.as_mut() => break,
            };
            match connection {
                Connection::Agent(agent) => {
                    let fleet = Arc::clone(service.fleet());
                    tokio::spawn(async move {
                        let name = agent.identity.name;
                        let why = fleet.serve(&name, agent.peer, agent.stream).await;
                        tracing::info!(agent = name, why, "an agent's link is closed");
                    });
                }
                Connection::Joining(connection) => {
                    let (authority, registry) = (Arc::clone(&authority), Arc::clone(&registry));
                    let lifetime = self.lifetime;
                    tokio::spawn(async move {
                        match enrolment::serve(connection, &authority, lifetime, &registry).await {
                            Ok(Some(agent)) => {
                                tracing::info!(agent = agent.name, "an agent has its certificate")
                            }
                            Ok(None) => {}
                            Err(error) => {
                                tracing::info!(%error, "somebody who wanted to join has gone")
                            }
                        }
                    });
                }
                Connection::Http { stream, .. } => {
                    let (router, mut ended) = (router.clone(), ended.clone());
                    let (clients, served) = (Arc::clone(&clients), Arc::clone(&served));
                    tokio::spawn(async move {
                        let Ok(_place) = Arc::clone(&clients).acquire_owned().await else {
                            return;
                        };
                        let ending = async move {
                            // No sender is no end, but of everything.
                            ended.wait_for(|ended| *ended).await.ok();
                        };
                        let is_crowded = clients.available_permits() < MAX_HTTP_CONNECTIONS / 4;
                        api::serve(stream, router, is_crowded, ending).await;
                        served.fetch_add(1, Ordering::Relaxed);
                    });
                }
            }
        }
        schedules.abort();
        // Agents and clients are served on while the runs end: that is what it takes.
        let left = {
            let ends = service.end_runs(SHUTDOWN_TIMEOUT);
            tokio::pin!(ends);
            loop {
                tokio::select! {
                    left = ends.as_mut() => break left,
                    connection = listener.next_connection() => drop(connection),
                }
            }
        };
        end.send_replace(true);
        Ok(left)
    }
}

/// Gives memory back, for as long as the controller lives.
async fn trim_memory_when_idle(service: Arc<Service>, served: Arc<AtomicU64>, trim_memory: fn()) {
    let mut before = (0, 0);
    loop {
        tokio::time::sleep(TRIM_INTERVAL).await;
        let over = service.outcomes().values().sum::<u64>();
        let now = (served.load(Ordering::Relaxed), over);
        if now != before && service.active_runs().is_empty() {
            before = now;
            tokio::task::spawn_blocking(trim_memory).await.ok();
        }
    }
}

/// Makes the first token, for whoever can read the data folder: without one nobody could make any. Returns whether it was made.
///
/// # Errors
/// The store's, or the file can't be written.
pub fn create_first_token(
    store: &dyn Store,
    authority: &CertificateAuthority,
    data: &Path,
) -> Result<bool, FirstTokenError> {
    if !store.api_tokens()?.is_empty() {
        return Ok(false);
    }
    let token = Token::new(authority.fingerprint())
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    let path = data.join(FIRST_TOKEN_FILE);
    // What a crash left here may be anybody's to read.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    // The file first: a token that nobody has would keep this from being done again.
    store.put_api_token(&ApiTokenRecord {
        id: token.id.clone(),
        hash: token.hash(),
        name: "admin".into(),
        role: Role::Admin,
        created: Timestamp::now(),
        expires: None,
        revoked: None,
    })?;
    Ok(true)
}

/// The first token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file's.
    #[error("the file of the first token can't be written: {0}")]
    File(#[from] io::Error),
}
