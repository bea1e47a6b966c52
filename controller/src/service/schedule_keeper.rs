//! Scheduled runs. What is due follows from the experiments' own schedules. Each due time is recorded in the store before it is
//! acted on, so that nothing starts twice, whatever dies in between.

use super::runs::new_run;
use super::schedules::{PAGE_SIZE, progress_setting, timetable};
use super::{RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::providers::{ProbeContext, measure};
use crate::store::{AuditRecord, ExperimentRecord, ExperimentRef, OwnedKind, StoreError, Trigger};
use backburn_experiments::redact::Redactor;
use backburn_experiments::timetable::{Progress, ScheduleDecision};
use backburn_experiments::tolerance::CompiledTolerance;
use backburn_experiments::wire::{ProbeOutcome, Refusal};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A time that is overdue by more than this was missed.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often the clock is checked, at least: it may be set, and hosts may sleep.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after the store failed.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long agents may take to reconnect after a restart: they wait half a minute at most between attempts.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(50);
/// The name that the audit log has for what schedules do.
const SCHEDULE_NAME: &str = "schedule";

/// What is due, and when the next time is due.
type DueWork = (Vec<(ExperimentRecord, DueAction)>, Option<Timestamp>);

/// What to do about a due time, or about several in a row that were missed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct DueAction {
    call: ScheduleDecision,
    times: usize,
}

impl Service {
    /// Starts due runs, for as long as the controller runs.
    pub async fn keep_schedules(self: Arc<Self>) {
        let mut changed = self.schedules.subscribe();
        // The last run of each schedule. Some that a crash interrupted are still being closed.
        let mut last = self.open_scheduled_runs();
        self.until_reconnected().await;
        loop {
            changed.borrow_and_update();
            let service = Arc::clone(&self);
            let known = last.clone();
            let turned = tokio::task::spawn_blocking(move || service.take_due(&known)).await;
            let wait = match turned {
                Ok(Ok((due, next_wake))) => {
                    for (experiment, action) in due {
                        if let Some(run) = self.act(&experiment, action).await {
                            last.insert(experiment.name, run);
                        }
                    }
                    let left = next_wake.map(|at| Timestamp::now().duration_until(at));
                    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
                    left.unwrap_or(CLOCK_CHECK_INTERVAL)
                        .min(CLOCK_CHECK_INTERVAL)
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "the schedules could not be read");
                    STORE_RETRY_DELAY
                }
                Err(_) => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The scheduled runs that are not closed yet, by their experiments.
    fn open_scheduled_runs(&self) -> BTreeMap<String, String> {
        let open = self.store.open_runs().unwrap_or_else(|error| {
            tracing::error!(%error, "the open runs could not be read");
            Vec::new()
        });
        let scheduled = open
            .into_iter()
            .filter(|run| run.new.because == Trigger::Schedule);
        scheduled
            .filter_map(|run| Some((run.new.experiment?.name, run.new.id)))
            .collect()
    }

    /// Waits until every agent has reconnected, but not for long. A run that is due at a restart would find no agents, and a
    /// missed time is made up for only once.
    async fn until_reconnected(self: &Arc<Self>) {
        let service = Arc::clone(self);
        let expected = tokio::task::spawn_blocking(move || service.expected()).await;
        let expected = match expected {
            Ok(Ok(expected)) => expected,
            Ok(Err(error)) => return tracing::error!(%error, "the agents could not be read"),
            Err(_) => return,
        };
        let mut changes = self.fleet.changes();
        let come = changes.wait_for(|_| self.fleet.count() >= expected);
        // An agent that has not reconnected by then may never do so.
        tokio::time::timeout(RECONNECT_TIMEOUT, come).await.ok();
    }

    /// The number of agents that may connect.
    fn expected(&self) -> Result<usize, StoreError> {
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let page = self.store.agents(after.as_deref(), PAGE_SIZE)?;
            let Some(end) = page.last() else {
                return Ok(count);
            };
            after = Some(end.name.clone());
            count += page.iter().filter(|agent| agent.revoked.is_none()).count();
        }
    }

    /// How far an experiment's schedule was acted on. A schedule that is new, was changed, or was removed and stored again is
    /// in force from then on.
    fn progress(
        &self,
        experiment: &ExperimentRecord,
        kept: &Value,
    ) -> Result<Progress, StoreError> {
        let anew = Progress {
            last: experiment.at,
            waiting: None,
        };
        let before = (kept.get("progress"))
            .and_then(|progress| serde_json::from_value::<Progress>(progress.clone()).ok());
        let Some(before) =
            before.filter(|_| kept.get("schedule") == experiment.document.get("schedule"))
        else {
            return Ok(anew);
        };
        let version = kept.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version == experiment.version {
            return Ok(before);
        }
        let between = self.store.experiment_versions(&experiment.name)?;
        let mut between = between.iter().filter(|step| step.version > version);
        Ok(match between.any(|step| step.removed) {
            true => anew,
            false => before,
        })
    }

    /// What is due now, recorded as acted on, and when the next time is due.
    fn take_due(&self, last: &BTreeMap<String, String>) -> Result<DueWork, StoreError> {
        let now = Timestamp::now();
        let (mut calls, mut next_wake) = (Vec::new(), None::<Timestamp>);
        for experiment in self.experiments()? {
            let Some((_, table)) = timetable(&experiment) else {
                continue;
            };
            if self.schedule_state(&experiment.name)?.paused.is_some() {
                continue;
            }
            let name = progress_setting(&experiment.name);
            let kept = self.store.setting(&name)?.unwrap_or_default();
            let before = self.progress(&experiment, &kept)?;
            let running =
                (last.get(&experiment.name)).is_some_and(|run| lock(&self.runs).contains_key(run));
            let (progress, due) = table.decide(before, now, running, GRACE);
            let now_kept = json!({
                "schedule": experiment.document.get("schedule"),
                "version": experiment.version,
                "progress": progress,
            });
            if now_kept != kept {
                self.store.set(&name, &now_kept)?;
            }
            next_wake = next_wake.into_iter().chain(table.next_wake(progress)).min();
            calls.extend(due_actions(due).map(|action| (experiment.clone(), action)));
        }
        Ok((calls, next_wake))
    }

    /// Acts on a due time. Returns the id of the run that started, if one did.
    async fn act(
        self: &Arc<Self>,
        experiment: &ExperimentRecord,
        action: DueAction,
    ) -> Option<String> {
        let (due, outcome, detail) = match action.call {
            ScheduleDecision::Run(due) => match self.begin(experiment).await {
                Ok(run) => (due, "started", json!({"run": run})),
                // Nothing changes until it is applied again, so only the first time is recorded.
                Err(None) => return None,
                Err(Some((None, why))) => (due, "refused", json!({"why": why})),
                Err(Some((Some(run), why))) => (due, "refused", json!({"why": why, "run": run})),
            },
            ScheduleDecision::Overlapped(due) => {
                let why = "the last run is still active";
                let refusal =
                    Refusal::new("overlap", "the last run of this schedule is still active").hint(
                        "`\"overlap\": \"queue\"` in the schedule lets a due time wait for it",
                    );
                let run = self.record_skipped(experiment, refusal).await;
                (due, "skipped", json!({"why": why, "run": run}))
            }
            ScheduleDecision::Missed(due) => {
                let why = "the controller was not running at that time";
                let run = self
                    .record_skipped(experiment, missed(due.nominal, action.times))
                    .await;
                (due, "skipped", json!({"why": why, "run": run}))
            }
            ScheduleDecision::Waits(due) => {
                (due, "waits", json!({"why": "the last run is still active"}))
            }
        };
        if matches!(action.call, ScheduleDecision::Missed(_)) {
            self.missed_times
                .fetch_add(action.times as u64, Ordering::Relaxed);
            self.notify_missed(&experiment.name, due.nominal);
        }
        let run = detail.get("run").and_then(Value::as_str).map(str::to_owned);
        let run = run.filter(|_| outcome == "started");
        let mut detail = detail;
        detail["due"] = json!(due.nominal);
        if action.times > 1 {
            detail["times"] = json!(action.times);
        }
        let record = AuditRecord {
            at: Timestamp::now(),
            who: SCHEDULE_NAME.into(),
            role: None,
            what: "scheduled run".into(),
            about: experiment.name.clone(),
            outcome: outcome.into(),
            detail,
        };
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || store.audit(&record)).await;
        if !matches!(written, Ok(Ok(_))) {
            tracing::error!(
                experiment = experiment.name,
                "a scheduled run could not be recorded in the audit log"
            );
        }
        run
    }

    /// Starts a due run with the rights of whoever applied the experiment. Otherwise returns the run that was not started,
    /// if it could be recorded, and why; nothing if the schedule was stopped before.
    async fn begin(
        self: &Arc<Self>,
        kept: &ExperimentRecord,
    ) -> Result<String, Option<(Option<String>, String)>> {
        let (store, name, version) = (Arc::clone(&self.store), kept.name.clone(), kept.version);
        let read = move || store.experiment_with_secrets(&name, Some(version));
        let kept = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => return Err(Some(told(error.into()))),
            Err(error) => return Err(Some((None, error.to_string()))),
        };
        let kept = &kept;
        let (service, experiment) = (Arc::clone(self), kept.clone());
        let spec = tokio::task::spawn_blocking(move || service.scheduled_spec(&experiment)).await;
        let spec = match spec {
            Ok(Ok(Some(spec))) => spec,
            Ok(Ok(None)) => return Err(None),
            Ok(Err(error)) => return Err(Some(told(error))),
            Err(error) => return Err(Some((None, error.to_string()))),
        };
        let guarded = self.guarded(kept).await;
        let service = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || match guarded {
            Ok(()) => service.start(spec),
            Err(refusal) => Err(service.schedule_refused(&spec, refusal)),
        });
        match started.await {
            Ok(started) => started.map_err(|error| Some(told(error))),
            Err(error) => Err(Some((None, error.to_string()))),
        }
    }

    /// The request of a due run, with the rights of whoever applied the experiment. None if they have lost them, and that is
    /// known already.
    fn scheduled_spec(
        self: &Arc<Self>,
        kept: &ExperimentRecord,
    ) -> Result<Option<RunSpec>, RunStartError> {
        let mut state = self.schedule_state(&kept.name)?;
        let who = state.who.clone().unwrap_or_else(|| kept.who.clone());
        let person = state.person.clone().unwrap_or_else(|| who.clone());
        let standing = self.standing(&who, &person)?;
        let spec = RunSpec {
            document: RequestedDocument::Stored(kept.document.clone()),
            reference: Some(ExperimentRef {
                name: kept.name.clone(),
                version: kept.version,
            }),
            seed: None,
            variables: Map::new(),
            teams: match &standing {
                Ok(owner) if !owner.teams.is_empty() => owner.teams.clone(),
                _ => self.store.owners(OwnedKind::Experiment, &kept.name)?,
            },
            person,
            who,
            because: Trigger::Schedule,
            lock: None,
        };
        let stopped = standing.err().map(|why| why.what);
        if state.stopped != stopped {
            state.stopped.clone_from(&stopped);
            self.set_schedule_state(&kept.name, &state)?;
        } else if stopped.is_some() {
            return Ok(None);
        }
        match stopped {
            None => Ok(Some(spec)),
            Some(why) => {
                let what = format!("the schedule is stopped: {why}");
                let hint = format!(
                    "apply `{}` again, and its schedule has your rights",
                    kept.name
                );
                Err(self.schedule_refused(&spec, Refusal::new("schedule", what).hint(hint)))
            }
        }
    }

    /// Records a due run that was not started.
    fn schedule_refused(self: &Arc<Self>, spec: &RunSpec, refusal: Refusal) -> RunStartError {
        let new = new_run(spec, spec.document.title());
        if let Err(error) = self.own_run(&new.id, new.experiment.as_ref(), &spec.teams) {
            return error.into();
        }
        self.not_started(&new, None, refusal, &Redactor::default())
    }

    /// Records a due run that was not started, for this reason. Returns its id, if that could be done.
    async fn record_skipped(
        self: &Arc<Self>,
        kept: &ExperimentRecord,
        refusal: Refusal,
    ) -> Option<String> {
        let (service, kept) = (Arc::clone(self), kept.clone());
        let recorded = tokio::task::spawn_blocking(move || {
            let spec = service.scheduled_spec(&kept).ok().flatten()?;
            Some(told(service.schedule_refused(&spec, refusal)).0)
        });
        recorded.await.ok().flatten().flatten()
    }

    /// Checks that the schedule's guard passes. A guard that cannot be measured does not.
    async fn guarded(&self, kept: &ExperimentRecord) -> Result<(), Refusal> {
        let experiment = self
            .load_experiment(&kept.document, &Map::new())
            .map_err(|problems| {
                let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Refusal::new("invalid", told.join("; "))
            })?;
        let Some(guard) =
            (experiment.document.schedule.as_ref()).and_then(|schedule| schedule.guard.clone())
        else {
            return Ok(());
        };
        let refused = |why: String| {
            let what = format!("the guard `{}`: {why}", guard.name);
            Refusal::new("guard", experiment.redactor.errors().text(&what))
        };
        let context = ProbeContext {
            configuration: experiment.configuration.clone(),
            secrets: experiment.secrets.clone(),
            redactor: experiment.redactor.clone(),
            access: self.policy().host_access(),
            ..ProbeContext::default()
        };
        let value = match measure(&guard.provider, guard.time_limit(), &context).await {
            ProbeOutcome::Output(value) => value,
            ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
                return Err(refused(why));
            }
        };
        let Some(tolerance) = &guard.tolerance else {
            return Ok(());
        };
        let why = match CompiledTolerance::compile(tolerance) {
            Ok(judge) => judge.reason(&value, &judge.accepts(&value), &experiment.redactor),
            Err(why) => Some(why),
        };
        match why {
            None => Ok(()),
            Some(why) => Err(refused(why)),
        }
    }
}

/// The run that was not started, if it could be recorded, and why.
fn told(error: RunStartError) -> (Option<String>, String) {
    match error {
        RunStartError::NotStarted { run, refusal } => (Some(run), refusal.to_string()),
        RunStartError::Refusal(refusal) => (None, refusal.to_string()),
        RunStartError::Invalid(problems) => {
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            (None, told.join("; "))
        }
        RunStartError::Waits(waiting) => (
            Some(waiting.approval.run.clone()),
            "it waits for approval".into(),
        ),
        RunStartError::Store(error) => (None, error.to_string()),
    }
}

/// Why a run was not started at this time, nor at those before it of so many in all.
fn missed(due: Timestamp, times: usize) -> Refusal {
    let before = match times {
        0 | 1 => String::new(),
        2 => ", and at one due time before".to_owned(),
        times => format!(", and at {} due times before", times - 1),
    };
    let what = format!(
        "the controller was not running at {}, when this was due{before}",
        due.strftime("%F %T UTC")
    );
    Refusal::new("missed", what)
        .hint("`\"catch-up\": \"once\"` in the schedule makes up for missed times with one run")
}

/// Combines the times that were missed in a row into one action about the last of them: there may be very many.
fn due_actions(calls: Vec<ScheduleDecision>) -> impl Iterator<Item = DueAction> {
    let mut actions: Vec<DueAction> = Vec::new();
    for call in calls {
        match (actions.last_mut(), call) {
            (Some(last), ScheduleDecision::Missed(_))
                if matches!(last.call, ScheduleDecision::Missed(_)) =>
            {
                last.call = call;
                last.times += 1;
            }
            _ => actions.push(DueAction { call, times: 1 }),
        }
    }
    actions.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backburn_experiments::timetable::ScheduledTime;

    #[test]
    fn answers_to_times_missed_in_a_row_are_combined() {
        let due = |second| {
            let at = Timestamp::new(second, 0).unwrap();
            ScheduledTime { nominal: at, at }
        };
        let calls = vec![
            ScheduleDecision::Run(due(0)),
            ScheduleDecision::Missed(due(1)),
            ScheduleDecision::Missed(due(2)),
            ScheduleDecision::Missed(due(3)),
            ScheduleDecision::Overlapped(due(4)),
            ScheduleDecision::Missed(due(5)),
        ];
        let told: Vec<(ScheduleDecision, usize)> = due_actions(calls)
            .map(|action| (action.call, action.times))
            .collect();
        let wanted = [
            (ScheduleDecision::Run(due(0)), 1),
            (ScheduleDecision::Missed(due(3)), 3),
            (ScheduleDecision::Overlapped(due(4)), 1),
            (ScheduleDecision::Missed(due(5)), 1),
        ];
        assert_eq!(told, wanted);
    }
}
