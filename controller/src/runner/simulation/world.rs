//! The world of one simulated run: it does what the state machine commands, badly, and watches that nothing is done or
//! concluded that must not be.

use super::agents::{SimulatedAgent, ended};
use super::experiments::experiment;
use super::random::Random;
use crate::agent_connection::Inventory;
use crate::runner::events::{
    ActivityResult, AgentReport, JoiningAgent, RunnerCommand, RunnerEvent, Sample, StepTime,
};
use crate::runner::machine::{Machine, RunParameters};
use backburn_experiments::journal::{
    Event, InjectionState, JournalEntry, Judgement, Outcome, Phase, Run, verdict,
};
use backburn_experiments::wire::{
    Cause, Command, Effect, InjectionId, InjectionRequest, PlanView, Refusal,
};
use backburn_experiments::{HumanDuration, Problem};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most steps that a run may take.
const MAX_STEPS: usize = 200_000;
/// The longest that a run may take, in its own time: longer than all its waits together.
const MAX_LENGTH: Duration = Duration::from_secs(4 * 3600);
/// How long an agent may take to revert everything.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent is silent before it counts as unresponsive.
const LEASE: Duration = Duration::from_secs(15);

/// What happens at some time.
enum Happening {
    /// The state machine is told.
    Event(RunnerEvent),
    /// A message arrives at the process that has this connection.
    AgentMessage(String, u64, AgentMessage),
    /// A fault's time is over.
    FaultOver(String, u64, InjectionId),
    Die(String, u64),
    Hang(String, Duration),
    Wake(String, u64),
    /// The guardian of a dead process is done.
    GuardianDone(String, u64),
    /// Everybody is told to revert, by somebody else than the run.
    FleetHalted,
    /// A report that is nothing to the run, or not the agent's to make.
    Garbage,
}

#[derive(Clone)]
enum AgentMessage {
    Inject(InjectionRequest),
    RevertAll,
    /// Somebody else's command to revert everything, whose answer is not the run's.
    RevertForHalt,
    Goodbye,
}

pub(super) struct World {
    random: Random,
    machine: Option<Machine>,
    is_fleet: bool,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    queued: u64,
    agents: BTreeMap<String, SimulatedAgent>,
    /// Of a hundred messages, how many are lost, doubled and late.
    unreliable: [usize; 3],
    /// Of a hundred samples, how many are outside and unknown.
    unhealthy: [usize; 2],
    /// How many more writes the journal takes.
    journal_takes: usize,
    journal_failed: bool,
    /// Everything that was recorded, written or not.
    pub(super) recorded: Vec<JournalEntry>,
    /// The injections whose request is in the journal.
    requested: BTreeSet<InjectionId>,
    phase: Option<Phase>,
    is_over: bool,
    /// Whom each agent's injections belong to, as it was commanded.
    commanded: BTreeMap<InjectionId, String>,
    /// The agents that were told to revert since they were last told to inject.
    told_to_revert: BTreeSet<String>,
    hung_up: BTreeSet<String>,
    /// The connections that were reported as closed or unresponsive.
    closed: BTreeSet<(String, u64)>,
    /// When the run began to revert.
    reverting_since: Option<Duration>,
    recovery_within: HumanDuration,
    /// The injections of faults that have no duration.
    one_shots: BTreeSet<InjectionId>,
    /// The activity that the next one has to wait for.
    foreground: Option<usize>,
    /// The phase in which each sample was started; samples carry their number.
    samples: Vec<Option<Phase>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let is_fleet = random.chance(60);
        let experiment = experiment(&mut random, is_fleet);
        let parameters = RunParameters {
            run: "run".into(),
            seed,
            frequency: random.millis(10, 2_000),
            sha256: None,
            approval: None,
            is_fleet,
        };
        let count = if is_fleet { 1 + random.below(5) } else { 1 };
        let agents = (0..count)
            .map(|n| {
                let agent = SimulatedAgent {
                    connection: 1,
                    is_alive: true,
                    ..SimulatedAgent::default()
                };
                (format!("agent-{n}"), agent)
            })
            .collect();
        let is_bad = random.chance(40);
        let mut world = World {
            machine: Some(Machine::new(experiment, parameters)),
            is_fleet,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            queued: 0,
            agents,
            unreliable: match is_bad {
                true => [random.below(10), random.below(20), random.below(20)],
                false => [0; 3],
            },
            unhealthy: match random.chance(30) {
                true => [random.below(60), random.below(20)],
                false => [0; 2],
            },
            journal_takes: match random.chance(10) {
                true => random.below(30),
                false => usize::MAX,
            },
            journal_failed: false,
            recorded: Vec::new(),
            requested: BTreeSet::new(),
            phase: None,
            is_over: false,
            commanded: BTreeMap::new(),
            told_to_revert: BTreeSet::new(),
            hung_up: BTreeSet::new(),
            closed: BTreeSet::new(),
            reverting_since: None,
            recovery_within: HumanDuration::default(),
            one_shots: BTreeSet::new(),
            foreground: None,
            samples: Vec::new(),
            random,
        };
        world.plan_trouble();
        world
    }

    /// What will go wrong, and when, whatever the run does.
    fn plan_trouble(&mut self) {
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            let at = self.random.millis(0, 40_000);
            if self.random.chance(10) {
                self.at(at, Happening::Die(name, 1));
            } else if self.random.chance(10) {
                let length = self.random.millis(100, 60_000);
                self.at(at, Happening::Hang(name, length));
            }
        }
        for _ in 0..self.random.below(6).saturating_sub(2) {
            let at = self.random.millis(0, 60_000);
            let by = RunnerEvent::StopRequested("SIGINT received".into());
            self.at(at, Happening::Event(by));
        }
        if self.is_fleet && self.random.chance(15) {
            let at = self.random.millis(0, 30_000);
            self.at(at, Happening::FleetHalted);
        }
        for _ in 0..self.random.below(4) {
            let at = self.random.millis(0, 30_000);
            self.at(at, Happening::Garbage);
        }
    }

    fn at(&mut self, time: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((time, self.queued), happening);
    }

    fn event_in(&mut self, after: Duration, event: RunnerEvent) {
        self.at(self.now + after, Happening::Event(event));
    }

    /// Runs to the end. The outcome, and how many injections were asked for.
    pub(super) fn run(&mut self) -> (Outcome, usize) {
        let mut machine = self.machine.take().unwrap();
        let mut events = vec![RunnerEvent::Started];
        for _ in 0..MAX_STEPS {
            let now = StepTime {
                elapsed: self.now,
                wall: jiff::Timestamp::UNIX_EPOCH,
            };
            let commands = machine.step(std::mem::take(&mut events), now);
            events = self.execute(commands);
            if !events.is_empty() {
                continue;
            }
            if machine.has_ended() {
                return self.check_end(machine);
            }
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let next = [next, machine.next_due()].into_iter().flatten().min();
            self.now = next.expect("the run waits for nothing").max(self.now);
            assert!(self.now < MAX_LENGTH, "the run does not end");
            events = self.happen();
        }
        panic!("the run takes too many steps");
    }

    /// Lets everything happen that is due, or a part of it.
    fn happen(&mut self) -> Vec<RunnerEvent> {
        let mut events = Vec::new();
        while let Some(((at, _), _)) = self.queue.first_key_value()
            && *at <= self.now
        {
            let Some((_, happening)) = self.queue.pop_first() else {
                break;
            };
            match happening {
                Happening::Event(event) => {
                    self.note_closed(&event);
                    events.push(event);
                }
                other => self.take_place(other),
            }
            if self.random.chance(30) {
                break;
            }
        }
        events
    }

    fn note_closed(&mut self, event: &RunnerEvent) {
        if let RunnerEvent::Agent {
            agent,
            connection,
            report: AgentReport::Closed(_) | AgentReport::Exited(_) | AgentReport::Unresponsive(_),
        } = event
        {
            self.closed.insert((agent.to_string(), *connection));
        }
    }

    fn take_place(&mut self, happening: Happening) {
        match happening {
            Happening::Event(_) => {}
            Happening::AgentMessage(agent, connection, message) => {
                self.arrive(&agent, connection, message);
            }
            Happening::FaultOver(agent, connection, id) => self.fault_over(agent, connection, id),
            Happening::Die(agent, connection) => self.die(&agent, connection),
            Happening::Hang(agent, length) => self.hang(agent, length),
            Happening::Wake(agent, connection) => {
                // One that was hung up on meanwhile reverts everything by itself.
                if self.is_process(&agent, connection) && self.agents[&agent].is_hung_up {
                    self.leave(&agent, "the link was closed");
                }
            }
            Happening::GuardianDone(agent, connection) => self.guardian_done(&agent, connection),
            Happening::FleetHalted => self.fleet_halted(),
            Happening::Garbage => self.garbage(),
        }
    }

    // --- what the state machine commands ---

    fn execute(&mut self, commands: Vec<RunnerCommand>) -> Vec<RunnerEvent> {
        self.check_abort_is_first(&commands);
        let mut events = Vec::new();
        let mut failed_now = false;
        for command in commands {
            if failed_now && command.needs_journal() {
                events.extend(command.left_out());
                continue;
            }
            match command {
                RunnerCommand::Append(entries) => {
                    if !self.append(entries) {
                        failed_now = true;
                        let why = "the disk is full".into();
                        events.push(RunnerEvent::JournalFailed(why));
                    }
                }
                RunnerCommand::CheckPrograms => {
                    let missing = match self.random.chance(2) {
                        true => vec![Problem::new("$.method[0]", "there is no such program")],
                        false => Vec::new(),
                    };
                    let after = self.random.millis(0, 2_000);
                    self.event_in(after, RunnerEvent::ProgramsChecked(missing));
                }
                RunnerCommand::Discover => {
                    let found = match self.random.chance(2) {
                        true => Err(Refusal::new("no-match", "no agent is connected")),
                        false => Ok(self.inventory()),
                    };
                    let after = self.random.millis(0, 2_000);
                    self.event_in(after, RunnerEvent::Discovered(found));
                }
                RunnerCommand::Reserve(names) => events.push(self.reserve(&names)),
                RunnerCommand::SetTargets(_) => {}
                RunnerCommand::Plan { index, agent, .. } => {
                    let outcome = match self.agents[&agent].is_alive && !self.random.chance(2) {
                        true => Ok(PlanView::default()),
                        false => Err(Refusal::new("agent", "the agent does not answer any more")),
                    };
                    let after = self.random.millis(0, 500);
                    self.event_in(after, RunnerEvent::Planned { index, outcome });
                }
                RunnerCommand::Inject { agent, request } => self.inject(&agent, request),
                RunnerCommand::RevertAll { agent } => {
                    self.told_to_revert.insert(agent.clone());
                    self.send(&agent, AgentMessage::RevertAll);
                }
                RunnerCommand::Send { agent, command } => {
                    if matches!(command, Command::Shutdown) {
                        self.send(&agent, AgentMessage::Goodbye);
                    }
                }
                RunnerCommand::HangUp { agent } => self.hang_up(&agent),
                RunnerCommand::Reconnect { agent, .. } => {
                    assert!(self.hung_up.contains(&agent), "{agent} is not lost");
                    self.reconnect(agent);
                }
                RunnerCommand::Sample { epoch, probe } => self.sample(epoch, probe),
                RunnerCommand::CancelSamples => {
                    self.drop_events(|event| matches!(event, RunnerEvent::Sampled(_)));
                }
                RunnerCommand::StartActivity { phase, index } => {
                    self.check_may_start(&format!("activity {index} of {phase:?}"), phase);
                    self.start_activity(phase, index);
                }
                RunnerCommand::CancelActivity { index: cancelled } => {
                    self.drop_events(|event| {
                        matches!(event, RunnerEvent::ActivityFinished { index, .. } if *index == cancelled)
                    });
                }
                RunnerCommand::CancelAll => {
                    self.drop_events(|event| {
                        matches!(
                            event,
                            RunnerEvent::Sampled(_)
                                | RunnerEvent::ActivityFinished { .. }
                                | RunnerEvent::Planned { .. }
                        )
                    });
                }
            }
        }
        events
    }

    /// Forgets such events, mostly: some are on their way already.
    fn drop_events(&mut self, is_dropped: impl Fn(&RunnerEvent) -> bool) {
        let random = &mut self.random;
        self.queue.retain(|_, happening| match happening {
            Happening::Event(event) if is_dropped(event) => random.chance(20),
            _ => true,
        });
    }

    fn append(&mut self, entries: Vec<JournalEntry>) -> bool {
        assert!(!entries.is_empty());
        let fails = self.journal_takes == 0 && !self.journal_failed;
        self.journal_takes = self.journal_takes.saturating_sub(1);
        self.journal_failed |= fails;
        for entry in entries {
            self.check_entry(&entry.event, fails);
            self.recorded.push(entry);
        }
        !fails
    }

    fn inventory(&self) -> Inventory {
        let labelled = |name: &String| (name.clone(), [("role".into(), "web".into())].into());
        let agents: Vec<_> = self.agents.keys().map(labelled).collect();
        Inventory {
            selectable: agents.clone(),
            granted: agents,
            ..Inventory::default()
        }
    }

    fn reserve(&mut self, names: &BTreeSet<String>) -> RunnerEvent {
        if self.random.chance(2) {
            let refusal = Refusal::new("overlap", "another run holds one");
            return RunnerEvent::Reserved(Err(refusal));
        }
        let mut joining = Vec::new();
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            if self.is_fleet && !names.contains(&name) {
                continue;
            }
            let agent = self.agents.get_mut(&name).unwrap();
            let mut hello = agent.introduction(&name, &mut self.random, false);
            if self.random.chance(1) {
                agent.residue.insert("earlier-1".into());
                hello.owed = agent.owed();
            }
            joining.push(JoiningAgent {
                hello,
                connection: agent.connection,
                has_process: !self.is_fleet,
            });
        }
        RunnerEvent::Reserved(Ok(joining))
    }

    fn inject(&mut self, agent: &str, request: InjectionRequest) {
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

    fn hang_up(&mut self, name: &str) {
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

    fn reconnect(&mut self, name: String) {
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

    fn sample(&mut self, epoch: u64, probe: usize) {
        assert!(
            !(self.phase == Some(Phase::Method) && self.is_over),
            "a sample is started in a method that is over"
        );
        let number = self.samples.len();
        self.samples.push(self.phase);
        let mut took = self.random.millis(1, 300);
        if self.random.chance(2) {
            took = self.random.millis(1_000, 20_000);
        }
        // Whatever measures ends by itself, except what is waited for no longer than after the method.
        if self.phase == Some(Phase::Method) && self.random.chance(1) {
            return;
        }
        let [outside, unknown] = self.unhealthy;
        let judgement = match self.random.below(100) {
            drawn if drawn < outside => Judgement::Outside,
            drawn if drawn < outside + unknown => Judgement::Unknown,
            _ => Judgement::Within,
        };
        self.event_in(
            took,
            RunnerEvent::Sampled(Sample {
                epoch,
                probe,
                judgement,
                output: number.into(),
                why: (judgement != Judgement::Within).then(|| "it is not".into()),
                took,
            }),
        );
    }

    fn start_activity(&mut self, phase: Phase, index: usize) {
        let result = match self.random.chance(10) {
            true => ActivityResult::failed("it broke"),
            false => ActivityResult::succeeded(Value::Null),
        };
        let took = self.random.millis(0, 5_000);
        self.event_in(
            took,
            RunnerEvent::ActivityFinished {
                phase,
                index,
                result,
            },
        );
    }

    // --- what agents do ---

    fn is_process(&self, agent: &str, connection: u64) -> bool {
        let found = self.agents.get(agent);
        found.is_some_and(|agent| agent.is_alive && agent.connection == connection)
    }

    /// When a message of this direction arrives, once for each time that it does.
    fn arrivals(&mut self, name: &str, is_report: bool) -> Vec<Duration> {
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

    fn send(&mut self, name: &str, message: AgentMessage) {
        let Some(connection) = self.agents.get(name).map(|agent| agent.connection) else {
            return;
        };
        for arrival in self.arrivals(name, false) {
            let message = Happening::AgentMessage(name.to_owned(), connection, message.clone());
            self.at(arrival, message);
        }
    }

    fn report(&mut self, name: &str, report: AgentReport) {
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
    fn connection_event(&mut self, name: &str, report: AgentReport) {
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

    fn arrive(&mut self, name: &str, connection: u64, message: AgentMessage) {
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

    fn arrive_inject(&mut self, name: &str, connection: u64, request: &InjectionRequest) {
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

    fn fault_over(&mut self, name: String, connection: u64, id: InjectionId) {
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

    fn revert_everything(&mut self, name: &str, cause: Cause) {
        let agent = self.agents.get_mut(name).unwrap();
        for id in agent.acting.clone() {
            let agent = self.agents.get_mut(name).unwrap();
            let is_gone = agent.revert(&id, &mut self.random);
            self.report(name, AgentReport::Ended(ended(&id, cause, is_gone)));
        }
    }

    /// The process reverts everything and ends.
    fn leave(&mut self, name: &str, why: &str) {
        self.revert_everything(name, Cause::ConnectionClosed);
        let agent = self.agents.get_mut(name).unwrap();
        agent.is_alive = false;
        let code = if agent.residue.is_empty() { 0 } else { 6 };
        self.connection_event(name, AgentReport::Closed(why.into()));
        if !self.is_fleet {
            self.connection_event(name, AgentReport::Exited(Some(code)));
        }
    }

    fn die(&mut self, name: &str, connection: u64) {
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

    fn guardian_done(&mut self, name: &str, connection: u64) {
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

    fn hang(&mut self, name: String, length: Duration) {
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

    fn fleet_halted(&mut self) {
        if self.random.chance(80) {
            let by = RunnerEvent::StopRequested("the fleet is halted".into());
            self.at(self.now, Happening::Event(by));
        }
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.send(&name, AgentMessage::RevertForHalt);
        }
    }

    fn garbage(&mut self) {
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

    // --- what must hold ---

    /// Follows what the journal tells, and checks that it may.
    fn check_entry(&mut self, event: &Event, fails: bool) {
        match event {
            Event::InjectionRequested { injection, .. } if !fails => {
                self.requested.insert(injection.clone());
            }
            Event::RunStarted {
                recovery_within, ..
            } => self.recovery_within = recovery_within.unwrap_or_default(),
            Event::Recovered { after } => {
                let within = self.recovery_within;
                assert!(*after <= within, "{after} is later than {within}");
            }
            Event::PhaseStarted { phase } => {
                if *phase == Phase::Revert {
                    self.reverting_since = Some(self.now);
                }
                self.phase = Some(*phase);
                self.foreground = None;
            }
            Event::Aborted(_) | Event::NotStarted { .. } => self.is_over = true,
            Event::AgentLost { agent, reason } => {
                assert!(self.hung_up.contains(agent), "{agent} keeps its lease");
                let connection = (agent.clone(), self.agents[agent].connection);
                assert!(
                    self.closed.contains(&connection) || reason.starts_with("it did not revert"),
                    "{agent} counts as lost and is not: {reason}"
                );
            }
            Event::ActivityStarted {
                index, background, ..
            } => {
                // One in the background may begin later, after a pause of its own.
                let waits = self.foreground.is_some_and(|before| before < *index);
                assert!(!waits, "activity {index} does not wait for the one before");
                if !background {
                    self.foreground = Some(*index);
                }
            }
            Event::ActivityFinished { index, .. } if self.foreground == Some(*index) => {
                self.foreground = None;
            }
            Event::Sampled { phase, output, .. } => {
                if let Some(number) = output.as_u64() {
                    let started = self.samples[usize::try_from(number).unwrap()];
                    assert_eq!(started, Some(*phase), "a sample counts in another phase");
                }
            }
            _ => {}
        }
    }

    /// Nothing is begun in a run that is being ended.
    fn check_may_start(&self, what: &str, phase: Phase) {
        assert_eq!(
            self.phase,
            Some(phase),
            "{what} is started out of its phase"
        );
        if phase == Phase::Method {
            assert!(!self.is_over, "{what} is started in a run that is over");
            assert!(!self.journal_failed, "{what} is started without a journal");
            assert!(
                self.told_to_revert.is_empty(),
                "{what} is started after a revert"
            );
        }
    }

    /// The step that aborts the run tells every agent that may owe something, right after the abort is written.
    fn check_abort_is_first(&self, commands: &[RunnerCommand]) {
        let is_abort = |command: &RunnerCommand| match command {
            RunnerCommand::Append(entries) => {
                let mut entries = entries.iter();
                entries.any(|entry| matches!(entry.event, Event::Aborted(_)))
            }
            _ => false,
        };
        let Some(aborted) = commands.iter().position(is_abort).filter(|_| !self.is_over) else {
            return;
        };
        let (before, after) = commands.split_at(aborted + 1);
        let at_once = after
            .iter()
            .take_while(|command| !matches!(command, RunnerCommand::Append(_)));
        let told: BTreeSet<&String> = (before.iter().chain(at_once))
            .filter_map(|command| match command {
                RunnerCommand::RevertAll { agent } | RunnerCommand::HangUp { agent } => Some(agent),
                _ => None,
            })
            .collect();
        for agent in self.commanded.values() {
            assert!(
                told.contains(agent)
                    || self.told_to_revert.contains(agent)
                    || self.hung_up.contains(agent),
                "{agent} is not told of the abort at once"
            );
        }
    }

    fn check_end(&mut self, machine: Machine) -> (Outcome, usize) {
        let (run, illegal) = machine.into_run();
        if !self.journal_failed {
            assert_eq!(illegal, None);
        }
        let folded = Run::fold(&self.recorded).expect("the journal is legal");
        assert_eq!(folded, run, "the journal alone tells the run");
        let verdict = verdict(&folded);
        assert!(folded.ended, "the last event is recorded");
        assert!(
            matches!(
                self.recorded.last().map(|last| &last.event),
                Some(Event::RunEnded)
            ),
            "the last event is the last"
        );
        for (id, agent) in &self.commanded {
            let is_lost = folded.lost.iter().any(|(lost, _)| lost == agent);
            assert!(
                self.told_to_revert.contains(agent) || is_lost,
                "{agent} was asked for {id} and never told to revert"
            );
            let is_seen_gone = match &folded.injections[id].state {
                InjectionState::Refused => true,
                InjectionState::Ended(ended) => ended.clean,
                InjectionState::Requested | InjectionState::Acting => false,
            };
            let host = &self.agents[agent];
            let is_there = host.acting.contains(id) || host.residue.contains(id);
            assert!(
                !(is_there && is_seen_gone),
                "{id} is there and counts as gone"
            );
            let is_owed = verdict.owed.iter().any(|owed| owed.injection == *id);
            assert_eq!(is_owed, !is_seen_gone, "{id}");
        }
        if !verdict.owed.is_empty() {
            assert_eq!(verdict.outcome, Outcome::NotClean);
        }
        let gate_failed = self.recorded.iter().any(|entry| {
            matches!(entry.event, Event::Sampled { phase: Phase::Gate, judgement, .. } if judgement != Judgement::Within)
        });
        if gate_failed || folded.not_started.is_some() {
            assert!(
                self.commanded.is_empty(),
                "nothing is injected after the gate failed"
            );
        }
        (verdict.outcome, self.commanded.len())
    }
}
