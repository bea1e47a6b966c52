//! An agent on this host, started as a child process and reached over a socket pair.

use super::driver::drive;
use super::{AgentEvent, AgentHandle, EventKind, EventSender};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Command, Hello, Report};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc};

/// The lease of a local run: how long an agent keeps its faults after the last heartbeat, e.g. because somebody stopped the
/// run's process with SIGSTOP.
pub const LOCAL_LEASE: HumanDuration = HumanDuration::seconds(5);

/// How long an agent may take to settle its ledger and introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a local agent may take to revert everything and end after its connection closed, before it counts as hung.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts an agent. Called again when one is lost.
pub type AgentStarter = Box<dyn FnMut() -> io::Result<AgentConnection> + Send>;

/// A connection to one agent, with the events that come over it.
#[derive(Debug)]
pub struct AgentConnection {
    handle: AgentHandle,
    events: mpsc::UnboundedReceiver<EventKind>,
    has_process: bool,
}

/// Starts local agents with this command line.
pub fn local(command: Vec<OsString>, lease: HumanDuration) -> AgentStarter {
    Box::new(move || {
        let (program, arguments) = command.split_first().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the agent's command line is empty",
            )
        })?;
        let (stream, stdin) = UnixStream::pair()?;
        let stdin = stdin.into_std()?;
        stdin.set_nonblocking(false)?;
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            // The run's standard output is for data; what an agent prints is progress.
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
            // A Ctrl-C in the terminal is for the run, which tells its agent.
            .process_group(0)
            .spawn()?;
        Ok(AgentConnection::over(stream, Some(child), lease))
    })
}

/// Waits until the agent's process has ended, and kills it together with its worker and helpers if it hangs: the next
/// agent settles the ledger. Returns its exit code unless it was killed.
async fn until_exited(mut child: Child, hangs: &Notify) -> Option<i32> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.ok().and_then(|status| status.code()),
            () = hangs.notified() => {
                // The id cannot be reused before the process is waited for, which only this task does. It leads a group
                // (see `local`).
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
    /// Connects over this stream, and sends heartbeats from now on. The end of the agent's process is reported, too, if
    /// `child` is given.
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        child: Option<Child>,
        lease: HumanDuration,
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
            let why = driver.run(|kind| {
                if matches!(kind, EventKind::Unresponsive(_)) {
                    hangs.notify_one();
                }
                let sent = sender.send(kind);
                sent.map_err(|_| "nobody listens".to_owned())
            });
            let why = why.await;
            sender.send(EventKind::Closed(why)).ok();
            if has_process {
                // The agent reverts everything now, and ends.
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

    /// Another handle to the agent.
    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    /// Waits for the next event. Cancelling it loses nothing.
    pub async fn next_event(&mut self) -> EventKind {
        match self.events.recv().await {
            Some(kind) => kind,
            // Both ends were reported before: nothing will ever come.
            None => std::future::pending().await,
        }
    }

    /// Waits for the agent's introduction, which comes before everything else.
    ///
    /// # Errors
    /// The agent ended, closed the connection, sent something else, or sent nothing in time.
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
            Err(_) => Err(format!(
                "it sent nothing within {}",
                HumanDuration(HELLO_TIMEOUT)
            )),
        }
    }

    /// Tells the agent to end, and waits until its process has ended, if it is a child. Returns its exit code; none if it
    /// was killed or did not end within `timeout`.
    pub async fn goodbye(mut self, timeout: Duration) -> Option<i32> {
        self.handle.send(Command::Shutdown);
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
        tokio::time::timeout(timeout, ended).await.ok().flatten()
    }

    /// Sends all events to `to` as those of this agent and connection, until nothing more can come.
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

    /// Whether the agent is a child process, whose end is reported.
    pub(crate) fn has_process(&self) -> bool {
        self.has_process
    }
}
