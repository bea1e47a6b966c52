//! Scheduled runs. What is due follows from the experiments' own schedules. Each due time is recorded in the store before it is
//! acted on, so that nothing starts twice, whatever dies in between.

use super::{RequestedDocument, RunSpec, RunStartError, Service, lock};
use crate::providers::{ProbeContext, measure};
use crate::store::{AuditRecord, ExperimentRecord, ExperimentRef, StoreError, Trigger};
use backburn_experiments::document::Schedule;
use backburn_experiments::timetable::{Progress, ScheduleDecision, ScheduledTime, Timetable};
use backburn_experiments::tolerance::CompiledTolerance;
use backburn_experiments::wire::ProbeOutcome;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A time that is overdue by more than this was missed.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often the clock is checked, at least: it may be set, and hosts may sleep.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after the store failed.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long agents may take to reconnect after a restart: they wait half a minute at most between attempts.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(50);
/// How many experiments or agents are read at a time.
const PAGE_SIZE: u32 = 500;
/// The name that scheduled runs have in place of a token's.
const SCHEDULE_NAME: &str = "schedule";

/// An experiment's schedule, with its next times.
#[derive(Debug, Clone)]
pub struct ScheduledExperiment {
    /// The name of the stored experiment.
    pub experiment: String,
    /// The version of the stored experiment.
    pub version: u64,
    /// The schedule in the document.
    pub schedule: Schedule,
    /// The schedule's time zone.
    pub zone: String,
    /// The next times, earliest first.
    pub times: Vec<ScheduledTime>,
}

/// What is due, and when the next time is due.
type DueWork = (Vec<(ExperimentRecord, DueAction)>, Option<Timestamp>);

/// What to do about a due time, or about several in a row that were missed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct DueAction {
    call: ScheduleDecision,
    times: usize,
}

impl Service {
    /// Checks the schedules again, because they may have changed.
    pub fn reschedule(&self) {
        self.schedules.send_modify(|count| *count += 1);
    }

    /// All stored experiments.
    ///
    /// # Errors
    /// The store failed.
    pub fn experiments(&self) -> Result<Vec<ExperimentRecord>, StoreError> {
        let mut all: Vec<ExperimentRecord> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let page = self.store.experiments(after.as_deref(), PAGE_SIZE)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// All schedules, with their next `count` times after this one.
    ///
    /// # Errors
    /// The store failed.
    pub fn scheduled(
        &self,
        after: Timestamp,
        count: usize,
    ) -> Result<Vec<ScheduledExperiment>, StoreError> {
        let mut found = Vec::new();
        for experiment in self.experiments()? {
            let Some((schedule, table)) = timetable(&experiment) else {
                continue;
            };
            let mut times: Vec<ScheduledTime> = Vec::new();
            let mut from = after;
            while let Some(due) = table.next(from).filter(|_| times.len() < count) {
                from = due.nominal;
                times.push(due);
            }
            found.push(ScheduledExperiment {
                experiment: experiment.name,
                version: experiment.version,
                schedule,
                zone: table.zone().iana_name().unwrap_or("UTC").to_owned(),
                times,
            });
        }
        Ok(found)
    }

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
            let name = format!("schedule/{}", experiment.name);
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
                Err(why) => (due, "refused", json!({"why": why})),
            },
            ScheduleDecision::Overlapped(due) => (
                due,
                "skipped",
                json!({"why": "the last run is still active"}),
            ),
            ScheduleDecision::Missed(due) => (
                due,
                "skipped",
                json!({"why": "the controller was not running at that time"}),
            ),
            ScheduleDecision::Waits(due) => {
                (due, "waits", json!({"why": "the last run is still active"}))
            }
        };
        let run = detail.get("run").and_then(Value::as_str).map(str::to_owned);
        let mut detail = detail;
        detail["due"] = json!(due.nominal);
        if action.times > 1 {
            detail["times"] = json!(action.times);
        }
        let deed = AuditRecord {
            at: Timestamp::now(),
            who: SCHEDULE_NAME.into(),
            role: None,
            what: "scheduled run".into(),
            about: experiment.name.clone(),
            outcome: outcome.into(),
            detail,
        };
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || store.audit(&deed)).await;
        if !matches!(written, Ok(Ok(_))) {
            tracing::error!(
                experiment = experiment.name,
                "a scheduled run could not be recorded in the audit log"
            );
        }
        run
    }

    async fn begin(self: &Arc<Self>, kept: &ExperimentRecord) -> Result<String, String> {
        self.guarded(kept).await?;
        let spec = RunSpec {
            document: RequestedDocument::Stored(kept.document.clone()),
            reference: Some(ExperimentRef {
                name: kept.name.clone(),
                version: kept.version,
            }),
            seed: None,
            variables: Map::new(),
            who: SCHEDULE_NAME.into(),
            because: Trigger::Schedule,
            approved_by: None,
            id: None,
        };
        let service = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || service.start(spec)).await;
        match started {
            Ok(Ok(run)) => Ok(run),
            Ok(Err(RunStartError::Refusal(refusal))) => Err(refusal.to_string()),
            Ok(Err(RunStartError::Invalid(problems))) => Err(problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")),
            Ok(Err(RunStartError::Waits(approval))) => {
                Err(format!("waits for approval: {}", approval.id))
            }
            Ok(Err(RunStartError::Store(error))) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Checks that the schedule's guard passes. A guard that cannot be measured does not.
    async fn guarded(&self, kept: &ExperimentRecord) -> Result<(), String> {
        let experiment = self
            .load_experiment(&kept.document, &Map::new())
            .map_err(|problems| format!("the experiment has {} problems", problems.len()))?;
        let Some(guard) =
            (experiment.document.schedule.as_ref()).and_then(|schedule| schedule.guard.clone())
        else {
            return Ok(());
        };
        let context = ProbeContext {
            configuration: experiment.configuration.clone(),
            secrets: experiment.secrets.clone(),
            redactor: experiment.redactor.clone(),
            ..ProbeContext::default()
        };
        let value = match measure(&guard.provider, guard.time_limit(), &context).await {
            ProbeOutcome::Output(value) => value,
            ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
                let why = experiment.redactor.errors().text(&why);
                return Err(format!("the guard `{}`: {why}", guard.name));
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
            Some(why) => Err(format!("the guard `{}`: {why}", guard.name)),
        }
    }
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

/// The schedule of an experiment, if it has one. Whether it is valid was checked when the experiment was stored.
fn timetable(experiment: &ExperimentRecord) -> Option<(Schedule, Timetable)> {
    let schedule: Schedule =
        serde_json::from_value(experiment.document.get("schedule")?.clone()).ok()?;
    let table = Timetable::of(&schedule, 0, &experiment.name).ok()?;
    Some((schedule, table))
}

#[cfg(test)]
mod tests {
    use super::*;

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
