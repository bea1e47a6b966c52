//! Which connection stands for an agent. An agent has one connection: a newer one takes the place of one that is dead. If the older one is alive,
//! two hosts use one identity, for instance because a state folder was copied. The newer one is then refused, so that the agent that may owe
//! something is not displaced, and an alert is raised.

use super::{Fleet, Introduction, Member};
use crate::agent_connection::AgentHandle;
use backburn_experiments::protocol::PROTOCOL;
use backburn_experiments::wire::{Command, Hello, Refusal};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long an agent that is connected may take to prove that it is alive when another comes under its name.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an alert of two hosts with one identity lasts after the last attempt of the second.
const ALERT_DURATION: Duration = Duration::from_secs(600);
/// How many connections and disconnections of one agent are recorded in [`RECORD_WINDOW`]; more are only counted.
const MAX_RECORDS: u64 = 10;
const RECORD_WINDOW: Duration = Duration::from_secs(60);
/// A run that never is: to revert it changes nothing, and only a live agent answers.
const NO_RUN: &str = "proof-of-life";

/// What happened to an agent's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// It introduced itself, with a program of this version that speaks this version of the protocol.
    Connected {
        /// The version of its program.
        version: String,
        /// The version of the protocol.
        protocol: u32,
    },
    /// Its connection ended.
    Disconnected {
        /// Why.
        why: String,
        /// When it was last heard.
        heard: jiff::Timestamp,
    },
    /// Another host with the same identity was refused while it was connected from this address.
    Duplicated(SocketAddr),
}

/// An entry about an agent's connection.
#[derive(Debug, Clone)]
pub struct MembershipRecord {
    /// The name of the agent.
    pub agent: String,
    /// The address of the connection.
    pub peer: SocketAddr,
    /// When it happened.
    pub at: jiff::Timestamp,
    /// What happened.
    pub change: MembershipChange,
    /// How many entries about this agent were left out before, because there were too many.
    pub left_out: u64,
}

/// Two hosts that use one identity.
#[derive(Debug, Clone, Copy)]
pub struct DuplicateAlert {
    /// The address of the host that was refused.
    pub peer: SocketAddr,
    /// When it was refused last.
    pub at: jiff::Timestamp,
    until: Instant,
}

/// How many entries about an agent there were lately.
#[derive(Debug)]
struct RecordCount {
    since: Instant,
    written: u64,
    left_out: u64,
}

/// What is remembered about connections, for whoever records them.
#[derive(Debug, Default)]
pub(super) struct MembershipLog {
    records: OnceLock<mpsc::UnboundedSender<MembershipRecord>>,
    counts: std::sync::Mutex<BTreeMap<String, RecordCount>>,
    alerts: std::sync::Mutex<BTreeMap<String, DuplicateAlert>>,
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MembershipLog {
    /// Sends an entry to whoever records them, unless there were too many about this agent.
    fn send(&self, agent: &str, peer: SocketAddr, change: MembershipChange) {
        let Some(records) = self.records.get() else {
            return;
        };
        let now = Instant::now();
        let left_out = {
            let mut counts = lock(&self.counts);
            if counts.len() > 1000 {
                // An agent that is quiet is not remembered, unless something about it was left out.
                counts.retain(|_, count| {
                    count.left_out > 0 || now.duration_since(count.since) < RECORD_WINDOW
                });
            }
            let count = counts.entry(agent.to_owned()).or_insert(RecordCount {
                since: now,
                written: 0,
                left_out: 0,
            });
            if now.duration_since(count.since) >= RECORD_WINDOW {
                (count.since, count.written) = (now, 0);
            }
            if count.written >= MAX_RECORDS {
                count.left_out += 1;
                return;
            }
            count.written += 1;
            std::mem::take(&mut count.left_out)
        };
        let record = MembershipRecord {
            agent: agent.to_owned(),
            peer,
            at: jiff::Timestamp::now(),
            change,
            left_out,
        };
        // Nobody records any more when the controller ends.
        records.send(record).ok();
    }
}

impl Fleet {
    /// What happens to connections from now on, for the one that records it. None if somebody records it already.
    pub fn membership_records(&self) -> Option<mpsc::UnboundedReceiver<MembershipRecord>> {
        let (records, receiver) = mpsc::unbounded_channel();
        self.membership.records.set(records).ok()?;
        Some(receiver)
    }

    /// The agents whose identity a second host has used lately.
    pub fn duplicates(&self) -> BTreeMap<String, DuplicateAlert> {
        let mut alerts = lock(&self.membership.alerts);
        let now = Instant::now();
        alerts.retain(|_, alert| now < alert.until);
        alerts.clone()
    }

    fn record(&self, agent: &str, peer: SocketAddr, change: MembershipChange) {
        self.membership.send(agent, peer, change);
    }

    pub(super) fn record_gone(&self, agent: &str, member: &Member, why: &str) {
        let change = MembershipChange::Disconnected {
            why: why.to_owned(),
            heard: member.handle.last_heard(),
        };
        self.record(agent, member.peer, change);
    }

    /// When each connected agent was last heard.
    pub fn heard(&self) -> BTreeMap<String, jiff::Timestamp> {
        let members = self.members();
        let heard = members.iter();
        heard
            .map(|(name, member)| (name.clone(), member.handle.last_heard()))
            .collect()
    }

    /// Decides about an agent that has introduced itself, and returns the number of its connection. An older connection under its name that is
    /// dead is closed.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) async fn admit(
        &self,
        name: &str,
        hello: Hello,
        peer: SocketAddr,
        handle: &AgentHandle,
        is_revoked: &(dyn Fn() -> bool + Sync),
    ) -> Result<u64, Refusal> {
        let protocol = PROTOCOL.agree(hello.protocol.unwrap_or_default())?;
        let older = (self.members().get(name))
            .map(|member| (member.handle.clone(), member.peer, member.connection));
        if let Some((older, its_peer, connection)) = older {
            // An agent that is too old to answer heartbeats may be too old to revert one run only, and every agent describes its faults.
            let proof = async {
                match older.answers_heartbeats() {
                    true => older.revert_run(NO_RUN).await.is_some(),
                    false => older.describe().await.is_some(),
                }
            };
            let proof = tokio::time::timeout(PROOF_TIMEOUT.min(self.lease.0 / 3), proof);
            let is_alive = matches!(proof.await, Ok(true));
            let is_there =
                (self.members().get(name)).is_some_and(|member| member.connection == connection);
            if is_alive && is_there {
                return Err(self.refuse_duplicate(name, peer, its_peer));
            }
        }
        let (version, says_protocol) = (hello.version.clone(), hello.protocol.is_some());
        let faults = hello.faults.clone();
        let connection = self.enter(name, hello, protocol, peer, handle.clone(), is_revoked)?;
        if says_protocol {
            handle.send(Command::Welcome {
                protocol,
                version: env!("CARGO_PKG_VERSION").into(),
            });
        }
        self.plugins.learn_from(&faults, handle);
        self.record(
            name,
            peer,
            MembershipChange::Connected { version, protocol },
        );
        Ok(connection)
    }

    fn refuse_duplicate(&self, name: &str, peer: SocketAddr, its_peer: SocketAddr) -> Refusal {
        tracing::error!(
            agent = name,
            %peer,
            connected = %its_peer,
            "two hosts use the identity of one agent: the second is refused"
        );
        let alert = DuplicateAlert {
            peer,
            at: jiff::Timestamp::now(),
            until: Instant::now() + ALERT_DURATION,
        };
        lock(&self.membership.alerts).insert(name.to_owned(), alert);
        self.record(name, peer, MembershipChange::Duplicated(its_peer));
        let what = format!("agent `{name}` is connected from {its_peer} already, and answers");
        Refusal::new("duplicate", what).hint(
            "a state folder must not be copied to another host: let each host join with a token of its own; if this host is the right one, stop the other",
        )
    }

    /// An agent is admitted. An earlier connection under its name is closed.
    ///
    /// # Errors
    /// The agent has been revoked since its connection began.
    fn enter(
        &self,
        name: &str,
        hello: Hello,
        protocol: u32,
        peer: SocketAddr,
        handle: AgentHandle,
        is_revoked: &(dyn Fn() -> bool + Sync),
    ) -> Result<u64, Refusal> {
        let introduction = self.introduction(name, hello, protocol);
        let mut members = self.members();
        // Whoever revokes an agent does so first, and then disconnects it under this lock: one of the two sees it.
        if is_revoked() {
            let what = format!("the certificate of agent `{name}` is no longer valid");
            return Err(Refusal::new("revoked", what)
                .hint("join again with a new token, if an admin gives one"));
        }
        let before = members.remove(name);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let member = Member {
            connection,
            introduction,
            peer,
            since: jiff::Timestamp::now(),
            handle,
            holders: Vec::new(),
        };
        members.insert(name.to_owned(), member);
        drop(members);
        if let Some(before) = before {
            before.handle.close();
            let why = "it has reconnected over another connection";
            self.record_gone(name, &before, why);
            self.report_gone(before, why);
        }
        self.seen.send_modify(|count| *count += 1);
        Ok(connection)
    }

    /// What is kept of an introduction.
    fn introduction(&self, name: &str, hello: Hello, protocol: u32) -> Introduction {
        let (facts, ignored) = backburn_experiments::labels::facts(hello.labels);
        if !ignored.is_empty() {
            // Agents of older versions send the labels that they joined with each time.
            tracing::debug!(
                agent = name,
                ?ignored,
                "an agent gives itself labels, which are ignored"
            );
        }
        Introduction {
            version: hello.version,
            protocol,
            through_proxy: hello.through_proxy,
            facts,
            faults: self.once(hello.faults),
            owed: hello.owed,
            held: hello.held,
            answers_heartbeats: hello.answers_heartbeats,
            boot: hello.boot,
        }
    }
}
