//! Starting, following and ending runs.

use super::failpoint::WriteSource;
use super::local_program_policy;
use super::policy::{PolicyDecision, PolicyRequest};
use super::{RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::agent_pool::AgentPool;
use crate::fleet::{AdmissionPolicy, Reservation};
use crate::runner::{self, Journal, Preview, RunSettings};
use crate::store::{NewRun, RunEnd, StoreErrorKind, Trigger};
use backburn_experiments::check::{self, Experiment, Sources};
use backburn_experiments::journal::{Event, JournalEntry, Verdict};
use backburn_experiments::wire::{InjectionId, Refusal};
use backburn_experiments::{HumanDuration, Problem, substitute};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long to wait before another attempt to close a run in the store.
const CLOSE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Why runs are stopped when the controller ends.
const ENDING: &str = "the controller ends";

/// A run that is not closed yet.
#[derive(Debug)]
pub(super) struct ActiveRun {
    pub(super) stop: mpsc::UnboundedSender<String>,
    /// The number of events in its journal. Dropped when the run is closed.
    pub(super) events: watch::Sender<u64>,
    /// The injections that were requested and are not known to be over.
    pub(super) open: watch::Sender<BTreeSet<InjectionId>>,
    /// Whether it was aborted: nothing new is injected.
    ending: AtomicBool,
}

/// The journal of a run in the store.
struct StoreJournal {
    service: Arc<Service>,
    run: String,
}

impl Journal for StoreJournal {
    fn append(&mut self, entries: &[JournalEntry]) -> io::Result<()> {
        self.service
            .append(WriteSource::Run, &self.run, entries)
            .map_err(io::Error::other)
    }

    fn place(&self) -> String {
        format!("of run `{}` in the store", self.run)
    }
}

impl ActiveRun {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (stop, stopped) = mpsc::unbounded_channel();
        let running = ActiveRun {
            stop,
            events: watch::Sender::new(0),
            open: watch::Sender::new(BTreeSet::new()),
            ending: AtomicBool::new(false),
        };
        (Arc::new(running), stopped)
    }

    /// Follows an event that is in the journal.
    fn follow(&self, event: &Event) {
        match event {
            Event::InjectionRequested { injection, .. } => self.open.send_modify(|open| {
                open.insert(injection.clone());
            }),
            Event::Aborted(_) => self.ending.store(true, Ordering::Relaxed),
            Event::InjectionRefused { injection, .. } => self.closed(injection),
            Event::InjectionEnded(ended) if ended.clean => self.closed(&ended.injection),
            Event::AgentJoined { recovered, .. } => recovered
                .iter()
                .filter(|ended| ended.clean)
                .for_each(|ended| self.closed(&ended.injection)),
            _ => {}
        }
        self.events.send_modify(|events| *events += 1);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// An injection is over. Those who wait are woken by the last one.
    fn closed(&self, injection: &str) {
        self.open
            .send_if_modified(|open| open.remove(injection) && open.is_empty());
    }
}

impl Service {
    /// Parses a stored document. The policy decides what it may read on the controller's host, and whether it may run
    /// programs there; variables are data, and do not choose what is read.
    ///
    /// # Errors
    /// All problems of the document.
    pub fn load_experiment(
        &self,
        document: &Value,
        variables: &Map<String, Value>,
    ) -> Result<Experiment, Vec<Problem>> {
        let chosen = substitute::chosen_sources(document, variables);
        if !chosen.is_empty() {
            return Err(chosen);
        }
        let secrets = Map::new();
        let sources = Sources {
            environment: &|name| {
                Some(name)
                    .filter(|name| self.policy.may_read_variable(name))
                    .and_then(|name| std::env::var(name).ok())
            },
            file: &|path| {
                if !self.policy.may_read_file(Path::new(path)) {
                    return Err("the controller's policy does not allow experiments to read this file; allowed are the files in its `folders`".into());
                }
                crate::files::read_text(Path::new(path)).map_err(|error| error.to_string())
            },
            variables,
            secrets: &secrets,
        };
        self.permitted(self.checked(&document.to_string(), &sources)?)
    }

    /// Checks a document. A request over the API has no command line, so problems of variables name the request's field.
    fn checked(&self, text: &str, sources: &Sources<'_>) -> Result<Experiment, Vec<Problem>> {
        (self.check)(text, sources).map_err(|mut problems| {
            for problem in &mut problems {
                if let Some(name) = problem.at.strip_prefix("--var ") {
                    problem.at = format!("$.variables.{name}");
                }
            }
            problems
        })
    }

    /// Parses the document of a request. One that is not stored may read nothing on the controller's host.
    fn load_requested(&self, spec: &RunSpec) -> Result<Experiment, Vec<Problem>> {
        if let RequestedDocument::Stored(document) = &spec.document {
            return self.load_experiment(document, &spec.variables);
        }
        let refused = spec.document.foreign_sources(&spec.variables);
        if !refused.is_empty() {
            return Err(refused);
        }
        let sources = Sources {
            environment: &|_| None,
            file: &|_| Err("it is a file of the controller's host".into()),
            variables: &spec.variables,
            secrets: &Map::new(),
        };
        self.permitted(self.checked(&spec.document.text(), &sources)?)
    }

    /// Checks that the policy allows the programs that the experiment would run on the controller's host.
    fn permitted(&self, experiment: Experiment) -> Result<Experiment, Vec<Problem>> {
        let problems = match self.policy.allow_programs {
            true => Vec::new(),
            false => local_program_policy::problems(&experiment),
        };
        match problems.is_empty() {
            true => Ok(experiment),
            false => Err(problems),
        }
    }

    /// Starts a run. Returns its id.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(self: &Arc<Self>, spec: RunSpec) -> Result<String, RunStartError> {
        if let Some(halted) = self.halted() {
            return Err(halted.refusal().into());
        }
        if self.is_ending() {
            let refusal = Refusal::new("ending", "the controller is shutting down: no run starts");
            return Err(refusal
                .hint("start the run again when the controller is back")
                .into());
        }
        let experiment = self.load_requested(&spec).map_err(RunStartError::Invalid)?;
        let seed = spec.seed.unwrap_or_else(runner::random);
        self.ask_policy(&spec, &experiment, seed)?;
        let run = spec.id.clone().unwrap_or_else(runner::run_id);
        let new = NewRun {
            id: run.clone(),
            experiment: spec.reference.clone(),
            title: experiment.redactor.text(&experiment.document.title).into(),
            seed,
            who: spec.who.clone(),
            because: spec.because,
            started: Timestamp::now(),
        };
        self.audit_start(&new, spec.document.sha256(), spec.approved_by.as_deref())?;
        self.own_run(&new.id, new.experiment.as_ref(), &spec.teams)?;
        (self.failpoint).write(WriteSource::Run, || self.store.open_run(&new))?;
        let (running, stopped) = ActiveRun::new();
        lock(&self.runs).insert(run.clone(), Arc::clone(&running));
        // A halt or an end in between has not seen this run.
        if let Some(halted) = self.halted() {
            running.stop.send(halted.refusal().what).ok();
        }
        if self.is_ending() {
            running.stop.send(ENDING.to_owned()).ok();
        }
        let service = Arc::clone(self);
        let id = run.clone();
        let go = move || service.execute(&id, seed, experiment, &spec, &running, stopped);
        let thread = std::thread::Builder::new().name(format!("run {run}"));
        if let Err(error) = thread.spawn(go) {
            let why = format!("no thread could be started: {error}");
            self.close(WriteSource::Run, &run, &not_begun(why.clone()));
            return Err(Refusal::new("host", why).into());
        }
        Ok(run)
    }

    /// Executes a run to its end, on a thread of its own.
    fn execute(
        self: Arc<Self>,
        run: &str,
        seed: u64,
        experiment: Experiment,
        spec: &RunSpec,
        running: &Arc<ActiveRun>,
        stop: mpsc::UnboundedReceiver<String>,
    ) {
        let note = Arc::clone(running);
        let radius = experiment.document.blast_radius.as_ref();
        let permit = self.permit(&experiment, spec);
        let (service, id) = (Arc::clone(&self), run.to_owned());
        let reservation = Reservation::new(Arc::clone(&self.fleet), run)
            .within(&spec.teams)
            .permitted_by(Box::new(move |agents, inventory| {
                permit(agents, inventory)?;
                // The teams of its agents see it before it touches them.
                service.own_by_agents(&id, agents).map_err(|error| {
                    tracing::error!(run = id, %error, "whose a run is could not be recorded");
                    Refusal::new("store", "the controller's store is not available")
                })
            }))
            .sharing(radius.is_some_and(|radius| radius.shared));
        let settings = RunSettings {
            run: run.to_owned(),
            seed,
            frequency: check::DEFAULT_SAMPLING_INTERVAL,
            sha256: spec.document.sha256(),
            agent_pool: AgentPool::Fleet(reservation),
            journal: Box::new(StoreJournal {
                service: Arc::clone(&self),
                run: run.to_owned(),
            }),
            observers: vec![Box::new(move |entry| note.follow(&entry.event))],
            stop,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let verdict = match runtime {
            Ok(runtime) => {
                let finished = runtime.block_on(runner::run(experiment, settings));
                runtime.shutdown_background();
                if let Some(illegal) = &finished.illegal {
                    tracing::error!(run, %illegal, "a run ended because of a bug: it recorded an illegal event");
                }
                finished.verdict
            }
            Err(error) => {
                tracing::error!(run, %error, "no runtime could be built for a run");
                not_begun(format!("no runtime could be built: {error}"))
            }
        };
        self.close(WriteSource::Run, run, &verdict);
    }

    /// Closes a run in the store, however long that takes, and drops it from memory.
    pub(super) fn close(self: &Arc<Self>, writer: WriteSource, run: &str, verdict: &Verdict) {
        let end = RunEnd {
            ended: Timestamp::now(),
            outcome: verdict.outcome,
            verdict: serde_json::to_value(verdict).unwrap_or_default(),
        };
        let close = || self.store.close_run(run, &end);
        while let Err(error) = self.failpoint.write(writer, close) {
            tracing::error!(run, %error, "a run could not be closed in the store");
            if matches!(
                error.kind,
                StoreErrorKind::NotThere | StoreErrorKind::Conflict
            ) {
                break;
            }
            std::thread::sleep(CLOSE_RETRY_DELAY);
        }
        self.audit_end(run, verdict.outcome);
        *lock(&self.outcomes)
            .entry(verdict.outcome.word())
            .or_default() += 1;
        lock(&self.runs).remove(run);
        self.schedules.send_modify(|count| *count += 1);
        self.send_trace(run);
    }

    /// What the policy says when the run is about to reserve agents.
    fn permit(self: &Arc<Self>, experiment: &Experiment, spec: &RunSpec) -> AdmissionPolicy {
        let (service, experiment) = (Arc::clone(self), experiment.clone());
        let (who, approved_by) = (spec.who.clone(), spec.approved_by.clone());
        Box::new(move |agents, inventory| {
            let wanted = PolicyRequest {
                experiment: &experiment,
                who: &who,
                approved_by: approved_by.as_deref(),
                agents,
                inventory,
                at: Timestamp::now(),
            };
            match service.policy.judge(&wanted) {
                PolicyDecision::Allow => Ok(()),
                PolicyDecision::Refuse(refusal) => Err(refusal),
                PolicyDecision::RequireApproval(rule) => Err(approval_required(&rule)),
            }
        })
    }

    /// Asks the policy before the run is opened. A run that requires approval is recorded until somebody approves it.
    fn ask_policy(
        &self,
        spec: &RunSpec,
        experiment: &Experiment,
        seed: u64,
    ) -> Result<(), RunStartError> {
        if !runner::has_fault(experiment) {
            return Ok(());
        }
        let reservation = Reservation::new(Arc::clone(&self.fleet), "policy").within(&spec.teams);
        let inventory = reservation.inventory()?;
        let Ok(names) = runner::select_agents(experiment, &inventory, seed) else {
            // The run records the reason in its journal.
            return Ok(());
        };
        let agents = inventory.granted_of(&names);
        let wanted = PolicyRequest {
            experiment,
            who: &spec.who,
            approved_by: spec.approved_by.as_deref(),
            agents: &agents,
            inventory: &inventory.granted,
            at: Timestamp::now(),
        };
        match self.policy.judge(&wanted) {
            PolicyDecision::Allow => Ok(()),
            PolicyDecision::Refuse(refusal) => Err(refusal.into()),
            PolicyDecision::RequireApproval(rule) => match &spec.reference {
                Some(reference) if spec.because == Trigger::Asked => Err(RunStartError::Waits(
                    Box::new(self.await_approval(spec, reference, seed, rule)?),
                )),
                _ => Err(approval_required(&rule).into()),
            },
        }
    }

    /// Previews what a run of this document would do now. Nothing is touched, and no agent is reserved.
    ///
    /// # Errors
    /// Why the run would not start.
    pub async fn plan(self: &Arc<Self>, spec: RunSpec) -> Result<(u64, Preview), RunStartError> {
        let experiment = self.load_requested(&spec).map_err(RunStartError::Invalid)?;
        let seed = spec.seed.unwrap_or_else(runner::random);
        let reservation = Reservation::new(Arc::clone(&self.fleet), "plan")
            .within(&spec.teams)
            .permitted_by(self.permit(&experiment, &spec));
        let preview = runner::preview(
            &experiment,
            seed,
            check::DEFAULT_SAMPLING_INTERVAL,
            AgentPool::Fleet(reservation),
        )
        .await?;
        Ok((seed, preview))
    }

    /// Asks a run to end, with this reason; everything it injected is reverted. Whether there is such a run.
    pub fn stop(&self, run: &str, why: String) -> bool {
        let runs = lock(&self.runs);
        runs.get(run)
            .inspect(|running| {
                running.stop.send(why).ok();
            })
            .is_some()
    }

    /// The runs that are not closed, and how many injections of each are not known to be over.
    pub fn active_runs(&self) -> BTreeMap<String, usize> {
        let runs = lock(&self.runs);
        let open = |running: &Arc<ActiveRun>| running.open.borrow().len();
        runs.iter()
            .map(|(run, running)| (run.clone(), open(running)))
            .collect()
    }

    /// Changes with each event of a run. None if the run is closed.
    pub fn follow(&self, run: &str) -> Option<watch::Receiver<u64>> {
        lock(&self.runs)
            .get(run)
            .map(|running| running.events.subscribe())
    }

    /// Whether the controller ends, so that no run can start.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Asks every run to end, and waits until all are closed, at most this long. Returns those that were not.
    pub async fn end_runs(&self, timeout: Duration) -> Vec<String> {
        self.ending.store(true, Ordering::SeqCst);
        for running in lock(&self.runs).values() {
            running.stop.send(ENDING.to_owned()).ok();
        }
        let until = tokio::time::Instant::now() + timeout;
        loop {
            let left: Vec<String> = lock(&self.runs).keys().cloned().collect();
            if left.is_empty() || tokio::time::Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The verdict on a run that this host could not start.
fn not_begun(why: String) -> Verdict {
    let nothing = backburn_experiments::journal::Run {
        not_started: Some(("host".into(), why, None)),
        ..Default::default()
    };
    backburn_experiments::journal::verdict(&nothing)
}

fn approval_required(rule: &str) -> Refusal {
    let what = format!("the run requires approval by the controller's rule `{rule}`");
    Refusal::new("approval", what)
        .hint("store the experiment first, with `backburn apply FILE`: a run of a stored experiment waits for `backburn approve`")
}

/// How long something took, in milliseconds with a fraction.
pub(super) fn millis(took: HumanDuration) -> f64 {
    took.0.as_secs_f64() * 1000.0
}
