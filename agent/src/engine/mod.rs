//! The only caller of `apply` and `undo`. To inject, the engine checks the host, plans, checks the policy, refuses overlap with what is
//! owed, writes the ledger, applies and observes. To revert, it undoes, observes, and removes the ledger entry only when nothing is left.
//! What is planned is owed, what is owed is reverted, and nothing is ever injected a second time.
//!
//! This module runs on the worker's own thread, which owns every deadline and never waits: disposable children make plans, and other
//! threads apply, observe and undo (see `completions`). The worker collects reports by [`Engine::take_reports`] and tasks for children by
//! [`Engine::take_tasks`].

mod active_injection;
mod completions;
mod dead_worker;
mod effect_sum;
mod executor;
mod late_reverts;
mod lifecycle;
mod observer;
mod owed;
mod planner;
mod revert;
mod supervisor_return;

pub use dead_worker::revert_dead_worker;
pub use lifecycle::{inspection_failed, read_plan_answer};
pub use planner::PlanTask;
pub use revert::{residue_of, revert_entry, revert_matching};
pub use supervisor_return::{Expectation, SupervisorReturn, await_return};

use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, Owner};
use crate::packet_filter::ControlConnection;
use crate::plugins::PluginRegistry;
use crate::policy::HostPolicy;
use active_injection::ActiveInjection;
use backburn_experiments::wire::{
    Cause, EndedInjection, InjectionId, InjectionRequest, Refusal, Report, UnrevertedInjection,
};
use completions::{Completion, CompletionReceiver, CompletionSender};
use executor::{ApplyJob, Executor};
use lifecycle::{InjectionPhase, TrackedInjection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// The run that is written for an injection which somebody asks for by hand, without a run.
pub const BY_HAND: &str = "by-hand";

/// How long a child may take to check the host and plan.
pub const PLAN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the answer to "revert all" waits for injections that are still being reverted.
const REVERT_TIMEOUT: Duration = Duration::from_secs(10);

/// The injections of one agent on this host.
#[derive(Debug)]
pub struct Engine {
    /// The only way to change the machine.
    host: Host,
    /// The injections that this host's agents owe.
    ledger: Ledger,
    state: PathBuf,
    policy: HostPolicy,
    plugins: PluginRegistry,
    owner: Owner,
    /// The connection to the controller, which no fault may cut.
    link: Option<ControlConnection>,
    injections: BTreeMap<InjectionId, TrackedInjection>,
    executor: Sender<ApplyJob>,
    observer: Sender<LedgerEntry>,
    completion_sender: CompletionSender,
    completions: CompletionReceiver,
    /// "Revert all" commands that are answered once everything they name is reverted.
    pending_revert_alls: Vec<PendingRevertAll>,
    reports: Vec<Report>,
    tasks: Vec<(EngineTask, Duration, EnginePurpose)>,
}

/// A question that the engine has a disposable child answer, since what a document names may hang.
#[derive(Debug, Serialize, Deserialize)]
pub enum EngineTask {
    /// Plan an injection. The answer is a `Result<Plan, Refusal>`.
    Plan(Box<PlanTask>),
    /// Wait until a supervisor has restarted what was killed. The answer is a [`SupervisorReturn`].
    AwaitReturn(Box<Expectation>),
}

impl EngineTask {
    /// Runs the task, in the child. Returns the answer as JSON.
    pub fn run(self) -> Vec<u8> {
        match self {
            EngineTask::Plan(task) => serde_json::to_vec(&task.plan()).unwrap_or_default(),
            EngineTask::AwaitReturn(expected) => {
                serde_json::to_vec(&await_return(&expected)).unwrap_or_default()
            }
        }
    }
}

/// What the answer of a disposable child is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnginePurpose {
    /// The plan that a controller requested; nothing is injected.
    Plan {
        /// The number of the controller's command.
        request: u64,
    },
    /// The plan of an injection that is to be applied.
    Inject {
        /// The id of the injection.
        injection: InjectionId,
    },
    /// The plan for the next round of a repeated injection.
    Round {
        /// The id of the injection.
        injection: InjectionId,
    },
    /// Whether a supervisor restarts what was killed.
    Await {
        /// The id of the injection.
        injection: InjectionId,
        /// The number of the round whose victims are awaited.
        round: u64,
    },
}

impl EnginePurpose {
    /// Whether the injection that the answer was for, or that round of it, has ended.
    fn is_stale(&self, engine: &Engine) -> bool {
        match self {
            EnginePurpose::Plan { .. } => false,
            EnginePurpose::Inject { injection } | EnginePurpose::Round { injection } => {
                !engine.injections.contains_key(injection)
            }
            // Of a repeated fault, only the victims of the last round are awaited.
            EnginePurpose::Await { injection, round } => {
                let injection = engine.injections.get(injection);
                !matches!(injection.map(|injection| &injection.phase),
                    Some(InjectionPhase::Acting(active)) if active.round() == *round)
            }
        }
    }
}

#[derive(Debug)]
struct PendingRevertAll {
    request: u64,
    run: Option<String>,
    until: Instant,
}

/// An injection that failed. What it had already done is reverted or owed.
#[derive(Debug)]
pub struct InjectionFailure {
    /// The reason, as it is reported to the controller.
    pub refusal: Refusal,
    /// How reverting ended, if anything had been applied.
    pub ended: Option<Box<EndedInjection>>,
    /// Whether another injection took what this one had picked in the meantime, so that a new plan may succeed.
    pub lost_race: bool,
}

impl From<Refusal> for InjectionFailure {
    fn from(refusal: Refusal) -> Self {
        InjectionFailure {
            refusal,
            ended: None,
            lost_race: false,
        }
    }
}

impl Engine {
    /// Starts an engine that owns its ledger entries as `owner`. `state` is the agent's state folder, the policy comes with its plug-ins, and `link` the connection that no fault
    /// may cut.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(
        host: Host,
        ledger: Ledger,
        state: PathBuf,
        (policy, plugins): (HostPolicy, PluginRegistry),
        owner: Owner,
        link: Option<ControlConnection>,
    ) -> io::Result<Self> {
        let (completion_sender, completions) = completions::completion_channel()?;
        let executor = Executor {
            host: host.for_thread(),
            ledger: ledger.clone(),
            owner: owner.clone(),
        };
        Ok(Engine {
            executor: executor.start(completion_sender.clone())?,
            observer: observer::start(
                host.for_thread(),
                ledger.clone(),
                completion_sender.clone(),
            )?,
            host,
            ledger,
            state,
            policy,
            plugins,
            owner,
            link,
            injections: BTreeMap::new(),
            completion_sender,
            completions,
            pending_revert_alls: Vec::new(),
            reports: Vec::new(),
            tasks: Vec::new(),
        })
    }

    /// A descriptor that is readable when another thread has completed something; then call [`Engine::handle_completions`].
    pub fn completions(&self) -> BorrowedFd<'_> {
        self.completions.as_fd()
    }

    /// Takes the reports for the controller, oldest first.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Takes the tasks that children are to do, each with its time limit and the purpose of its answer.
    pub fn take_tasks(&mut self) -> Vec<(EngineTask, Duration, EnginePurpose)> {
        std::mem::take(&mut self.tasks)
    }

    /// Whether the answer for this purpose is no longer needed.
    pub fn is_stale(&self, purpose: &EnginePurpose) -> bool {
        purpose.is_stale(self)
    }

    /// Plans an injection without applying it. The plan or the refusal is reported.
    pub fn plan(&mut self, request: u64, injection: InjectionRequest) {
        self.request_plan(injection, EnginePurpose::Plan { request });
    }

    /// Plans and applies an injection. The outcome is reported.
    pub fn inject(&mut self, number: u64, request: InjectionRequest) {
        let id = request.id.clone();
        if self.injections.contains_key(&id) {
            let refusal = Refusal::new("overlap", format!("injection `{id}` exists already"))
                .hint("give every injection an id of its own");
            return self.refuse(number, refusal);
        }
        self.request_plan(
            request.clone(),
            EnginePurpose::Inject {
                injection: id.clone(),
            },
        );
        self.injections.insert(
            id,
            TrackedInjection {
                number,
                request,
                phase: InjectionPhase::Planning,
                plans: 1,
            },
        );
    }

    fn request_plan(&mut self, request: InjectionRequest, purpose: EnginePurpose) {
        let is_local_run = self.link.is_none() && !request.run.is_empty() && request.run != BY_HAND;
        let task = PlanTask {
            host_rules: self.policy.host_fault_rules(&self.state, is_local_run),
            request,
            policy: self.policy.clone(),
            protected_paths: self.policy.protected_paths(&self.state),
            plugins: self.plugins.usable().cloned().collect(),
            state: self.state.clone(),
            link: self.link,
            acting: self.count_acting(),
        };
        self.tasks
            .push((EngineTask::Plan(Box::new(task)), PLAN_TIMEOUT, purpose));
    }

    fn refuse(&mut self, request: u64, refusal: Refusal) {
        self.reports.push(Report::Refused { request, refusal });
    }

    /// Starts reverting one injection; how it ended is reported. Does nothing if this engine has no such injection.
    pub fn end(&mut self, id: &str, cause: Cause) {
        let Some(mut injection) = self.injections.remove(id) else {
            return;
        };
        injection.phase = match injection.phase {
            InjectionPhase::Planning => {
                let refusal = Refusal::new("failed", "cancelled before it was planned");
                return self.refuse(injection.number, refusal);
            }
            InjectionPhase::Applying {
                plan,
                interrupt,
                cancelled_by,
            } => {
                interrupt.raise();
                InjectionPhase::Applying {
                    plan,
                    interrupt,
                    cancelled_by: cancelled_by.or(Some(cause)),
                }
            }
            InjectionPhase::Repeating {
                active,
                plan: None,
                skipped: None,
                ..
            } => {
                // The executor has not received this round yet.
                self.start_revert(&active, cause);
                InjectionPhase::Ending { active }
            }
            InjectionPhase::Repeating {
                active,
                plan,
                interrupt,
                cancelled_by,
                skipped,
            } => {
                interrupt.raise();
                InjectionPhase::Repeating {
                    active,
                    plan,
                    interrupt,
                    cancelled_by: cancelled_by.or(Some(cause)),
                    skipped,
                }
            }
            InjectionPhase::Acting(active) => {
                self.start_revert(&active, cause);
                InjectionPhase::Ending { active }
            }
            ending @ InjectionPhase::Ending { .. } => ending,
        };
        self.injections.insert(id.to_owned(), injection);
    }

    fn start_revert(&self, active: &ActiveInjection, cause: Cause) {
        let completion_sender = self.completion_sender.clone();
        revert::revert_on_thread(
            self.host.for_thread(),
            self.ledger.clone(),
            active.entry.clone(),
            cause,
            move |ended, effect| completion_sender.send(Completion::Ended { ended, effect }),
        );
    }

    fn ended(
        &mut self,
        mut ended: EndedInjection,
        effect: Option<backburn_experiments::wire::Effect>,
    ) {
        if let Some(TrackedInjection {
            phase: InjectionPhase::Ending { active },
            ..
        }) = self.injections.remove(&ended.injection)
        {
            let mut sum = match effect {
                Some(seen) => active.total_effect(&seen),
                None => active.last().clone(),
            };
            if let Some(end) = ended.effect.take() {
                effect_sum::add(&mut sum, end);
            }
            ended.effect = Some(sum);
        }
        self.reports.push(Report::Ended(ended));
    }

    /// Starts reverting all of this engine's injections, or those of one run.
    pub fn end_all(&mut self, run: Option<&str>, cause: Cause) {
        for id in self.injections_of(run) {
            self.end(&id, cause);
        }
    }

    /// Starts reverting all of this engine's injections but one, which is about to take the host down.
    fn end_all_but(&mut self, spared: &str) {
        for id in self.injections_of(None) {
            if id != spared {
                self.end(&id, Cause::ControllerRequest);
            }
        }
    }

    /// Like [`Engine::end_all`], and reports when everything is reverted, or after [`REVERT_TIMEOUT`].
    pub fn revert_all(&mut self, request: u64, run: Option<String>) {
        self.end_all(run.as_deref(), Cause::ControllerRequest);
        self.pending_revert_alls.push(PendingRevertAll {
            request,
            run,
            until: Instant::now() + REVERT_TIMEOUT,
        });
    }

    fn injections_of(&self, run: Option<&str>) -> Vec<InjectionId> {
        self.injections
            .values()
            .map(|injection| &injection.request)
            .filter(|request| run.is_none_or(|run| request.run == run))
            .map(|request| request.id.clone())
            .collect()
    }

    /// Answers the "revert all" commands whose injections are all reverted or whose time is over.
    fn answer_revert_all(&mut self, now: Instant) {
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_revert_alls)
            .into_iter()
            .partition(|asked| {
                asked.until <= now || self.injections_of(asked.run.as_deref()).is_empty()
            });
        self.pending_revert_alls = waiting;
        for PendingRevertAll { request, run, .. } in due {
            let left = self.injections_of(run.as_deref());
            let left = left.into_iter().map(|injection| UnrevertedInjection {
                fault: self.injections[&injection].request.fault.clone(),
                injection,
                residue: vec![format!(
                    "still being reverted after {} s",
                    REVERT_TIMEOUT.as_secs()
                )],
            });
            let owed = left.chain(self.owed()).collect();
            let held = self.held_by_others();
            self.reports.push(Report::AllReverted {
                request,
                owed,
                held,
            });
        }
    }

    /// Whether any injection of this run is active.
    pub fn acts_for(&self, run: &str) -> bool {
        self.injections.values().any(|injection| {
            let acts = matches!(
                injection.phase,
                InjectionPhase::Acting(_) | InjectionPhase::Repeating { .. }
            );
            acts && injection.request.run == run
        })
    }

    /// The host that this engine acts on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What the host's owner allows.
    pub fn policy(&self) -> &HostPolicy {
        &self.policy
    }

    /// The plug-ins of this host.
    pub fn plugins(&self) -> &PluginRegistry {
        &self.plugins
    }

    /// Whether nothing is being planned, active or being reverted.
    pub fn is_idle(&self) -> bool {
        self.injections.is_empty()
    }

    fn count_acting(&self) -> usize {
        let injections = self.injections.values();
        injections
            .filter(|injection| !matches!(injection.phase, InjectionPhase::Planning))
            .count()
    }

    /// When [`Engine::tick`] is due next.
    pub fn next_due(&self) -> Option<Instant> {
        let phases = self.injections.values().map(|injection| &injection.phase);
        let due = phases.filter_map(|phase| match phase {
            InjectionPhase::Acting(active) => active.next_due(),
            _ => None,
        });
        let answers = self.pending_revert_alls.iter().map(|asked| asked.until);
        due.chain(answers).min()
    }

    /// Does everything that is due: ends injections, starts rounds, observes effects, and answers.
    pub fn tick(&mut self, now: Instant) {
        let ids: Vec<InjectionId> = self.injections.keys().cloned().collect();
        for id in ids {
            self.tick_one(&id, now);
        }
        self.answer_revert_all(now);
    }

    /// Observes every active injection at once, because a helper may have died.
    pub fn observe_all(&mut self, now: Instant) {
        self.host.reap();
        for injection in self.injections.values_mut() {
            if let InjectionPhase::Acting(active) = &mut injection.phase {
                active.observe_at(now);
            }
        }
    }

    fn tick_one(&mut self, id: &str, now: Instant) {
        let Some(InjectionPhase::Acting(active)) = self.phase(id) else {
            return;
        };
        if active.is_over(now) {
            return self.end(id, Cause::Finished);
        }
        if active.repeats(now) {
            active.observe_at(now);
        }
        if active.take_due_observation(now) {
            let entry = active.entry.clone();
            if self.observer.send(entry).is_err() {
                // The observer has panicked; a fault that cannot be observed must end.
                self.end(id, Cause::Failed);
            }
        } else if let Some(effect) = active.observation_overdue(now) {
            self.reports.push(Report::Effect {
                injection: id.to_owned(),
                effect,
            });
        }
    }
}
