//! The run's end of each agent's connection. It knows which request asked for what, so that the state machine need not.

use super::events::{AgentReport, JoiningAgent, RunnerEvent};
use crate::agent_connection::{AgentEvent, AgentHandle, AgentSession, EventKind};
use backburn_experiments::wire::{Command, InjectionId, InjectionRequest, Report};
use std::collections::BTreeMap;

/// One port for each agent that takes part.
pub(super) struct AgentPorts {
    run: String,
    ports: BTreeMap<String, AgentPort>,
    /// The agent whose successor is waited for, and what was heard of it meanwhile.
    reconnecting: Option<(String, Vec<AgentEvent>)>,
}

struct AgentPort {
    handle: AgentHandle,
    /// The injection that each request asked for.
    asked: BTreeMap<u64, InjectionId>,
    /// The request to revert everything.
    reverting: Option<u64>,
}

impl AgentPorts {
    /// For this run, without any agent.
    pub(super) fn new(run: &str) -> Self {
        AgentPorts {
            run: run.to_owned(),
            ports: BTreeMap::new(),
            reconnecting: None,
        }
    }

    /// An agent takes part; it takes the place of one of its name.
    pub(super) fn join(&mut self, session: AgentSession) -> JoiningAgent {
        let AgentSession {
            hello,
            handle,
            connection,
            has_process,
        } = session;
        let port = AgentPort {
            handle,
            asked: BTreeMap::new(),
            reverting: None,
        };
        self.ports.insert(hello.agent.clone(), port);
        JoiningAgent {
            hello,
            connection,
            has_process,
        }
    }

    pub(super) fn handle(&self, agent: &str) -> Option<&AgentHandle> {
        self.ports.get(agent).map(|port| &port.handle)
    }

    /// All agents' handles, by name.
    pub(super) fn handles(&self) -> BTreeMap<String, AgentHandle> {
        let ports = self.ports.iter();
        ports
            .map(|(name, port)| (name.clone(), port.handle.clone()))
            .collect()
    }

    /// Asks an agent to inject.
    pub(super) fn inject(&mut self, agent: &str, injection: InjectionRequest) {
        if let Some(port) = self.ports.get_mut(agent) {
            let request = port.handle.next_request_id();
            port.asked.insert(request, injection.id.clone());
            port.handle.send(Command::Inject { request, injection });
        }
    }

    /// Tells an agent to revert everything of the run.
    pub(super) fn revert_all(&mut self, agent: &str) {
        if let Some(port) = self.ports.get_mut(agent) {
            port.reverting = Some(port.handle.start_revert_run(&self.run));
        }
    }

    /// The agent's successor is waited for. What its new connection delivers before the successor has joined is held back.
    pub(super) fn await_reconnect(&mut self, agent: &str) {
        self.ports.remove(agent);
        self.reconnecting = Some((agent.to_owned(), Vec::new()));
    }

    /// What was held back, now that the successor has joined, or none came.
    pub(super) fn take_held_back(&mut self) -> Vec<RunnerEvent> {
        let held_back = self.reconnecting.take().into_iter();
        let held_back = held_back.flat_map(|(_, events)| events);
        held_back.filter_map(|event| self.event(event)).collect()
    }

    /// What an agent's report is for the state machine. None where it is nothing to this run: an answer to a task that was
    /// dropped since, or to another run.
    pub(super) fn event(&mut self, event: AgentEvent) -> Option<RunnerEvent> {
        if let Some((agent, held_back)) = &mut self.reconnecting
            && **agent == *event.agent
        {
            held_back.push(event);
            return None;
        }
        let AgentEvent {
            agent,
            connection,
            kind,
        } = event;
        let report = match kind {
            EventKind::Report(report) => self.report(&agent, *report)?,
            EventKind::Unresponsive(silence) => AgentReport::Unresponsive(silence),
            // The run is being ended, and what the agent reports counts as before.
            EventKind::RespondsAgain => return None,
            EventKind::Closed(why) => AgentReport::Closed(why),
            EventKind::Exited(code) => AgentReport::Exited(code),
        };
        Some(RunnerEvent::Agent {
            agent,
            connection,
            report,
        })
    }

    fn report(&self, agent: &str, report: Report) -> Option<AgentReport> {
        let port = self.ports.get(agent)?;
        Some(match report {
            Report::Injected {
                injection, plan, ..
            } => AgentReport::Injected { injection, plan },
            Report::Refused { request, refusal } => AgentReport::Refused {
                injection: port.asked.get(&request)?.clone(),
                refusal,
            },
            Report::Effect { injection, effect } => AgentReport::Effect { injection, effect },
            Report::Ended(ended) => AgentReport::Ended(ended),
            Report::AllReverted { request, owed, .. } if port.reverting == Some(request) => {
                AgentReport::AllReverted(owed)
            }
            Report::AbortRuleTriggered { run, rule, seen } => {
                AgentReport::AbortRuleTriggered { run, rule, seen }
            }
            Report::AllReverted { .. }
            | Report::Hello(_)
            | Report::HeartbeatAnswer
            | Report::Planned { .. }
            | Report::Described { .. }
            | Report::Probed { .. }
            | Report::Measured { .. } => return None,
        })
    }
}
