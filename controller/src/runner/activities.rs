//! Plays the activities of the method and of the rollbacks, in their order: each waits for the one
//! before unless that one goes on in the background.

use super::evaluation::Evaluator;
use super::{Runner, RunnerEvent};
use crate::providers::ProbeContext;
use backburn_experiments::wire::ProbeOutcome;
use backburn_experiments::HumanDuration;
use backburn_experiments::document::{Activity, Pauses, Provider};
use backburn_experiments::journal::{ActivityStatus, Event, Judgement, Phase};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

/// An activity that goes on.
pub(super) struct RunningActivity {
    phase: Phase,
    name: String,
    began: Instant,
    /// Told when it is over, so that the next may begin.
    over: Option<oneshot::Sender<()>>,
    /// The task that measures; none for a fault, which agents inject.
    task: Option<AbortHandle>,
}

/// What came of an activity.
pub(super) struct ActivityResult {
    pub(super) status: ActivityStatus,
    pub(super) output: Value,
    pub(super) why: Option<String>,
    pub(super) judgement: Option<Judgement>,
}

impl ActivityResult {
    pub(super) fn succeeded(output: Value) -> Self {
        ActivityResult {
            status: ActivityStatus::Succeeded,
            output,
            why: None,
            judgement: None,
        }
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        ActivityResult {
            status: ActivityStatus::Failed,
            output: Value::Null,
            why: Some(why.into()),
            judgement: None,
        }
    }
}

/// One activity's place in time.
struct ActivityTiming {
    background: bool,
    pauses: Pauses,
}

/// Asks the runner to begin one activity after the other. What goes on in the background has its
/// pauses there as well, as in the Chaos Toolkit.
async fn conduct(paces: Vec<ActivityTiming>, tell: mpsc::UnboundedSender<RunnerEvent>) {
    let mut background = JoinSet::new();
    for (index, pace) in paces.into_iter().enumerate() {
        let step = take_turn(index, pace.pauses, tell.clone());
        if pace.background {
            background.spawn(step);
        } else {
            step.await;
        }
    }
    background.join_all().await;
    tell.send(RunnerEvent::Played).ok();
}

async fn take_turn(index: usize, pauses: Pauses, tell: mpsc::UnboundedSender<RunnerEvent>) {
    if let Some(HumanDuration(before)) = pauses.before {
        tokio::time::sleep(before).await;
    }
    let (over, is_over) = oneshot::channel();
    tell.send(RunnerEvent::Begin { index, over }).ok();
    is_over.await.ok();
    if let Some(HumanDuration(after)) = pauses.after {
        tokio::time::sleep(after).await;
    }
}

async fn play(judged: Evaluator, context: Arc<ProbeContext>) -> ActivityResult {
    let (measured, verdict) = judged.look(&context).await;
    let (judgement, out) = verdict.map_or((None, None), |(judgement, why)| (Some(judgement), why));
    let (status, output, why) = match measured {
        ProbeOutcome::Output(output) => (ActivityStatus::Succeeded, output, out),
        ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => {
            (ActivityStatus::Failed, Value::Null, Some(why))
        }
    };
    ActivityResult {
        status,
        output,
        why,
        judgement,
    }
}

impl Runner {
    fn activities(&self, phase: Phase) -> &[Activity] {
        if phase == Phase::Rollbacks {
            &self.experiment.rollbacks
        } else {
            &self.experiment.method
        }
    }

    pub(super) fn start_playing(&mut self, phase: Phase) {
        let paces = self.activities(phase).iter().map(|activity| {
            let pauses = activity.pauses.filter(|_| self.experiment.pauses(activity));
            ActivityTiming {
                background: activity.background,
                pauses: pauses.unwrap_or_default(),
            }
        });
        let conducting = conduct(paces.collect(), self.tell.clone());
        self.played = false;
        self.conductor.spawn(conducting);
    }

    /// Whether every activity has begun and is over.
    pub(super) fn is_played(&self) -> bool {
        self.played && self.playing.is_empty()
    }

    /// Ends whatever goes on; nothing more begins.
    pub(super) fn stop_playing(&mut self) {
        self.conductor = JoinSet::new();
        for (index, playing) in std::mem::take(&mut self.playing) {
            if let Some(task) = &playing.task {
                task.abort();
            }
            let result = ActivityResult {
                status: ActivityStatus::Aborted,
                output: Value::Null,
                why: None,
                judgement: None,
            };
            self.finished(index, &playing, result);
        }
        self.played = true;
    }

    pub(super) fn begin(&mut self, index: usize, over: oneshot::Sender<()>) {
        // Its conductor may have been ended after it had asked.
        let Some(phase) = self.log.run.phase.filter(|_| !self.played) else {
            return;
        };
        let Some(activity) = self.activities(phase).get(index).cloned() else {
            return;
        };
        let began = self.record(Event::ActivityStarted {
            phase,
            index,
            activity: activity.name.clone(),
            background: activity.background,
        });
        if !began {
            return;
        }
        let playing = RunningActivity {
            phase,
            name: activity.name.clone(),
            began: Instant::now(),
            over: Some(over),
            task: None,
        };
        self.playing.insert(index, playing);
        if self.experiment.is_dry(&activity) {
            self.done(index, ActivityResult::succeeded(Value::Null));
        } else if let Provider::Fault(_) = activity.provider {
            self.inject(index);
        } else {
            let (tell, context) = (self.tell.clone(), self.context(&activity));
            let task = self.timers.spawn(async move {
                let result = play(Evaluator::new(activity), context).await;
                tell.send(RunnerEvent::Done { index, result }).ok();
            });
            if let Some(playing) = self.playing.get_mut(&index) {
                playing.task = Some(task);
            }
        }
    }

    pub(super) fn done(&mut self, index: usize, result: ActivityResult) {
        let Some(mut playing) = self.playing.remove(&index) else {
            return;
        };
        self.finished(index, &playing, result);
        if let Some(over) = playing.over.take() {
            // Nobody waits for what goes on in the background.
            over.send(()).ok();
        }
    }

    fn finished(&mut self, index: usize, playing: &RunningActivity, result: ActivityResult) {
        self.record(Event::ActivityFinished {
            phase: playing.phase,
            index,
            activity: playing.name.clone(),
            status: result.status,
            output: result.output,
            why: result.why,
            judgement: result.judgement,
            took: HumanDuration(Duration::from_micros(
                u64::try_from(playing.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            )),
        });
    }
}
