//! The controller's end of a connection to an agent: one JSON object a line in both directions
//! ([`backburn_experiments::wire`]) over a byte stream. A local agent is a child process whose standard input is its end
//! of the stream; an agent of a fleet dials in over TLS.
//!
//! The lease is renewed here, by the connection's own task, so that a run that waits for something does not lose its
//! agents. Reverting is owned here, too: whoever wants an agent to revert asks its [`AgentHandle`], which combines requests
//! that one answer can serve.

mod driver;
mod handle;
mod local;
mod requests;
mod session;

pub(crate) use driver::drive;
pub use handle::AgentHandle;
pub use local::{AgentConnection, AgentStarter, LOCAL_LEASE, local};
pub use session::{AgentSession, Inventory};

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Command, Report};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What comes from an agent, apart from answers to requests that somebody awaits.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The agent sent a report.
    Report(Box<Report>),
    /// The agent is connected, and has sent nothing for this long although it was asked.
    Unresponsive(HumanDuration),
    /// The agent was unresponsive and has sent something.
    RespondsAgain,
    /// The connection is closed, for this reason.
    Closed(String),
    /// The agent's process has ended, with this exit code unless it was killed.
    Exited(Option<i32>),
}

/// What comes from one agent, for a receiver of many.
#[derive(Debug)]
pub struct AgentEvent {
    /// The name of the agent it comes from.
    pub agent: Arc<str>,
    /// The number of the connection it came over. What arrives late over an earlier connection says nothing about the
    /// next one.
    pub connection: u64,
    /// The event itself.
    pub kind: EventKind,
}

/// Takes the events of many agents.
pub type EventSender = mpsc::UnboundedSender<AgentEvent>;

/// A command as it is sent. None if it cannot be written as JSON.
fn line(command: &Command) -> Option<Arc<[u8]>> {
    let mut line = serde_json::to_vec(command).ok()?;
    line.push(b'\n');
    Some(line.into())
}
