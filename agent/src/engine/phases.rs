//! How an injection goes from phase to phase: planned by a child, applied by the executor, looked at by the observer, its
//! rounds repeated. What ends it is in the engine itself.

use super::active::{Active, Next};
use super::awaited::Expectation;
use super::executor::Job;
use super::threads::Done;
use super::{Engine, NotInjected, Purpose};
use crate::faults::Plan;
use crate::host::Interrupt;
use crate::ledger::LedgerEntry;
use crate::probes::Task;
use backburn_experiments::wire::{Cause, EndedInjection, InjectionId, InjectionRequest, Refusal, Report};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often an injection is planned anew where another one took what it had picked.
const MAX_PLANS: u32 = 5;
/// How much longer than what it waits for a child that awaits a supervisor may take.
const AWAIT_GRACE: Duration = Duration::from_secs(5);

/// An injection that is planned, acts, or is being put back.
#[derive(Debug)]
pub(super) struct Injection {
    /// The number of the command that asked for it.
    pub(super) number: u64,
    pub(super) request: InjectionRequest,
    pub(super) phase: Phase,
    /// How often it was planned.
    pub(super) plans: u32,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Phase {
    /// A child looks at the host. Nothing is owed.
    Planning,
    /// The executor has it.
    Applying {
        plan: Box<Plan>,
        interrupt: Arc<Interrupt>,
        /// Why it was called off.
        called_off: Option<Cause>,
    },
    /// It acts.
    Acting(Box<Active>),
    /// It acts, and the executor has its next round.
    Repeating {
        active: Box<Active>,
        plan: Option<Box<Plan>>,
        interrupt: Arc<Interrupt>,
        /// Why it was called off.
        called_off: Option<Cause>,
        /// Why nothing is done this time.
        skipped: Option<Refusal>,
    },
    /// It is being put back.
    Ending { active: Box<Active> },
}

impl Engine {
    /// Takes what a child has found, or why there is nothing.
    pub fn take_look(&mut self, purpose: Purpose, answer: Result<Vec<u8>, String>, now: Instant) {
        match purpose {
            Purpose::Plan { request } => {
                let report = match planned(answer) {
                    Ok(plan) => Report::Planned {
                        request,
                        plan: plan.view(),
                    },
                    Err(refusal) => Report::Refused { request, refusal },
                };
                self.reports.push(report);
            }
            Purpose::Inject { injection } => self.planned(injection, planned(answer)),
            Purpose::Round { injection } => self.planned_round(injection, planned(answer)),
            Purpose::Await { injection, round } => {
                let answer = answer.and_then(|said| {
                    serde_json::from_slice(&said).map_err(|error| error.to_string())
                });
                if let Some(Phase::Acting(active)) = self.phase(&injection) {
                    active.returned(round, answer, now);
                }
            }
        }
    }

    pub(super) fn phase(&mut self, injection: &str) -> Option<&mut Phase> {
        Some(&mut self.injections.get_mut(injection)?.phase)
    }

    /// An injection is planned, or is not to be.
    fn planned(&mut self, id: InjectionId, plan: Result<Plan, Refusal>) {
        let acting = self.count_acting();
        let Some(injection) = self.injections.get_mut(&id) else {
            return;
        };
        let number = injection.number;
        // Others may have begun to act since the child counted.
        let plan = plan.and_then(|plan| {
            let view = plan.view();
            self.policy.permits(&injection.request, &view, acting)?;
            let interrupt = Interrupt::new().map_err(|error| {
                Refusal::new("failed", format!("there is no descriptor left: {error}"))
            })?;
            Ok((plan, Arc::new(interrupt)))
        });
        let (plan, interrupt) = match plan {
            Ok(planned) => planned,
            Err(refusal) => {
                self.injections.remove(&id);
                return self.refuse(number, refusal);
            }
        };
        injection.phase = Phase::Applying {
            plan: Box::new(plan.clone()),
            interrupt: Arc::clone(&interrupt),
            called_off: None,
        };
        let request = injection.request.clone();
        self.apply(Job {
            request,
            plan: Some(plan),
            before: None,
            interrupt,
        });
    }

    fn apply(&mut self, job: Job) {
        if let Err(job) = self.executor.send(job) {
            // It has panicked: the kernel has ended its helpers, and nothing more can be applied.
            let refusal = Refusal::new("failed", "the executor has ended")
                .hint("start the agent again; what it owes is put back then");
            self.applied(&job.0.request.id, Err(refusal.into()));
        }
    }

    /// The next round of a repeated fault is planned, or is passed over.
    fn planned_round(&mut self, id: InjectionId, plan: Result<Plan, Refusal>) {
        let Some(injection) = self.injections.get_mut(&id) else {
            return;
        };
        let Phase::Repeating {
            active,
            plan: kept,
            interrupt,
            skipped,
            ..
        } = &mut injection.phase
        else {
            return;
        };
        let plan = match plan {
            Ok(plan) => Some(plan),
            Err(refusal) => {
                *skipped = Some(refusal);
                None
            }
        };
        *kept = plan.clone().map(Box::new);
        let job = Job {
            request: injection.request.clone(),
            plan,
            before: Some(active.entry.clone()),
            interrupt: Arc::clone(interrupt),
        };
        self.apply(job);
    }

    /// Takes what other threads have done.
    pub fn take_done(&mut self, now: Instant) {
        self.inbox.quiet();
        while let Some(done) = self.inbox.next() {
            match done {
                Done::Applied { injection, outcome } => self.applied(&injection, outcome),
                Done::Looked {
                    injection,
                    effect,
                    is_done,
                    is_owed,
                } => {
                    let Some(Phase::Acting(active)) = self.phase(&injection) else {
                        continue;
                    };
                    let (news, next) = active.looked(&effect, is_done, now);
                    let repeats = active.repeats(now);
                    if let Some(effect) = news {
                        self.reports.push(Report::Effect {
                            injection: injection.clone(),
                            effect,
                        });
                    }
                    match next {
                        _ if !is_owed => self.end(&injection, Cause::Manual),
                        Next::Done => self.end(&injection, Cause::Finished),
                        Next::Gone => self.end(&injection, Cause::Failed),
                        Next::GoOn if repeats => self.repeat(&injection, now),
                        Next::GoOn => {}
                    }
                }
                Done::Ended { ended, effect } => self.ended(ended, effect),
            }
        }
    }

    fn applied(&mut self, id: &str, outcome: Result<(LedgerEntry, Instant), NotInjected>) {
        let Some(mut injection) = self.injections.remove(id) else {
            return;
        };
        match (injection.phase, outcome) {
            (
                Phase::Applying {
                    plan, called_off, ..
                },
                Ok((entry, started)),
            ) => {
                self.reports.push(Report::Injected {
                    request: injection.number,
                    injection: id.to_owned(),
                    plan: plan.view(),
                });
                let expected = plan.expect.as_ref();
                let active = Active::new(&injection.request, entry, expected, started);
                self.acts(injection.number, injection.request, active, expected);
                // It was called off when there was nothing left to call off.
                if let Some(cause) = called_off {
                    self.end(id, cause);
                }
            }
            (
                Phase::Applying {
                    called_off: None, ..
                },
                Err(not),
            ) if not.is_raced && injection.plans < MAX_PLANS => {
                injection.plans += 1;
                injection.phase = Phase::Planning;
                let purpose = Purpose::Inject {
                    injection: id.to_owned(),
                };
                self.look_for_plan(injection.request.clone(), purpose);
                self.injections.insert(id.to_owned(), injection);
            }
            (Phase::Applying { called_off, .. }, Err(not)) => {
                if let Some(ended) = not.ended {
                    let cause = called_off.unwrap_or(ended.cause);
                    self.reports.push(Report::Ended(EndedInjection { cause, ..*ended }));
                }
                self.refuse(injection.number, not.refusal);
            }
            (
                Phase::Repeating {
                    mut active,
                    plan,
                    called_off,
                    skipped,
                    ..
                },
                Ok((entry, started)),
            ) => {
                let expected = plan.as_ref().and_then(|plan| plan.expect.as_ref());
                active.goes_on(entry, expected, started);
                if let Some(refusal) = skipped {
                    self.reports.push(Report::Effect {
                        injection: id.to_owned(),
                        effect: active.fails(&refusal),
                    });
                }
                self.acts(injection.number, injection.request, *active, expected);
                if let Some(cause) = called_off {
                    self.end(id, cause);
                }
            }
            (
                Phase::Repeating {
                    active, called_off, ..
                },
                Err(not),
            ) => match not.ended {
                Some(ended) => self.reports.push(Report::Ended(EndedInjection {
                    cause: called_off.unwrap_or(ended.cause),
                    effect: Some(active.fails(&not.refusal)),
                    ..*ended
                })),
                None => {
                    injection.phase = Phase::Acting(active);
                    self.injections.insert(id.to_owned(), injection);
                    self.end(id, called_off.unwrap_or(Cause::Failed));
                }
            },
            (phase, Ok(_) | Err(_)) => {
                injection.phase = phase;
                self.injections.insert(id.to_owned(), injection);
            }
        }
    }

    /// An injection acts from now on.
    fn acts(
        &mut self,
        number: u64,
        request: InjectionRequest,
        active: Active,
        expected: Option<&Expectation>,
    ) {
        if let Some(expected) = expected {
            let purpose = Purpose::Await {
                injection: request.id.clone(),
                round: active.round(),
            };
            self.looks.push((
                Task::AwaitReturn(Box::new(expected.clone())),
                expected.within.0.saturating_add(AWAIT_GRACE),
                purpose,
            ));
        }
        self.injections.insert(
            request.id.clone(),
            Injection {
                number,
                request,
                phase: Phase::Acting(Box::new(active)),
                plans: 0,
            },
        );
    }

    /// Begins the next round of a one-shot fault: the host is looked at afresh.
    pub(super) fn repeat(&mut self, id: &str, now: Instant) {
        let Ok(interrupt) = Interrupt::new() else {
            return self.end(id, Cause::Failed);
        };
        let Some(mut injection) = self.injections.remove(id) else {
            return;
        };
        injection.phase = match injection.phase {
            Phase::Acting(mut active) => {
                let purpose = Purpose::Round {
                    injection: id.to_owned(),
                };
                // Without this one, so that it is not counted as one more.
                self.look_for_plan(active.next_round(now), purpose);
                Phase::Repeating {
                    active,
                    plan: None,
                    interrupt: Arc::new(interrupt),
                    called_off: None,
                    skipped: None,
                }
            }
            phase => phase,
        };
        self.injections.insert(id.to_owned(), injection);
    }
}

/// The plan that a child has made.
///
/// # Errors
/// It can't or may not be done, or the host could not be looked at.
pub fn planned(answer: Result<Vec<u8>, String>) -> Result<Plan, Refusal> {
    let said = answer.map_err(not_looked_at)?;
    let plan: Result<Plan, Refusal> =
        serde_json::from_slice(&said).map_err(|error| not_looked_at(error.to_string()))?;
    plan
}

/// The refusal of what could not be looked at.
pub fn not_looked_at(why: String) -> Refusal {
    Refusal::new("failed", format!("the host could not be looked at: {why}"))
        .hint("a path that the arguments name may hang; look at it by hand, and name another")
}
