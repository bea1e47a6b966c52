//! Relays bytes between the controller and an agent that is started for this connection: guardian and worker, over a socket pair, exactly
//! as the local controller starts them. When the controller's connection ends, so does the agent's; the agent then reverts everything, and
//! the relay waits for it.
//!
//! At most one buffer is kept in each direction: if one side does not read, the other side is not read either. A worker whose reports wait
//! too long closes its connection (see `crate::controller_socket`), so no revert ever waits.

use super::ConnectorConfig;
use super::credentials::Credentials;
use super::deadline::{ConnectError, timespec};
use super::tls_connect::TlsConnection;
use crate::host::{Host, Invocation};
use crate::hung_agent::{
    AgentExit, CHECK_INTERVAL, HungAgentOutcome, ShutdownMonitor, end_hung_agent, wait_for_exit,
};
use crate::packet_filter::ControlConnection;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long the controller may be silent until the connection counts as dead: three of the longest leases. A controller sends a heartbeat
/// every third of a lease.
const MAX_SILENCE: Duration = Duration::from_secs(90);
/// How long sending an agent's last reports may take.
const FINAL_SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes are relayed at a time.
const RELAY_BUFFER_BYTES: usize = 16 << 10;

/// How a connection ended.
#[derive(Debug)]
pub struct RelayEnd {
    /// Whether anything was received from the controller.
    pub heard: bool,
    /// Whether a signal asked this process to end.
    pub cancelled: bool,
    /// Why the connection ended, for people to read.
    pub why: String,
    /// The agent's exit code; none if a signal killed its guardian.
    pub code: Option<i32>,
    /// The result of reverting, if the agent hung and was killed.
    pub hung: Option<HungAgentOutcome>,
}

/// One agent on one connection.
struct Relay<'a> {
    tls: TlsConnection,
    agent: UnixStream,
    child: Child,
    host: &'a Host,
    signals: BorrowedFd<'a>,
    /// Bytes that the worker has not accepted yet.
    to_worker: Vec<u8>,
    cancelled: bool,
    heard: bool,
    last_heard: Instant,
}

/// Starts an agent as the configuration says, and relays until either side closes. `renew` is called when the certificate is due for renewal,
/// and returns when to call it again.
///
/// # Errors
/// The agent could not be started.
#[allow(
    clippy::too_many_arguments,
    reason = "what an agent is started with, and how; it has one caller"
)]
pub fn relay(
    tls: TlsConnection,
    config: &ConnectorConfig,
    credentials: &Credentials,
    invocation: &Invocation,
    host: &Host,
    signals: BorrowedFd<'_>,
    renew: &mut dyn FnMut() -> Duration,
) -> io::Result<RelayEnd> {
    let (agent, its_end) = UnixStream::pair()?;
    let mut command = invocation.command("serve");
    command
        .args(&config.serve_arguments)
        .envs(config.environment.iter().cloned())
        .args(["--name", &credentials.name])
        .stdin(Stdio::from(OwnedFd::from(its_end)))
        .stdout(Stdio::from(rustix::stdio::stderr().try_clone_to_owned()?))
        .process_group(0);
    for (key, value) in &credentials.labels {
        command.args(["--label", &format!("{key}={value}")]);
    }
    if tls.is_proxied {
        command.arg("--through-proxy");
    }
    if let Some(ControlConnection { here, there }) = ControlConnection::of(&tls.stream) {
        command.args(["--spare", &format!("{here},{there}")]);
    }
    let child = command.spawn()?;
    // The command holds its end of the socket pair until it is dropped.
    drop(command);
    let mut relay = Relay {
        tls,
        agent,
        child,
        host,
        signals,
        to_worker: Vec::new(),
        cancelled: false,
        heard: false,
        last_heard: Instant::now(),
    };
    let mut renewal = Instant::now().checked_add(credentials.renewal_in());
    crate::host::settle();
    let why = loop {
        if renewal.is_some_and(|due| due <= Instant::now()) {
            renewal = Instant::now().checked_add(renew());
        }
        match relay.step(renewal) {
            Ok(None) => {}
            Ok(Some(why)) => break why,
            Err(error) => break error.to_string(),
        }
    };
    relay.end(why, &config.state)
}

impl Relay<'_> {
    /// Relays what can be relayed, then waits for one event. Returns the reason if the connection has ended.
    fn step(&mut self, renewal: Option<Instant>) -> Result<Option<String>, ConnectError> {
        if let Some(why) = self.relay_to_agent()? {
            return Ok(Some(why));
        }
        if let Some(why) = self.relay_to_controller()? {
            return Ok(Some(why));
        }
        let dead = self.last_heard + MAX_SILENCE;
        let due = renewal.map_or(dead, |renewal| renewal.min(dead));
        let left = timespec(due.saturating_duration_since(Instant::now()));

        let (reads, writes) = (
            self.to_worker.is_empty() && self.tls.connection.wants_read(),
            self.tls.connection.wants_write(),
        );
        let wants = |reads: bool, writes: bool| {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, reads);
            wanted.set(PollFlags::OUT, writes);
            wanted
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.signals, PollFlags::IN),
            PollFd::new(&self.tls.stream, wants(reads, writes)),
            PollFd::new(&self.agent, wants(!writes, !self.to_worker.is_empty())),
        ];
        // The kernel always reports a hang-up, so the agent is left out while its last bytes wait for the controller.
        let asked = if writes && self.to_worker.is_empty() {
            &mut fds[..2]
        } else {
            &mut fds[..]
        };
        match poll(asked, Some(&left)) {
            Ok(0) if Instant::now() >= dead => {
                return Ok(Some(format!(
                    "nothing was heard from the controller for {} s",
                    MAX_SILENCE.as_secs()
                )));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(ConnectError::new(
                    error.to_string(),
                    "start the agent again",
                ));
            }
        }
        let [signals, controller, _] = fds.map(|fd| fd.revents());
        if !signals.is_empty() {
            self.end_agent();
        }
        // Both directions are closed: what is left could not be answered.
        if !reads && controller.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(Some("the connection broke".into()));
        }
        Ok(None)
    }

    /// Relays from the controller to the worker. Returns the reason if there will be no more.
    fn relay_to_agent(&mut self) -> Result<Option<String>, ConnectError> {
        loop {
            while !self.to_worker.is_empty() {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match send(&self.agent, &self.to_worker, flags) {
                    Ok(count) => drop(self.to_worker.drain(..count)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(None),
                    // The worker is gone; its remaining reports are still relayed.
                    Err(_) => self.to_worker.clear(),
                }
            }
            let mut room = [0; RELAY_BUFFER_BYTES];
            match self.tls.connection.reader().read(&mut room) {
                Ok(0) => return Ok(Some("the controller closed the connection".into())),
                Ok(count) => {
                    self.heard = true;
                    self.to_worker
                        .extend_from_slice(room.get(..count).unwrap_or_default());
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(Some("the connection was closed".into())),
            }
            match self.tls.transfer()? {
                Some(0) => return Ok(None),
                Some(_) => self.last_heard = Instant::now(),
                // Data that came with the end is relayed in the next round, then the reader reports the end.
                None => {}
            }
        }
    }

    /// Relays from the agent to the controller. Returns the reason if there will be no more.
    fn relay_to_controller(&mut self) -> Result<Option<String>, ConnectError> {
        while !self.tls.connection.wants_write() {
            let mut room = [0; RELAY_BUFFER_BYTES];
            match recv(&self.agent, &mut room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(Some("the agent has ended".into())),
                Ok((count, _)) => {
                    let said = room.get(..count).unwrap_or_default();
                    self.tls
                        .connection
                        .writer()
                        .write_all(said)
                        .map_err(|error| ConnectError::new(error.to_string(), "try again"))?;
                    // Only sending: data received here would lie in the buffer, and no poll would report it.
                    self.tls.send()?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Ok(Some("the agent has ended".into())),
            }
        }
        Ok(None)
    }

    /// Asks the agent to end if a signal has arrived: it reverts everything, reports it, and closes the connection.
    fn end_agent(&mut self) {
        if take_signal(self.signals) {
            self.cancelled = true;
            let Some(guardian) = self.host.table.identify(self.child.id() as i32) else {
                return;
            };
            if let Err(error) = self.host.signal(guardian, rustix::process::Signal::TERM) {
                tracing::error!(%error, "the agent could not be asked to end");
            }
        }
    }

    /// Sends the controller what the agent reported before it ended, for at most [`FINAL_SEND_TIMEOUT`].
    fn send_remaining(&mut self) {
        let until = Instant::now() + FINAL_SEND_TIMEOUT;
        while self.tls.connection.wants_write() {
            match self.tls.connection.write_tls(&mut self.tls.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = timespec(until.saturating_duration_since(Instant::now()));
                    let mut fds = [PollFd::new(&self.tls.stream, PollFlags::OUT)];
                    if !matches!(poll(&mut fds, Some(&left)), Ok(1..) | Err(Errno::INTR)) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Closes both sides and waits until the agent has reverted everything. An agent that hangs is killed, and what the ledger in `state` says
    /// it owes is reverted here.
    fn end(mut self, why: String, state: &Path) -> io::Result<RelayEnd> {
        // The agent learns first that the controller is gone. Its reports are still read, so that it can send its last one.
        shutdown(&self.agent, Shutdown::Write).ok();
        self.tls.connection.send_close_notify();
        self.send_remaining();
        self.tls.stream.shutdown(std::net::Shutdown::Both).ok();
        let mut room = [0; RELAY_BUFFER_BYTES];
        let mut watch = ShutdownMonitor::default();
        let mut hung = None;
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.signals, PollFlags::IN),
                PollFd::new(&self.agent, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timespec(CHECK_INTERVAL))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [signals, _] = fds.map(|fd| fd.revents());
            if !signals.is_empty() {
                self.end_agent();
            }
            match recv(&self.agent, &mut room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => break,
                Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => break,
            }
            if watch.hangs(self.host, state, &self.child) {
                hung = Some(end_hung_agent(self.host, state, &mut self.child)?);
                break;
            }
        }
        let mut code = None;
        if hung.is_none() {
            // The agent has closed its connection, so it is about to exit.
            match wait_for_exit(self.host, state, &mut self.child)? {
                AgentExit::Exited(status) => code = status.code(),
                AgentExit::Hung(agent) => hung = Some(agent),
            }
        }
        Ok(RelayEnd {
            heard: self.heard,
            cancelled: self.cancelled,
            why,
            code,
            hung,
        })
    }
}

/// Takes a signal that asks this process to end, if one has arrived.
pub fn take_signal(signals: BorrowedFd<'_>) -> bool {
    // One `signalfd_siginfo`, see signalfd(2); which signal it is does not matter.
    let mut room = [0; 128];
    matches!(rustix::io::read(signals, &mut room), Ok(1..))
}
