//! Starting a run, following it, ending it.

use super::approvals::PendingApproval;
use super::failpoint::JournalWriter;
use super::local_program_policy;
use super::policy::{PolicyDecision, PolicyRequest};
use super::requested_document::RequestedDocument;
use super::{Service, lock};
use crate::agent_connection::Inventory;
use crate::agent_pool::AgentPool;
use crate::fleet::{AdmissionPolicy, Reservation};
use crate::runner::{self, Journal, Preview, RunSettings};
use crate::store::{ExperimentRef, NewRun, RunEnd, StoreError, StoreErrorKind, Trigger};
use backburn_experiments::check::{self, Experiment, Sources};
use backburn_experiments::journal::{JournalEntry, Event, Verdict};
use backburn_experiments::wire::{InjectionId, Refusal};
use backburn_experiments::{Problem, HumanDuration};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long until a run that could not be closed is tried to be closed again.
const AGAIN: Duration = Duration::from_secs(1);

/// A run that somebody asks for.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The experiment.
    pub document: RequestedDocument,
    /// Which one of those that are kept, where it is.
    pub reference: Option<ExperimentRef>,
    /// What every pick comes from; a random one where left out.
    pub seed: Option<u64>,
    /// Configuration values that go before the document's.
    pub variables: Map<String, Value>,
    /// Who asks: a token's name.
    pub who: String,
    /// Why.
    pub because: Trigger,
    /// Who else has approved.
    pub approved_by: Option<String>,
    /// The run's id, where it was given one before it began: what waited for approval keeps its id.
    pub id: Option<String>,
}

/// Why a run did not begin.
#[derive(Debug)]
pub enum StartError {
    /// The document is wrong.
    Invalid(Vec<Problem>),
    /// A rule says so.
    Refusal(Refusal),
    /// It waits for a second person.
    Waits(Box<PendingApproval>),
    /// The store's.
    Store(StoreError),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        StartError::Store(error)
    }
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        StartError::Refusal(refusal)
    }
}

/// A run that goes on.
#[derive(Debug)]
pub(super) struct ActiveRun {
    pub(super) stop: mpsc::UnboundedSender<String>,
    /// How many events are in its journal; closed when the run is.
    pub(super) events: watch::Sender<u64>,
    /// What was asked for and is not known to be over.
    pub(super) open: watch::Sender<BTreeSet<InjectionId>>,
    /// Whether it is being ended before its time: nothing new is injected.
    ending: AtomicBool,
}

/// A run's journal in the store.
struct StoreJournal {
    service: Arc<Service>,
    run: String,
}

impl Journal for StoreJournal {
    fn append(&mut self, entries: &[JournalEntry]) -> io::Result<()> {
        self.service
            .append(JournalWriter::Run, &self.run, entries)
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

    /// Takes note of an event that is in the journal.
    fn note(&self, event: &Event) {
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

    /// Whoever waits does so for the last one.
    fn closed(&self, injection: &str) {
        self.open
            .send_if_modified(|open| open.remove(injection) && open.is_empty());
    }
}

impl Service {
    /// The experiment of this document, as the controller understands it: what it may read of this host is the policy's
    /// to say, and so is whether it may run programs here.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn understand(
        &self,
        document: &Value,
        variables: &Map<String, Value>,
    ) -> Result<Experiment, Vec<Problem>> {
        let secrets = Map::new();
        let sources = Sources {
            environment: &|name| {
                Some(name)
                    .filter(|name| self.policy.may_read_variable(name))
                    .and_then(|name| std::env::var(name).ok())
            },
            file: &|path| {
                if !self.policy.may_read_file(Path::new(path)) {
                    return Err("the controller's policy does not let experiments read it; `folders` says which they may".into());
                }
                crate::files::read_text(Path::new(path)).map_err(|error| error.to_string())
            },
            variables,
            secrets: &secrets,
        };
        self.permitted(self.checked(&document.to_string(), &sources)?)
    }

    /// Checks a document. Who asks over the API has no command line, so problems of variables name the API's own place.
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

    /// The experiment of a request. One that is not kept reads nothing of this host.
    fn understand_ask(&self, ask: &RunSpec) -> Result<Experiment, Vec<Problem>> {
        if let RequestedDocument::Stored(document) = &ask.document {
            return self.understand(document, &ask.variables);
        }
        let refused = ask.document.foreign_sources(&ask.variables);
        if !refused.is_empty() {
            return Err(refused);
        }
        let sources = Sources {
            environment: &|_| None,
            file: &|_| Err("it is the controller's".into()),
            variables: &ask.variables,
            secrets: &Map::new(),
        };
        self.permitted(self.checked(&ask.document.text(), &sources)?)
    }

    /// The same experiment, where the policy allows the programs that it would have run on this host.
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
    /// Why it did not begin.
    pub fn start(self: &Arc<Self>, ask: RunSpec) -> Result<String, StartError> {
        if let Some(halted) = self.halted() {
            return Err(halted.refusal().into());
        }
        let experiment = self.understand_ask(&ask).map_err(StartError::Invalid)?;
        let seed = ask.seed.unwrap_or_else(runner::random);
        self.ask_policy(&ask, &experiment, seed)?;
        let run = ask.id.clone().unwrap_or_else(runner::run_id);
        let new = NewRun {
            id: run.clone(),
            experiment: ask.reference.clone(),
            title: experiment.redactor.text(&experiment.document.title).into(),
            seed,
            who: ask.who.clone(),
            because: ask.because,
            started: Timestamp::now(),
        };
        (self.failpoint).write(JournalWriter::Run, || self.store.open_run(&new))?;
        let (running, stopped) = ActiveRun::new();
        lock(&self.runs).insert(run.clone(), Arc::clone(&running));
        // Whoever pulled the lever in between has not seen this run.
        if let Some(halted) = self.halted() {
            running.stop.send(halted.refusal().what).ok();
        }
        let service = Arc::clone(self);
        let id = run.clone();
        let go = move || service.go(&id, seed, experiment, &ask, &running, stopped);
        let thread = std::thread::Builder::new().name(format!("run {run}"));
        if let Err(error) = thread.spawn(go) {
            let why = format!("no thread could be started: {error}");
            self.close(JournalWriter::Run, &run, &not_begun(why.clone()));
            return Err(Refusal::new("host", why).into());
        }
        Ok(run)
    }

    fn go(
        self: Arc<Self>,
        run: &str,
        seed: u64,
        experiment: Experiment,
        ask: &RunSpec,
        running: &Arc<ActiveRun>,
        stop: mpsc::UnboundedReceiver<String>,
    ) {
        let note = Arc::clone(running);
        let radius = experiment.document.blast_radius.as_ref();
        let reservation = Reservation::new(Arc::clone(&self.fleet), run)
            .permitted_by(self.permit(&experiment, ask))
            .sharing(radius.is_some_and(|radius| radius.shared));
        let settings = RunSettings {
            run: run.to_owned(),
            seed,
            frequency: check::EVERY,
            sha256: ask.document.sha256(),
            agent_pool: AgentPool::Fleet(reservation),
            journal: Box::new(StoreJournal {
                service: Arc::clone(&self),
                run: run.to_owned(),
            }),
            observers: vec![Box::new(move |entry| note.note(&entry.event))],
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
                    tracing::error!(run, %illegal, "a bug of ours ended a run");
                }
                finished.verdict
            }
            Err(error) => {
                tracing::error!(run, %error, "no runtime could be built for a run");
                not_begun(format!("no runtime could be built: {error}"))
            }
        };
        self.close(JournalWriter::Run, run, &verdict);
    }

    /// Closes a run in the store, however long that takes, and forgets it.
    pub(super) fn close(self: &Arc<Self>, writer: JournalWriter, run: &str, verdict: &Verdict) {
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
            std::thread::sleep(AGAIN);
        }
        *lock(&self.outcomes)
            .entry(verdict.outcome.word())
            .or_default() += 1;
        lock(&self.runs).remove(run);
        self.schedules.send_modify(|count| *count += 1);
        self.send_trace(run);
    }

    /// What a run may hold, as the policy says when it is about to.
    fn permit(self: &Arc<Self>, experiment: &Experiment, ask: &RunSpec) -> AdmissionPolicy {
        let (service, experiment) = (Arc::clone(self), experiment.clone());
        let (who, approved_by) = (ask.who.clone(), ask.approved_by.clone());
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
                PolicyDecision::RequireApproval(rule) => Err(second_person(&rule)),
            }
        })
    }

    /// Asks the policy before anything is opened. What needs a second person is kept until one approves.
    fn ask_policy(
        &self,
        ask: &RunSpec,
        experiment: &Experiment,
        seed: u64,
    ) -> Result<(), StartError> {
        if !runner::has_fault(experiment) {
            return Ok(());
        }
        let inventory = Reservation::new(Arc::clone(&self.fleet), "policy").inventory()?;
        let Ok(names) = runner::select_agents(experiment, &inventory, seed) else {
            // The run says why, in its journal.
            return Ok(());
        };
        let agents = named(&inventory, &names);
        let wanted = PolicyRequest {
            experiment,
            who: &ask.who,
            approved_by: ask.approved_by.as_deref(),
            agents: &agents,
            inventory: &inventory,
            at: Timestamp::now(),
        };
        match self.policy.judge(&wanted) {
            PolicyDecision::Allow => Ok(()),
            PolicyDecision::Refuse(refusal) => Err(refusal.into()),
            PolicyDecision::RequireApproval(rule) => match &ask.reference {
                Some(reference) if ask.because == Trigger::Asked => Err(StartError::Waits(
                    Box::new(self.wait(ask, reference, seed, rule)?),
                )),
                _ => Err(second_person(&rule).into()),
            },
        }
    }

    /// What a run of this document would hit now. Nothing is touched, and nobody is held.
    ///
    /// # Errors
    /// Why nothing would be.
    pub async fn plan(self: &Arc<Self>, ask: RunSpec) -> Result<(u64, Preview), StartError> {
        let experiment = self.understand_ask(&ask).map_err(StartError::Invalid)?;
        let seed = ask.seed.unwrap_or_else(runner::random);
        let reservation = Reservation::new(Arc::clone(&self.fleet), "plan")
            .permitted_by(self.permit(&experiment, &ask));
        let preview = runner::preview(
            &experiment,
            seed,
            check::EVERY,
            AgentPool::Fleet(reservation),
        )
        .await?;
        Ok((seed, preview))
    }

    /// Ends a run; whatever it injected is put back. Whether it goes on.
    pub fn stop(&self, run: &str, why: String) -> bool {
        let runs = lock(&self.runs);
        runs.get(run)
            .inspect(|running| {
                running.stop.send(why).ok();
            })
            .is_some()
    }

    /// The runs that go on, and how many faults of each are not known to be over.
    pub fn going_on(&self) -> BTreeMap<String, usize> {
        let runs = lock(&self.runs);
        let open = |running: &Arc<ActiveRun>| running.open.borrow().len();
        runs.iter()
            .map(|(run, running)| (run.clone(), open(running)))
            .collect()
    }

    /// Changes with each event of a run that goes on; none where it does not.
    pub fn follow(&self, run: &str) -> Option<watch::Receiver<u64>> {
        lock(&self.runs)
            .get(run)
            .map(|running| running.events.subscribe())
    }

    /// Ends every run in peace, and waits until all are closed, at the most this long. Returns those that were not.
    pub async fn end(&self, within: Duration) -> Vec<String> {
        for running in lock(&self.runs).values() {
            running.stop.send("the controller ends".to_owned()).ok();
        }
        let until = tokio::time::Instant::now() + within;
        loop {
            let left: Vec<String> = lock(&self.runs).keys().cloned().collect();
            if left.is_empty() || tokio::time::Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a run comes to that this host could not begin.
fn not_begun(why: String) -> Verdict {
    let nothing = backburn_experiments::journal::Run {
        not_started: Some(("host".into(), why, None)),
        ..Default::default()
    };
    backburn_experiments::journal::verdict(&nothing)
}

fn second_person(rule: &str) -> Refusal {
    let what = format!("a second person has to approve, by the controller's rule `{rule}`");
    Refusal::new("approval", what)
        .hint("apply it first, with `backburn apply FILE`: a run by its name waits for `backburn approve`")
}

fn named(
    inventory: &Inventory,
    names: &BTreeSet<String>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let named = inventory.iter().filter(|(name, _)| names.contains(name));
    named.cloned().collect()
}

/// How long something took, in milliseconds with a fraction.
pub(super) fn millis(took: HumanDuration) -> f64 {
    took.0.as_secs_f64() * 1000.0
}
