//! The agents that are connected: who they are, which run holds whom, and the lever that ends every fault at once.
//!
//! All of it is in memory, behind one lock that is held for moments: the fleet works while the store does not.

mod halt;
mod limits;
mod reservation;

pub(crate) use halt::HaltState;
pub use halt::Reverted;
pub use reservation::{AdmissionPolicy, DrainGuard, Reservation};

use self::limits::{MAX_MESSAGES, MESSAGE_WINDOW, RateLimiter, validate_hello};
use crate::agent_connection::{AgentEvent, AgentHandle, EventKind, EventSender, drive};
use crate::runner::ADDRESS;
use backburn_experiments::Span;
use backburn_experiments::wire::{Ended, Hello, Owed, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// How long an agent keeps its faults when it does not hear from the controller any more.
pub const FLEET_LEASE: Span = Span::seconds(30);

/// How long an agent may take to introduce itself. It settles its ledger first.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);

/// The connected agents.
#[derive(Debug)]
pub struct Fleet {
    members: Mutex<BTreeMap<String, Member>>,
    /// Which runs hold whom, by the agent's name: a run keeps an agent that it has lost, until it comes again.
    /// Locked after the members, where both are.
    runs: Mutex<BTreeMap<String, Vec<Arc<Claim>>>>,
    /// Whom nobody may hold any more, over whatever link they come. Locked last.
    retiring: Mutex<BTreeSet<String>>,
    /// Counts the connections there have been.
    connections: AtomicU64,
    halt_state: watch::Sender<HaltState>,
    /// What guardians have said, since the lever was pulled last, for workers that died or hung; by the agent's name.
    guardians: Mutex<BTreeMap<String, Vec<Ended>>>,
    /// Changes with each agent that comes or goes.
    seen: watch::Sender<u64>,
    /// Names and labels that many share are kept once.
    known: Mutex<BTreeSet<Arc<[String]>>>,
    lease: Span,
}

/// A connected agent.
#[derive(Debug)]
struct Member {
    /// Which of all connections it is: a later one has a higher number.
    connection: u64,
    introduction: Introduction,
    peer: SocketAddr,
    since: jiff::Timestamp,
    handle: AgentHandle,
    /// More than one where all of them share it.
    holders: Vec<Holder>,
}

/// What is kept of an agent's first words.
#[derive(Debug, Clone)]
struct Introduction {
    version: String,
    labels: BTreeMap<String, String>,
    faults: Arc<[String]>,
    owed: Vec<Owed>,
    held: Vec<String>,
    answers_beats: bool,
}

#[derive(Debug)]
struct Holder {
    claim: Arc<Claim>,
    agent: Arc<str>,
    events: EventSender,
}

/// A run that holds agents.
#[derive(Debug)]
struct Claim {
    run: String,
    /// Whether others that say so too may hold the same agents.
    shares: bool,
}

/// A connected agent, for people.
#[derive(Debug, Clone)]
pub struct ConnectedAgent {
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Given and found.
    pub labels: BTreeMap<String, String>,
    /// What it can inject.
    pub faults: Arc<[String]>,
    /// Where it calls from.
    pub peer: SocketAddr,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Whether it is connected and has said nothing for a lease, although it was asked.
    pub unresponsive: bool,
    /// The runs that hold it.
    pub runs: Vec<String>,
    /// What it could not put back.
    pub owed: Vec<Owed>,
}

impl Member {
    /// Tells those who hold it that it has gone.
    fn gone(self, why: &str) {
        for holder in self.holders {
            holder.send(self.connection, EventKind::Closed(why.to_owned()));
        }
    }

    fn connected(&self, name: &str, claims: Option<&Vec<Arc<Claim>>>) -> ConnectedAgent {
        ConnectedAgent {
            name: name.to_owned(),
            version: self.introduction.version.clone(),
            labels: self.introduction.labels.clone(),
            faults: Arc::clone(&self.introduction.faults),
            peer: self.peer,
            since: self.since,
            unresponsive: self.handle.is_unresponsive(),
            runs: (claims.into_iter().flatten())
                .map(|claim| claim.run.clone())
                .collect(),
            owed: self.introduction.owed.clone(),
        }
    }
}

impl Holder {
    /// A run that is over does not listen any more; its agent is let go in a moment.
    fn send(&self, connection: u64, kind: EventKind) {
        let event = AgentEvent {
            agent: Arc::clone(&self.agent),
            connection,
            kind,
        };
        self.events.send(event).ok();
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet::new(FLEET_LEASE)
    }
}

impl Fleet {
    /// A fleet without agents, whose links are kept up with this lease.
    pub fn new(lease: Span) -> Self {
        Fleet {
            members: Mutex::default(),
            runs: Mutex::default(),
            retiring: Mutex::default(),
            connections: AtomicU64::default(),
            halt_state: watch::Sender::new(HaltState::Running),
            guardians: Mutex::default(),
            seen: watch::Sender::new(0),
            known: Mutex::default(),
            lease,
        }
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Claim>>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retiring(&self) -> MutexGuard<'_, BTreeSet<String>> {
        (self.retiring.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an agent whose name is proved, until its link closes. Returns why it did.
    pub async fn serve(
        self: &Arc<Self>,
        name: &str,
        peer: SocketAddr,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> String {
        let (handle, driver) = drive(stream, self.lease);
        let fleet = Arc::clone(self);
        let owner = name.to_owned();
        let introduced = &OnceLock::new();
        let mut pace = RateLimiter::default();
        let speaker = handle.clone();
        let on_event = move |kind: EventKind| match (kind, introduced.get()) {
            (EventKind::Report(report), None) => {
                let Report::Hello(hello) = *report else {
                    return Err("it did not introduce itself first".to_owned());
                };
                validate_hello(&hello)?;
                let connection = fleet.enter(&owner, hello, peer, speaker.clone());
                introduced.get_or_init(|| connection);
                Ok(())
            }
            (kind, Some(&connection)) => {
                match &kind {
                    EventKind::Unresponsive(silence) => {
                        tracing::warn!(agent = owner, %silence, "an agent is connected and does not answer");
                    }
                    EventKind::RespondsAgain => {
                        tracing::warn!(agent = owner, "an agent answers again")
                    }
                    _ => {}
                }
                if !pace.allows() {
                    return Err(format!(
                        "it said more than {MAX_MESSAGES} things within {} s",
                        MESSAGE_WINDOW.as_secs()
                    ));
                }
                // Nobody is to be told that ten thousand are well.
                if matches!(&kind, EventKind::Report(report) if matches!(**report, Report::Alive)) {
                    return Ok(());
                }
                match fleet.forward(&owner, connection, kind) {
                    true => Ok(()),
                    false => Err("another link of this agent took its place".to_owned()),
                }
            }
            (_, None) => Ok(()),
        };
        let late = async {
            tokio::time::sleep(HELLO_TIMEOUT).await;
            if introduced.get().is_some() {
                std::future::pending::<()>().await;
            }
        };
        let why = tokio::select! {
            why = driver.run(on_event) => why,
            () = late => format!("it did not introduce itself within {}", Span(HELLO_TIMEOUT)),
        };
        if let Some(connection) = introduced.get() {
            self.leave(name, *connection, &why);
        }
        why
    }

    /// Somebody has introduced itself. Whoever had its name before is gone: an agent has one link.
    fn enter(&self, name: &str, hello: Hello, peer: SocketAddr, handle: AgentHandle) -> u64 {
        let faults = self.once(hello.faults);
        let mut labels = hello.labels;
        (labels.entry(ADDRESS.to_owned())).or_insert_with(|| peer.ip().to_canonical().to_string());
        let mut members = self.members();
        let before = members.remove(name);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let member = Member {
            connection,
            introduction: Introduction {
                version: hello.version,
                labels,
                faults,
                owed: hello.owed,
                held: hello.held,
                answers_beats: hello.answers_beats,
            },
            peer,
            since: jiff::Timestamp::now(),
            handle,
            holders: Vec::new(),
        };
        members.insert(name.to_owned(), member);
        drop(members);
        if let Some(before) = before {
            before.handle.close();
            before.gone("it has come again over another link");
        }
        self.seen.send_modify(|count| *count += 1);
        connection
    }

    /// The same list of names once for all who say it.
    fn once(&self, names: Vec<String>) -> Arc<[String]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(names.as_slice()) {
            return Arc::clone(same);
        }
        // Versions are few; who makes up lists without end gets them, but they are not kept.
        let names: Arc<[String]> = names.into();
        if known.len() < 64 {
            known.insert(Arc::clone(&names));
        }
        names
    }

    fn leave(&self, name: &str, connection: u64, why: &str) {
        let mut members = self.members();
        if members
            .get(name)
            .is_none_or(|member| member.connection != connection)
        {
            return;
        }
        let gone = members.remove(name);
        drop(members);
        if let Some(gone) = gone {
            gone.gone(why);
        }
        self.seen.send_modify(|count| *count += 1);
    }

    /// Hands a word of an agent on to the runs that hold it: each knows what it asked for. False where this link is not its
    /// own any more.
    fn forward(&self, name: &str, connection: u64, kind: EventKind) -> bool {
        let mut members = self.members();
        let Some(member) = members
            .get_mut(name)
            .filter(|member| member.connection == connection)
        else {
            return false;
        };
        self.record_guardian_report(name, &kind);
        match member.holders.split_last() {
            Some((last, others)) => {
                for other in others {
                    other.send(connection, kind.clone());
                }
                last.send(connection, kind);
            }
            None => tracing::debug!(agent = name, ?kind, "heard of an agent that no run holds"),
        }
        true
    }

    /// Lets go of an agent, e.g. because its certificate is revoked: it is nobody's any more, and its link is closed.
    pub fn dismiss(&self, name: &str) {
        let member = self.members().remove(name);
        let Some(member) = member else { return };
        member.handle.close();
        member.gone("it was dismissed");
        self.seen.send_modify(|count| *count += 1);
    }

    /// How long agents keep their faults when they do not hear from us.
    pub fn lease(&self) -> Span {
        self.lease
    }

    /// How many agents are connected.
    pub fn count(&self) -> usize {
        self.members().len()
    }

    /// How many agents are connected and do not answer.
    pub fn unresponsive(&self) -> usize {
        let members = self.members();
        let hangs = |member: &&Member| member.handle.is_unresponsive();
        members.values().filter(hangs).count()
    }

    /// Every connected agent, in the order of the names.
    pub fn list(&self) -> Vec<ConnectedAgent> {
        let members = self.members();
        let runs = self.runs();
        let connected = members.iter();
        connected
            .map(|(name, member)| member.connected(name, runs.get(name)))
            .collect()
    }

    /// One connected agent.
    pub fn get(&self, name: &str) -> Option<ConnectedAgent> {
        let members = self.members();
        let runs = self.runs();
        let member = members.get(name)?;
        Some(member.connected(name, runs.get(name)))
    }

    /// How to speak to a connected agent.
    pub fn handle(&self, name: &str) -> Option<AgentHandle> {
        self.members().get(name).map(|member| member.handle.clone())
    }

    /// Changes with each agent that comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }
}
