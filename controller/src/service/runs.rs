//! Starting, following and ending runs.

use super::failpoint::WriteSource;
use super::local_program_policy;
use super::policy_rule::{PolicyDecision, PolicyRequest};
use super::run_load::RunLoad;
use super::run_locks::{self, HeldRunLock};
use super::{RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::agent_pool::AgentPool;
use crate::fleet::{AdmissionPolicy, DebtFilter, Reservation};
use crate::runner::{self, Journal, Preview, RunApproval, RunSettings};
use crate::store::{
    GameDayRun, NewRun, RunEnd, StoreError, StoreErrorKind, Trigger, WaitingRun, missing_secrets,
};
use backburn_experiments::check::{self, Experiment, Sources};
use backburn_experiments::journal::{Event, HypothesisTiming, JournalEntry, Run, Verdict, verdict};
use backburn_experiments::labels::Labels;
use backburn_experiments::redact::Redactor;
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
    /// Whether it was asked to end because of quiet hours.
    pub(super) is_quieted: AtomicBool,
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
            is_quieted: AtomicBool::new(false),
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
        let mut problems = missing_secrets(document);
        problems.extend(substitute::chosen_sources(document, variables));
        if !problems.is_empty() {
            return Err(problems);
        }
        let secrets = Map::new();
        let policy = self.policy();
        let sources = Sources {
            environment: &|name| {
                Some(name)
                    .filter(|name| policy.may_read_variable(name))
                    .and_then(|name| std::env::var(name).ok())
            },
            file: &|path| {
                if !policy.may_read_file(Path::new(path)) {
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
    pub(super) fn load_requested(&self, spec: &RunSpec) -> Result<Experiment, Vec<Problem>> {
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
        let mut problems =
            local_program_policy::problems(&experiment, &self.policy().allow_programs);
        // The name of an activity may come from a file.
        for problem in &mut problems {
            experiment.redactor.errors().redact(&mut problem.what);
        }
        match problems.is_empty() {
            true => Ok(experiment),
            false => Err(problems),
        }
    }

    /// Starts a run. Returns its id. A run that a rule keeps from starting is recorded as one that was not started.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(self: &Arc<Self>, spec: RunSpec) -> Result<String, RunStartError> {
        self.start_linked(spec, None)
    }

    /// Starts the run of a step of a game day. What links the two is stored before the run.
    pub(super) fn start_of_game_day(
        self: &Arc<Self>,
        spec: RunSpec,
        step: (&str, u32),
    ) -> Result<String, RunStartError> {
        self.start_linked(spec, Some(step))
    }

    fn start_linked(
        self: &Arc<Self>,
        spec: RunSpec,
        step: Option<(&str, u32)>,
    ) -> Result<String, RunStartError> {
        let problem = spec.lock.as_deref().and_then(run_locks::name_problem);
        if let Some(problem) = problem {
            return Err(RunStartError::Invalid(vec![problem]));
        }
        let experiment = self.load_requested(&spec).map_err(RunStartError::Invalid)?;
        let title = experiment.redactor.text(&experiment.document.title);
        let new = new_run(&spec, title.into());
        // First, so that nothing is kept of a run whose lock is held; it is released again if the run does not start.
        let held = self.take_lock(spec.lock.as_deref(), &new)?;
        self.own_run(&new.id, new.experiment.as_ref(), &spec.teams)?;
        if let Some((game_day, step)) = step {
            self.store.link_game_day_run(&GameDayRun {
                run: new.id.clone(),
                game_day: game_day.to_owned(),
                step,
            })?;
        }
        match self.admit(&new, &spec, &experiment) {
            Ok(None) => {}
            Ok(Some(waiting)) => return Err(RunStartError::Waits(Box::new(waiting))),
            Err(RunStartError::Refusal(refusal)) => {
                return Err(self.not_started(
                    &new,
                    spec.document.sha256(),
                    refusal,
                    &experiment.redactor,
                ));
            }
            Err(error) => return Err(error),
        }
        self.audit_start(&new, spec.document.sha256(), None)?;
        (self.failpoint).write(WriteSource::Run, || self.store.open_run(&new))?;
        self.launch(&new, experiment, spec, None, held)
    }

    /// Whether any run may start now.
    ///
    /// # Errors
    /// A halt is in force, or the controller is shutting down.
    pub(super) fn may_start(&self) -> Result<(), Refusal> {
        if let Some(halted) = self.halted() {
            return Err(halted.refusal());
        }
        match self.is_ending() {
            false => Ok(()),
            true => {
                let what = "the controller is shutting down: no run starts";
                let hint = "start the run again when the controller is back";
                Err(Refusal::new("ending", what).hint(hint))
            }
        }
    }

    /// Whether this run may start now. A run that has to wait for approval is opened as such, and returned.
    fn admit(
        self: &Arc<Self>,
        new: &NewRun,
        spec: &RunSpec,
        experiment: &Experiment,
    ) -> Result<Option<WaitingRun>, RunStartError> {
        self.may_start()?;
        match self.decide(spec, None, experiment, new.seed)? {
            PolicyDecision::Allow => Ok(None),
            PolicyDecision::Refuse(refusal) => Err(refusal.into()),
            PolicyDecision::RequireApproval(rule) => {
                match spec.reference.is_some() && spec.because != Trigger::Schedule {
                    true => (self.await_approval(new, spec, experiment, rule)).map(Some),
                    false => Err(approval_required(&rule).into()),
                }
            }
        }
    }

    /// Starts a run that is open in the store. `approval` comes with the person who approved it; the lock is held until the run is closed.
    pub(super) fn launch(
        self: &Arc<Self>,
        new: &NewRun,
        experiment: Experiment,
        spec: RunSpec,
        approval: Option<(RunApproval, String)>,
        held: Option<HeldRunLock>,
    ) -> Result<String, RunStartError> {
        let run = new.id.clone();
        let seed = new.seed;
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
        let go = move || {
            service.execute(&id, seed, experiment, &spec, approval, (running, stopped));
            drop(held);
        };
        let thread = std::thread::Builder::new().name(format!("run {run}"));
        if let Err(error) = thread.spawn(go) {
            let why = format!("no thread could be started: {error}");
            self.close(WriteSource::Run, &run, &not_begun(why.clone()));
            return Err(Refusal::new("host", why).into());
        }
        self.notify_start(new);
        Ok(run)
    }

    /// Records a run that a rule kept from starting, and returns that as the reason.
    pub(super) fn not_started(
        self: &Arc<Self>,
        new: &NewRun,
        sha256: Option<String>,
        mut refusal: Refusal,
        redactor: &Redactor,
    ) -> RunStartError {
        redactor.redact_refusal(&mut refusal);
        let recorded =
            (self.store.open_run(new)).and_then(|()| self.close_not_started(new, sha256, &refusal));
        match recorded {
            Ok(()) => RunStartError::NotStarted {
                run: new.id.clone(),
                refusal,
            },
            // The refusal matters more than its record.
            Err(error) => {
                tracing::error!(run = new.id, %error, "a run that was not started could not be recorded");
                RunStartError::Refusal(refusal)
            }
        }
    }

    /// Writes the journal of an open run that a rule kept from starting, and closes it.
    pub(super) fn close_not_started(
        self: &Arc<Self>,
        new: &NewRun,
        sha256: Option<String>,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        let never = HypothesisTiming {
            before: false,
            during: false,
            after: false,
        };
        let events = [
            Event::RunStarted {
                run: new.id.clone(),
                title: new.title.clone(),
                seed: new.seed,
                version: env!("CARGO_PKG_VERSION").into(),
                hypothesis: Vec::new(),
                hypothesis_timing: never,
                sha256,
                recovery_within: None,
                approved_by: None,
                question: None,
                tolerances: Default::default(),
            },
            Event::NotStarted {
                rule: refusal.rule.clone(),
                reason: refusal.what.clone(),
                hint: refusal.hint.clone(),
            },
            Event::RunEnded,
        ];
        let at = Timestamp::now();
        let entries = events.map(|event| JournalEntry {
            at,
            elapsed: 0.0,
            event,
        });
        let mut fold = Run::default();
        for entry in &entries {
            if let Err(illegal) = fold.apply(entry) {
                tracing::error!(run = new.id, %illegal, "the journal of a run that was not started is wrong");
            }
        }
        let verdict = verdict(&fold);
        self.store.append_all(&new.id, &entries)?;
        self.store.close_run(&new.id, &run_end(&verdict))?;
        self.closed(&new.id, &verdict);
        Ok(())
    }

    /// Executes a run to its end, on a thread of its own. Reasons to stop it arrive at the receiver.
    fn execute(
        self: Arc<Self>,
        run: &str,
        seed: u64,
        experiment: Experiment,
        spec: &RunSpec,
        approval: Option<(RunApproval, String)>,
        (note, stop): (Arc<ActiveRun>, mpsc::UnboundedReceiver<String>),
    ) {
        let radius = experiment.document.blast_radius.as_ref();
        let (approval, approver) = approval.unzip();
        let permit = self.permit(&experiment, spec, approver, seed, Some(run));
        let (service, id) = (Arc::clone(&self), run.to_owned());
        let reservation = Reservation::new(Arc::clone(&self.fleet), run)
            .owing_only(self.issued())
            .asked_by(&spec.who)
            .within(&spec.teams)
            .permitted_by(Box::new(move |agents, inventory| {
                permit(agents, inventory)?;
                // The teams of its agents see it before it touches them.
                service.own_by_agents(&id, agents.keys()).map_err(|error| {
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
            access: self.policy().host_access(),
            approval,
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
        // Its agents are free from now on.
        lock(&self.admitted).remove(run);
        let end = run_end(verdict);
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
        self.remember_unclean(run, verdict);
        lock(&self.runs).remove(run);
        self.closed(run, verdict);
    }

    /// A run is closed in the store.
    fn closed(self: &Arc<Self>, run: &str, verdict: &Verdict) {
        *lock(&self.outcomes)
            .entry(verdict.outcome.word())
            .or_default() += 1;
        self.schedules.send_modify(|count| *count += 1);
        self.game_days_changed();
        self.send_trace(run);
        self.notify_end(run, verdict);
    }

    /// Tells apart what an agent owes and what it invents.
    fn issued(self: &Arc<Self>) -> DebtFilter {
        let service = Arc::clone(self);
        Box::new(move |agent, owed| service.issued_to(agent, owed))
    }

    /// What the policy says when the run is about to reserve agents. If `run` is given, the run counts for the policy's
    /// ceilings from then on.
    fn permit(
        self: &Arc<Self>,
        experiment: &Experiment,
        spec: &RunSpec,
        approver: Option<String>,
        seed: u64,
        run: Option<&str>,
    ) -> AdmissionPolicy {
        let (service, experiment) = (Arc::clone(self), experiment.clone());
        let (run, spec) = (
            run.map(str::to_owned),
            RunSpec {
                document: RequestedDocument::Inline(String::new()),
                ..spec.clone()
            },
        );
        Box::new(move |agents, inventory| {
            // What would be selected now: the labels that agents find out by themselves count for that, too.
            let now = Reservation::new(Arc::clone(&service.fleet), "policy").within(&spec.teams);
            let now = now.inventory()?;
            let faults = runner::faults_by_agent(&experiment, &now, seed);
            let id = run.as_deref().unwrap_or_default();
            let load = RunLoad::of(id, &spec, &experiment, agents, &faults);
            let approver = approver.as_deref();
            let decided = service.judge(&experiment, load, approver, inventory, run.is_some());
            match decided {
                PolicyDecision::Allow => Ok(()),
                PolicyDecision::Refuse(refusal) => Err(refusal),
                PolicyDecision::RequireApproval(rule) => Err(approval_required(&rule)),
            }
        })
    }

    /// Asks the policy about a run, and counts it from then on if it may start and `counts` says so. One question is answered
    /// after the other, so that two runs that start at the same time cannot pass a ceiling together.
    fn judge(
        &self,
        experiment: &Experiment,
        load: RunLoad,
        approved_by: Option<&str>,
        inventory: &[(String, Labels)],
        counts: bool,
    ) -> PolicyDecision {
        let mut admitted = lock(&self.admitted);
        let others: Vec<&RunLoad> = (admitted.values())
            .filter(|other| other.run != load.run)
            .collect();
        let decision = self.policy().judge(&PolicyRequest {
            experiment,
            run: &load,
            approved_by,
            others: &others,
            inventory,
            at: Timestamp::now(),
        });
        if counts && decision == PolicyDecision::Allow {
            admitted.insert(load.run.clone(), load);
        }
        decision
    }

    /// Asks the policy before the run is opened. `approved_by` is the person who approved it.
    pub(super) fn decide(
        &self,
        spec: &RunSpec,
        approved_by: Option<&str>,
        experiment: &Experiment,
        seed: u64,
    ) -> Result<PolicyDecision, RunStartError> {
        if !runner::has_fault(experiment) {
            return Ok(PolicyDecision::Allow);
        }
        let reservation = Reservation::new(Arc::clone(&self.fleet), "policy").within(&spec.teams);
        let inventory = reservation.inventory()?;
        let Ok(names) = runner::select_agents(experiment, &inventory, seed) else {
            // The run records the reason in its journal.
            return Ok(PolicyDecision::Allow);
        };
        reservation.check_halts(&names)?;
        let agents = inventory.granted_of(&names);
        let faults = runner::faults_by_agent(experiment, &inventory, seed);
        let load = RunLoad::of("", spec, experiment, &agents, &faults);
        Ok(self.judge(experiment, load, approved_by, &inventory.granted, false))
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
            .permitted_by(self.permit(&experiment, &spec, None, seed, None));
        let preview = runner::preview(
            &experiment,
            seed,
            check::DEFAULT_SAMPLING_INTERVAL,
            &self.policy().host_access(),
            AgentPool::Fleet(reservation),
        )
        .await?;
        Ok((seed, preview))
    }

    /// Asks a run to end, with this reason; everything it injected is reverted. The wait of one that waits for approval ends.
    /// Whether there is such a run.
    ///
    /// # Errors
    /// The store failed.
    pub fn stop_or_withdraw(
        self: &Arc<Self>,
        run: &str,
        why: String,
    ) -> Result<bool, RunStartError> {
        if self.stop(run, why.clone()) {
            return Ok(true);
        }
        match self.end_wait(run, &Refusal::new("approval", why)) {
            Ok(()) => Ok(true),
            Err(RunStartError::Refusal(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks an active run to end, with this reason; everything it injected is reverted. Whether there is such a run.
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

/// The start of the run that is asked for, under a new id.
pub(super) fn new_run(spec: &RunSpec, title: String) -> NewRun {
    NewRun {
        id: runner::run_id(),
        experiment: spec.reference.clone(),
        title,
        seed: spec.seed.unwrap_or_else(runner::random),
        who: spec.who.clone(),
        because: spec.because,
        started: Timestamp::now(),
    }
}

/// The end of a run with this verdict, as of now.
fn run_end(verdict: &Verdict) -> RunEnd {
    RunEnd {
        ended: Timestamp::now(),
        outcome: verdict.outcome,
        verdict: serde_json::to_value(verdict).unwrap_or_default(),
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

pub(super) fn approval_required(rule: &str) -> Refusal {
    let what = format!("the run requires approval by the controller's rule `{rule}`");
    Refusal::new("approval", what)
        .hint("store the experiment first, with `backburn apply FILE`: a run of a stored experiment waits for `backburn approve`")
}

/// How long something took, in milliseconds with a fraction.
pub(super) fn millis(took: HumanDuration) -> f64 {
    took.0.as_secs_f64() * 1000.0
}
