//! The events of a run, as tests put them together: a whole run in which all holds, with others in their places.
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)] // Each test file uses some of it.

use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{
    Abort, AbortBy, ActivityStatus, Event, HypothesisTiming, JournalEntry, Judgement, Outcome,
    Phase, Run, verdict,
};
use backburn_experiments::wire::{
    Cause, Effect, EndedInjection, PlanView, Refusal, UnrevertedInjection,
};
use serde_json::Value;

pub fn entry(elapsed: f64, event: Event) -> JournalEntry {
    JournalEntry {
        at: jiff::Timestamp::UNIX_EPOCH,
        elapsed,
        event,
    }
}

pub fn started(recovery: Option<u64>) -> Event {
    Event::RunStarted {
        run: "r".into(),
        title: "t".into(),
        seed: 1,
        version: "0".into(),
        hypothesis: vec!["p".into()],
        hypothesis_timing: HypothesisTiming {
            before: true,
            during: true,
            after: true,
        },
        sha256: None,
        recovery_within: recovery.map(HumanDuration::seconds),
        approved_by: None,
        question: None,
        tolerances: Default::default(),
    }
}

pub fn sampled(phase: Phase, judgement: Judgement) -> Event {
    Event::Sampled {
        phase,
        probe: "p".into(),
        hypothesis: true,
        judgement,
        output: Value::Null,
        why: None,
        took: HumanDuration::millis(100),
    }
}

pub fn phase(phase: Phase) -> Event {
    Event::PhaseStarted { phase }
}

pub fn requested(injection: &str) -> Event {
    Event::InjectionRequested {
        injection: injection.into(),
        activity: "a".into(),
        fault: "process-pause".into(),
        agent: "here".into(),
        duration: None,
        one_shot: false,
    }
}

pub fn injected(injection: &str) -> Event {
    Event::Injected {
        injection: injection.into(),
        plan: PlanView::default(),
    }
}

pub fn effect(injection: &str, acts: bool) -> Event {
    Event::EffectSeen {
        injection: injection.into(),
        effect: Effect {
            acts,
            seen: "seen".into(),
            ..Effect::default()
        },
    }
}

pub fn end(injection: &str, clean: bool) -> EndedInjection {
    EndedInjection {
        injection: injection.into(),
        cause: Cause::Finished,
        clean,
        residue: if clean {
            Vec::new()
        } else {
            vec!["a helper is there".into()]
        },
        took: HumanDuration::millis(1),
        effect: None,
    }
}

pub fn aborted(by: AbortBy) -> Event {
    Event::Aborted(Abort {
        by,
        rule: "rule".into(),
        reason: "reason".into(),
    })
}

/// A whole run in which all holds; a test puts other events in its places.
pub fn whole() -> Vec<Event> {
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

pub fn outcome_of(events: Vec<Event>) -> (Outcome, Vec<String>) {
    let entries: Vec<JournalEntry> = events
        .into_iter()
        .enumerate()
        .map(|(n, event)| entry(n as f64, event))
        .collect();
    let verdict = verdict(&Run::fold(&entries).unwrap());
    (verdict.outcome, verdict.reasons)
}

/// The whole run with one event put in another's place, or before it.
pub fn with(at: usize, replaced: usize, events: Vec<Event>) -> (Outcome, Vec<String>) {
    let mut all = whole();
    all.splice(at..at + replaced, events);
    outcome_of(all)
}
