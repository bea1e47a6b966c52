//! Runs that come by themselves. What is due is reckoned from the experiments' own schedules; what was dealt with is in
//! the store before it is done, so that nothing fires twice, whoever dies in between.

use super::requested_document::RequestedDocument;
use super::runs::{RunSpec, StartError};
use super::{Service, lock};
use crate::providers::{ProbeContext, measure};
use crate::store::{AuditRecord, ExperimentRef, StoreError, StoredExperiment, Trigger};
use backburn_experiments::wire::ProbeOutcome;
use backburn_experiments::document::Schedule;
use backburn_experiments::timetable::{Call, Due, Progress, Timetable};
use backburn_experiments::tolerance::Judge;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is later than this was missed.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often the clock is looked at, at the least: it may be set, and hosts may sleep.
const LOOK: Duration = Duration::from_secs(30);
/// How long until a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long agents may take to come back after a restart: they take breaks of half a minute at the most, and dial.
const GATHER: Duration = Duration::from_secs(50);
/// How many experiments, or agents, are read at a time.
const PAGE: u32 = 500;
/// Who runs what comes by itself.
const WHO: &str = "schedule";

/// A schedule, with its next times.
#[derive(Debug, Clone)]
pub struct ScheduledExperiment {
    /// The experiment's name.
    pub experiment: String,
    /// Its version.
    pub version: u64,
    /// As the document says.
    pub schedule: Schedule,
    /// Its zone.
    pub zone: String,
    /// When it comes next.
    pub times: Vec<Due>,
}

/// What is due, and when to look again.
type DueWork = (Vec<(StoredExperiment, DueAction)>, Option<Timestamp>);

/// What is to be done about a time, or about several in a row that were missed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct DueAction {
    call: Call,
    times: usize,
}

impl Service {
    /// Something about the schedules may have changed.
    pub fn reschedule(&self) {
        self.schedules.send_modify(|count| *count += 1);
    }

    /// Every experiment that is kept.
    ///
    /// # Errors
    /// The store's.
    pub fn experiments(&self) -> Result<Vec<StoredExperiment>, StoreError> {
        let mut all: Vec<StoredExperiment> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let page = self.store.experiments(after.as_deref(), PAGE)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Every schedule, with its next times after this one.
    ///
    /// # Errors
    /// The store's.
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
            let mut times: Vec<Due> = Vec::new();
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

    /// Starts what is due, for as long as the controller lives.
    pub async fn keep_schedules(self: Arc<Self>) {
        let mut changed = self.schedules.subscribe();
        // The last run of each schedule: of those that a crash cut short, some are still being closed.
        let mut last = self.cut_short();
        self.until_gathered().await;
        loop {
            changed.borrow_and_update();
            let service = Arc::clone(&self);
            let known = last.clone();
            let turned = tokio::task::spawn_blocking(move || service.turn_all(&known)).await;
            let wait = match turned {
                Ok(Ok((due, wakes))) => {
                    for (experiment, answer) in due {
                        if let Some(run) = self.answer(&experiment, answer).await {
                            last.insert(experiment.name, run);
                        }
                    }
                    let left = wakes.map(|at| Timestamp::now().duration_until(at));
                    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
                    left.unwrap_or(LOOK).min(LOOK)
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "schedules can't be read");
                    AGAIN
                }
                Err(_) => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The runs by schedule that nobody has closed yet, by their experiments.
    fn cut_short(&self) -> BTreeMap<String, String> {
        let open = self.store.open_runs().unwrap_or_else(|error| {
            tracing::error!(%error, "the open runs can't be read");
            Vec::new()
        });
        let scheduled = open
            .into_iter()
            .filter(|run| run.new.because == Trigger::Schedule);
        scheduled
            .filter_map(|run| Some((run.new.experiment?.name, run.new.id)))
            .collect()
    }

    /// Waits until every agent that may come has come, but not for long. What is due at a restart would find nobody, and a
    /// time that was missed is made up for once only.
    async fn until_gathered(self: &Arc<Self>) {
        let service = Arc::clone(self);
        let expected = tokio::task::spawn_blocking(move || service.expected()).await;
        let expected = match expected {
            Ok(Ok(expected)) => expected,
            Ok(Err(error)) => return tracing::error!(%error, "the agents can't be read"),
            Err(_) => return,
        };
        let mut changes = self.fleet.changes();
        let come = changes.wait_for(|_| self.fleet.count() >= expected);
        // Who has not come by then may never.
        tokio::time::timeout(GATHER, come).await.ok();
    }

    /// How many agents may come.
    fn expected(&self) -> Result<usize, StoreError> {
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let page = self.store.agents(after.as_deref(), PAGE)?;
            let Some(end) = page.last() else {
                return Ok(count);
            };
            after = Some(end.name.clone());
            count += page.iter().filter(|agent| agent.revoked.is_none()).count();
        }
    }

    /// How far an experiment's schedule was dealt with. One that is new, or was changed, or was removed and put again, comes
    /// into force when that was done.
    fn progress(
        &self,
        experiment: &StoredExperiment,
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

    /// What is due now, written down as dealt with, and when to look again.
    fn turn_all(&self, last: &BTreeMap<String, String>) -> Result<DueWork, StoreError> {
        let now = Timestamp::now();
        let (mut calls, mut wakes) = (Vec::new(), None::<Timestamp>);
        for experiment in self.experiments()? {
            let Some((_, table)) = timetable(&experiment) else {
                continue;
            };
            let name = format!("schedule/{}", experiment.name);
            let kept = self.store.setting(&name)?.unwrap_or_default();
            let before = self.progress(&experiment, &kept)?;
            let running =
                (last.get(&experiment.name)).is_some_and(|run| lock(&self.runs).contains_key(run));
            let (progress, due) = table.turn(before, now, running, GRACE);
            let now_kept = json!({
                "schedule": experiment.document.get("schedule"),
                "version": experiment.version,
                "progress": progress,
            });
            if now_kept != kept {
                self.store.set(&name, &now_kept)?;
            }
            wakes = wakes.into_iter().chain(table.wakes(progress)).min();
            calls.extend(answers(due).map(|answer| (experiment.clone(), answer)));
        }
        Ok((calls, wakes))
    }

    /// Does what is to be done about a time. The run's id, where one began.
    async fn answer(
        self: &Arc<Self>,
        experiment: &StoredExperiment,
        answer: DueAction,
    ) -> Option<String> {
        let (due, outcome, detail) = match answer.call {
            Call::Run(due) => match self.begin(experiment).await {
                Ok(run) => (due, "started", json!({"run": run})),
                Err(why) => (due, "refused", json!({"why": why})),
            },
            Call::Overlapped(due) => (due, "skipped", json!({"why": "the last run goes on"})),
            Call::Missed(due) => (due, "skipped", json!({"why": "nobody was there in time"})),
            Call::Waits(due) => (due, "waits", json!({"why": "the last run goes on"})),
        };
        let run = detail.get("run").and_then(Value::as_str).map(str::to_owned);
        let mut detail = detail;
        detail["due"] = json!(due.nominal);
        if answer.times > 1 {
            detail["times"] = json!(answer.times);
        }
        let deed = AuditRecord {
            at: Timestamp::now(),
            who: WHO.into(),
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
                "a scheduled run is not in the audit log"
            );
        }
        run
    }

    async fn begin(self: &Arc<Self>, kept: &StoredExperiment) -> Result<String, String> {
        self.guarded(kept).await?;
        let ask = RunSpec {
            document: RequestedDocument::Stored(kept.document.clone()),
            reference: Some(ExperimentRef {
                name: kept.name.clone(),
                version: kept.version,
            }),
            seed: None,
            variables: Map::new(),
            who: WHO.into(),
            because: Trigger::Schedule,
            approved_by: None,
            id: None,
        };
        let service = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || service.start(ask)).await;
        match started {
            Ok(Ok(run)) => Ok(run),
            Ok(Err(StartError::Refusal(refusal))) => Err(refusal.to_string()),
            Ok(Err(StartError::Invalid(problems))) => Err(problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")),
            Ok(Err(StartError::Waits(approval))) => Err(format!("waits: {}", approval.id)),
            Ok(Err(StartError::Store(error))) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The guard has to pass. What can't be measured does not.
    async fn guarded(&self, kept: &StoredExperiment) -> Result<(), String> {
        let experiment = self
            .understand(&kept.document, &Map::new())
            .map_err(|problems| format!("the experiment is wrong: {}", problems.len()))?;
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
        let value = match measure(&guard.provider, guard.timeout, &context).await {
            ProbeOutcome::Output(value) => value,
            ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
                return Err(format!("the guard `{}`: {why}", guard.name));
            }
        };
        let Some(tolerance) = &guard.tolerance else {
            return Ok(());
        };
        let why = match Judge::compile(tolerance) {
            Ok(judge) => judge.reason(&value, &judge.accepts(&value), &experiment.redactor),
            Err(why) => Some(why),
        };
        match why {
            None => Ok(()),
            Some(why) => Err(format!("the guard `{}`: {why}", guard.name)),
        }
    }
}

/// What was missed in a row is one answer, about the last of them: there may be very many.
fn answers(calls: Vec<Call>) -> impl Iterator<Item = DueAction> {
    let mut answers: Vec<DueAction> = Vec::new();
    for call in calls {
        match (answers.last_mut(), call) {
            (Some(last), Call::Missed(_)) if matches!(last.call, Call::Missed(_)) => {
                last.call = call;
                last.times += 1;
            }
            _ => answers.push(DueAction { call, times: 1 }),
        }
    }
    answers.into_iter()
}

/// The schedule of an experiment, where it has one that can be understood: that is checked when it is applied.
fn timetable(experiment: &StoredExperiment) -> Option<(Schedule, Timetable)> {
    let schedule: Schedule =
        serde_json::from_value(experiment.document.get("schedule")?.clone()).ok()?;
    let table = Timetable::of(&schedule, 0, &experiment.name).ok()?;
    Some((schedule, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_in_a_row_is_told_once() {
        let due = |second| {
            let at = Timestamp::new(second, 0).unwrap();
            Due { nominal: at, at }
        };
        let calls = vec![
            Call::Run(due(0)),
            Call::Missed(due(1)),
            Call::Missed(due(2)),
            Call::Missed(due(3)),
            Call::Overlapped(due(4)),
            Call::Missed(due(5)),
        ];
        let told: Vec<(Call, usize)> = answers(calls)
            .map(|answer| (answer.call, answer.times))
            .collect();
        let wanted = [
            (Call::Run(due(0)), 1),
            (Call::Missed(due(3)), 3),
            (Call::Overlapped(due(4)), 1),
            (Call::Missed(due(5)), 1),
        ];
        assert_eq!(told, wanted);
    }
}
