//! Everything of a run that touches the world: sockets, timers, probes, agents and the journal. It turns the commands of the
//! [state machine](super::machine) into deeds, and what comes of them into events. It decides nothing.

use super::agent_ports::AgentPorts;
use super::evaluation::Evaluator;
use super::events::{RunnerCommand, RunnerEvent, Sample, StepTime};
use super::journal::JournalWriter;
use super::machine::{Machine, RunParameters, activities_of, sampled_probes};
use super::{FinishedRun, RunSettings};
use crate::agent_connection::{AgentEvent, AgentSession, EventSender, Inventory};
use crate::agent_pool::AgentPool;
use crate::providers::{self, ProbeContext};
use backburn_experiments::check::Experiment;
use backburn_experiments::document::Activity;
use backburn_experiments::journal::{Phase, verdict};
use backburn_experiments::wire::Refusal;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// How many of the things that many agents report at the same time are dealt with in one step, and by one write to the journal.
const MAX_EVENTS_AT_ONCE: usize = 512;

/// What the pool of agents is asked for takes the pool along, and brings it back.
type PoolWork = Pin<Box<dyn Future<Output = (AgentPool, PoolAnswer)> + Send>>;

/// What the pool of agents answers.
enum PoolAnswer {
    Discovered(Result<Inventory, Refusal>),
    Reconnected(String, Result<AgentSession, String>),
}

/// One run and all that it holds of the world.
pub(super) struct Driver {
    machine: Machine,
    began: Instant,
    experiment: Arc<Experiment>,
    is_fleet: bool,
    journal: JournalWriter,
    stop: mpsc::UnboundedReceiver<String>,
    /// None while it works.
    pool: Option<AgentPool>,
    pool_work: Option<PoolWork>,
    agents: AgentPorts,
    /// Reports of all agents, in their order.
    reports: mpsc::UnboundedReceiver<AgentEvent>,
    report_to: EventSender,
    /// What measures or plans. Each ends with what came of it.
    tasks: JoinSet<RunnerEvent>,
    /// The sample of each probe that is under way.
    samples: BTreeMap<usize, AbortHandle>,
    /// The activities of the current phase that are under way.
    activities: BTreeMap<usize, AbortHandle>,
    evaluators: Vec<Arc<Evaluator>>,
    context: Arc<ProbeContext>,
    /// Whether `context` lacks agents that have joined since.
    context_is_stale: bool,
}

impl Driver {
    pub(super) fn new(experiment: Experiment, settings: RunSettings) -> Self {
        let is_fleet = settings.agent_pool.is_fleet();
        let parameters = RunParameters {
            run: settings.run,
            seed: settings.seed,
            frequency: settings.frequency.0.max(Duration::from_millis(1)),
            sha256: settings.sha256,
            approval: settings.approval,
            is_fleet,
        };
        let agents = AgentPorts::new(&parameters.run);
        let machine = Machine::new(experiment, parameters);
        let experiment = Arc::clone(machine.experiment());
        let (report_to, reports) = mpsc::unbounded_channel();
        Driver {
            machine,
            began: Instant::now(),
            is_fleet,
            journal: JournalWriter::new(settings.journal, settings.observers),
            stop: settings.stop,
            pool: Some(settings.agent_pool),
            pool_work: None,
            agents,
            reports,
            report_to,
            tasks: JoinSet::new(),
            samples: BTreeMap::new(),
            activities: BTreeMap::new(),
            evaluators: sampled_probes(&experiment)
                .into_iter()
                .map(|activity| Arc::new(Evaluator::new(activity.clone())))
                .collect(),
            context: Arc::new(ProbeContext {
                configuration: experiment.configuration.clone(),
                secrets: experiment.secrets.clone(),
                redactor: experiment.redactor.clone(),
                access: settings.access,
                is_fleet,
                ..ProbeContext::default()
            }),
            context_is_stale: false,
            experiment,
        }
    }

    /// Drives the run to its end.
    pub(super) async fn run(mut self) -> FinishedRun {
        let mut events = vec![RunnerEvent::Started];
        loop {
            let now = StepTime {
                elapsed: self.began.elapsed(),
                wall: jiff::Timestamp::now(),
            };
            let commands = self.machine.step(events, now);
            events = Vec::new();
            self.execute(commands, &mut events);
            if events.is_empty() {
                if self.machine.has_ended() {
                    break;
                }
                events = self.next_events().await;
            }
        }
        let (run, illegal) = self.machine.into_run();
        FinishedRun {
            verdict: verdict(&run),
            run,
            illegal,
        }
    }

    /// Waits for the next thing that happens. Empty where it is time that has passed.
    async fn next_events(&mut self) -> Vec<RunnerEvent> {
        let due = self.machine.next_due().map(|due| self.began + due);
        tokio::select! {
            biased;
            Some(by) = self.stop.recv() => vec![RunnerEvent::StopRequested(by)],
            Some(report) = self.reports.recv() => {
                let mut events: Vec<RunnerEvent> = self.agents.event(report).into_iter().collect();
                for _ in 1..MAX_EVENTS_AT_ONCE {
                    let Ok(report) = self.reports.try_recv() else { break };
                    events.extend(self.agents.event(report));
                }
                events
            }
            (pool, answer) = until_done(&mut self.pool_work) => {
                self.pool = Some(pool);
                self.pool_work = None;
                self.pool_answered(answer)
            }
            Some(done) = self.tasks.join_next() => {
                let mut events: Vec<RunnerEvent> = done.ok().into_iter().collect();
                // Only plans come in crowds; whatever else comes may change what is to be done next.
                while events.last().is_none_or(|last| matches!(last, RunnerEvent::Planned { .. }))
                    && events.len() < MAX_EVENTS_AT_ONCE
                {
                    let Some(done) = self.tasks.try_join_next() else { break };
                    events.extend(done.ok());
                }
                events
            }
            () = sleep_until(due) => Vec::new(),
        }
    }

    /// Does what the state machine says, in that order. What is known at once of it comes as events.
    fn execute(&mut self, commands: Vec<RunnerCommand>, events: &mut Vec<RunnerEvent>) {
        let mut journal_failed = false;
        for command in commands {
            if journal_failed && command.needs_journal() {
                events.extend(command.left_out());
                continue;
            }
            match command {
                RunnerCommand::Append(entries) => {
                    if let Err(why) = self.journal.append(&entries) {
                        journal_failed = true;
                        events.push(RunnerEvent::JournalFailed(why));
                    }
                }
                RunnerCommand::CheckPrograms => {
                    let (experiment, is_fleet) = (Arc::clone(&self.experiment), self.is_fleet);
                    let environment = self.context.access.environment.clone();
                    self.tasks.spawn(async move {
                        let missing = providers::missing(&experiment, is_fleet, &environment).await;
                        RunnerEvent::ProgramsChecked(missing)
                    });
                }
                RunnerCommand::Discover => self.discover(),
                RunnerCommand::Reserve(names) => {
                    let Some(pool) = &mut self.pool else { continue };
                    let sessions = pool.reserve(&names, &self.report_to);
                    let joining = sessions.map(|sessions| {
                        let sessions = sessions.into_iter();
                        sessions.map(|session| self.agents.join(session)).collect()
                    });
                    self.context_is_stale = true;
                    events.push(RunnerEvent::Reserved(joining));
                }
                RunnerCommand::SetTargets(targets) => {
                    Arc::make_mut(&mut self.context).picks = targets;
                }
                RunnerCommand::Plan {
                    index,
                    agent,
                    request,
                } => {
                    let handle = self.agents.handle(&agent).cloned();
                    self.tasks.spawn(async move {
                        let outcome = match handle {
                            Some(handle) => handle.plan(request).await,
                            None => Err(Refusal::new("agent", "the agent has gone")),
                        };
                        RunnerEvent::Planned { index, outcome }
                    });
                }
                RunnerCommand::Inject { agent, request } => self.agents.inject(&agent, request),
                RunnerCommand::RevertAll { agent } => self.agents.revert_all(&agent),
                RunnerCommand::Send { agent, command } => {
                    if let Some(handle) = self.agents.handle(&agent) {
                        handle.send(command);
                    }
                }
                RunnerCommand::HangUp { agent } => {
                    if let Some(handle) = self.agents.handle(&agent) {
                        handle.close();
                    }
                }
                RunnerCommand::Reconnect { agent, lost, hung } => self.reconnect(agent, lost, hung),
                RunnerCommand::Sample { epoch, probe } => self.sample(epoch, probe),
                RunnerCommand::CancelSamples => {
                    let samples = std::mem::take(&mut self.samples);
                    samples.into_values().for_each(|task| task.abort());
                }
                RunnerCommand::StartActivity { phase, index } => self.start_activity(phase, index),
                RunnerCommand::CancelActivity { index } => {
                    if let Some(task) = self.activities.remove(&index) {
                        task.abort();
                    }
                }
                RunnerCommand::CancelAll => self.tasks = JoinSet::new(),
            }
        }
    }

    fn discover(&mut self) {
        let Some(mut pool) = self.pool.take() else {
            return;
        };
        self.pool_work = Some(Box::pin(async move {
            let found = pool.discover().await;
            (pool, PoolAnswer::Discovered(found))
        }));
    }

    fn reconnect(&mut self, agent: String, lost: Duration, hung: Option<Duration>) {
        let Some(mut pool) = self.pool.take() else {
            return;
        };
        self.agents.await_reconnect(&agent);
        let report_to = self.report_to.clone();
        let lost = (self.began + lost).into_std();
        self.pool_work = Some(Box::pin(async move {
            let found = pool.reconnect(&agent, lost, hung, &report_to).await;
            (pool, PoolAnswer::Reconnected(agent, found))
        }));
    }

    fn pool_answered(&mut self, answer: PoolAnswer) -> Vec<RunnerEvent> {
        match answer {
            PoolAnswer::Discovered(found) => vec![RunnerEvent::Discovered(found)],
            PoolAnswer::Reconnected(agent, found) => {
                self.context_is_stale = true;
                let outcome = found.map(|session| self.agents.join(session));
                let mut events = vec![RunnerEvent::Reconnected { agent, outcome }];
                events.extend(self.agents.take_held_back());
                events
            }
        }
    }

    fn sample(&mut self, epoch: u64, probe: usize) {
        let Some(evaluator) = self.evaluators.get(probe).map(Arc::clone) else {
            return;
        };
        let context = self.context();
        let task = self.tasks.spawn(async move {
            let began = Instant::now();
            let (judgement, output, why) = evaluator.sample(&context).await;
            RunnerEvent::Sampled(Sample {
                epoch,
                probe,
                judgement,
                output,
                why,
                took: began.elapsed(),
            })
        });
        self.samples.insert(probe, task);
    }

    fn start_activity(&mut self, phase: Phase, index: usize) {
        let experiment = Arc::clone(&self.experiment);
        let Some(activity) = activities_of(&experiment, phase).get(index) else {
            return;
        };
        let context = self.context_of(activity);
        let evaluator = Evaluator::new(activity.clone());
        let task = self.tasks.spawn(async move {
            let result = evaluator.run(&context).await;
            RunnerEvent::ActivityFinished {
                phase,
                index,
                result,
            }
        });
        self.activities.insert(index, task);
    }

    /// What every probe needs to know, with all agents that have joined: copied once for all of them, since they may be many.
    fn context(&mut self) -> Arc<ProbeContext> {
        if std::mem::take(&mut self.context_is_stale) {
            Arc::make_mut(&mut self.context).agents = self.agents.handles();
        }
        Arc::clone(&self.context)
    }

    /// What this activity needs to know: its own configuration and secrets come before the experiment's.
    fn context_of(&mut self, activity: &Activity) -> Arc<ProbeContext> {
        let context = self.context();
        if activity.configuration.is_none() && activity.secrets.is_none() {
            return context;
        }
        let mut own = ProbeContext::clone(&context);
        own.configuration = self.experiment.configuration_of(activity);
        own.own_secrets.clone_from(&activity.secrets);
        Arc::new(own)
    }
}

async fn until_done(work: &mut Option<PoolWork>) -> (AgentPool, PoolAnswer) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
