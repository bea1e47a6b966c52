//! Drives one run, from the document to the verdict, and is the only writer of its journal.
//!
//! Everything that happens (a sample, an agent's word, an activity's end, an operator's signal)
//! comes to one place, `step`, and is dealt with there without waiting for anything. So an abort
//! is on its way to the agent before anything else gets a chance, and events have one order.
//!
//! prepare → gate → method ‖ looks ‖ abort rules → revert, always → rollbacks → looks again.

mod activities;
mod agents;
mod evaluation;
pub(crate) mod event_log;
mod finalize;
mod injections;
pub mod journal;
mod prepare;
mod sampling;
mod target_addresses;

pub use event_log::EventObserver;
pub use journal::{Journal, JournalFile};
pub use prepare::{Preview, PreviewedInjection, preview, select_agents};
pub use target_addresses::ADDRESS;

use crate::agent_connection::{AgentEvent, EventSender};
use crate::agent_pool::AgentPool;
use crate::providers::ProbeContext;
use backburn_experiments::Span;
use backburn_experiments::check::Experiment;
use backburn_experiments::document::Activity;
use backburn_experiments::journal::{Abort, AbortBy, Event, Illegal, Phase, Run, Verdict, verdict};
use backburn_experiments::wire::InjectionId;
use event_log::EventLog;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How much of what many agents say at the same time is dealt with at a time: it shares one write to the journal.
const MAX_EVENTS_AT_ONCE: usize = 512;

/// What a run needs besides its experiment.
pub struct RunSettings {
    /// The run's id: lower-case letters, digits and `-`, at most 24 of them, so that an
    /// injection's id, which is made from it, stays within its 32.
    pub run: String,
    /// What every pick comes from.
    pub seed: u64,
    /// How often the hypothesis is looked at while the method goes on.
    pub frequency: Span,
    /// The SHA-256 of the document's text, in hexadecimal, where no name and version say which it was.
    pub sha256: Option<String>,
    /// Who takes part, where the experiment needs somebody.
    pub agent_pool: AgentPool,
    /// Where events are written before anything is done about them.
    pub journal: Box<dyn Journal>,
    /// Who sees each event after that.
    pub observers: Vec<EventObserver>,
    /// An operator's words to end the run, e.g. `SIGINT received`.
    pub stop: mpsc::UnboundedReceiver<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct FinishedRun {
    /// All that is known of it.
    pub run: Run,
    /// What it comes to.
    pub verdict: Verdict,
    /// An event of ours that could not stand where it did: a bug to report. The run was ended for it.
    pub illegal: Option<Illegal>,
}

/// Runs the experiment to its end. Whatever happens, what was injected is reverted first and the
/// verdict says so.
pub async fn run(experiment: Experiment, settings: RunSettings) -> FinishedRun {
    let mut runner = Runner::new(experiment, settings);
    runner.drive().await;
    let Runner { log, illegal, .. } = runner;
    FinishedRun {
        verdict: verdict(&log.run),
        run: log.run,
        illegal,
    }
}

/// A new run's id: when, to the second, and four letters that tell two of one second apart.
pub fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut random = random();
    let letters: String = (0..4)
        .map(|_| {
            let letter = char::from(b'a' + u8::try_from(random % 26).unwrap_or(0));
            random /= 26;
            letter
        })
        .collect();
    format!("{now}-{letters}")
}

/// A number nobody chose, small enough to stay exact in tools that read JSON's numbers as floats.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hash maps from the system's random source.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

/// What a task of ours tells the runner.
enum RunnerEvent {
    Planned {
        at: usize,
        outcome: Result<backburn_experiments::wire::PlanView, backburn_experiments::wire::Refusal>,
    },
    Sampled(sampling::Sample),
    /// A sampler has ended.
    Rested {
        epoch: usize,
        probe: usize,
    },
    Begin {
        index: usize,
        over: tokio::sync::oneshot::Sender<()>,
    },
    Done {
        index: usize,
        result: activities::ActivityResult,
    },
    Played,
    RadiusOver(Span),
}

struct Runner {
    experiment: Arc<Experiment>,
    settings: RunParameters,
    log: EventLog,
    illegal: Option<Illegal>,
    notes: mpsc::UnboundedReceiver<RunnerEvent>,
    tell: mpsc::UnboundedSender<RunnerEvent>,
    stop: mpsc::UnboundedReceiver<String>,
    /// How often an operator has asked to end the run.
    asked_to_stop: usize,
    agents: BTreeMap<String, agents::RunAgent>,
    /// What is heard of agents, by name.
    heard: mpsc::UnboundedReceiver<AgentEvent>,
    hear: EventSender,
    context: Arc<ProbeContext>,
    /// Whether `context` knows all agents that take part.
    context_knows_agents: bool,
    plans: Vec<prepare::PlannedInjection>,
    /// How many of them were not answered.
    unanswered: usize,
    sampling: sampling::Sampling,
    conductor: JoinSet<()>,
    timers: JoinSet<()>,
    playing: BTreeMap<usize, activities::RunningActivity>,
    played: bool,
    injecting: BTreeMap<InjectionId, injections::ActiveInjection>,
    /// How many injections of each activity are not known to be over.
    acting: BTreeMap<usize, usize>,
    /// When what should come of an injection is late.
    due: BTreeSet<(Instant, injections::Deadline, InjectionId)>,
    /// Who was told to put everything back and has not answered.
    reverting: BTreeSet<String>,
    /// Whether everybody whom that concerns was told.
    told_to_revert: bool,
    /// Whether agents have had the time to put everything back that somebody else told them to.
    gave_time: bool,
    /// When the last revert was done, in seconds since the run started.
    reverted_at: Option<f64>,
}

/// The plain part of [`RunSettings`].
struct RunParameters {
    run: String,
    seed: u64,
    frequency: Duration,
    sha256: Option<String>,
    agent_pool: AgentPool,
}

impl Runner {
    fn new(mut experiment: Experiment, settings: RunSettings) -> Self {
        let Experiment {
            hypothesis,
            method,
            rollbacks,
            abort,
            redactor,
            ..
        } = &mut experiment;
        // The journal tells activities apart by their names, so a secret in one is taken out here.
        let activities = hypothesis
            .iter_mut()
            .chain(method)
            .chain(rollbacks)
            .map(|activity| &mut activity.name);
        for name in activities.chain(abort.iter_mut().map(|rule| &mut rule.name)) {
            *name = redactor.text(name).into_owned();
        }
        let (tell, notes) = mpsc::unbounded_channel();
        let (hear, heard) = mpsc::unbounded_channel();
        let frequency = settings.frequency.0.max(Duration::from_millis(1));
        Runner {
            sampling: sampling::Sampling::new(&experiment, frequency),
            log: EventLog::new(
                settings.journal,
                experiment.redactor.clone(),
                settings.observers,
            ),
            context: Arc::new(ProbeContext {
                configuration: experiment.configuration.clone(),
                secrets: experiment.secrets.clone(),
                redactor: experiment.redactor.clone(),
                ..ProbeContext::default()
            }),
            experiment: Arc::new(experiment),
            settings: RunParameters {
                run: settings.run,
                seed: settings.seed,
                frequency,
                sha256: settings.sha256,
                agent_pool: settings.agent_pool,
            },
            illegal: None,
            notes,
            tell,
            stop: settings.stop,
            asked_to_stop: 0,
            agents: BTreeMap::new(),
            heard,
            hear,
            context_knows_agents: true,
            plans: Vec::new(),
            unanswered: 0,
            conductor: JoinSet::new(),
            timers: JoinSet::new(),
            playing: BTreeMap::new(),
            played: false,
            injecting: BTreeMap::new(),
            acting: BTreeMap::new(),
            due: BTreeSet::new(),
            reverting: BTreeSet::new(),
            told_to_revert: false,
            gave_time: false,
            reverted_at: None,
        }
    }

    async fn drive(&mut self) {
        self.record(Event::RunStarted {
            run: self.settings.run.clone(),
            title: self.experiment.document.title.clone(),
            seed: self.settings.seed,
            version: env!("CARGO_PKG_VERSION").into(),
            hypothesis: self
                .experiment
                .hypothesis
                .iter()
                .map(|probe| probe.name.clone())
                .collect(),
            looks: self.experiment.looks,
            sha256: self.settings.sha256.clone(),
            recovery_within: self
                .experiment
                .document
                .recovery
                .map(|recovery| recovery.within),
        });
        self.look_for_programs().await;
        self.prepare().await;
        self.gate().await;
        if !self.over() {
            self.method().await;
            self.revert().await;
            if self.has_fault() && !self.waits_for_deviation() {
                self.rollbacks().await;
                self.after().await;
            } else {
                self.after().await;
                self.rollbacks().await;
            }
        }
        self.release_agents().await;
        self.record(Event::RunEnded);
    }

    async fn method(&mut self) {
        self.record(Event::PhaseStarted {
            phase: Phase::Method,
        });
        self.watch_hosts();
        self.start_looking(Phase::Method);
        self.start_playing(Phase::Method);
        while !self.over() && !self.is_played() {
            self.step().await;
        }
        self.stop_looking();
    }

    /// Takes the next thing that happens, whatever it is, and deals with it.
    async fn step(&mut self) {
        let late = self.due.first().map(|(at, ..)| *at);
        tokio::select! {
            biased;
            Some(by) = self.stop.recv() => self.asked_to_stop(&by),
            Some(event) = self.heard.recv() => {
                self.heard(event);
                for _ in 1..MAX_EVENTS_AT_ONCE {
                    let Ok(event) = self.heard.try_recv() else { break };
                    self.heard(event);
                }
            }
            Some(note) = self.notes.recv() => {
                let mut next = Some(note);
                while let Some(note) = next.take() {
                    // Only plans come in crowds; whatever else comes may change what is to be done next.
                    let is_plan = matches!(note, RunnerEvent::Planned { .. });
                    self.handle_event(note);
                    if is_plan && !self.over() {
                        next = self.notes.try_recv().ok();
                    }
                }
            }
            () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                self.late();
            }
        }
        self.flush();
    }

    fn handle_event(&mut self, note: RunnerEvent) {
        match note {
            RunnerEvent::Planned { at, outcome } => self.planned(at, outcome),
            RunnerEvent::Sampled(sample) => self.sampled(sample),
            RunnerEvent::Rested { epoch, probe } => self.sampling.rested(epoch, probe),
            RunnerEvent::Begin { index, over } => self.begin(index, over),
            RunnerEvent::Done { index, result } => self.done(index, result),
            RunnerEvent::Played => self.played = true,
            RunnerEvent::RadiusOver(longest) => self.radius_over(longest),
        }
    }

    /// Writes an event down. False where it could not be; then the run is being ended already
    /// and whatever was to follow from the event must not be done.
    fn record(&mut self, event: Event) -> bool {
        self.record_buffered(event) && self.flush()
    }

    /// Has an event written down with the next one, before the turn is over at the latest. For those that come in crowds,
    /// and from which nothing follows before. False where it can't stand.
    fn record_buffered(&mut self, event: Event) -> bool {
        match self.log.append(event) {
            Ok(()) => true,
            Err(illegal) => {
                let first = self.illegal.is_none();
                let why = illegal.to_string();
                self.illegal.get_or_insert(illegal);
                if first {
                    self.abort(AbortBy::Journal, "journal", why);
                }
                false
            }
        }
    }

    /// Writes down what is not yet. False where it could not be.
    fn flush(&mut self) -> bool {
        match self.log.flush() {
            Ok(()) => true,
            Err(why) => {
                self.abort(AbortBy::Journal, "journal", why);
                false
            }
        }
    }

    /// Whether nothing new may be started.
    fn over(&self) -> bool {
        self.log.run.not_started.is_some() || !self.log.run.aborts.is_empty()
    }

    fn not_started(&mut self, rule: &str, reason: impl Into<String>, hint: Option<String>) {
        if self.log.run.not_started.is_none() {
            self.record(Event::NotStarted {
                rule: rule.into(),
                reason: reason.into(),
                hint,
            });
        }
    }

    /// Ends the run at once: whatever acts is told to end before anything else is done.
    fn abort(&mut self, by: AbortBy, rule: &str, reason: impl Into<String>) {
        let first = self.log.run.aborts.is_empty();
        let aborted = Event::Aborted(Abort {
            by,
            rule: rule.into(),
            reason: reason.into(),
        });
        match first {
            true => self.record(aborted),
            // A fleet's end may have very many reasons.
            false => self.record_buffered(aborted),
        };
        self.ask_revert();
        if first {
            self.stop_playing();
        }
    }

    fn asked_to_stop(&mut self, by: &str) {
        self.asked_to_stop += 1;
        if self.asked_to_stop == 1 {
            self.abort(AbortBy::Operator, "operator", by);
        }
    }

    /// What a provider needs to know for this activity.
    fn context(&mut self, activity: &Activity) -> Arc<ProbeContext> {
        self.update_context();
        if activity.configuration.is_none() && activity.secrets.is_none() {
            return Arc::clone(&self.context);
        }
        let mut context = ProbeContext::clone(&self.context);
        context.configuration = self.experiment.configuration_of(activity);
        context.own_secrets.clone_from(&activity.secrets);
        Arc::new(context)
    }

    /// Whether the method injects anything.
    fn has_fault(&self) -> bool {
        has_fault(&self.experiment)
    }
}

/// Whether the method of this experiment injects anything: dry runs do not.
pub fn has_fault(experiment: &Experiment) -> bool {
    experiment
        .faults()
        .any(|(_, activity, _)| !experiment.is_dry(activity))
}
