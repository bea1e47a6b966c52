//! A link to an agent: one JSON object a line, either way (`backburn_experiments::wire`), over a
//! byte stream. A local agent is a child process whose standard input is its end of the link.
//!
//! The lease is renewed here, by the link's own task, so that a runner that waits for something
//! does not lose its agent.

mod driver;

pub(crate) use driver::drive;

use backburn_experiments::Span;
use backburn_experiments::document::{HostProvider, Provider};
use backburn_experiments::wire::{
    Command, FaultDescription, Hello, InjectionId, InjectionRequest, Owed, PlanView, Probed,
    Refusal, Report,
};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc, oneshot};

/// The lease of a local run: how long an agent keeps its faults when we stop beating, e.g.
/// because somebody stopped us with SIGSTOP.
pub const LOCAL_LEASE: Span = Span::seconds(5);

/// How long an agent may take to settle its ledger and introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a local agent whose link is closed may take to put everything back and end, before it counts as hung.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How an agent is started; called again when one is lost.
pub type AgentStarter = Box<dyn FnMut() -> io::Result<AgentConnection> + Send>;

/// What comes from an agent.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// It said something.
    Report(Box<Report>),
    /// It is there, and has said nothing for this long, although it was asked.
    Unresponsive(Span),
    /// It did not answer for a while, and says something again.
    RespondsAgain,
    /// The link is closed, and how we know.
    Closed(String),
    /// The agent's process has ended, with this exit code if it was not killed.
    Exited(Option<i32>),
}

/// What is heard of an agent, by whoever hears of many.
#[derive(Debug)]
pub struct AgentEvent {
    /// Whose it is.
    pub agent: Arc<str>,
    /// Over which of its connections it came: what an earlier one still had to say is nothing of the next.
    pub connection: u64,
    /// What it is.
    pub kind: EventKind,
}

/// Where words go.
pub type EventSender = mpsc::UnboundedSender<AgentEvent>;

/// An agent, from the controller's side.
#[derive(Debug)]
pub struct AgentConnection {
    handle: AgentHandle,
    events: mpsc::UnboundedReceiver<EventKind>,
    has_process: bool,
}

/// Says things to an agent; every part of a run may hold one.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    /// Lines, or `None` for the end of what we say. Written out here already: a command that waits takes little room then.
    lines: mpsc::UnboundedSender<Option<Arc<[u8]>>>,
    pending: PendingRequests,
    liveness: Arc<Liveness>,
}

/// What is known of whether the agent at the other end lives.
#[derive(Debug, Default)]
struct Liveness {
    /// The number of the last request.
    last: AtomicU64,
    /// How often something was heard.
    received: AtomicU64,
    /// Whether it has said that it answers beats.
    answers_beats: AtomicBool,
    /// Whether it does not answer.
    unresponsive: AtomicBool,
}

type PendingRequests = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Report>>>>>;

/// Starts local agents with this command line.
pub fn local(command: Vec<OsString>, lease: Span) -> AgentStarter {
    Box::new(move || {
        let (program, arguments) = command.split_first().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the agent's command line is empty",
            )
        })?;
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // Our standard output is for data; what an agent says belongs to the talk.
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
            // A Ctrl-C in the terminal is for us: the agent is told by us.
            .process_group(0)
            .spawn()?;
        Ok(AgentConnection::over(ours, Some(child), lease))
    })
}

/// Waits until an agent that is our child has ended; one that hangs is killed, its worker and helpers with it: whoever settles the
/// ledger next puts back what they owed. Returns its exit code, if it was not killed.
async fn until_exited(mut child: Child, hangs: &Notify) -> Option<i32> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.ok().and_then(|status| status.code()),
            () = hangs.notified() => {
                // Its id is its own until we take leave of it, which only this task does. It leads a group (see `local`).
                let leader = child.id().and_then(|id| i32::try_from(id).ok());
                let killed = leader.map(|leader| killpg(Pid::from_raw(leader), Signal::SIGKILL));
                if let Some(Err(error)) = killed {
                    tracing::error!(%error, "an agent that hangs could not be killed");
                }
            }
        }
    }
}

impl AgentConnection {
    /// The link over this stream, beating from now on. Where the agent is a child, its end is told too.
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        child: Option<Child>,
        lease: Span,
    ) -> AgentConnection {
        let (sender, events) = mpsc::unbounded_channel();
        let (handle, driver) = drive(stream, lease);
        let has_process = child.is_some();
        let hangs = Arc::new(Notify::new());
        if let Some(child) = child {
            let (sender, hangs) = (sender.clone(), Arc::clone(&hangs));
            tokio::spawn(async move {
                let code = until_exited(child, &hangs).await;
                sender.send(EventKind::Exited(code)).ok();
            });
        }
        tokio::spawn(async move {
            let tell = sender.clone();
            let why = driver.run(|kind| {
                if matches!(kind, EventKind::Unresponsive(_)) {
                    hangs.notify_one();
                }
                let told = tell.send(kind);
                told.map_err(|_| "nobody listens".to_owned())
            });
            let why = why.await;
            sender.send(EventKind::Closed(why)).ok();
            if has_process {
                // It puts everything back then, and ends.
                tokio::time::sleep(EXIT_TIMEOUT).await;
                hangs.notify_one();
            }
        });
        AgentConnection {
            handle,
            events,
            has_process,
        }
    }

    /// Somebody else may speak too.
    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    /// The next thing that comes from the agent. May be dropped and asked again.
    pub async fn next_event(&mut self) -> EventKind {
        match self.events.recv().await {
            Some(kind) => kind,
            // Both ends were told before: nothing will ever come.
            None => std::future::pending().await,
        }
    }

    /// The agent's introduction, which comes before everything else.
    ///
    /// # Errors
    /// It ended, closed the link or said something else, or nothing in time.
    pub async fn hello(&mut self) -> Result<Hello, String> {
        match tokio::time::timeout(HELLO_TIMEOUT, self.next_event()).await {
            Ok(EventKind::Report(report)) => match *report {
                Report::Hello(hello) => Ok(hello),
                _ => Err("it did not introduce itself".into()),
            },
            Ok(EventKind::Unresponsive(_) | EventKind::RespondsAgain) => {
                Err("it did not introduce itself".into())
            }
            Ok(EventKind::Closed(why)) => {
                match tokio::time::timeout(Duration::from_secs(1), self.next_event()).await {
                    Ok(EventKind::Exited(Some(code))) => {
                        Err(format!("it ended at once with exit code {code}"))
                    }
                    _ => Err(why),
                }
            }
            Ok(EventKind::Exited(Some(code))) => {
                Err(format!("it ended at once with exit code {code}"))
            }
            Ok(EventKind::Exited(None)) => Err("it was killed at once".into()),
            Err(_) => Err(format!("it said nothing within {}", Span(HELLO_TIMEOUT))),
        }
    }

    /// Ends the link in peace and waits until the agent's process has ended, where it is ours. `None` where it was
    /// killed or did not end in time.
    pub async fn goodbye(mut self, within: Duration) -> Option<i32> {
        self.handle.send(Command::Goodbye);
        if !self.has_process {
            return None;
        }
        let ended = async {
            loop {
                if let EventKind::Exited(code) = self.next_event().await {
                    return code;
                }
            }
        };
        tokio::time::timeout(within, ended).await.ok().flatten()
    }

    /// Has all that comes from the agent told to `events`, as this agent's words, until nothing more can come.
    pub(crate) fn forward_events(mut self, agent: Arc<str>, connection: u64, to: EventSender) {
        tokio::spawn(async move {
            while let Some(kind) = self.events.recv().await {
                let event = AgentEvent {
                    agent: Arc::clone(&agent),
                    connection,
                    kind,
                };
                if to.send(event).is_err() {
                    return;
                }
            }
        });
    }

    /// Whether the agent is a process of ours.
    pub(crate) fn has_process(&self) -> bool {
        self.has_process
    }
}

impl AgentHandle {
    /// Says it, as soon as the runtime comes by. A closed link tells of itself elsewhere.
    pub fn send(&self, command: Command) {
        if let Some(line) = line(&command) {
            self.lines.send(Some(line)).ok();
        }
    }

    /// Says nothing more, and lets the agent see that: what it still says is heard.
    pub fn close(&self) {
        self.lines.send(None).ok();
    }

    /// A number that comes back with an answer.
    pub fn next_request_id(&self) -> u64 {
        self.liveness.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the agent is connected and does not answer: it has said nothing for a lease, although it was asked.
    pub fn is_unresponsive(&self) -> bool {
        self.liveness.unresponsive.load(Ordering::Relaxed)
    }

    /// Has an agent that answers beats say whether it lives, now. False for one that does not: of it, silence says nothing.
    pub(crate) fn request_heartbeat(&self, lease: Span) -> bool {
        let answer = self.liveness.answers_beats.load(Ordering::Relaxed);
        if answer {
            self.send(Command::Beat { lease, answer });
        }
        answer
    }

    /// How often something was heard of the agent.
    pub(crate) fn messages_received(&self) -> u64 {
        self.liveness.received.load(Ordering::Relaxed)
    }

    /// A figure of the agent's host.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn measure(&self, metric: HostProvider) -> Result<f64, String> {
        let request = self.next_request_id();
        match self
            .request(request, Command::Measure { request, metric })
            .await
        {
            Some(Report::Measured { value, .. }) => value,
            _ => Err("the agent does not answer any more".into()),
        }
    }

    /// What the agent measures from where it is.
    pub async fn probe(&self, provider: Provider, timeout: Option<Span>) -> Probed {
        let request = self.next_request_id();
        let command = Command::Probe {
            request,
            provider,
            timeout,
        };
        match self.request(request, command).await {
            Some(Report::Probed { outcome, .. }) => outcome,
            _ => Probed::Broken("the agent does not answer any more".into()),
        }
    }

    /// What an injection would do; nothing is touched.
    ///
    /// # Errors
    /// The agent's refusal; rule `agent` where it does not answer any more.
    pub async fn plan(&self, injection: InjectionRequest) -> Result<PlanView, Refusal> {
        let request = self.next_request_id();
        match self
            .request(request, Command::Plan { request, injection })
            .await
        {
            Some(Report::Planned { plan, .. }) => Ok(plan),
            Some(Report::Refused { refusal, .. }) => Err(refusal),
            _ => Err(Refusal::new("agent", "the agent does not answer any more")),
        }
    }

    /// What the agent's host can do, and what is missing: a list of findings.
    pub async fn examine(&self) -> Probed {
        let request = self.next_request_id();
        match self.request(request, Command::Examine { request }).await {
            Some(Report::Probed { outcome, .. }) => outcome,
            _ => Probed::Broken("the agent does not answer any more".into()),
        }
    }

    /// All about the faults that the agent can inject; none where it does not answer any more.
    pub async fn describe(&self) -> Option<Vec<FaultDescription>> {
        let request = self.next_request_id();
        match self.request(request, Command::Describe { request }).await? {
            Report::Described { faults, .. } => Some(faults),
            _ => None,
        }
    }

    /// Has the agent put everything of a run back. What could not be proved gone of anything, and what others of its host still
    /// hold; none where it does not answer any more.
    pub async fn revert(&self, run: &str) -> Option<(Vec<Owed>, Vec<InjectionId>)> {
        let (request, run) = (self.next_request_id(), Some(run.to_owned()));
        match self
            .request(request, Command::RevertAll { request, run })
            .await?
        {
            Report::AllReverted { owed, held, .. } => Some((owed, held)),
            _ => None,
        }
    }

    /// Tells the agent to put everything of every run back, at once; what comes is its answer.
    pub(crate) fn start_revert_all(&self) -> oneshot::Receiver<Report> {
        let request = self.next_request_id();
        self.start_request(request, Command::RevertAll { request, run: None })
    }

    async fn request(&self, request: u64, command: Command) -> Option<Report> {
        self.start_request(request, command).await.ok()
    }

    fn start_request(&self, request: u64, command: Command) -> oneshot::Receiver<Report> {
        let (answer, answered) = oneshot::channel();
        let mut pending = locked(&self.pending);
        // Looked at under the lock: whoever finds out that the agent does not answer ends all waits after that.
        let hangs = self.is_unresponsive();
        // Nobody listens any more once the map is gone: dropping `answer` says so at once.
        if let Some(pending) = pending.as_mut().filter(|_| !hangs) {
            pending.insert(request, answer);
        }
        drop(pending);
        // An agent that hangs is to put everything back when it goes on, and is asked nothing else: nobody waits for the answer.
        if !hangs || matches!(command, Command::RevertAll { .. }) {
            self.send(command);
        }
        answered
    }
}

fn locked(
    pending: &PendingRequests,
) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Report>>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command as it goes over the link.
fn line(command: &Command) -> Option<Arc<[u8]>> {
    let mut line = serde_json::to_vec(command).ok()?;
    line.push(b'\n');
    Some(line.into())
}
