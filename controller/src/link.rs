//! A link to an agent: one JSON object a line, either way (`backburn_experiments::wire`), over a
//! byte stream. A local agent is a child process whose standard input is its end of the link.
//!
//! The lease is renewed here, by a task of its own, so that a runner that waits for something
//! does not lose its agent.

use backburn_experiments::Span;
use backburn_experiments::document::HostProvider;
use backburn_experiments::wire::{Command, Hello, InjectionRequest, PlanView, Refusal, Report};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// The lease of a local run: how long an agent keeps its faults when we stop beating, e.g.
/// because somebody stopped us with SIGSTOP.
pub const LOCAL_LEASE: Span = Span::seconds(5);

/// How long an agent may take to settle its ledger and introduce itself.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// How an agent is started; called again when one is lost.
pub type Start = Box<dyn FnMut() -> io::Result<Link> + Send>;

/// What comes from an agent.
#[derive(Debug)]
pub enum Heard {
    /// It said something.
    Report(Report),
    /// The link is closed, and how we know.
    Closed(String),
    /// The agent's process has ended, with this exit code if it was not killed.
    Exited(Option<i32>),
}

/// An agent, from the controller's side.
#[derive(Debug)]
pub struct Link {
    caller: Caller,
    heard: mpsc::UnboundedReceiver<Heard>,
    has_process: bool,
    speaking: AbortHandle,
}

/// Says things to an agent; every part of a run may hold one.
#[derive(Debug, Clone)]
pub struct Caller {
    commands: mpsc::UnboundedSender<Command>,
    waiting: Waiting,
    last: Arc<AtomicU64>,
}

type Waiting = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Report>>>>>;

/// Starts local agents with this command line.
pub fn local(command: Vec<OsString>, lease: Span) -> Start {
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
        Ok(Link::over(ours, Some(child), lease))
    })
}

impl Link {
    /// The link over this stream, beating from now on. Where the agent is a child, its end is told too.
    pub fn over(stream: UnixStream, child: Option<Child>, lease: Span) -> Link {
        let (read, write) = stream.into_split();
        let (commands, to_say) = mpsc::unbounded_channel();
        let (hear, heard) = mpsc::unbounded_channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let speaking = tokio::spawn(speak(write, to_say, lease)).abort_handle();
        tokio::spawn(listen(read, hear.clone(), Arc::clone(&waiting)));
        let has_process = child.is_some();
        if let Some(mut child) = child {
            tokio::spawn(async move {
                let code = child.wait().await.ok().and_then(|status| status.code());
                hear.send(Heard::Exited(code)).ok();
            });
        }
        Link {
            caller: Caller {
                commands,
                waiting,
                last: Arc::default(),
            },
            heard,
            has_process,
            speaking,
        }
    }

    /// Somebody else may speak too.
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Says nothing more, and lets the agent see that: what it still says is heard.
    pub fn hang_up(&self) {
        self.speaking.abort();
    }

    /// Whether the agent is a process of ours, whose end we are told.
    pub fn has_process(&self) -> bool {
        self.has_process
    }

    /// The next thing that comes from the agent. May be dropped and asked again.
    pub async fn heard(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // Both ends were told before: nothing will ever come.
            None => std::future::pending().await,
        }
    }

    /// The agent's introduction, which comes before everything else.
    ///
    /// # Errors
    /// It ended, closed the link or said something else, or nothing in time.
    pub async fn hello(&mut self) -> Result<Hello, String> {
        match tokio::time::timeout(HELLO_WITHIN, self.heard()).await {
            Ok(Heard::Report(Report::Hello(hello))) => Ok(hello),
            Ok(Heard::Report(_)) => Err("it did not introduce itself".into()),
            Ok(Heard::Closed(why)) => {
                match tokio::time::timeout(Duration::from_secs(1), self.heard()).await {
                    Ok(Heard::Exited(Some(code))) => {
                        Err(format!("it ended at once with exit code {code}"))
                    }
                    _ => Err(why),
                }
            }
            Ok(Heard::Exited(Some(code))) => Err(format!("it ended at once with exit code {code}")),
            Ok(Heard::Exited(None)) => Err("it was killed at once".into()),
            Err(_) => Err(format!("it said nothing within {}", Span(HELLO_WITHIN))),
        }
    }

    /// Ends the link in peace and waits until the agent's process has ended. `None` where it was
    /// killed or did not end in time.
    pub async fn goodbye(mut self, within: Duration) -> Option<i32> {
        self.caller.say(Command::Goodbye);
        let ended = async {
            loop {
                if let Heard::Exited(code) = self.heard().await {
                    return code;
                }
            }
        };
        tokio::time::timeout(within, ended).await.ok().flatten()
    }
}

impl Caller {
    /// Says it, as soon as the runtime comes by. A closed link tells of itself elsewhere.
    pub fn say(&self, command: Command) {
        self.commands.send(command).ok();
    }

    /// A number that comes back with an answer.
    pub fn request(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A figure of the agent's host.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn measure(&self, metric: HostProvider) -> Result<f64, String> {
        let request = self.request();
        match self
            .ask(request, Command::Measure { request, metric })
            .await
        {
            Some(Report::Measured { value, .. }) => value,
            _ => Err("the agent does not answer any more".into()),
        }
    }

    /// What an injection would do; nothing is touched.
    ///
    /// # Errors
    /// The agent's refusal; rule `agent` where it does not answer any more.
    pub async fn plan(&self, injection: InjectionRequest) -> Result<PlanView, Refusal> {
        let request = self.request();
        match self
            .ask(request, Command::Plan { request, injection })
            .await
        {
            Some(Report::Planned { plan, .. }) => Ok(plan),
            Some(Report::Refused { refusal, .. }) => Err(refusal),
            _ => Err(Refusal::new("agent", "the agent does not answer any more")),
        }
    }

    async fn ask(&self, request: u64, command: Command) -> Option<Report> {
        let (answer, answered) = oneshot::channel();
        // Nobody listens any more once the map is gone: dropping `answer` says so at once.
        if let Some(waiting) = locked(&self.waiting).as_mut() {
            waiting.insert(request, answer);
        }
        self.say(command);
        answered.await.ok()
    }
}

fn locked(waiting: &Waiting) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Report>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn speak(mut to: OwnedWriteHalf, mut to_say: mpsc::UnboundedReceiver<Command>, lease: Span) {
    let mut beats = tokio::time::interval(lease.0 / 3);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            biased;
            command = to_say.recv() => match command {
                Some(command) => command,
                None => return,
            },
            _ = beats.tick() => Command::Beat { lease },
        };
        let Ok(mut line) = serde_json::to_vec(&command) else {
            continue;
        };
        line.push(b'\n');
        if to.write_all(&line).await.is_err() {
            // The reading side sees the same and tells of it.
            return;
        }
    }
}

async fn listen(from: OwnedReadHalf, hear: mpsc::UnboundedSender<Heard>, waiting: Waiting) {
    let mut lines = BufReader::new(from).lines();
    let why = loop {
        let report = match lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str::<Report>(&line) {
                Ok(report) => report,
                Err(error) => break format!("it said what cannot be understood: {error}"),
            },
            Ok(None) => break "the link was closed".to_owned(),
            Err(error) => break format!("the link broke: {error}"),
        };
        // Only what touches nothing is answered past the runner: the rest it must see in order.
        let asked = match &report {
            Report::Measured { request, .. }
            | Report::Planned { request, .. }
            | Report::Refused { request, .. } => locked(&waiting)
                .as_mut()
                .and_then(|waiting| waiting.remove(request)),
            _ => None,
        };
        match asked {
            // Whoever asked may have been ended since.
            Some(answer) => drop(answer.send(report)),
            None => {
                if hear.send(Heard::Report(report)).is_err() {
                    break "nobody listens".to_owned();
                }
            }
        }
    };
    *locked(&waiting) = None;
    hear.send(Heard::Closed(why)).ok();
}
