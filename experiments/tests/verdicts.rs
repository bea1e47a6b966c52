//! What a verdict says was measured, injected and seen to act: no more than the journal tells.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod events;

use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{
    AbortBy, ActivityStatus, Event, JournalEntry, Judgement, Outcome, Phase, Run, verdict,
};
use backburn_experiments::wire::{Cause, Effect, Refusal};
use serde_json::Value;

use events::*;

/// The whole run without a probe of the hypothesis and its samples.
fn without_hypothesis() -> Vec<Event> {
    let mut events = whole();
    events.retain(|event| !matches!(event, Event::Sampled { .. }));
    if let Event::RunStarted { hypothesis, .. } = &mut events[0] {
        hypothesis.clear();
    }
    events
}

fn finished(judgement: Option<Judgement>) -> Event {
    Event::ActivityFinished {
        phase: Phase::Method,
        index: 0,
        activity: "a".into(),
        status: ActivityStatus::Succeeded,
        output: Value::Null,
        why: None,
        judgement,
        took: HumanDuration::default(),
    }
}

#[test]
fn verdict_fault_and_nothing_measured_is_inconclusive() {
    let nothing = without_hypothesis();
    let (outcome, reasons) = outcome_of(nothing.clone());
    assert_eq!(outcome, Outcome::Inconclusive);
    assert!(reasons[0].contains("nothing was measured"), "{reasons:?}");
    // A broken check measures nothing either, and an activity without a tolerance is judged by nobody.
    let at = nothing.len() - 5;
    for (event, wanted) in [
        (finished(None), Outcome::Inconclusive),
        (finished(Some(Judgement::Unknown)), Outcome::Inconclusive),
        (finished(Some(Judgement::Within)), Outcome::Held),
        (finished(Some(Judgement::Outside)), Outcome::Deviated),
    ] {
        let mut events = nothing.clone();
        events.insert(at, event.clone());
        assert_eq!(outcome_of(events).0, wanted, "{event:?}");
    }
}

#[test]
fn verdict_expected_restart_is_a_measurement() {
    let back = Effect {
        acts: true,
        figures: [("back-after-seconds".to_owned(), 0.4)].into(),
        ..Effect::default()
    };
    let unmet = Effect {
        acts: true,
        unmet: Some("not back".into()),
        ..Effect::default()
    };
    for (effect, wanted) in [(back, Outcome::Held), (unmet, Outcome::Deviated)] {
        let mut events = without_hypothesis();
        let ended = events
            .iter_mut()
            .find_map(|event| match event {
                Event::InjectionEnded(ended) => Some(ended),
                _ => None,
            })
            .unwrap();
        ended.effect = Some(effect);
        assert_eq!(outcome_of(events).0, wanted);
    }
}

#[test]
fn verdict_no_fault_and_nothing_measured_is_held_and_says_so() {
    let mut events = without_hypothesis();
    events.retain(|event| {
        !matches!(
            event,
            Event::InjectionRequested { .. }
                | Event::Injected { .. }
                | Event::EffectSeen { .. }
                | Event::InjectionEnded(_)
        )
    });
    let entries: Vec<JournalEntry> = events.into_iter().map(|event| entry(0.0, event)).collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    assert_eq!(verdict.outcome, Outcome::Held);
    assert!(
        verdict.notes[0].contains("nothing was measured"),
        "{verdict:?}"
    );
}

#[test]
fn verdict_fault_that_stopped_acting_before_its_end_is_inconclusive() {
    for cause in [Cause::Finished, Cause::ControllerRequest, Cause::Failed] {
        let mut ended = end("i", true);
        ended.cause = cause;
        ended.effect = Some(Effect {
            acts: false,
            seen: "0 of 1 processes stopped, 1 gone".into(),
            ..Effect::default()
        });
        let (outcome, reasons) = with(8, 1, vec![Event::InjectionEnded(ended)]);
        assert_eq!(outcome, Outcome::Inconclusive, "{cause:?}");
        assert!(
            reasons[0].contains("stopped acting before its time: 0 of 1 processes stopped, 1 gone"),
            "{reasons:?}"
        );
    }
    // An agent that says no more than that it ended: what was seen last counts.
    let (outcome, _) = with(7, 0, vec![effect("i", false)]);
    assert_eq!(outcome, Outcome::Inconclusive);
    // What comes and goes, and acts at its end, is as it should be.
    let (outcome, _) = with(7, 0, vec![effect("i", false), effect("i", true)]);
    assert_eq!(outcome, Outcome::Held);
    // A deviation outranks it.
    let both = vec![
        effect("i", false),
        sampled(Phase::Method, Judgement::Outside),
    ];
    assert_eq!(with(7, 0, both).0, Outcome::Deviated);
}

#[test]
fn verdict_inject_that_failed_is_not_injected() {
    let failed = |clean| {
        let mut ended = end("i", clean);
        ended.cause = Cause::Failed;
        let refused = Event::InjectionRefused {
            injection: "i".into(),
            refusal: Refusal::new("failed", "file too large"),
        };
        vec![
            Event::InjectionEnded(ended),
            refused,
            aborted(AbortBy::Action),
        ]
    };
    let (outcome, reasons) = with(5, 4, failed(true));
    assert_eq!(outcome, Outcome::NotInjected);
    assert_eq!(outcome.exit_code(), 9);
    assert_eq!(
        reasons[0],
        "fault `process-pause` on `here` could not be injected: file too large"
    );
    assert_eq!(with(5, 4, failed(false)).0, Outcome::NotClean);
    // Whoever ended the run before is who ended it.
    let mut after_stop = failed(true);
    after_stop.insert(0, aborted(AbortBy::Operator));
    assert_eq!(with(5, 4, after_stop).0, Outcome::Aborted);
}

#[test]
fn verdict_probe_carries_looks_failures_and_upper_bound() {
    let mut events = whole();
    events.splice(
        7..8,
        (0..30).map(|_| sampled(Phase::Method, Judgement::Within)),
    );
    events.insert(8, sampled(Phase::Method, Judgement::Unknown));
    let entries: Vec<JournalEntry> = events.into_iter().map(|event| entry(0.0, event)).collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    let [looks] = &verdict.probes[..] else {
        panic!("{verdict:?}")
    };
    assert_eq!((looks.samples, looks.failures), (30, 0));
    assert!((looks.upper_bound - 0.095_033_852_855_304).abs() < 1e-12);
    assert!(looks.to_string().contains("at most 9.5 %"), "{looks}");
}

#[test]
fn verdict_that_is_not_clean_names_the_agents_and_the_command_for_their_hosts() {
    let mut events = whole();
    let mut end = end("i", false);
    end.residue = vec!["a file is left".into()];
    events[8] = Event::InjectionEnded(end);
    let entries: Vec<JournalEntry> = (events.into_iter().enumerate())
        .map(|(n, event)| entry(n as f64, event))
        .collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    assert_eq!(verdict.outcome, Outcome::NotClean);
    assert_eq!(
        verdict.reasons[0],
        "not proved to be reverted on `here`: i (process-pause): a file is left"
    );
    assert_eq!(verdict.owing_agents, ["here"]);
    let hint = verdict.hint.unwrap();
    assert!(
        hint.contains("`sudo backburn-agent revert --all --state /var/lib/backburn` on the host of agent `here`"),
        "{hint}"
    );
}
