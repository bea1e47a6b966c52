//! The connector: an agent's connection to its controller over TLS. It is one process in front of the same socket pair that a local agent
//! has: it connects, starts an agent, relays bytes, and connects again. It does not interpret what it relays, and changes nothing on the
//! host.

mod credentials;
mod deadline;
pub mod join;
mod proxy;
mod relay;
mod tls_connect;
pub mod verify;

pub use credentials::{Credentials, CredentialsError};
pub use deadline::ConnectError;
pub use proxy::{HttpProxy, NO_PROXY};

use crate::engine::revert_matching;
use crate::exit_code;
use crate::host::{Host, HostRole, Invocation};
use crate::ledger::Ledger;
use backburn_experiments::join::LINK_PROTOCOL;
use backburn_experiments::wire::{Cause, EndedInjection, UnrevertedInjection};
use deadline::timespec;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use relay::{RelayEnd, relay, take_signal};
use ring::rand::SecureRandom as _;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tls_connect::TlsConnection;

/// The longest delays before reconnecting; the last applies to all further attempts. Each delay is random, up to that length ("full
/// jitter"), so that 10,000 agents that lose their controller at once come back spread over four seconds.
const RECONNECT_DELAYS: [Duration; 4] = [
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];
/// How long to wait for the controller's first message before an agent is started for it.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest delay until a failed renewal is tried again.
const RENEWAL_RETRY_DELAY: Duration = Duration::from_secs(3600);

/// What a connector is started with.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// The state folder, which contains the credentials and the ledger.
    pub state: PathBuf,
    /// The arguments of the agent that is started, without its name and labels.
    pub serve_arguments: Vec<String>,
    /// Variables of its environment that differ from this process's.
    pub environment: Vec<(String, String)>,
    /// The HTTP proxy of this process's connections, in place of the one that is kept in the state folder. None for that one.
    pub proxy: Option<String>,
}

impl ConnectorConfig {
    /// Reads the credentials from the state folder, to connect as this process was told to.
    fn load(&self) -> Result<Credentials, CredentialsError> {
        let mut credentials = Credentials::load(&self.state)?;
        credentials.proxy_in_use.clone_from(&self.proxy);
        Ok(credentials)
    }
}

/// Stays connected until a signal ends it. Returns the exit code: 0, or 6 if the last agent left something that is not proved to be
/// reverted.
///
/// # Errors
/// The agent has not joined a controller, or this process cannot work.
pub fn run(
    config: &ConnectorConfig,
    invocation: &Invocation,
) -> Result<u8, Box<dyn std::error::Error>> {
    config.load()?;
    let signals = signals()?;
    let host = Host::new(HostRole::Command, invocation.clone());
    let mut connector = Connector {
        config,
        invocation,
        host,
        signals: signals.as_fd(),
        is_ledger_checked: false,
        code: 0,
    };
    let mut tries = 0;
    loop {
        match connector.connect() {
            Ok(ended) if ended.cancelled => return Ok(connector.code),
            Ok(ended) => {
                tracing::warn!(why = ended.why, "the connection ended");
                if ended.heard {
                    tries = 0;
                }
            }
            Err(ConnectError::Cancelled) => return Ok(connector.code),
            Err(ConnectError::Failed { what, hint }) => {
                tracing::warn!(what, hint, "not connected");
                connector.revert_abandoned_entries();
            }
        }
        let longest = RECONNECT_DELAYS
            .get(tries)
            .copied()
            .unwrap_or(RECONNECT_DELAYS[RECONNECT_DELAYS.len() - 1]);
        tries += 1;
        if wait_for_signal(connector.signals, longest.mul_f64(random_fraction()))? {
            return Ok(connector.code);
        }
    }
}

struct Connector<'a> {
    config: &'a ConnectorConfig,
    invocation: &'a Invocation,
    host: Host,
    signals: BorrowedFd<'a>,
    /// Whether the ledger was checked since this process started.
    is_ledger_checked: bool,
    code: u8,
}

impl Connector<'_> {
    /// Serves one connection, from connecting to its end.
    fn connect(&mut self) -> Result<RelayEnd, ConnectError> {
        let state = &self.config.state;
        // Read again for each connection: the agent may have joined again, or its certificate may have been renewed.
        let load = || {
            self.config.load().map_err(|error| {
                ConnectError::new(
                    error.to_string(),
                    "the file is read again for the next connection",
                )
            })
        };
        let mut credentials = load()?;
        if credentials.renewal_in().is_zero() {
            renew(&self.host, state, &credentials);
            credentials = load()?;
        }
        let config = verify::config_from_credentials(&credentials, LINK_PROTOCOL);
        let route = credentials.route()?;
        let mut tls = TlsConnection::connect(&route, config, Some(self.signals))?;
        tls.await_first_message(FIRST_MESSAGE_TIMEOUT, Some(self.signals))?;
        match &route.proxy {
            Some(proxy) => tracing::info!(controller = route.controller, %proxy, "connected"),
            None => tracing::info!(controller = route.controller, "connected"),
        }
        self.is_ledger_checked = true;
        let mut renew = || renew_in_background(self.config, self.invocation);
        let ended = relay(
            tls,
            self.config,
            &credentials,
            self.invocation,
            &self.host,
            self.signals,
            &mut renew,
        )
        .map_err(|error| {
            ConnectError::new(
                format!("the agent could not be started: {error}"),
                "check the limits of processes and open files",
            )
        })?;
        if let Some(hung) = &ended.hung {
            tracing::error!("the agent hung and was killed; what it owed is reverted now");
            log_reverted(&hung.ended, &hung.owed);
        }
        self.code = match ended.code {
            _ if ended.hung.as_ref().is_some_and(|hung| !hung.is_clean()) => exit_code::NOT_CLEAN,
            Some(code) => u8::try_from(code).unwrap_or(exit_code::NOT_CLEAN),
            None => 0,
        };
        Ok(ended)
    }

    /// Reverts what a dead agent left. An agent does that itself when it starts, but the revert must not wait until the controller can be
    /// reached.
    fn revert_abandoned_entries(&mut self) {
        if std::mem::replace(&mut self.is_ledger_checked, true) {
            return;
        }
        let ledger = match Ledger::open(&self.host, &self.config.state) {
            Ok(ledger) => ledger,
            Err(error) => return tracing::error!(%error, "the ledger cannot be read"),
        };
        let table = &self.host.table;
        let (ended, owed) = revert_matching(
            &self.host,
            &ledger,
            |entry| entry.is_abandoned(table).unwrap_or(false),
            Cause::AgentDied,
        );
        log_reverted(&ended, &owed);
        if !owed.is_empty() {
            self.code = exit_code::NOT_CLEAN;
        }
    }
}

/// Logs what was reverted for an agent that died, and what could not be.
fn log_reverted(ended: &[EndedInjection], owed: &[UnrevertedInjection]) {
    for end in ended {
        tracing::warn!(
            injection = end.injection,
            clean = end.clean,
            "reverted for an agent that died"
        );
    }
    for owed in owed {
        let residue = owed.residue.join("; ");
        tracing::error!(injection = owed.injection, residue, "not reverted");
    }
}

/// Renews the certificate. A failure is logged, and renewing is tried again later.
fn renew(host: &Host, state: &Path, credentials: &Credentials) {
    match join::renew(host, state, credentials) {
        Ok(_) => tracing::info!("the certificate was renewed"),
        Err(error) => tracing::warn!(%error, "the certificate could not be renewed"),
    }
}

/// Renews the certificate on a thread of its own, since relaying must not wait. Returns when to check again.
fn renew_in_background(config: &ConnectorConfig, invocation: &Invocation) -> Duration {
    let Ok(credentials) = config.load() else {
        return RENEWAL_RETRY_DELAY;
    };
    let left = credentials.renewal_in();
    if !left.is_zero() {
        return left;
    }
    // Well before the end of a long lifetime, and often enough in a short one.
    let again = (credentials.lasts.0 / 24).min(RENEWAL_RETRY_DELAY);
    let (state, invocation) = (config.state.clone(), invocation.clone());
    let spawned = std::thread::Builder::new().spawn(move || {
        renew(
            &Host::new(HostRole::Command, invocation),
            &state,
            &credentials,
        );
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the certificate could not be renewed");
    }
    again.max(Duration::from_millis(100))
}

fn signals() -> io::Result<SignalFd> {
    crate::user_signals::ignore()?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&mask, flags)?)
}

/// Waits for this long. Returns whether a signal asked this process to end.
fn wait_for_signal(signals: BorrowedFd<'_>, length: Duration) -> io::Result<bool> {
    let until = Instant::now() + length;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return Ok(false),
            Ok(_) if take_signal(signals) => return Ok(true),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A random number between 0 and 1, or 0.5 if the kernel provides no random bytes.
fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
