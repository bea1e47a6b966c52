//! The phases of an injection: planned by a child, applied by the executor, observed by the observer, and repeated. The engine itself
//! ends it.

use super::active_injection::{ActiveInjection, EffectProgress};
use super::completions::Completion;
use super::executor::ApplyJob;
use super::supervisor_return::Expectation;
use super::{Engine, EnginePurpose, EngineTask, InjectionFailure};
use crate::changes::ReversibleChange as _;
use crate::faults::Plan;
use crate::helpers::WHOLE_HOST;
use crate::host::Interrupt;
use crate::ledger::LedgerEntry;
use backburn_experiments::wire::{
    Cause, EndedInjection, InjectionId, InjectionRequest, Refusal, Report,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most plans that are made for an injection while other injections keep taking what it had picked.
const MAX_PLANS: u32 = 5;
/// How much longer than the wait itself a child that waits for a supervisor may take.
const RETURN_GRACE: Duration = Duration::from_secs(5);

/// An injection that is being planned, is active, or is being reverted.
#[derive(Debug)]
pub(super) struct TrackedInjection {
    /// The number of the controller's command.
    pub(super) number: u64,
    pub(super) request: InjectionRequest,
    pub(super) phase: InjectionPhase,
    /// How many times it was planned.
    pub(super) plans: u32,
}

/// How far an injection has come.
#[derive(Debug)]
pub(super) enum InjectionPhase {
    /// A child is planning. Nothing is owed.
    Planning,
    /// The executor is applying the plan.
    Applying {
        plan: Box<Plan>,
        interrupt: Arc<Interrupt>,
        /// Why it was cancelled, if it was.
        cancelled_by: Option<Cause>,
    },
    /// The injection is active.
    Acting(Box<ActiveInjection>),
    /// The injection is active, and its next round is being planned or applied.
    Repeating {
        active: Box<ActiveInjection>,
        plan: Option<Box<Plan>>,
        interrupt: Arc<Interrupt>,
        /// Why it was cancelled, if it was.
        cancelled_by: Option<Cause>,
        /// Why this round is skipped, if it is.
        skipped: Option<Refusal>,
    },
    /// The injection is being reverted.
    Ending { active: Box<ActiveInjection> },
}

impl Engine {
    /// Takes a child's answer, or the reason why there is none.
    pub fn handle_child_answer(
        &mut self,
        purpose: EnginePurpose,
        answer: Result<Vec<u8>, String>,
        now: Instant,
    ) {
        match purpose {
            EnginePurpose::Plan { request } => {
                let report = match read_plan_answer(answer) {
                    Ok(plan) => Report::Planned {
                        request,
                        plan: plan.view(),
                    },
                    Err(refusal) => Report::Refused { request, refusal },
                };
                self.reports.push(report);
            }
            EnginePurpose::Inject { injection } => {
                self.on_planned(injection, read_plan_answer(answer))
            }
            EnginePurpose::Round { injection } => {
                self.on_round_planned(injection, read_plan_answer(answer))
            }
            EnginePurpose::Await { injection, round } => {
                let answer = answer.and_then(|said| {
                    serde_json::from_slice(&said).map_err(|error| error.to_string())
                });
                if let Some(InjectionPhase::Acting(active)) = self.phase(&injection) {
                    active.record_supervisor_return(round, answer, now);
                }
            }
        }
    }

    pub(super) fn phase(&mut self, injection: &str) -> Option<&mut InjectionPhase> {
        Some(&mut self.injections.get_mut(injection)?.phase)
    }

    /// Hands an injection that was planned to the executor, or refuses it.
    fn on_planned(&mut self, id: InjectionId, plan: Result<Plan, Refusal>) {
        let acting = self.count_acting();
        let Some(injection) = self.injections.get_mut(&id) else {
            return;
        };
        let number = injection.number;
        // Other injections may have become active since the child counted.
        let plan = plan.and_then(|plan| {
            let view = plan.view();
            self.policy.permits(&injection.request, &view, acting)?;
            let interrupt = Interrupt::new().map_err(|error| {
                Refusal::new("failed", format!("no file descriptor is left: {error}"))
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
        injection.phase = InjectionPhase::Applying {
            plan: Box::new(plan.clone()),
            interrupt: Arc::clone(&interrupt),
            cancelled_by: None,
        };
        let request = injection.request.clone();
        self.apply(ApplyJob {
            request,
            plan: Some(plan),
            before: None,
            interrupt,
        });
    }

    fn apply(&mut self, job: ApplyJob) {
        if let Err(job) = self.executor.send(job) {
            // The executor has panicked: the kernel has killed its helpers, and nothing more can be applied.
            let refusal = Refusal::new("failed", "the executor has ended")
                .hint("start the agent again; it then reverts what it owes");
            self.on_applied(&job.0.request.id, Err(refusal.into()));
        }
    }

    /// Hands the next round of a repeated fault to the executor, with a plan or with the reason why it is skipped.
    fn on_round_planned(&mut self, id: InjectionId, plan: Result<Plan, Refusal>) {
        let Some(injection) = self.injections.get_mut(&id) else {
            return;
        };
        let InjectionPhase::Repeating {
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
        let job = ApplyJob {
            request: injection.request.clone(),
            plan,
            before: Some(active.entry.clone()),
            interrupt: Arc::clone(interrupt),
        };
        self.apply(job);
    }

    /// Takes what other threads have completed.
    pub fn handle_completions(&mut self, now: Instant) {
        self.completions.clear_wakeup();
        while let Some(done) = self.completions.next() {
            match done {
                Completion::Applied { injection, outcome } => self.on_applied(&injection, outcome),
                Completion::Looked {
                    injection,
                    effect,
                    is_done,
                    is_owed,
                } => {
                    let Some(InjectionPhase::Acting(active)) = self.phase(&injection) else {
                        continue;
                    };
                    let (news, next) = active.record_observation(&effect, is_done, now);
                    let repeats = active.repeats(now);
                    if let Some(effect) = news {
                        self.reports.push(Report::Effect {
                            injection: injection.clone(),
                            effect,
                        });
                    }
                    match next {
                        _ if !is_owed => self.end(&injection, Cause::Manual),
                        EffectProgress::Finished => self.end(&injection, Cause::Finished),
                        EffectProgress::Vanished => self.end(&injection, Cause::Failed),
                        EffectProgress::Continue if repeats => self.repeat(&injection, now),
                        EffectProgress::Continue => {}
                    }
                }
                Completion::Ended { ended, effect } => self.ended(ended, effect),
            }
        }
    }

    fn on_applied(&mut self, id: &str, outcome: Result<(LedgerEntry, Instant), InjectionFailure>) {
        let Some(mut injection) = self.injections.remove(id) else {
            return;
        };
        match (injection.phase, outcome) {
            (
                InjectionPhase::Applying {
                    plan, cancelled_by, ..
                },
                Ok((entry, started)),
            ) => {
                self.reports.push(Report::Injected {
                    request: injection.number,
                    injection: id.to_owned(),
                    plan: plan.view(),
                });
                let takes_host_down = (plan.changes.iter())
                    .flat_map(|change| change.holds())
                    .any(|thing| thing == WHOLE_HOST);
                if takes_host_down {
                    // It waits until the ledger owes nothing else.
                    self.end_all_but(id);
                }
                let expected = plan.expect.as_ref();
                let active = ActiveInjection::new(&injection.request, entry, expected, started);
                self.start_acting(injection.number, injection.request, active, expected);
                // It was cancelled when it was too late to interrupt it.
                if let Some(cause) = cancelled_by {
                    self.end(id, cause);
                }
            }
            (
                InjectionPhase::Applying {
                    cancelled_by: None, ..
                },
                Err(not),
            ) if not.lost_race && injection.plans < MAX_PLANS => {
                injection.plans += 1;
                injection.phase = InjectionPhase::Planning;
                let purpose = EnginePurpose::Inject {
                    injection: id.to_owned(),
                };
                self.request_plan(injection.request.clone(), purpose);
                self.injections.insert(id.to_owned(), injection);
            }
            (InjectionPhase::Applying { cancelled_by, .. }, Err(not)) => {
                if let Some(ended) = not.ended {
                    let cause = cancelled_by.unwrap_or(ended.cause);
                    self.reports
                        .push(Report::Ended(EndedInjection { cause, ..*ended }));
                }
                self.refuse(injection.number, not.refusal);
            }
            (
                InjectionPhase::Repeating {
                    mut active,
                    plan,
                    cancelled_by,
                    skipped,
                    ..
                },
                Ok((entry, started)),
            ) => {
                let expected = plan.as_ref().and_then(|plan| plan.expect.as_ref());
                active.begin_round(entry, expected, started);
                if let Some(refusal) = skipped {
                    self.reports.push(Report::Effect {
                        injection: id.to_owned(),
                        effect: active.failed_round(&refusal),
                    });
                }
                self.start_acting(injection.number, injection.request, *active, expected);
                if let Some(cause) = cancelled_by {
                    self.end(id, cause);
                }
            }
            (
                InjectionPhase::Repeating {
                    active,
                    cancelled_by,
                    ..
                },
                Err(not),
            ) => match not.ended {
                Some(ended) => self.reports.push(Report::Ended(EndedInjection {
                    cause: cancelled_by.unwrap_or(ended.cause),
                    effect: Some(active.failed_round(&not.refusal)),
                    ..*ended
                })),
                None => {
                    injection.phase = InjectionPhase::Acting(active);
                    self.injections.insert(id.to_owned(), injection);
                    self.end(id, cancelled_by.unwrap_or(Cause::Failed));
                }
            },
            (phase, Ok(_) | Err(_)) => {
                injection.phase = phase;
                self.injections.insert(id.to_owned(), injection);
            }
        }
    }

    /// Makes an injection active.
    fn start_acting(
        &mut self,
        number: u64,
        request: InjectionRequest,
        active: ActiveInjection,
        expected: Option<&Expectation>,
    ) {
        if let Some(expected) = expected {
            let purpose = EnginePurpose::Await {
                injection: request.id.clone(),
                round: active.round(),
            };
            self.tasks.push((
                EngineTask::AwaitReturn(Box::new(expected.clone())),
                expected.within.0.saturating_add(RETURN_GRACE),
                purpose,
            ));
        }
        self.injections.insert(
            request.id.clone(),
            TrackedInjection {
                number,
                request,
                phase: InjectionPhase::Acting(Box::new(active)),
                plans: 0,
            },
        );
    }

    /// Begins the next round of a one-shot fault with a new plan.
    pub(super) fn repeat(&mut self, id: &str, now: Instant) {
        let Ok(interrupt) = Interrupt::new() else {
            return self.end(id, Cause::Failed);
        };
        let Some(mut injection) = self.injections.remove(id) else {
            return;
        };
        injection.phase = match injection.phase {
            InjectionPhase::Acting(mut active) => {
                let purpose = EnginePurpose::Round {
                    injection: id.to_owned(),
                };
                // The injection is removed meanwhile, so that it does not count towards the policy's limit itself.
                self.request_plan(active.next_round(now), purpose);
                InjectionPhase::Repeating {
                    active,
                    plan: None,
                    interrupt: Arc::new(interrupt),
                    cancelled_by: None,
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
/// The plan is impossible or not allowed, or the child could not check the host.
pub fn read_plan_answer(answer: Result<Vec<u8>, String>) -> Result<Plan, Refusal> {
    let said = answer.map_err(inspection_failed)?;
    let plan: Result<Plan, Refusal> =
        serde_json::from_slice(&said).map_err(|error| inspection_failed(error.to_string()))?;
    plan
}

/// The refusal of an injection for which the host could not be checked.
pub fn inspection_failed(why: String) -> Refusal {
    Refusal::new("failed", format!("the host could not be checked: {why}"))
        .hint("a path in the arguments may hang; check it by hand, or name another")
}
