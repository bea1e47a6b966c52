//! What happens next at a game day: a pure function of its progress, of the time, and of the run of the current step.

use super::progress::{GameDayProgress, GameDayStage};
use super::{DiscussionLength, GameDay, GameDayMode};
use crate::HumanDuration;
use crate::journal::Outcome;
use jiff::{SignedDuration, Timestamp};

/// How the run of the current step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStanding {
    /// The step has no run.
    None,
    /// The run is open, or waits for approval.
    Open,
    /// The run is over.
    Over(Outcome),
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GameDayAction {
    /// Give the prompt of this place in the current step, from 0.
    GivePrompt(usize),
    /// Begin the discussion of the current step.
    Discuss,
    /// Start the step of this number, from 1.
    StartStep(u32),
    /// End the game day; with the reason if it is not its regular end.
    End(Option<String>),
    /// Remind people of the status update that was due at this time.
    Remind(Timestamp),
}

/// What is to be done first of all now, or else when to ask again. Neither means that only a person or a run changes something.
pub fn decide(
    day: &GameDay,
    mode: GameDayMode,
    progress: &GameDayProgress,
    run: RunStanding,
    now: Timestamp,
) -> (Option<GameDayAction>, Option<Timestamp>) {
    if !progress.is_active() {
        return (None, None);
    }
    let mut wake: Option<Timestamp> = None;
    let mut wait_for = |at: Timestamp| wake = Some(wake.map_or(at, |known| known.min(at)));
    if let Some(due) = progress
        .next_update
        .filter(|due| progress.reminded != Some(*due))
    {
        match due <= now {
            true => return (Some(GameDayAction::Remind(due)), None),
            false => wait_for(due),
        }
    }
    let (Some(since), Some(step), None) =
        (progress.since, day.step(progress.step), progress.paused)
    else {
        return (None, wake);
    };
    let after = |length: HumanDuration| {
        let length = SignedDuration::try_from(length.0).unwrap_or(SignedDuration::MAX);
        since.checked_add(length).unwrap_or(Timestamp::MAX)
    };
    let next = |progress: &GameDayProgress| match progress.step < day.last_step() {
        true => GameDayAction::StartStep(progress.step + 1),
        false => GameDayAction::End(None),
    };
    if progress.stage == GameDayStage::Discussion {
        return match day.discussion_of(step) {
            None => (Some(next(progress)), None),
            Some(DiscussionLength::ByHand(_)) => (None, wake),
            Some(DiscussionLength::For(length)) if after(length) <= now => {
                (Some(next(progress)), None)
            }
            Some(DiscussionLength::For(length)) => {
                wait_for(after(length));
                (None, wake)
            }
        };
    }
    if progress.is_starting {
        return (None, wake);
    }
    let mut is_over = true;
    for (index, prompt) in step.prompts.iter().enumerate() {
        if progress.prompts.contains(&prompt.name) {
            continue;
        }
        match after(prompt.delay()) <= now {
            true => return (Some(GameDayAction::GivePrompt(index)), None),
            false => {
                wait_for(after(prompt.delay()));
                is_over = false;
            }
        }
    }
    if GameDayProgress::runs_experiment(day, mode, progress.step) {
        match run {
            RunStanding::Open => is_over = false,
            RunStanding::Over(outcome) if day.stops_on(outcome) => {
                let why = format!(
                    "the run of step {} ended as {}",
                    progress.step,
                    outcome.word()
                );
                return (Some(GameDayAction::End(Some(why))), None);
            }
            RunStanding::Over(_) | RunStanding::None => {}
        }
    } else if let Some(lasts) = step.lasts
        && after(lasts) > now
    {
        wait_for(after(lasts));
        is_over = false;
    }
    match is_over {
        true => (Some(GameDayAction::Discuss), None),
        false => (None, wake),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game_day::{GameDayEvent, GameDayFile};
    use serde_json::json;

    fn day(steps: serde_json::Value) -> GameDay {
        let file = json!({"game-day": {
            "title": "x", "purpose": "y", "steps": steps, "updates": {"every": "1h"},
            "duties": {"scribe": "ada", "observers": ["bob"]},
        }});
        serde_json::from_value::<GameDayFile>(file)
            .unwrap()
            .game_day
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + second, 0).unwrap()
    }

    /// Lets a game day go on by itself from its start, with runs that take 30 s, until it does not go on any more. What was done and when.
    fn play(day: &GameDay, mode: GameDayMode, outcome: Outcome) -> Vec<(i64, String)> {
        let mut progress = GameDayProgress::prepared(day);
        let mut done = Vec::new();
        let mut now = at(0);
        let begin = |progress: &mut GameDayProgress, now, step| {
            let run = GameDayProgress::runs_experiment(day, mode, step).then(|| format!("r{step}"));
            progress.apply(now, "state", &json!(GameDayEvent::Starting { step }));
            let running = GameDayEvent::Running {
                step,
                run,
                experiment: None,
                version: None,
            };
            progress.apply(now, "state", &json!(running));
        };
        begin(&mut progress, now, 1);
        for _ in 0..100 {
            let over = progress.since.unwrap() + SignedDuration::from_secs(30);
            let run = match progress.runs.get(&progress.step) {
                None => RunStanding::None,
                Some(_) if over <= now => RunStanding::Over(outcome),
                Some(_) => RunStanding::Open,
            };
            let (action, wake) = decide(day, mode, &progress, run, now);
            let word = match &action {
                None => {
                    let next = wake
                        .into_iter()
                        .chain((run == RunStanding::Open).then_some(over));
                    match next.min() {
                        Some(next) => now = next,
                        None => return done,
                    }
                    continue;
                }
                Some(GameDayAction::GivePrompt(index)) => {
                    let name = &day.step(progress.step).unwrap().prompts[*index].name;
                    progress.apply(now, "prompt", &json!({"name": name}));
                    format!("prompt {name}")
                }
                Some(GameDayAction::Discuss) => {
                    let step = progress.step;
                    let event = GameDayEvent::Discussion { step, why: None };
                    progress.apply(now, "state", &json!(event));
                    format!("discuss {step}")
                }
                Some(GameDayAction::StartStep(step)) => {
                    begin(&mut progress, now, *step);
                    format!("step {step}")
                }
                Some(GameDayAction::End(why)) => {
                    progress.apply(
                        now,
                        "state",
                        &json!(GameDayEvent::Ended { why: why.clone() }),
                    );
                    format!("end {}", why.as_deref().unwrap_or("regularly"))
                }
                Some(GameDayAction::Remind(due)) => {
                    progress.apply(now, "reminder", &json!({"due": due}));
                    "remind".into()
                }
            };
            done.push(((now - at(0)).get_seconds(), word));
        }
        panic!("it does not end: {done:?}");
    }

    fn steps() -> serde_json::Value {
        json!([
            {"experiment": "a", "discuss": "10m", "prompts": [{"name": "call", "text": "t", "after": "1m"}, {"name": "now", "text": "t"}]},
            {"lasts": "5m"},
            {"experiment": "b", "discuss": "by-hand", "lasts": "2m"},
        ])
    }

    #[test]
    fn live_game_day_goes_through_its_steps_and_waits_where_it_is_to() {
        let done = play(&day(steps()), GameDayMode::Live, Outcome::Deviated);
        let wanted = [
            (0, "prompt now"),
            (60, "prompt call"),
            (60, "discuss 1"),
            (660, "step 2"),
            (960, "discuss 2"),
            (960, "step 3"),
            (990, "discuss 3"),
            (3600, "remind"),
        ];
        assert_eq!(done, wanted.map(|(at, word)| (at, word.to_owned())));
    }

    #[test]
    fn tabletop_game_day_has_no_runs_and_takes_the_lengths_of_its_steps() {
        let done = play(&day(steps()), GameDayMode::Tabletop, Outcome::Held);
        let wanted = [
            (0, "prompt now"),
            (60, "prompt call"),
            (60, "discuss 1"),
            (660, "step 2"),
            (960, "discuss 2"),
            (960, "step 3"),
            (1080, "discuss 3"),
            (3600, "remind"),
        ];
        assert_eq!(done, wanted.map(|(at, word)| (at, word.to_owned())));
    }

    #[test]
    fn game_day_ends_when_a_run_is_not_clean() {
        let done = play(
            &day(json!([{"experiment": "a"}, {"experiment": "b"}])),
            GameDayMode::Live,
            Outcome::NotClean,
        );
        assert_eq!(
            done,
            [(30, "end the run of step 1 ended as not-clean".to_owned())]
        );
        let done = play(
            &day(json!([{"experiment": "a"}])),
            GameDayMode::Live,
            Outcome::Held,
        );
        assert_eq!(done.last().unwrap(), &(30, "end regularly".to_owned()));
    }

    #[test]
    fn pause_stops_the_clock_of_a_discussion() {
        let day = day(json!([{"lasts": "1s", "discuss": "10m"}]));
        let mut progress = GameDayProgress::prepared(&day);
        progress.apply(at(0), "state", &json!({"state": "starting", "step": 1}));
        progress.apply(at(0), "state", &json!({"state": "discussion", "step": 1}));
        progress.apply(at(100), "state", &json!({"state": "paused"}));
        let mode = GameDayMode::Live;
        let ask = |progress: &GameDayProgress, second| {
            decide(&day, mode, progress, RunStanding::None, at(second))
        };
        assert_eq!(
            ask(&progress, 3000),
            (None, Some(at(3600))),
            "only the reminder"
        );
        progress.apply(at(3000), "state", &json!({"state": "resumed"}));
        assert_eq!(
            ask(&progress, 3000).1,
            Some(at(3500)),
            "500 of 600 s were left"
        );
        assert_eq!(ask(&progress, 3500).0, Some(GameDayAction::End(None)));
    }

    #[test]
    fn progress_follows_duties_prerequisites_and_what_is_revealed() {
        let mut day = day(steps());
        day.prerequisites = vec!["a".into(), "b".into()];
        let mut progress = GameDayProgress::prepared(&day);
        progress.apply(at(0), "prerequisite", &json!({"number": 2, "met": true}));
        assert_eq!(progress.unmet(&day), [1]);
        progress.apply(at(0), "duty", &json!({"duty": "scribe", "to": "eve"}));
        progress.apply(at(0), "duty", &json!({"duty": "observers", "to": "eve"}));
        use crate::game_day::Duty;
        assert_eq!(progress.duties[&Duty::Scribe], ["eve".to_owned()].into());
        assert_eq!(progress.duties[&Duty::Observers].len(), 2);
        let seen =
            |progress: &GameDayProgress| [1, 2, 3].map(|step| progress.is_revealed(&day, step));
        progress.apply(at(0), "state", &json!({"state": "running", "step": 2}));
        assert_eq!(seen(&progress), [true, false, false]);
        progress.apply(at(0), "state", &json!({"state": "discussion", "step": 2}));
        assert_eq!(seen(&progress), [true, true, false]);
        progress.apply(at(0), "reveal", &json!({"step": 3}));
        assert_eq!(seen(&progress), [true; 3]);
    }
}
