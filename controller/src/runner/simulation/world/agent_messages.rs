//! The agents of a simulated run, and the messages between them and the run: late, lost, doubled, or wrong.

use super::super::agents::ended;
use super::{AgentMessage, Happening, LEASE, REVERT_TIMEOUT, World};
use crate::runner::events::{AgentReport, JoiningAgent, RunnerEvent};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::Phase;
use backburn_experiments::wire::{Cause, Effect, InjectionId, InjectionRequest, PlanView, Refusal};
use std::time::Duration;

impl World {
    pub(super) fn inject(&mut self, agent: &str, request: InjectionRequest) {
        self.check_may_start(&request.id, Phase::Method);
        assert!(
            self.requested.contains(&request.id),
            "{} is injected before its request is in the journal",
            request.id
        );
        let before = self.commanded.insert(request.id.clone(), agent.to_owned());
        assert!(before.is_none(), "{} is injected again", request.id);
        self.told_to_revert.remove(agent);
        self.send(agent, AgentMessage::Inject(request));
    }

    pub(super) fn hang_up(&mut self, name: &str) {
        let waited = self
            .reverting_since
            .is_some_and(|since| self.now >= since + REVERT_TIMEOUT);
        let connection = (name.to_owned(), self.agents[name].connection);
        assert!(
            waited || self.closed.contains(&connection),
            "{name} is hung up on, and is there"
        );
        self.hung_up.insert(name.to_owned());
        let Some(agent) = self.agents.get_mut(name) else {
            return;
        };
        agent.is_hung_up = true;
        if !agent.is_alive {
            return;
        }
        if agent.hangs_until <= self.now {
            self.leave(name, "the link was closed");
        } else if !self.is_fleet {
            // Its connection kills a local agent that hangs.
            let connection = agent.connection;
            self.at(self.now, Happening::Die(name.to_owned(), connection));
        }
    }

    pub(super) fn reconnect(&mut self, name: String) {
        let after = self.random.millis(0, 30_000);
        let agent = self.agents.get_mut(&name).unwrap();
        let hangs = agent.is_alive && agent.hangs_until > self.now;
        let outcome = match hangs || self.random.chance(20) {
            true => Err(format!("agent `{name}` did not come back")),
            false => {
                // The ledger of this host may be lost. Whoever connects to a fleet has its own.
                let forgets = !self.is_fleet && self.random.chance(30);
                let hello = agent.introduction(&name, &mut self.random, forgets);
                agent.connection += 1;
                agent.is_alive = true;
                agent.is_hung_up = false;
                agent.hangs_until = Duration::ZERO;
                agent.last_arrival.clear();
                Ok(JoiningAgent {
                    hello,
                    connection: agent.connection,
                    has_process: !self.is_fleet,
                })
            }
        };
        if outcome.is_ok() && self.random.chance(30) {
            // What the old connection still delivers.
            let late = RunnerEvent::Agent {
                agent: name.as_str().into(),
                connection: self.agents[&name].connection - 1,
                report: AgentReport::Closed("the link was closed".into()),
            };
            let more = self.random.millis(0, 1_000);
            self.event_in(after + more, late);
        }
        let agent = name;
        self.event_in(after, RunnerEvent::Reconnected { agent, outcome });
    }

    pub(super) fn is_process(&self, agent: &str, connection: u64) -> bool {
        let found = self.agents.get(agent);
        found.is_some_and(|agent| agent.is_alive && agent.connection == connection)
    }

    /// When a message of this direction arrives, once for each time that it does.
    pub(super) fn arrivals(&mut self, name: &str, is_report: bool) -> Vec<Duration> {
        let [lost, doubled, late] = self.unreliable;
        if self.random.chance(lost) {
            return Vec::new();
        }
        let mut after = self.random.millis(0, 20);
        if self.random.chance(late) {
            after = self.random.millis(100, 20_000);
        }
        let agent = self.agents.get_mut(name).unwrap();
        let last = agent.last_arrival.entry(is_report).or_default();
        *last = (*last).max(self.now + after);
        let arrival = *last;
        match self.random.chance(doubled) {
            true => vec![arrival, arrival + self.random.millis(0, 5_000)],
            false => vec![arrival],
        }
    }

    pub(super) fn send(&mut self, name: &str, message: AgentMessage) {
        let Some(connection) = self.agents.get(name).map(|agent| agent.connection) else {
            return;
        };
        for arrival in self.arrivals(name, false) {
            let message = Happening::AgentMessage(name.to_owned(), connection, message.clone());
            self.at(arrival, message);
        }
    }

    pub(super) fn report(&mut self, name: &str, report: AgentReport) {
        let connection = self.agents[name].connection;
        for arrival in self.arrivals(name, true) {
            let event = RunnerEvent::Agent {
                agent: name.into(),
                connection,
                report: report.clone(),
            };
            self.at(arrival, Happening::Event(event));
        }
    }

    /// What is known of a connection is never lost.
    pub(super) fn connection_event(&mut self, name: &str, report: AgentReport) {
        let agent = self.agents.get_mut(name).unwrap();
        let last = agent.last_arrival.get(&true).copied().unwrap_or_default();
        let event = RunnerEvent::Agent {
            agent: name.into(),
            connection: agent.connection,
            report,
        };
        let at = last.max(self.now) + self.random.millis(0, 100);
        self.at(at, Happening::Event(event));
    }

    pub(super) fn arrive(&mut self, name: &str, connection: u64, message: AgentMessage) {
        if !self.is_process(name, connection) {
            return;
        }
        let agent = &self.agents[name];
        if agent.hangs_until > self.now {
            let until = agent.hangs_until;
            let message = Happening::AgentMessage(name.to_owned(), connection, message);
            return self.at(until, message);
        }
        if agent.is_hung_up {
            return;
        }
        match message {
            AgentMessage::Inject(request) => self.arrive_inject(name, connection, &request),
            AgentMessage::RevertAll => {
                self.revert_everything(name, Cause::ControllerRequest);
                let owed = self.agents[name].owed();
                self.report(name, AgentReport::AllReverted(owed));
            }
            AgentMessage::RevertForHalt => self.revert_everything(name, Cause::ControllerRequest),
            AgentMessage::Goodbye => self.leave(name, "the link was closed"),
        }
    }

    pub(super) fn arrive_inject(
        &mut self,
        name: &str,
        connection: u64,
        request: &InjectionRequest,
    ) {
        let id = request.id.clone();
        let refused = |rule: &str| AgentReport::Refused {
            injection: request.id.clone(),
            refusal: Refusal::new(rule, "it will not be done"),
        };
        let agent = self.agents.get_mut(name).unwrap();
        if !agent.known.insert(id.clone()) {
            return self.report(name, refused("overlap"));
        }
        if self.random.chance(5) {
            return self.report(name, refused("policy"));
        }
        if self.random.chance(5) {
            let is_gone = agent.revert(&id, &mut self.random);
            let queued = self.queue.len();
            self.report(name, AgentReport::Ended(ended(&id, Cause::Failed, is_gone)));
            // A connection loses nothing that comes before something it delivers: without the end there is no refusal.
            if self.queue.len() > queued {
                self.report(name, refused("failed"));
            }
            return;
        }
        agent.acting.insert(id.clone());
        let plan = PlanView::default();
        let injection = id.clone();
        self.report(name, AgentReport::Injected { injection, plan });
        for _ in 0..1 + self.random.below(2) {
            let effect = Effect {
                acts: self.random.chance(90),
                seen: "something".into(),
                ..Effect::default()
            };
            let injection = id.clone();
            self.report(name, AgentReport::Effect { injection, effect });
        }
        if request.duration.is_none() {
            self.one_shots.insert(id.clone());
        }
        let lasts = request
            .duration
            .map_or(Duration::ZERO, |HumanDuration(lasts)| lasts);
        let over = Happening::FaultOver(name.to_owned(), connection, id);
        self.at(self.now + lasts, over);
    }

    pub(super) fn fault_over(&mut self, name: String, connection: u64, id: InjectionId) {
        if !self.is_process(&name, connection) || !self.agents[&name].acting.contains(&id) {
            return;
        }
        let agent = self.agents.get_mut(&name).unwrap();
        if agent.hangs_until > self.now {
            let until = agent.hangs_until;
            return self.at(until, Happening::FaultOver(name, connection, id));
        }
        let is_gone = agent.revert(&id, &mut self.random);
        let queued = self.queue.len();
        let causes = [
            Cause::Finished,
            Cause::Finished,
            Cause::Finished,
            Cause::Failed,
            Cause::Manual,
        ];
        let cause = self.random.pick(&causes).unwrap();
        self.report(&name, AgentReport::Ended(ended(&id, cause, is_gone)));
        if self.queue.len() == queued && self.one_shots.contains(&id) {
            // The run waits for a one-shot fault's end for a day; an operator does not.
            let by = RunnerEvent::StopRequested("it takes too long".into());
            self.event_in(Duration::from_secs(60), by);
        }
        if cause == Cause::Finished && self.random.chance(1) {
            let rule = AgentReport::AbortRuleTriggered {
                run: "run".into(),
                rule: "load".into(),
                seen: "load is 17".into(),
            };
            self.report(&name, rule);
        }
    }

    pub(super) fn revert_everything(&mut self, name: &str, cause: Cause) {
        let agent = self.agents.get_mut(name).unwrap();
        for id in agent.acting.clone() {
            let agent = self.agents.get_mut(name).unwrap();
            let is_gone = agent.revert(&id, &mut self.random);
            self.report(name, AgentReport::Ended(ended(&id, cause, is_gone)));
        }
    }

    /// The process reverts everything and ends.
    pub(super) fn leave(&mut self, name: &str, why: &str) {
        self.revert_everything(name, Cause::ConnectionClosed);
        let agent = self.agents.get_mut(name).unwrap();
        agent.is_alive = false;
        let code = if agent.residue.is_empty() { 0 } else { 6 };
        self.connection_event(name, AgentReport::Closed(why.into()));
        if !self.is_fleet {
            self.connection_event(name, AgentReport::Exited(Some(code)));
        }
    }

    pub(super) fn die(&mut self, name: &str, connection: u64) {
        if !self.is_process(name, connection) {
            return;
        }
        self.agents.get_mut(name).unwrap().is_alive = false;
        if self.random.chance(5) {
            // The guardian hangs, and nobody is told.
            return;
        }
        if self.random.chance(20) {
            // The guardian dies, too: what acts, acts.
            self.connection_event(name, AgentReport::Closed("the link broke".into()));
            if !self.is_fleet {
                self.connection_event(name, AgentReport::Exited(None));
            }
            return;
        }
        let takes = self.random.millis(0, 40_000);
        let done = Happening::GuardianDone(name.to_owned(), connection);
        self.at(self.now + takes, done);
        if self.random.chance(50) {
            self.connection_event(name, AgentReport::Closed("the link broke".into()));
        }
    }

    pub(super) fn guardian_done(&mut self, name: &str, connection: u64) {
        let agent = &self.agents[name];
        if agent.is_alive || agent.connection != connection {
            return;
        }
        match self.random.chance(70) {
            true => self.revert_everything(name, Cause::AgentDied),
            // It reports nothing of what it does.
            false => {
                let agent = self.agents.get_mut(name).unwrap();
                for id in agent.acting.clone() {
                    agent.revert(&id, &mut self.random);
                }
            }
        }
        let code = match self.agents[name].residue.is_empty() {
            true => 0,
            false => 6,
        };
        self.connection_event(name, AgentReport::Closed("the link was closed".into()));
        if !self.is_fleet {
            self.connection_event(name, AgentReport::Exited(Some(code)));
        }
    }

    pub(super) fn hang(&mut self, name: String, length: Duration) {
        let agent = self.agents.get_mut(&name).unwrap();
        if !agent.is_alive {
            return;
        }
        agent.hangs_until = self.now + length;
        let (until, connection) = (agent.hangs_until, agent.connection);
        self.at(until, Happening::Wake(name.clone(), connection));
        if length > LEASE {
            let event = RunnerEvent::Agent {
                agent: name.as_str().into(),
                connection,
                report: AgentReport::Unresponsive(HumanDuration(LEASE)),
            };
            self.at(self.now + LEASE, Happening::Event(event));
        }
    }

    pub(super) fn fleet_halted(&mut self) {
        if self.random.chance(80) {
            let by = RunnerEvent::StopRequested("the fleet is halted".into());
            self.at(self.now, Happening::Event(by));
        }
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.send(&name, AgentMessage::RevertForHalt);
        }
    }

    pub(super) fn garbage(&mut self) {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        let name = self.random.pick(&names).unwrap();
        // An agent that lies about its own injections would be believed.
        let others = self.commanded.iter().filter(|(_, agent)| **agent != name);
        let others: Vec<InjectionId> = others.map(|(id, _)| id.clone()).collect();
        let id = self.random.pick(&others).unwrap_or("run-99".to_owned());
        let connection = self.agents[&name].connection - self.random.below(2) as u64;
        let reports = [
            AgentReport::Ended(ended(&id, Cause::Finished, true)),
            AgentReport::Injected {
                injection: id.clone(),
                plan: PlanView::default(),
            },
            AgentReport::Refused {
                injection: id.clone(),
                refusal: Refusal::new("policy", "no"),
            },
            AgentReport::Effect {
                injection: id,
                effect: Effect::default(),
            },
            AgentReport::AllReverted(Vec::new()),
            AgentReport::AbortRuleTriggered {
                run: "another".into(),
                rule: "load".into(),
                seen: "load is 17".into(),
            },
        ];
        let event = RunnerEvent::Agent {
            agent: name.as_str().into(),
            connection,
            report: self.random.pick(&reports).unwrap(),
        };
        self.event_in(Duration::ZERO, event);
    }
}
