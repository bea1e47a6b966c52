//! The world of one simulated run: it does what the state machine commands, badly, and watches that nothing is done or
//! concluded that must not be.

mod agent_messages;
mod invariants;

use super::agents::SimulatedAgent;
use super::experiments::experiment;
use super::random::Random;
use crate::agent_connection::Inventory;
use crate::runner::events::{
    ActivityResult, AgentReport, JoiningAgent, RunnerCommand, RunnerEvent, Sample, StepTime,
};
use crate::runner::machine::{Machine, RunParameters};
use backburn_experiments::journal::{JournalEntry, Judgement, Outcome, Phase};
use backburn_experiments::wire::{Command, InjectionId, InjectionRequest, PlanView, Refusal};
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
}
