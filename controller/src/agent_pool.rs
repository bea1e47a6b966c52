//! The agents that may take part in a run: the local agent, which is started for it, or agents of a fleet, which are
//! reserved for it.

use crate::agent_connection::{
    AgentConnection, AgentHandle, AgentSession, AgentStarter, EventSender, Inventory,
};
use crate::fleet::Reservation;
use backburn_experiments::wire::{Hello, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a local agent may take to end that was only asked for plans.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// The agents that may take part in a run.
pub enum AgentPool {
    /// This host's agent, started when it is needed.
    Local(LocalAgent),
    /// Agents of a fleet.
    Fleet(Reservation),
}

/// The agent of this host, and how to start it.
pub struct LocalAgent {
    start: AgentStarter,
    started: Option<(Hello, AgentConnection)>,
    /// How many local agents have taken part in this run.
    count: u64,
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
    /// Whether these are agents of a fleet, which have to be selected by name.
    pub fn is_fleet(&self) -> bool {
        matches!(self, AgentPool::Fleet(_))
    }

    /// Finds the agents that are there. Starts a local agent.
    ///
    /// # Errors
    /// No agent is there; the hint says what to do about it.
    pub async fn discover(&mut self) -> Result<Inventory, Refusal> {
        match self {
            AgentPool::Local(local) => {
                let (hello, connection) = local.start().await.map_err(|why| {
                    Refusal::new("agent", format!("the local agent {why}"))
                        .hint("`backburn agent doctor` shows what this host can do")
                })?;
                let inventory = Inventory::local(&hello.agent, &hello.labels);
                local.started = Some((hello, connection));
                Ok(inventory)
            }
            AgentPool::Fleet(reservation) => reservation.inventory(),
        }
    }

    /// Reserves these agents, so that no other run uses them, and sends their events to `events`. The local agent takes
    /// part whatever the names are.
    ///
    /// # Errors
    /// Another run holds one of them, or one has gone.
    pub fn reserve(
        &mut self,
        names: &BTreeSet<String>,
        events: &EventSender,
    ) -> Result<Vec<AgentSession>, Refusal> {
        match self {
            AgentPool::Local(local) => {
                let started = local.started.take();
                let session =
                    started.map(|(hello, connection)| local.join(hello, connection, events));
                Ok(session.into_iter().collect())
            }
            AgentPool::Fleet(reservation) => reservation.reserve(names, events),
        }
    }

    /// Checks whether the fleet's policy allows a run to target these agents.
    pub(crate) fn check_admission(&self, names: &BTreeSet<String>) -> Result<(), Refusal> {
        match self {
            AgentPool::Local(_) => Ok(()),
            AgentPool::Fleet(reservation) => reservation.check_admission(names),
        }
    }

    /// Handles to these agents, which may be asked for plans without being reserved.
    pub(crate) fn handles(&self, names: &BTreeSet<String>) -> BTreeMap<String, AgentHandle> {
        match self {
            AgentPool::Local(local) => local
                .started
                .iter()
                .map(|(hello, connection)| (hello.agent.clone(), connection.handle()))
                .collect(),
            AgentPool::Fleet(reservation) => reservation.handles(names),
        }
    }

    /// Waits for the agent that follows one that was lost at this time. An agent of a fleet that was lost because it hung
    /// may take as long as `hung`.
    ///
    /// # Errors
    /// Why no agent came.
    pub(crate) async fn reconnect(
        &mut self,
        name: &str,
        lost: Instant,
        hung: Option<Duration>,
        events: &EventSender,
    ) -> Result<AgentSession, String> {
        match self {
            AgentPool::Local(local) => {
                let started = local.start().await;
                let (hello, connection) = started.map_err(|why| format!("the next agent {why}"))?;
                Ok(local.join(hello, connection, events))
            }
            AgentPool::Fleet(reservation) => reservation.reconnect(name, lost, hung, events).await,
        }
    }

    /// Ends a local agent that was only asked for plans.
    pub(crate) async fn release(self) {
        if let AgentPool::Local(LocalAgent {
            started: Some((_, connection)),
            ..
        }) = self
        {
            connection.goodbye(RELEASE_TIMEOUT).await;
        }
    }
}

impl LocalAgent {
    async fn start(&mut self) -> Result<(Hello, AgentConnection), String> {
        let mut connection =
            (self.start)().map_err(|error| format!("could not be started: {error}"))?;
        let hello = connection
            .hello()
            .await
            .map_err(|why| format!("did not come up: {why}"))?;
        Ok((hello, connection))
    }

    fn join(
        &mut self,
        hello: Hello,
        connection: AgentConnection,
        events: &EventSender,
    ) -> AgentSession {
        self.count += 1;
        let session = AgentSession {
            handle: connection.handle(),
            connection: self.count,
            has_process: connection.has_process(),
            hello,
        };
        let name = session.hello.agent.as_str().into();
        connection.forward_events(name, self.count, events.clone());
        session
    }
}
