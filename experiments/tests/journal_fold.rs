//! The journal alone gives the verdict: each outcome from its events, and laws that hold for any
//! sequence of events at all.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use backburn_experiments::Span;
use backburn_experiments::journal::{
    Abort, AbortBy, ActivityStatus, Entry, Event, Judgement, Looks, Outcome, Phase, Run, verdict,
};
use backburn_experiments::wire::{Cause, Effect, Ended, Owed, PlanView, Refusal};
use proptest::prelude::*;
use serde_json::Value;

fn entry(elapsed: f64, event: Event) -> Entry {
    Entry {
        at: jiff::Timestamp::UNIX_EPOCH,
        elapsed,
        event,
    }
}

fn started(recovery: Option<u64>) -> Event {
    Event::RunStarted {
        run: "r".into(),
        title: "t".into(),
        seed: 1,
        version: "0".into(),
        hypothesis: vec!["p".into()],
        looks: Looks {
            before: true,
            during: true,
            after: true,
        },
        sha256: None,
        recovery_within: recovery.map(Span::seconds),
    }
}

fn sampled(phase: Phase, judgement: Judgement) -> Event {
    Event::Sampled {
        phase,
        probe: "p".into(),
        hypothesis: true,
        judgement,
        output: Value::Null,
        why: None,
        took: Span::millis(100),
    }
}

fn phase(phase: Phase) -> Event {
    Event::PhaseStarted { phase }
}

fn requested(injection: &str) -> Event {
    Event::InjectionRequested {
        injection: injection.into(),
        activity: "a".into(),
        fault: "process-pause".into(),
        agent: "here".into(),
    }
}

fn injected(injection: &str) -> Event {
    Event::Injected {
        injection: injection.into(),
        plan: PlanView::default(),
    }
}

fn effect(injection: &str, acts: bool) -> Event {
    Event::EffectSeen {
        injection: injection.into(),
        effect: Effect {
            acts,
            seen: "seen".into(),
            ..Effect::default()
        },
    }
}

fn end(injection: &str, clean: bool) -> Ended {
    Ended {
        injection: injection.into(),
        cause: Cause::Done,
        clean,
        residue: if clean {
            Vec::new()
        } else {
            vec!["a helper is there".into()]
        },
        took: Span::millis(1),
        effect: None,
    }
}

fn aborted(by: AbortBy) -> Event {
    Event::Aborted(Abort {
        by,
        rule: "rule".into(),
        reason: "reason".into(),
    })
}

/// A whole run in which all holds; a test puts other events in its places.
fn whole() -> Vec<Event> {
    vec![
        started(None),
        phase(Phase::Gate),
        sampled(Phase::Gate, Judgement::Within),
        phase(Phase::Method),
        requested("i"),
        injected("i"),
        effect("i", true),
        sampled(Phase::Method, Judgement::Within),
        Event::InjectionEnded(end("i", true)),
        phase(Phase::Revert),
        phase(Phase::After),
        sampled(Phase::After, Judgement::Within),
        Event::RunEnded,
    ]
}

fn outcome_of(events: Vec<Event>) -> (Outcome, Vec<String>) {
    let entries: Vec<Entry> = events
        .into_iter()
        .enumerate()
        .map(|(n, event)| entry(n as f64, event))
        .collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    (verdict.outcome, verdict.reasons)
}

/// The whole run with one event put in another's place, or before it.
fn with(at: usize, replaced: usize, events: Vec<Event>) -> (Outcome, Vec<String>) {
    let mut all = whole();
    all.splice(at..at + replaced, events);
    outcome_of(all)
}

#[test]
fn all_that_holds_is_held() {
    assert_eq!(outcome_of(whole()), (Outcome::Held, vec![]));
}

#[test]
fn one_sample_outside_is_a_deviation_with_the_outages_length() {
    let outside = vec![
        sampled(Phase::Method, Judgement::Outside),
        sampled(Phase::Method, Judgement::Outside),
        sampled(Phase::Method, Judgement::Within),
    ];
    let (outcome, reasons) = with(7, 1, outside);
    assert_eq!(outcome, Outcome::Deviated);
    // From the first bad sample's start (7 - 0.1) to the good one's (9 - 0.1).
    assert!(
        reasons[0].contains("2 of 3 samples") && reasons[0].contains("for 2.0 s"),
        "{reasons:?}"
    );
    assert_eq!(
        with(11, 1, vec![sampled(Phase::After, Judgement::Outside)]).0,
        Outcome::Deviated
    );
}

#[test]
fn what_is_not_known_to_be_gone_outranks_everything() {
    assert_eq!(
        with(8, 1, vec![Event::InjectionEnded(end("i", false))]).0,
        Outcome::NotClean
    );
    assert_eq!(
        with(8, 1, vec![]).0,
        Outcome::NotClean,
        "its end was never told"
    );
    let owed = vec![Owed {
        injection: "old".into(),
        fault: "f".into(),
        residue: vec!["x".into()],
    }];
    let joined = Event::AgentJoined {
        agent: "here".into(),
        recovered: vec![],
        owed,
    };
    assert_eq!(with(1, 0, vec![joined]).0, Outcome::NotClean);
    // A second try that succeeds makes it clean again.
    let twice = vec![
        Event::InjectionEnded(end("i", false)),
        Event::InjectionEnded(end("i", true)),
    ];
    assert_eq!(with(8, 1, twice).0, Outcome::Held);
}

#[test]
fn a_lost_agent_aborts_and_its_successor_can_clear_the_name() {
    let lost = Event::AgentLost {
        agent: "here".into(),
        reason: "it died".into(),
    };
    assert_eq!(with(8, 1, vec![lost.clone()]).0, Outcome::NotClean);
    let back = Event::AgentJoined {
        agent: "here".into(),
        recovered: vec![end("i", true)],
        owed: vec![],
    };
    assert_eq!(with(8, 1, vec![lost, back]).0, Outcome::Aborted);
}

#[test]
fn who_ended_it_tells_aborted_from_deviated() {
    for by in [
        AbortBy::Operator,
        AbortBy::Host,
        AbortBy::Probe,
        AbortBy::BlastRadius,
        AbortBy::Action,
    ] {
        assert_eq!(with(8, 0, vec![aborted(by)]).0, Outcome::Aborted, "{by:?}");
    }
    let by_hypothesis = vec![
        sampled(Phase::Method, Judgement::Outside),
        aborted(AbortBy::Hypothesis),
    ];
    assert_eq!(with(8, 0, by_hypothesis).0, Outcome::Deviated);
}

#[test]
fn what_could_not_be_told_is_inconclusive() {
    assert_eq!(
        with(7, 1, vec![sampled(Phase::Method, Judgement::Unknown)]).0,
        Outcome::Inconclusive
    );
    assert_eq!(
        with(6, 1, vec![effect("i", false)]).0,
        Outcome::Inconclusive,
        "no effect"
    );
    assert_eq!(with(12, 1, vec![]).0, Outcome::Inconclusive, "cut short");
    assert_eq!(
        with(11, 1, vec![]).0,
        Outcome::Inconclusive,
        "not looked at after"
    );
    let failed = Event::ActivityFinished {
        phase: Phase::Method,
        index: 0,
        activity: "a".into(),
        status: ActivityStatus::Failed,
        output: Value::Null,
        why: None,
        judgement: None,
        took: Span::default(),
    };
    assert_eq!(with(8, 0, vec![failed]).0, Outcome::Inconclusive);
}

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
        took: Span::default(),
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
    let entries: Vec<Entry> = events.into_iter().map(|event| entry(0.0, event)).collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    assert_eq!(verdict.outcome, Outcome::Held);
    assert!(
        verdict.notes[0].contains("nothing was measured"),
        "{verdict:?}"
    );
}

#[test]
fn verdict_fault_that_stopped_acting_before_its_end_is_inconclusive() {
    for cause in [Cause::Done, Cause::Asked, Cause::Failed] {
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
    let entries: Vec<Entry> = events.into_iter().map(|event| entry(0.0, event)).collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    let [looks] = &verdict.probes[..] else {
        panic!("{verdict:?}")
    };
    assert_eq!((looks.looks, looks.failures), (30, 0));
    assert!((looks.upper_bound - 0.095_033_852_855_304).abs() < 1e-12);
    assert!(looks.to_string().contains("at most 9.5 %"), "{looks}");
}

#[test]
fn nothing_injected_is_not_started() {
    let refused = Event::NotStarted {
        rule: "gate".into(),
        reason: "no".into(),
        hint: Some("do".into()),
    };
    assert_eq!(
        outcome_of(vec![
            started(None),
            phase(Phase::Gate),
            refused,
            Event::RunEnded
        ])
        .0,
        Outcome::NotStarted
    );
    let refusal = Event::InjectionRefused {
        injection: "i".into(),
        refusal: Refusal::new("no-match", "nobody"),
    };
    assert_eq!(
        with(5, 4, vec![refusal, aborted(AbortBy::Action)]).0,
        Outcome::NotStarted
    );
}

#[test]
fn an_expectation_that_is_not_met_deviates() {
    let unmet = Effect {
        acts: true,
        unmet: Some("not back within 5s".into()),
        ..Effect::default()
    };
    let (outcome, reasons) = with(
        6,
        1,
        vec![Event::EffectSeen {
            injection: "i".into(),
            effect: unmet,
        }],
    );
    assert_eq!(outcome, Outcome::Deviated);
    assert!(reasons[0].contains("not back within 5s"), "{reasons:?}");
}

#[test]
fn with_a_recovery_time_the_last_look_may_take_it() {
    let mut events = whole();
    events[0] = started(Some(30));
    events.splice(
        11..12,
        [
            sampled(Phase::After, Judgement::Outside),
            sampled(Phase::After, Judgement::Within),
            Event::Recovered {
                after: Span::seconds(2),
            },
        ],
    );
    assert_eq!(outcome_of(events.clone()).0, Outcome::Held);
    let last = events.len() - 2;
    events[last] = Event::NotRecovered {
        within: Span::seconds(30),
    };
    assert_eq!(outcome_of(events).0, Outcome::Deviated);
}

#[test]
fn what_cannot_follow_is_refused() {
    let illegal = |events: Vec<Event>| {
        let entries: Vec<Entry> = events.into_iter().map(|event| entry(0.0, event)).collect();
        Run::fold(&entries).unwrap_err().to_string()
    };
    assert!(illegal(vec![phase(Phase::Gate)]).contains("starts once"));
    assert!(illegal(vec![started(None), started(None)]).contains("starts once"));
    assert!(illegal(vec![started(None), Event::RunEnded, Event::RunEnded]).contains("was over"));
    assert!(
        illegal(vec![
            started(None),
            phase(Phase::Method),
            phase(Phase::Gate)
        ])
        .contains("does not follow")
    );
    assert!(illegal(vec![started(None), requested("i")]).contains("method only"));
    let method = || vec![started(None), phase(Phase::Method)];
    assert!(
        illegal([method(), vec![requested("i"), requested("i")]].concat()).contains("re-injected")
    );
    assert!(
        illegal([method(), vec![aborted(AbortBy::Operator), requested("i")]].concat())
            .contains("nothing new")
    );
    assert!(illegal([method(), vec![injected("i")]].concat()).contains("never asked"));
    assert!(
        illegal([method(), vec![requested("i"), injected("i"), injected("i")]].concat())
            .contains("answered before")
    );
    let ended = || Event::InjectionEnded(end("i", true));
    assert!(
        illegal([method(), vec![requested("i"), ended(), ended()]].concat()).contains("had ended")
    );
    let late = Event::NotStarted {
        rule: "r".into(),
        reason: "x".into(),
        hint: None,
    };
    assert!(illegal([method(), vec![requested("i"), late]].concat()).contains("injected already"));
}

fn any_event() -> impl Strategy<Value = Event> {
    let id = prop_oneof![Just("i"), Just("j")];
    let phases = prop_oneof![
        Just(Phase::Gate),
        Just(Phase::Method),
        Just(Phase::Revert),
        Just(Phase::Rollbacks),
        Just(Phase::After)
    ];
    let judgements = prop_oneof![
        Just(Judgement::Within),
        Just(Judgement::Outside),
        Just(Judgement::Unknown)
    ];
    prop_oneof![
        Just(started(None)),
        Just(started(Some(1))),
        phases.clone().prop_map(phase),
        (phases, judgements).prop_map(|(phase, judgement)| sampled(phase, judgement)),
        id.clone().prop_map(requested),
        id.clone().prop_map(injected),
        (id.clone(), any::<bool>()).prop_map(|(id, acts)| effect(id, acts)),
        (id.clone(), any::<bool>()).prop_map(|(id, clean)| Event::InjectionEnded(end(id, clean))),
        id.prop_map(|id| Event::InjectionRefused {
            injection: id.into(),
            refusal: Refusal::new("r", "w")
        }),
        Just(aborted(AbortBy::Hypothesis)),
        Just(aborted(AbortBy::Operator)),
        Just(Event::AgentLost {
            agent: "here".into(),
            reason: "x".into()
        }),
        Just(Event::Recovered {
            after: Span::seconds(1)
        }),
        Just(Event::RunEnded),
    ]
}

proptest! {
    #[test]
    fn laws_of_the_fold(events in prop::collection::vec(any_event(), 0..40)) {
        // A run always starts, so that most sequences get somewhere.
        let mut run = Run::default();
        let mut kept = Vec::new();
        for (n, event) in std::iter::once(started(None)).chain(events).enumerate() {
            let entry = entry(n as f64, event);
            let before = run.clone();
            match run.apply(&entry) {
                Ok(()) => kept.push(entry),
                Err(_) => prop_assert_eq!(&run, &before, "an illegal event changes nothing"),
            }
            // Planned means owed: whatever is open is never called clean.
            let verdict = verdict(&run);
            if run.open().next().is_some() {
                prop_assert_eq!(verdict.outcome, Outcome::NotClean);
            }
            prop_assert_eq!(verdict.outcome == Outcome::NotClean, !verdict.owed.is_empty());
            prop_assert_eq!(verdict.outcome == Outcome::Held, verdict.reasons.is_empty());
            prop_assert_eq!(verdict.exit_code, verdict.outcome.exit_code());
        }
        // What is written down reads back, and tells the same.
        let lines: Vec<String> = kept.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<Entry> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(&read, &kept);
        prop_assert_eq!(Run::fold(&read).unwrap(), run);
    }
}
