//! The page of runs on one host, without a controller: `backburn run --page` and `backburn demo --page`. It has a thread and a runtime of
//! its own on a port of the loopback, so that no browser can delay a run, and serves the part of the API that concerns a run.
//!
//! Other users of the host can connect to the port, too. The printed address holds a secret after its `#`, which browsers do not send
//! anywhere; the page exchanges it for a cookie, once.

mod routes;
mod stream;

use crate::api::types::RunInfo;
use crate::connection_slots::{ConnectionSlots, SlotCounts};
use crate::pki::tokens::random_id;
use crate::runner::EventObserver;
use crate::store::take_secrets;
use backburn_experiments::check::Experiment;
use backburn_experiments::journal::{JournalEntry, Verdict};
use jiff::Timestamp;
use serde_json::Value;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// How many connections may be open at a time, of each standing.
const MAX_CONNECTIONS: usize = 64;
/// How long the end of the program waits until browsers have received the end of the run.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The page, for as long as this value lives.
pub struct LocalPage {
    shared: Arc<PageState>,
    address: SocketAddr,
    token: String,
    end: Option<watch::Sender<bool>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the page shows.
struct PageState {
    /// The secret of the printed address, until a browser has exchanged it.
    token: Mutex<Option<String>>,
    /// The value of the cookie.
    session: String,
    port: u16,
    runs: Mutex<Vec<PageRun>>,
    /// Changes with each event.
    changes: watch::Sender<u64>,
}

/// A run that the page shows.
struct PageRun {
    info: RunInfo,
    document: Value,
    entries: Vec<Arc<JournalEntry>>,
    stop: mpsc::UnboundedSender<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalPage {
    /// Serves the page on a free port of the loopback.
    ///
    /// # Errors
    /// There is no port, no thread or no randomness.
    pub fn start() -> io::Result<Self> {
        let random = || random_id().map_err(io::Error::other);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let token = random()?;
        let shared = Arc::new(PageState {
            token: Mutex::new(Some(token.clone())),
            session: random()?,
            port: address.port(),
            runs: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (end, ended) = watch::channel(false);
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("page".into())
            .spawn(move || runtime.block_on(serve(listener, served, ended)))?;
        Ok(LocalPage {
            shared,
            address,
            token,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The address to open in a browser. It can be used once.
    pub fn url(&self) -> String {
        format!("http://{}/#token={}", self.address, self.token)
    }

    /// Shows a run that is about to start. `stop` ends it. Returns what must see its events.
    pub fn begin(
        &self,
        run: &str,
        seed: u64,
        experiment: &Experiment,
        stop: mpsc::UnboundedSender<String>,
    ) -> EventObserver {
        let mut document = experiment.raw.clone();
        take_secrets(&mut document);
        let info = RunInfo {
            id: run.to_owned(),
            experiment: Some(run.to_owned()),
            version: Some(1),
            title: experiment.document.title.clone(),
            seed,
            who: "this host".into(),
            because: "asked".into(),
            state: "open".into(),
            started: Timestamp::now().to_string(),
            ended: None,
            outcome: None,
            exit_code: None,
            verdict: None,
            events: 0,
            cleaned: None,
        };
        lock(&self.shared.runs).push(PageRun {
            info,
            document,
            entries: Vec::new(),
            stop,
        });
        let (shared, run) = (Arc::clone(&self.shared), run.to_owned());
        Box::new(move |entry| {
            shared.change(&run, |run| run.entries.push(Arc::new(entry.clone())));
        })
    }

    /// Shows that a run is over.
    pub fn close(&self, run: &str, verdict: &Verdict) {
        self.shared.change(run, |run| {
            run.info.state = "over".into();
            run.info.ended = Some(Timestamp::now().to_string());
            run.info.outcome = Some(verdict.outcome.word().to_owned());
            run.info.exit_code = Some(verdict.exit_code);
            run.info.verdict = serde_json::to_value(verdict).ok();
        });
    }
}

impl Drop for LocalPage {
    /// Waits a moment until browsers have what there is, and ends the thread.
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl PageState {
    fn change(&self, run: &str, change: impl FnOnce(&mut PageRun)) {
        if let Some(run) = lock(&self.runs).iter_mut().find(|of| of.info.id == run) {
            change(run);
            run.info.events = run.entries.len() as u64;
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Something of a run, if there is one of this id.
    fn of_run<T>(&self, run: &str, read: impl FnOnce(&PageRun) -> T) -> Option<T> {
        lock(&self.runs)
            .iter()
            .find(|of| of.info.id == run)
            .map(read)
    }
}

/// Serves connections until the page ends, and then until those that are open have received everything.
async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<PageState>,
    mut ended: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let slots = ConnectionSlots::new(SlotCounts {
        silent: MAX_CONNECTIONS,
        handshakes: MAX_CONNECTIONS,
        clients: MAX_CONNECTIONS,
    });
    let router = routes::router(shared);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let slot = Arc::new(slots.enter(peer.ip()));
                let (router, mut ended) = (router.clone(), ended.clone());
                connections.spawn(async move {
                    // An error means that the page has ended.
                    let ending = async move { ended.changed().await.unwrap_or(()) };
                    crate::api::serve(stream, router, slot, ending).await;
                });
            }
            _ = ended.changed() => break,
            Some(_) = connections.join_next() => {}
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(FAREWELL_TIMEOUT, rest).await.ok();
}
