//! The connector: an agent's way to its controller over TLS. One process in front of the very
//! socket pair that a local agent has: it dials, starts an agent, carries bytes, and dials again.
//! It knows nothing of what is said, and touches nothing of the host.

mod carry;
mod dial;
pub mod join;
mod membership;
pub mod trust;

pub use dial::DialError;
pub use membership::{Membership, NoMembership};

use crate::engine::revert_dead;
use crate::guardian::NOT_CLEAN;
use crate::host::{Host, Invocation, Role};
use crate::ledger::Ledger;
use backburn_experiments::join::LINK_PROTOCOL;
use backburn_experiments::wire::{Cause, EndedInjection, OwedInjection};
use carry::{Carried, carry, take_signal};
use dial::{Tls, timespec};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ring::rand::SecureRandom as _;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest breaks before a link is tried again, the last one for all that follow. Each break is of any length up to that
/// ("full jitter"): 10,000 agents that lose their controller at once come back over four seconds.
const BREAKS: [Duration; 4] = [
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];
/// How long we wait for the controller's first word before an agent is started for it.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long until a renewal that failed is tried again, at the most.
const RENEW_AGAIN: Duration = Duration::from_secs(3600);

/// What a connector is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state folder, with the membership and the ledger in it.
    pub state: PathBuf,
    /// The words that an agent is started with, its name and labels left out.
    pub words: Vec<String>,
}

/// Stays connected until told to end. Returns the exit code: 0, or 6 where the last agent left
/// something that is not proved to be put back.
///
/// # Errors
/// The agent has not joined a controller, or this process can't do its work.
pub fn run(settings: &Settings, invocation: &Invocation) -> Result<u8, Box<dyn std::error::Error>> {
    Membership::load(&settings.state)?;
    let signals = signals()?;
    let host = Host::new(Role::Hand, invocation.clone());
    let mut connector = Connector {
        settings,
        invocation,
        host,
        signals: signals.as_fd(),
        is_settled: false,
        code: 0,
    };
    let mut tries = 0;
    loop {
        match connector.connect() {
            Ok(carried) if carried.told => return Ok(connector.code),
            Ok(carried) => {
                tracing::warn!(why = carried.why, "the link is closed");
                if carried.heard {
                    tries = 0;
                }
            }
            Err(DialError::Told) => return Ok(connector.code),
            Err(DialError::Failed { what, hint }) => {
                tracing::warn!(what, hint, "not connected");
                connector.settle();
            }
        }
        let longest = BREAKS
            .get(tries)
            .copied()
            .unwrap_or(BREAKS[BREAKS.len() - 1]);
        tries += 1;
        if told_within(connector.signals, longest.mul_f64(fraction()))? {
            return Ok(connector.code);
        }
    }
}

struct Connector<'a> {
    settings: &'a Settings,
    invocation: &'a Invocation,
    host: Host,
    signals: BorrowedFd<'a>,
    /// Whether the ledger was looked at since this process started.
    is_settled: bool,
    code: u8,
}

impl Connector<'_> {
    /// One connection, from dialling to its end.
    fn connect(&mut self) -> Result<Carried, DialError> {
        let state = &self.settings.state;
        // Read anew each time: it may have been joined again, or renewed.
        let load = || {
            Membership::load(state).map_err(|error| {
                DialError::new(error.to_string(), "the file of the membership is read anew")
            })
        };
        let mut member = load()?;
        if member.renewal_in().is_zero() {
            renew(&self.host, state, &member);
            member = load()?;
        }
        let config = trust::by_membership(&member, LINK_PROTOCOL);
        let mut tls = Tls::dial(&member.controller, config, Some(self.signals))?;
        tls.verdict(FIRST_WORD, Some(self.signals))?;
        tracing::info!(controller = member.controller, "connected");
        self.is_settled = true;
        let mut renew = || renew_beside(state, self.invocation);
        let carried = carry(
            tls,
            state,
            &self.settings.words,
            &member,
            self.invocation,
            &self.host,
            self.signals,
            &mut renew,
        )
        .map_err(|error| {
            DialError::new(
                format!("the agent could not be started: {error}"),
                "look at the limits of processes and open files",
            )
        })?;
        if let Some(hung) = &carried.hung {
            tracing::error!("the agent hung and was killed; what it owed is put back from here");
            tell_of(&hung.ended, &hung.owed);
        }
        self.code = match carried.code {
            _ if carried.hung.as_ref().is_some_and(|hung| !hung.is_clean()) => NOT_CLEAN,
            Some(code) => u8::try_from(code).unwrap_or(NOT_CLEAN),
            None => 0,
        };
        Ok(carried)
    }

    /// Ledger first, work after: an agent that is started does that by itself, but what a dead one left must not wait until
    /// the controller is there.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let ledger = match Ledger::open(&self.host, &self.settings.state) {
            Ok(ledger) => ledger,
            Err(error) => return tracing::error!(%error, "the ledger can't be looked at"),
        };
        let table = &self.host.table;
        let (ended, owed) = revert_dead(
            &self.host,
            &ledger,
            |entry| entry.is_abandoned(table).unwrap_or(false),
            Cause::AgentDied,
        );
        tell_of(&ended, &owed);
        if !owed.is_empty() {
            self.code = NOT_CLEAN;
        }
    }
}

/// What was put back for an agent that died, and what could not be.
fn tell_of(ended: &[EndedInjection], owed: &[OwedInjection]) {
    for end in ended {
        tracing::warn!(
            injection = end.injection,
            clean = end.clean,
            "put back for an agent that died"
        );
    }
    for owed in owed {
        let residue = owed.residue.join("; ");
        tracing::error!(injection = owed.injection, residue, "not put back");
    }
}

/// Renews the certificate; what fails is said and tried again.
fn renew(host: &Host, state: &Path, member: &Membership) {
    match join::renew(host, state, member) {
        Ok(_) => tracing::info!("the certificate was renewed"),
        Err(error) => tracing::warn!(%error, "the certificate could not be renewed"),
    }
}

/// Renews the certificate on a thread of its own: what is carried must not wait. Returns when to look again.
fn renew_beside(state: &Path, invocation: &Invocation) -> Duration {
    let Ok(member) = Membership::load(state) else {
        return RENEW_AGAIN;
    };
    let left = member.renewal_in();
    if !left.is_zero() {
        return left;
    }
    // Long before the end where the life is long; often enough where it is short.
    let again = (member.lasts.0 / 24).min(RENEW_AGAIN);
    let (state, invocation) = (state.to_owned(), invocation.clone());
    let spawned = std::thread::Builder::new().spawn(move || {
        renew(&Host::new(Role::Hand, invocation), &state, &member);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the certificate could not be renewed");
    }
    again.max(Duration::from_millis(100))
}

fn signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&mask, flags)?)
}

/// Waits so long. Returns whether this process was told to end.
fn told_within(signals: BorrowedFd<'_>, length: Duration) -> io::Result<bool> {
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

/// A random part of one; the middle where the kernel gives nothing.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
