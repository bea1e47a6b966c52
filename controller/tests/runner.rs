//! What the runner does when things go as they should, and when the hypothesis fails.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn_experiments::journal::{AbortBy, Event, InjectionState, Outcome, Phase};
use backburn_experiments::wire::Command;
use serde_json::json;
use std::time::{Duration, Instant};
use support::{Manners, World, fault, touch};

/// Three failures in a row at the tests' pace, so that a run with a long fault is ended soon.
fn impatient() -> serde_json::Value {
    json!([{"name": "the file is gone", "probe": "file", "every": "20ms", "failures": 3}])
}

#[tokio::test]
async fn gate_that_fails_keeps_everything_from_starting() {
    let mut world = World::new(Manners::default());
    std::fs::remove_file(world.healthy()).unwrap();
    let rolled_back = world.folder.path().join("rolled-back");
    let document = world.experiment(
        "1s",
        json!({"rollbacks": [touch("roll back", &rolled_back)]}),
    );
    let done = world.run(document).await;
    assert_eq!(done.finished.verdict.outcome, Outcome::NotStarted);
    assert_eq!(done.outcome(), 3);
    assert!(
        done.reasons().contains("(rule: gate)"),
        "{}",
        done.reasons()
    );
    assert!(!world.was_injected() && !rolled_back.exists());
    assert!(done.finished.run.injections.is_empty());
}

#[tokio::test]
async fn hypothesis_that_fails_ends_the_run_and_reverts_first() {
    let mut world = World::new(Manners::default());
    let (rolled_back, after) = (
        world.folder.path().join("rolled-back"),
        world.folder.path().join("after"),
    );
    let document = world.experiment(
        "20s",
        json!({
            "method": [fault("pause", "20s"), touch("never", &after)],
            "rollbacks": [touch("roll back", &rolled_back)], "abort": impatient(),
        }),
    );
    let began = Instant::now();
    let done = world.run(document).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Deviated,
        "{}",
        done.reasons()
    );
    let told = world.told.lock().unwrap();
    let injected = told
        .iter()
        .position(|(_, command)| matches!(command, Command::Inject { .. }))
        .unwrap();
    assert!(
        matches!(told[injected + 1].1, Command::RevertAll { .. }),
        "{:?}",
        told[injected + 1].1
    );
    // By the journal: from the sample that breached the rule to the fault gone.
    let at = |matches: &dyn Fn(&Event) -> bool| {
        done.entries
            .iter()
            .find(|entry| matches(&entry.event))
            .map(|entry| entry.elapsed)
            .unwrap()
    };
    let aborted =
        at(&|event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::Hypothesis));
    let gone = at(&|event| matches!(event, Event::InjectionEnded(_)));
    assert!(gone - aborted < 0.05, "{} s", gone - aborted);
    // What would have followed did not; `default` plays no rollbacks in a run that was aborted.
    assert!(!after.exists() && !rolled_back.exists());
    assert!(
        done.finished
            .run
            .injections
            .values()
            .all(|i| matches!(&i.state, InjectionState::Ended(e) if e.clean))
    );
}

#[tokio::test]
async fn outage_that_is_over_is_reported_with_its_duration() {
    let mut world = World::new(Manners::default());
    let done = world
        .run(world.experiment("400ms", json!({"recovery": {"within": "5s"}, "abort": []})))
        .await;
    assert_eq!(done.finished.verdict.outcome, Outcome::Deviated);
    let [(probe, outage)] = &done.finished.verdict.outages[..] else {
        panic!("{:?}", done.finished.verdict)
    };
    assert_eq!(probe, "file");
    let length = outage.until - outage.from;
    assert!(outage.over && (0.2..2.0).contains(&length), "{length}");
    assert!(done.finished.verdict.recovered_after.is_some());
}

#[tokio::test]
async fn recovery_is_timed_or_reported_as_missed() {
    let slow = || Manners {
        slow_recovery: Some(Duration::from_millis(300)),
        ..Manners::default()
    };
    let mut world = World::new(slow());
    let done = world
        .run(world.experiment("200ms", json!({"recovery": {"within": "10s"}})))
        .await;
    let after = done.finished.verdict.recovered_after.unwrap();
    assert!((200..3000).contains(&after.0.as_millis()), "{after}");

    let mut world = World::new(slow());
    let document = world.experiment("200ms", json!({"recovery": {"within": "50ms"}}));
    let done = world.run(document).await;
    assert!(done.has(|event| matches!(event, Event::NotRecovered { .. })));
    assert_eq!(done.finished.verdict.outcome, Outcome::Deviated);
    assert!(
        done.reasons().contains("did not hold again within 50ms"),
        "{}",
        done.reasons()
    );
}

#[tokio::test]
async fn rollbacks_run_by_their_strategy() {
    // Strategy; whether they are played in a run that held, that deviated, and that was aborted.
    for (strategy, plays) in [
        ("default", [true, true, false]),
        ("always", [true, true, true]),
        ("never", [false, false, false]),
        ("deviated", [false, true, true]),
    ] {
        for (case, expected) in ["held", "deviated", "aborted"].into_iter().zip(plays) {
            let mut world = World::new(Manners::default());
            let rolled_back = world.folder.path().join("rolled-back");
            let mut document = world.experiment(
                if case == "aborted" { "10s" } else { "120ms" },
                json!({
                    "rollbacks": [touch("roll back", &rolled_back)], "abort": if case == "aborted" { impatient() } else { json!([]) },
                    "runtime": {"rollbacks": {"strategy": strategy}},
                }),
            );
            if case == "held" {
                document["method"] = json!([]);
            }
            let done = world.run(document).await;
            assert_eq!(
                rolled_back.exists(),
                expected,
                "{strategy}, {case}: {:?}",
                done.kinds()
            );
            let wanted = if case == "held" {
                Outcome::Held
            } else {
                Outcome::Deviated
            };
            assert_eq!(
                done.finished.verdict.outcome,
                wanted,
                "{strategy}, {case}: {}",
                done.reasons()
            );
        }
    }
}

#[tokio::test]
async fn probe_that_is_slow_does_not_delay_others() {
    let mut world = World::new(Manners::default());
    let slow = json!({"type": "probe", "name": "slow", "tolerance": 0,
        "provider": {"type": "process", "path": "sleep", "arguments": ["0.4"]}});
    let mut document = world.experiment("800ms", json!({"abort": []}));
    document["steady-state-hypothesis"]["probes"] = json!([world.probe("file"), slow]);
    let done = world.run(document).await;
    let looks = |name: &str| {
        let of = |event: &Event| matches!(event, Event::Sampled { probe, phase: Phase::Method, .. } if probe == name);
        done.entries.iter().filter(|entry| of(&entry.event)).count()
    };
    assert!(looks("file") > 15, "{}", looks("file"));
    assert!((2..=4).contains(&looks("slow")), "{}", looks("slow"));
}

#[tokio::test]
async fn run_without_a_fault_starts_no_agent() {
    let mut world = World::new(Manners::default());
    let done = world
        .run(world.experiment(
            "1s",
            json!({"method": [touch("touch", &world.folder.path().join("x"))]}),
        ))
        .await;
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Held,
        "{}",
        done.reasons()
    );
    assert_eq!(*world.starts.lock().unwrap(), 0);
}

#[tokio::test]
async fn target_that_is_not_this_host_is_refused_with_a_hint() {
    let target = json!({"db": {"labels": {"role": "db"}}});
    let mut action = fault("pause", "50ms");
    action["provider"]["targets"] = json!("db");
    let mut world = World::new(Manners::default());
    let document = world.experiment("50ms", json!({"targets": target, "method": [action]}));
    let done = world.run(document.clone()).await;
    assert_eq!(done.outcome(), 3);
    assert!(
        done.finished
            .verdict
            .hint
            .as_deref()
            .unwrap_or("")
            .contains("--label"),
        "{:?}",
        done.finished.verdict
    );

    let mut world = World::new(Manners {
        labels: vec![("role".into(), "db".into())],
        ..Manners::default()
    });
    let mut document = document;
    document["steady-state-hypothesis"]["probes"] = json!([world.probe("file")]);
    let done = world.run(document).await;
    assert!(
        done.has(
            |event| matches!(event, Event::TargetPicked { picked, .. } if picked == &["fake"])
        )
    );
    assert!(world.was_injected());
}

#[tokio::test]
async fn secrets_are_redacted_in_all_events() {
    // From a file, as the environment is shared with other tests.
    let mut world = World::new(Manners::default());
    let file = world.folder.path().join("secret");
    std::fs::write(&file, "hunter2-\"quoted\"\n").unwrap();
    let document = json!({
        "title": "t", "description": "d",
        "secrets": {"api": {"token": {"type": "file", "path": file}}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "echo", "tolerance": {"type": "regex", "pattern": "nothing like it", "target": "stdout"},
             "provider": {"type": "process", "path": "echo", "arguments": ["${token}"]}}]},
        "runtime": {"hypothesis": {"strategy": "after-method-only"}},
        "method": [
            {"type": "action", "name": "say it", "provider": {"type": "process", "path": "echo", "arguments": ["so", "${token}"]}},
            {"type": "action", "name": "fail with it", "provider": {"type": "tcp", "host": "${token}", "port": 1}}],
    });
    let done = world.run(document.clone()).await;
    assert!(
        done.journal.contains("could not be resolved"),
        "{}",
        done.journal
    );
    assert!(!done.journal.contains("hunter2"), "{}", done.journal);
    // Nor where it is part of what is not there.
    let mut missing = document;
    missing["method"][1]["provider"] = json!({"type": "process", "path": "/no/${token}"});
    let mut world = World::new(Manners::default());
    let done = world.run(missing).await;
    assert_eq!(done.outcome(), 3, "{}", done.reasons());
    assert!(done.journal.contains("***"), "{}", done.journal);
    assert!(!done.journal.contains("hunter2"), "{}", done.journal);
    assert!(!format!("{:?} {:?}", done.finished.run, done.finished.verdict).contains("hunter2"));
}

#[tokio::test]
async fn verdict_follows_from_the_journal_alone() {
    let mut world = World::new(Manners::default());
    let done = world
        .run(world.experiment("100ms", json!({"abort": []})))
        .await;
    let entries: Vec<_> = done
        .journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let run = backburn_experiments::journal::Run::fold(&entries).unwrap();
    assert_eq!(
        backburn_experiments::journal::verdict(&run),
        done.finished.verdict
    );
}
