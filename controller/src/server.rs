//! The controller's daemon: one port, on which agents connect and join, and people and programs use HTTP. The caller provides
//! the listener and the signal to end.

use crate::api::{self, Api};
use crate::connection_slots::Slot;
use crate::listener::{Connection, Listener, ListenerLimits};
use crate::pki::agent_registry::AgentRegistry;
use crate::pki::ca::CertificateAuthority;
use crate::pki::enrolment;
use crate::service::Service;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long runs may take to revert everything when the controller ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often freed memory is returned to the host, if runs or requests have used some. That takes tens of milliseconds with ten
/// thousand agents.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// The controller's daemon, ready to run.
pub struct Server {
    /// The socket to listen on.
    pub listener: TcpListener,
    /// The host names and addresses in the controller's certificate.
    pub names: Vec<String>,
    /// The authority that signs certificates.
    pub authority: Arc<CertificateAuthority>,
    /// The service that does the work.
    pub service: Arc<Service>,
    /// Decides which agents may join.
    pub registry: Arc<AgentRegistry>,
    /// How long an agent's certificate is valid.
    pub lifetime: Duration,
    /// How long after its end an agent's certificate can still be renewed.
    pub renewal_grace: Duration,
    /// Returns freed memory to the host. Called while no run is active, if something was done since the last call.
    pub trim_memory: fn(),
}

impl Server {
    /// Serves until `ending` completes, and then ends every run, which reverts its faults. Returns the runs that could not be
    /// closed in time.
    ///
    /// # Errors
    /// The listener cannot be set up, or the store cannot be read.
    pub async fn run(
        self,
        ending: impl Future<Output = ()>,
    ) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
        let known = Arc::clone(&self.registry);
        // An agent that received no heartbeat during a lease has reverted its faults, and cannot report that.
        let limits = ListenerLimits {
            unacknowledged: self.service.fleet().lease().0,
            renewal_grace: self.renewal_grace,
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
        if let Some(owner) = service.owner_certificate() {
            listener.show_owner_certificate(Arc::clone(owner));
        }
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
                "closing runs that were interrupted when the controller ended"
            );
        }
        let records = service.fleet().membership_records();
        let membership =
            records.map(|records| tokio::spawn(Arc::clone(&service).keep_membership(records)));
        let schedules = tokio::spawn(Arc::clone(&service).keep_schedules());
        let game_days = tokio::spawn(Arc::clone(&service).keep_game_days());
        let unclean = tokio::spawn(Arc::clone(&service).watch_unclean_runs());
        let rules = tokio::spawn(Arc::clone(&service).keep_rules());
        let status_page = tokio::spawn(Arc::clone(&service).keep_status_page());
        let certificate = tokio::spawn(Arc::clone(&service).keep_owner_certificate());
        let served = Arc::new(AtomicU64::new(0));
        let trimming = tokio::spawn(trim_memory_when_idle(
            Arc::clone(&service),
            Arc::clone(&served),
            self.trim_memory,
        ));
        let (end, ended) = watch::channel(false);
        let serve_http = |stream, slot: Arc<Slot>| {
            let (router, mut ended) = (router.clone(), ended.clone());
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                let ending = async move {
                    // If the sender is dropped, everything ends anyway.
                    ended.wait_for(|ended| *ended).await.ok();
                };
                api::serve(stream, router, slot, ending).await;
                served.fetch_add(1, Ordering::Relaxed);
            });
        };
        tokio::pin!(ending);
        loop {
            let connection = tokio::select! {
                connection = listener.next_connection() => connection,
                () = ending.as_mut() => break,
            };
            match connection {
                Connection::Agent(agent) => {
                    registry.saw_certificate(
                        &agent.identity.name,
                        agent.expires,
                        agent.is_of_retiring,
                    );
                    let (fleet, registry) = (Arc::clone(service.fleet()), Arc::clone(&registry));
                    tokio::spawn(async move {
                        let identity = agent.identity;
                        let is_revoked = || registry.is_revoked(&identity);
                        let served =
                            fleet.serve(&identity.name, agent.peer, agent.stream, is_revoked);
                        let why = served.await;
                        tracing::info!(agent = identity.name, why, "an agent's connection closed");
                    });
                }
                Connection::Joining(connection) => {
                    let (authority, registry) = (Arc::clone(&authority), Arc::clone(&registry));
                    let lifetime = self.lifetime;
                    tokio::spawn(async move {
                        match enrolment::serve(connection, &authority, lifetime, &registry).await {
                            Ok(Some(agent)) => {
                                tracing::info!(agent = agent.name, "an agent got its certificate")
                            }
                            Ok(None) => {}
                            Err(error) => {
                                tracing::info!(%error, "a join request failed")
                            }
                        }
                    });
                }
                Connection::Http { stream, slot, .. } => serve_http(stream, slot),
            }
        }
        schedules.abort();
        game_days.abort();
        unclean.abort();
        trimming.abort();
        rules.abort();
        certificate.abort();
        status_page.abort();
        // Agents and clients are served while the runs end, because that needs both. No agent is taken in any more.
        let left = {
            let ends = service.end_runs(SHUTDOWN_TIMEOUT);
            tokio::pin!(ends);
            loop {
                tokio::select! {
                    left = ends.as_mut() => break left,
                    connection = listener.next_connection() => {
                        if let Connection::Http { stream, slot, .. } = connection {
                            serve_http(stream, slot);
                        }
                    }
                }
            }
        };
        if let Some(membership) = &membership {
            membership.abort();
        }
        end.send_replace(true);
        Ok(left)
    }
}

/// Returns freed memory to the host from time to time, for as long as the controller runs.
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
