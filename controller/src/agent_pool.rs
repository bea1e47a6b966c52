//! Who takes part in a run: the local agent, which is started for it, or agents of a fleet, which are held for it.

use crate::agent_connection::{AgentConnection, AgentHandle, AgentStarter, EventSender};
use crate::fleet::{HaltState, Reservation};
use backburn_experiments::wire::{Hello, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Names and labels of everybody who could take part, in the order of the names.
pub type Inventory = Vec<(String, BTreeMap<String, String>)>;

/// Who takes part in a run.
pub enum AgentPool {
    /// This host's agent, started when it is needed.
    Local(LocalAgent),
    /// Agents of a fleet.
    Fleet(Reservation),
}

/// A local agent.
pub struct LocalAgent {
    start: AgentStarter,
    started: Option<(Hello, AgentConnection)>,
    /// How many of them have taken part.
    count: u64,
}

/// An agent that takes part. Its words go to whoever held it.
pub struct AgentSession {
    /// Who it is.
    pub hello: Hello,
    /// How to speak to it.
    pub handle: AgentHandle,
    /// Over which of its connections its words come.
    pub connection: u64,
    /// Whether it is a process of ours, whose end is told too.
    pub has_process: bool,
}

impl From<AgentStarter> for AgentPool {
    fn from(start: AgentStarter) -> Self {
        AgentPool::Local(LocalAgent {
            start,
            started: None,
            count: 0,
        })
    }
}

impl AgentPool {
    /// Whether these are agents of a fleet, which have to be chosen by name.
    pub fn is_fleet(&self) -> bool {
        matches!(self, AgentPool::Fleet(_))
    }

    /// Who is there. Starts a local agent.
    ///
    /// # Errors
    /// Nobody is, and what would do.
    pub async fn discover(&mut self) -> Result<Inventory, Refusal> {
        match self {
            AgentPool::Local(local) => {
                let (hello, link) = local.begin().await.map_err(|why| {
                    Refusal::new("agent", format!("the local agent {why}"))
                        .hint("`backburn agent doctor` says what this host can do")
                })?;
                let inventory = vec![(hello.agent.clone(), hello.labels.clone())];
                local.started = Some((hello, link));
                Ok(inventory)
            }
            AgentPool::Fleet(reservation) => reservation.inventory(),
        }
    }

    /// Holds these, so that nobody else uses them, and has what is heard of them told to `events`. The local agent takes part
    /// whatever is named.
    ///
    /// # Errors
    /// Somebody else holds one, or it has gone.
    pub fn reserve(
        &mut self,
        names: &BTreeSet<String>,
        events: &EventSender,
    ) -> Result<Vec<AgentSession>, Refusal> {
        match self {
            AgentPool::Local(local) => {
                let started = local.started.take();
                let joined = started.map(|(hello, link)| local.join(hello, link, events));
                Ok(joined.into_iter().collect())
            }
            AgentPool::Fleet(reservation) => reservation.reserve(names, events),
        }
    }

    /// Whether these may be hit, as far as whoever gave us the crew says.
    pub(crate) fn check_admission(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        match self {
            AgentPool::Local(_) => Ok(()),
            AgentPool::Fleet(reservation) => reservation.check_admission(names),
        }
    }

    /// Who may be asked for plans, without being held.
    pub(crate) fn handles(&self, names: &BTreeSet<String>) -> BTreeMap<String, AgentHandle> {
        match self {
            AgentPool::Local(local) => local
                .started
                .iter()
                .map(|(hello, link)| (hello.agent.clone(), link.handle()))
                .collect(),
            AgentPool::Fleet(reservation) => reservation.handles(names),
        }
    }

    /// The agent that comes after one that was lost, then. One of a fleet that hung may take this long.
    ///
    /// # Errors
    /// In words for people: none came.
    pub(crate) async fn reconnect(
        &mut self,
        name: &str,
        lost: Instant,
        hung: Option<Duration>,
        events: &EventSender,
    ) -> Result<AgentSession, String> {
        match self {
            AgentPool::Local(local) => {
                let begun = local.begin().await;
                let (hello, link) = begun.map_err(|why| format!("the next agent {why}"))?;
                Ok(local.join(hello, link, events))
            }
            AgentPool::Fleet(reservation) => reservation.reconnect(name, lost, hung, events).await,
        }
    }

    /// Where the lever is that ends everybody's faults, if there is one.
    pub(crate) fn halt_state(&self) -> Option<watch::Receiver<HaltState>> {
        match self {
            AgentPool::Local(_) => None,
            AgentPool::Fleet(reservation) => Some(reservation.halt_state()),
        }
    }

    /// Ends a local agent that was only asked.
    pub(crate) async fn release(self) {
        if let AgentPool::Local(LocalAgent {
            started: Some((_, link)),
            ..
        }) = self
        {
            link.goodbye(std::time::Duration::from_secs(10)).await;
        }
    }
}

impl LocalAgent {
    async fn begin(&mut self) -> Result<(Hello, AgentConnection), String> {
        let mut link = (self.start)().map_err(|error| format!("could not be started: {error}"))?;
        let hello = link
            .hello()
            .await
            .map_err(|why| format!("did not come up: {why}"))?;
        Ok((hello, link))
    }

    fn join(&mut self, hello: Hello, link: AgentConnection, events: &EventSender) -> AgentSession {
        self.count += 1;
        let joined = AgentSession {
            handle: link.handle(),
            connection: self.count,
            has_process: link.has_process(),
            hello,
        };
        link.forward_events(
            joined.hello.agent.as_str().into(),
            self.count,
            events.clone(),
        );
        joined
    }
}
