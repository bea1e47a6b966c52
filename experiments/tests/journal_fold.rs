//! The journal alone gives the verdict: each outcome from its events, and laws that hold for any
//! sequence of events at all.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{
    AbortBy, ActivityStatus, Event, JournalEntry, Judgement, Outcome, Phase, Run, verdict,
};
use backburn_experiments::wire::{Effect, Refusal, UnrevertedInjection};
use proptest::prelude::*;
use serde_json::Value;

mod events;

use events::*;

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
    let owed = vec![UnrevertedInjection {
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
        "not checked after"
    );
    let failed = Event::ActivityFinished {
        phase: Phase::Method,
        index: 0,
        activity: "a".into(),
        status: ActivityStatus::Failed,
        output: Value::Null,
        why: None,
        judgement: None,
        took: HumanDuration::default(),
    };
    assert_eq!(with(8, 0, vec![failed]).0, Outcome::Inconclusive);
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
                after: HumanDuration::seconds(2),
            },
        ],
    );
    assert_eq!(outcome_of(events.clone()).0, Outcome::Held);
    let last = events.len() - 2;
    events[last] = Event::NotRecovered {
        within: HumanDuration::seconds(30),
    };
    assert_eq!(outcome_of(events).0, Outcome::Deviated);
}

#[test]
fn what_cannot_follow_is_refused() {
    let illegal = |events: Vec<Event>| {
        let entries: Vec<JournalEntry> =
            events.into_iter().map(|event| entry(0.0, event)).collect();
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
            after: HumanDuration::seconds(1)
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
        let read: Vec<JournalEntry> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(&read, &kept);
        prop_assert_eq!(Run::fold(&read).unwrap(), run);
    }
}
