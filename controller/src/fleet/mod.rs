//! The connected agents: which run has reserved which of them, and the halt that reverts every fault at once.
//!
//! All of this is in memory, behind locks that are held for moments: the fleet works while the store does not.

mod announced_plugins;
mod halt;
mod labels;
mod limits;
mod membership;
mod reservation;
mod teams;

pub use announced_plugins::AnnouncedPlugins;
pub use halt::AgentReverted;
pub use labels::GrantedLabels;
pub use membership::{DuplicateAlert, MembershipChange, MembershipRecord};
pub use reservation::{AdmissionPolicy, DebtFilter, DrainGuard, Reservation};
pub use teams::{TEAM_LABEL, TeamSet};

use self::limits::{MAX_MESSAGES, MESSAGE_WINDOW, RateLimiter, validate_hello};
use self::membership::MembershipLog;
use crate::agent_connection::{AgentEvent, AgentHandle, EventKind, EventSender, drive};
use backburn_experiments::HumanDuration;
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::{Command, EndedInjection, Report, UnrevertedInjection};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};

/// How long an agent keeps its faults after the last heartbeat from its controller.
pub const FLEET_LEASE: HumanDuration = HumanDuration::seconds(30);

/// How long an agent may take to introduce itself: it settles its ledger first.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);

/// All connected agents, and the runs that have reserved them.
#[derive(Debug)]
pub struct Fleet {
    members: Mutex<BTreeMap<String, Member>>,
    /// The runs that have reserved each agent, by its name. A run keeps an agent that it has lost until it reconnects.
    /// Locked after the members if both are needed.
    runs: Mutex<BTreeMap<String, Vec<Arc<Claim>>>>,
    /// Agents that may not be reserved, over whatever connection they come. Locked last.
    draining: Mutex<BTreeSet<String>>,
    /// The labels that are granted, by the agent's name.
    granted: Mutex<BTreeMap<String, GrantedLabels>>,
    /// The number of connections so far.
    connections: AtomicU64,
    /// Whether a halt is in force: no agent may be reserved.
    is_halted: AtomicBool,
    /// The teams whose halt is in force: none of their agents may be reserved.
    halted_teams: Mutex<TeamSet>,
    /// What guardians have reported since the last halt for workers that died or hung, by the agent's name.
    guardians: Mutex<BTreeMap<String, Vec<EndedInjection>>>,
    /// The events that are held back while agents revert in a halt; none outside of that.
    deferred: Mutex<Option<Vec<(EventSender, AgentEvent)>>>,
    /// Changes whenever an agent connects or disconnects.
    seen: watch::Sender<u64>,
    membership: MembershipLog,
    /// Lists of fault names, which many agents share, are kept once.
    known: Mutex<BTreeSet<Arc<[String]>>>,
    plugins: Arc<AnnouncedPlugins>,
    lease: HumanDuration,
}

/// A connected agent, and the runs that have reserved it.
#[derive(Debug)]
struct Member {
    /// The number of the connection; a later one has a higher number.
    connection: u64,
    introduction: Introduction,
    peer: SocketAddr,
    since: jiff::Timestamp,
    handle: AgentHandle,
    /// The runs that get its events: more than one only if all of them share it.
    holders: Vec<Holder>,
}

/// What is kept of an agent's introduction.
#[derive(Debug, Clone)]
struct Introduction {
    version: String,
    protocol: u32,
    through_proxy: bool,
    /// What it says of its host, under the names of facts only.
    facts: Labels,
    faults: Arc<[String]>,
    owed: Vec<UnrevertedInjection>,
    held: Vec<String>,
    answers_heartbeats: bool,
    /// The id of its host's boot, as the agent tells it.
    boot: Option<String>,
}

#[derive(Debug)]
struct Holder {
    claim: Arc<Claim>,
    agent: Arc<str>,
    events: EventSender,
}

/// A run that reserves agents.
#[derive(Debug)]
struct Claim {
    run: String,
    /// Who asked for the run; empty if that is not known.
    by: String,
    /// When the run was about to reserve agents.
    since: jiff::Timestamp,
    /// Whether other runs that share their agents may reserve the same ones.
    shares: bool,
}

/// A connected agent, as it is shown to people.
#[derive(Debug, Clone)]
pub struct ConnectedAgent {
    /// The name that its certificate proves.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// What it says of its host, and the address that it connects from; without what is granted under the same names.
    pub facts: Labels,
    /// The faults that it can inject.
    pub faults: Arc<[String]>,
    /// The address that it calls from.
    pub peer: SocketAddr,
    /// The time at which it connected.
    pub since: jiff::Timestamp,
    /// When it was last heard.
    pub heard: jiff::Timestamp,
    /// Whether it has sent nothing for a lease, although it was asked.
    pub unresponsive: bool,
    /// The runs that have reserved it.
    pub runs: Vec<String>,
    /// What it could not revert.
    pub owed: Vec<UnrevertedInjection>,
}

impl Member {
    fn connected(
        &self,
        name: &str,
        granted: &GrantedLabels,
        claims: Option<&Vec<Arc<Claim>>>,
    ) -> ConnectedAgent {
        let labels = labels::all_labels(self, granted);
        ConnectedAgent {
            name: name.to_owned(),
            version: self.introduction.version.clone(),
            protocol: self.introduction.protocol,
            facts: labels::shown_facts(&labels, &granted.labels),
            faults: Arc::clone(&self.introduction.faults),
            peer: self.peer,
            since: self.since,
            heard: self.handle.last_heard(),
            unresponsive: self.handle.is_unresponsive(),
            runs: (claims.into_iter().flatten())
                .map(|claim| claim.run.clone())
                .collect(),
            owed: self.introduction.owed.clone(),
        }
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet::new(FLEET_LEASE)
    }
}

impl Fleet {
    /// A fleet without agents, whose connections are kept with this lease.
    pub fn new(lease: HumanDuration) -> Self {
        Fleet {
            members: Mutex::default(),
            runs: Mutex::default(),
            draining: Mutex::default(),
            granted: Mutex::default(),
            connections: AtomicU64::default(),
            is_halted: AtomicBool::new(false),
            halted_teams: Mutex::default(),
            guardians: Mutex::default(),
            deferred: Mutex::default(),
            seen: watch::Sender::new(0),
            membership: MembershipLog::default(),
            known: Mutex::default(),
            plugins: Arc::default(),
            lease,
        }
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Claim>>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draining(&self) -> MutexGuard<'_, BTreeSet<String>> {
        (self.draining.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an agent whose name is proved, until its connection closes. Returns the reason. `is_revoked` is asked when the agent is admitted,
    /// since it may have been revoked after its certificate was verified.
    pub async fn serve(
        self: &Arc<Self>,
        name: &str,
        peer: SocketAddr,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        is_revoked: impl Fn() -> bool + Sync,
    ) -> String {
        let (handle, driver) = drive(stream, self.lease);
        let fleet = Arc::clone(self);
        let owner = name.to_owned();
        let admitted = &OnceLock::new();
        let (introduce, introduced) = oneshot::channel();
        let mut introduce = Some(introduce);
        let mut pace = RateLimiter::default();
        let on_event = move |kind: EventKind| {
            if let Some(introduce) = introduce.take() {
                let EventKind::Report(report) = kind else {
                    return Ok(());
                };
                let Report::Hello(hello) = *report else {
                    return Err("it did not introduce itself first".to_owned());
                };
                validate_hello(&hello)?;
                introduce.send(hello).ok();
                return Ok(());
            }
            if !pace.allows() {
                return Err(format!(
                    "it sent more than {MAX_MESSAGES} messages within {} s",
                    MESSAGE_WINDOW.as_secs()
                ));
            }
            let Some(&connection) = admitted.get() else {
                // Nothing was asked of it yet.
                return Ok(());
            };
            match &kind {
                EventKind::Unresponsive(silence) => {
                    tracing::warn!(agent = owner, %silence, "an agent is connected and does not answer");
                }
                EventKind::RespondsAgain => tracing::warn!(agent = owner, "an agent answers again"),
                // Runs need not know that ten thousand agents are alive.
                EventKind::Report(report) if matches!(**report, Report::HeartbeatAnswer) => {
                    return Ok(());
                }
                _ => {}
            }
            match fleet.forward(&owner, connection, kind) {
                true => Ok(()),
                false => Err("another connection of this agent took its place".to_owned()),
            }
        };
        let refused = &OnceLock::new();
        let admission = async {
            let hello = match tokio::time::timeout(HELLO_TIMEOUT, introduced).await {
                Ok(Ok(hello)) => hello,
                // The driver ends, and has the reason.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => {
                    return format!(
                        "it did not introduce itself within {}",
                        HumanDuration(HELLO_TIMEOUT)
                    );
                }
            };
            let says_protocol = hello.protocol.is_some();
            match self.admit(name, hello, peer, &handle, &is_revoked).await {
                Ok(connection) => drop(admitted.set(connection)),
                Err(refusal) => {
                    refused.get_or_init(|| format!("it is refused: {refusal}"));
                    if says_protocol {
                        handle.send(Command::Refused { refusal });
                    }
                    handle.close();
                }
            }
            std::future::pending().await
        };
        let why = tokio::select! {
            why = driver.run(on_event) => why,
            why = admission => why,
        };
        let why = refused.get().cloned().unwrap_or(why);
        if let Some(connection) = admitted.get() {
            self.leave(name, *connection, &why);
        }
        why
    }

    /// The same list of names, kept once for all agents that give it.
    fn once(&self, names: Vec<String>) -> Arc<[String]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(names.as_slice()) {
            return Arc::clone(same);
        }
        // Programs of few versions give few lists. Endless lists of made-up names are accepted, but not kept.
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
            self.record_gone(name, &gone, why);
            self.report_gone(gone, why);
        }
        self.seen.send_modify(|count| *count += 1);
    }

    /// Forwards an event of an agent to the runs that have reserved it: each knows what it asked for. Returns false if a newer
    /// connection has replaced this one.
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
                    self.deliver(other, connection, kind.clone());
                }
                self.deliver(last, connection, kind);
            }
            None => tracing::debug!(
                agent = name,
                ?kind,
                "event of an agent that no run has reserved"
            ),
        }
        true
    }

    /// Tells the runs that have reserved an agent that it has gone.
    fn report_gone(&self, member: Member, why: &str) {
        for holder in member.holders {
            self.deliver(
                &holder,
                member.connection,
                EventKind::Closed(why.to_owned()),
            );
        }
    }

    /// Delivers an event to a run, or holds it back until agents have reverted in a halt. A run that is over has dropped its
    /// receiver, and releases its agents in a moment.
    fn deliver(&self, holder: &Holder, connection: u64, kind: EventKind) {
        let event = AgentEvent {
            agent: Arc::clone(&holder.agent),
            connection,
            kind,
        };
        match self.deferred().as_mut() {
            Some(deferred) => deferred.push((holder.events.clone(), event)),
            None => drop(holder.events.send(event)),
        }
    }

    fn deferred(&self) -> MutexGuard<'_, Option<Vec<(EventSender, AgentEvent)>>> {
        (self.deferred.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Disconnects an agent, e.g. because its certificate was revoked.
    pub fn disconnect(&self, name: &str) {
        let member = self.members().remove(name);
        let Some(member) = member else { return };
        member.handle.close();
        let why = "it was disconnected";
        self.record_gone(name, &member, why);
        self.report_gone(member, why);
        self.seen.send_modify(|count| *count += 1);
    }

    /// The plug-ins that agents announce.
    pub fn plugins(&self) -> &AnnouncedPlugins {
        &self.plugins
    }

    /// How long agents keep their faults after the last heartbeat.
    pub fn lease(&self) -> HumanDuration {
        self.lease
    }

    /// The number of connected agents.
    pub fn count(&self) -> usize {
        self.members().len()
    }

    /// The number of connected agents that do not answer.
    pub fn unresponsive(&self) -> usize {
        let members = self.members();
        let hangs = |member: &&Member| member.handle.is_unresponsive();
        members.values().filter(hangs).count()
    }

    /// The names of the connected agents that do not answer.
    pub fn unresponsive_names(&self) -> Vec<String> {
        let members = self.members();
        let hangs = members
            .iter()
            .filter(|(_, member)| member.handle.is_unresponsive());
        hangs.map(|(name, _)| name.clone()).collect()
    }

    /// The connected agents that could not revert something, and how many injections each.
    pub fn owing(&self) -> BTreeMap<String, usize> {
        let members = self.members();
        let owed = |member: &Member| member.introduction.owed.len();
        (members.iter())
            .filter(|(_, member)| owed(member) > 0)
            .map(|(name, member)| (name.clone(), owed(member)))
            .collect()
    }

    /// All connected agents, by name.
    pub fn list(&self) -> Vec<ConnectedAgent> {
        let members = self.members();
        let (granted, nothing) = (self.granted(), GrantedLabels::default());
        let runs = self.runs();
        let connected = members.iter();
        connected
            .map(|(name, member)| {
                let granted = granted.get(name).unwrap_or(&nothing);
                member.connected(name, granted, runs.get(name))
            })
            .collect()
    }

    /// The connected agent of this name.
    pub fn get(&self, name: &str) -> Option<ConnectedAgent> {
        let members = self.members();
        let granted = self.granted().get(name).cloned().unwrap_or_default();
        let runs = self.runs();
        let member = members.get(name)?;
        Some(member.connected(name, &granted, runs.get(name)))
    }

    /// A handle to the connected agent of this name.
    pub fn handle(&self, name: &str) -> Option<AgentHandle> {
        self.members().get(name).map(|member| member.handle.clone())
    }

    /// Changes whenever an agent connects or disconnects.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }
}
