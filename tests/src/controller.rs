//! A controller that does no more than a test asks of it: the real door, the real authority, and
//! the wire's messages, on a thread of its own.

use backburn::listener::{Connection, Listener, ListenerLimits};
use backburn::pki::ca::{AgentIdentity, CertificateAuthority};
use backburn::pki::enrolment::{self, Admission, CertificateReason, EnrolmentPolicy};
use backburn_experiments::HumanDuration;
use backburn_experiments::join::{JoinToken, PresentedToken};
use backburn_experiments::wire::{Cause, Command, EndedInjection, Hello, Refusal, Report};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long anything is waited for.
const LONG: Duration = Duration::from_secs(60);

/// A controller; gone with its last link when dropped.
pub struct Controller {
    /// Where it listens.
    pub address: SocketAddr,
    authority: Arc<CertificateAuthority>,
    store: Arc<Store>,
    links: Receiver<Linked>,
    _running: tokio::sync::oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

/// A link with an agent, from the controller's side.
pub struct Linked {
    /// Who it is.
    pub identity: AgentIdentity,
    says: UnboundedSender<Say>,
    hears: Receiver<Report>,
}

enum Say {
    Command(Box<Command>),
    Silence,
    Deafness,
}

/// Who may join, who did, and who may not come back.
#[derive(Default)]
struct Store {
    tokens: Mutex<BTreeSet<String>>,
    labels: Mutex<BTreeMap<String, String>>,
    issued: Mutex<Vec<AgentIdentity>>,
    revoked: Mutex<BTreeSet<String>>,
}

impl EnrolmentPolicy for Store {
    async fn admit(
        &self,
        token: &PresentedToken,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Admission, Refusal> {
        let secret = Controller::SECRET.repeat(32);
        if token.secret != secret || !self.tokens.lock().expect("a lock").remove(&token.id) {
            let what = "the token is not known, or was used before";
            return Err(Refusal::new("token", what).hint("another token"));
        }
        self.labels.lock().expect("a lock").clone_from(labels);
        Ok(Admission {
            name: name.to_owned(),
            ..Admission::default()
        })
    }

    async fn issue(
        &self,
        issued: &AgentIdentity,
        _: CertificateReason<'_>,
        _: &str,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        self.issued.lock().expect("a lock").push(issued.clone());
        Ok([("granted".to_owned(), "yes".to_owned())].into())
    }
}

impl Controller {
    const SECRET: &str = "5e";

    /// One on this listener, whose agents' certificates last so long, with this lease.
    ///
    /// # Panics
    /// It can't be made.
    pub fn new(listener: TcpListener, lasts: Duration, lease: HumanDuration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let authority =
            Arc::new(CertificateAuthority::open(folder.path()).expect("an authority is made"));
        let address = listener.local_addr().expect("it has one");
        listener.set_nonblocking(true).expect("a socket can");
        let store = Arc::new(Store::default());
        let (link, links) = channel();
        let (running, stopped) = tokio::sync::oneshot::channel::<()>();
        let (authority_there, store_there) = (Arc::clone(&authority), Arc::clone(&store));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime is made");
            runtime.block_on(async {
                let serving = serve(listener, authority_there, store_there, lasts, lease, link);
                tokio::select! { () = serving => {}, _ = stopped => {} }
            });
        });
        Controller {
            address,
            authority,
            store,
            links,
            _running: running,
            _folder: folder,
        }
    }

    /// One here, with nothing special.
    ///
    /// # Panics
    /// It can't be made.
    pub fn here() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let month = Duration::from_secs(30 * 24 * 3600);
        Controller::new(listener, month, HumanDuration::seconds(10))
    }

    /// A token that lets one agent in once.
    pub fn token(&self, id: &str) -> String {
        self.store
            .tokens
            .lock()
            .expect("a lock")
            .insert(id.to_owned());
        let token = JoinToken::new(
            id.to_owned(),
            Self::SECRET.repeat(32),
            self.authority.fingerprint(),
        );
        token.to_string()
    }

    /// The labels that the last one joined with.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.store.labels.lock().expect("a lock").clone()
    }

    /// Every certificate that was handed out.
    pub fn issued(&self) -> Vec<AgentIdentity> {
        self.store.issued.lock().expect("a lock").clone()
    }

    /// This certificate is no good any more.
    pub fn revoke(&self, serial: &str) {
        let mut revoked = self.store.revoked.lock().expect("a lock");
        revoked.insert(serial.to_owned());
    }

    /// The next agent that comes.
    ///
    /// # Panics
    /// None comes in time.
    pub fn link(&self) -> Linked {
        self.links.recv_timeout(LONG).expect("an agent comes")
    }

    /// Whether an agent has come that nobody has taken.
    pub fn has_link(&self) -> bool {
        self.links.try_recv().is_ok()
    }
}

async fn serve(
    listener: TcpListener,
    authority: Arc<CertificateAuthority>,
    store: Arc<Store>,
    lasts: Duration,
    lease: HumanDuration,
    link: Sender<Linked>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime takes it");
    let address = listener.local_addr().expect("it has one");
    let names = vec!["localhost".to_owned(), address.ip().to_string()];
    let struck = Arc::clone(&store);
    let is_revoked = move |agent: &AgentIdentity| {
        let revoked = struck.revoked.lock().expect("a lock");
        revoked.contains(&agent.serial)
    };
    let mut listener = Listener::open(
        listener,
        &authority,
        names,
        ListenerLimits::default(),
        is_revoked,
    )
    .expect("the door opens");
    loop {
        match listener.next_connection().await {
            Connection::Agent(agent) => {
                let (says, to_say) = unbounded_channel();
                let (hear, hears) = channel();
                tokio::spawn(talk(agent.stream, to_say, hear, lease));
                let linked = Linked {
                    identity: agent.identity,
                    says,
                    hears,
                };
                drop(link.send(linked));
            }
            Connection::Joining(connection) => {
                let (authority, store) = (Arc::clone(&authority), Arc::clone(&store));
                tokio::spawn(async move {
                    drop(enrolment::serve(connection, &authority, lasts, &*store).await);
                });
            }
            Connection::Http { .. } => {}
        }
    }
}

async fn talk(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    mut to_say: UnboundedReceiver<Say>,
    hear: Sender<Report>,
    lease: HumanDuration,
) {
    let (from, mut to) = tokio::io::split(stream);
    let listening = tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let report = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
            if hear.send(report).is_err() {
                break;
            }
        }
    });
    let mut beats = tokio::time::interval(lease.0 / 3);
    let mut is_silent = false;
    loop {
        let command = tokio::select! {
            said = to_say.recv() => match said {
                Some(Say::Command(command)) => *command,
                Some(Say::Silence) => {
                    is_silent = true;
                    continue;
                }
                Some(Say::Deafness) => {
                    listening.abort();
                    continue;
                }
                None => break,
            },
            _ = beats.tick(), if !is_silent => Command::Heartbeat { lease, answer: false },
        };
        let line = serde_json::to_string(&command).expect("it can be written") + "\n";
        if to.write_all(line.as_bytes()).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    listening.abort();
    drop(to.shutdown().await);
}

impl Linked {
    /// Says something.
    pub fn says(&self, command: Command) {
        drop(self.says.send(Say::Command(Box::new(command))));
    }

    /// Says nothing more, and keeps the link.
    pub fn falls_silent(&self) {
        drop(self.says.send(Say::Silence));
    }

    /// Reads nothing more, and goes on beating.
    pub fn goes_deaf(&self) {
        drop(self.says.send(Say::Deafness));
    }

    /// The next thing that is said. None where the link is closed.
    ///
    /// # Panics
    /// Nothing is said in time.
    pub fn hears(&self) -> Option<Report> {
        match self.hears.recv_timeout(LONG) {
            Ok(report) => Some(report),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("the agent says nothing: {error}"),
        }
    }

    /// The agent's introduction.
    ///
    /// # Panics
    /// It says something else first.
    pub fn hello(&self) -> Hello {
        match self.hears() {
            Some(Report::Hello(hello)) => hello,
            other => panic!("no introduction: {other:?}"),
        }
    }

    /// Waits until the agent has closed.
    pub fn hears_to_the_end(&self) -> Vec<Report> {
        std::iter::from_fn(|| self.hears()).collect()
    }

    /// Injects a fault, and waits until it acts.
    ///
    /// # Panics
    /// It is refused.
    pub fn injects(&self, id: &str, fault: &str, arguments: &Value) {
        let request = json!({
            "id": id, "run": "run", "fault": fault, "duration": "300s", "seed": 1, "arguments": arguments,
        });
        self.says(Command::Inject {
            request: 1,
            injection: serde_json::from_value(request).expect("a request"),
        });
        let heard = self.hears();
        assert!(matches!(heard, Some(Report::Injected { .. })), "{heard:?}");
    }

    /// Has an injection reverted, and waits until it is.
    ///
    /// # Panics
    /// It is not clean.
    pub fn reverts(&self, id: &str) -> Cause {
        self.says(Command::Revert {
            injection: id.to_owned(),
        });
        self.hears_of_the_end().cause
    }

    /// Waits for the end of an injection.
    ///
    /// # Panics
    /// There is none, or it is not clean.
    pub fn hears_of_the_end(&self) -> EndedInjection {
        loop {
            match self.hears() {
                Some(Report::Ended(ended)) => {
                    assert!(ended.clean, "{:?}", ended.residue);
                    return ended;
                }
                Some(_) => {}
                None => panic!("the link closed before the end was told"),
            }
        }
    }
}
