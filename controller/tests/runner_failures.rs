//! What the runner does when agents, journals, operators and checks fail it.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn_experiments::journal::{AbortBy, Event, Judgement, Outcome};
use backburn_experiments::wire::{Command, Refusal};
use serde_json::json;
use std::time::{Duration, Instant};
use support::{Manners, World, fault, touch};

#[tokio::test]
async fn agent_that_is_lost_is_restarted_to_learn_what_was_reverted() {
    let manners = Manners {
        vanish: true,
        recovers: true,
        ..Manners::default()
    };
    let mut world = World::new(manners);
    let done = world.run(world.experiment("5s", json!({}))).await;
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
    assert_eq!(*world.starts.lock().unwrap(), 2);
    let kinds = done.kinds();
    let at = |kind: &str| kinds.iter().position(|other| other == kind).unwrap();
    assert!(at("agent-lost") < at("aborted"));
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "agent-joined").count(),
        2
    );
    assert!(done.finished.verdict.owed.is_empty());
}

#[tokio::test]
async fn agent_that_is_lost_without_a_successor_is_not_clean() {
    let mut world = World::new(Manners {
        vanish: true,
        ..Manners::default()
    });
    let done = world.run(world.experiment("5s", json!({}))).await;
    assert_eq!(done.outcome(), 6);
    assert_eq!(done.finished.verdict.owed[0].injection, "test-1");
}

#[tokio::test]
async fn revert_that_fails_is_not_clean() {
    let mut world = World::new(Manners {
        unclean: true,
        ..Manners::default()
    });
    let done = world.run(world.experiment("100ms", json!({}))).await;
    assert_eq!(done.outcome(), 6);
    assert!(
        done.has(|event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::Revert))
    );
}

#[tokio::test]
async fn journal_that_cannot_be_written_keeps_the_run_from_injecting() {
    let mut world = World::new(Manners::default());
    world.journal = Some("/dev/full".into());
    let done = world.run(world.experiment("1s", json!({}))).await;
    assert_eq!(done.finished.verdict.outcome, Outcome::Aborted);
    assert!(done.reasons().contains("/dev/full"), "{}", done.reasons());
    assert!(!world.was_injected());
}

#[tokio::test]
async fn journal_that_fails_during_the_run_reverts_everything() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("journal");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Whoever reads goes away once something is injected: the next write fails.
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let reader = std::sync::Mutex::new(Some(reader));
    let on_inject = move || drop(reader.lock().unwrap().take());
    let mut world = World::new(Manners {
        on_inject: Some(std::sync::Arc::new(on_inject)),
        ..Manners::default()
    });
    world.journal = Some(pipe);
    let began = Instant::now();
    let done = world
        .run(world.experiment("20s", json!({"abort": []})))
        .await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(
        done.has(|event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::Journal))
    );
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
    assert!(
        world
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|(_, command)| matches!(command, Command::RevertAll { .. }))
    );
    assert!(world.healthy().exists());
}

#[tokio::test]
async fn run_that_an_operator_stops_is_reverted() {
    for (strategy, played) in [("default", false), ("always", true)] {
        let mut world = World::new(Manners::default());
        let rolled_back = world.folder.path().join("rolled-back");
        let document = world.experiment(
            "20s",
            json!({
                "rollbacks": [touch("roll back", &rolled_back)], "abort": [],
                "runtime": {"rollbacks": {"strategy": strategy}}, "recovery": {"within": "20s"},
            }),
        );
        let stop = world.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stop.send("SIGINT received".into()).unwrap();
        });
        let began = Instant::now();
        let done = world.run(document).await;
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(done.finished.verdict.outcome, Outcome::Aborted);
        assert!(done.reasons().contains("SIGINT received"));
        assert!(world.healthy().exists());
        assert_eq!(rolled_back.exists(), played, "{strategy}");
    }
}

#[tokio::test]
async fn plan_that_is_refused_keeps_the_run_from_starting() {
    let refusal = Refusal::new("no-match", "no process is called `nobody`").hint("`ps` lists them");
    let mut world = World::new(Manners {
        refuse_plan: Some(refusal),
        ..Manners::default()
    });
    let done = world.run(world.experiment("1s", json!({}))).await;
    assert_eq!(done.outcome(), 3);
    assert!(!world.was_injected());
    assert_eq!(
        done.finished.verdict.hint.as_deref(),
        Some("`ps` lists them")
    );
    assert!(
        !done.has(|event| matches!(event, Event::Sampled { .. })),
        "the gate comes after the plan"
    );
}

#[tokio::test]
async fn injection_refused_after_its_plan_was_accepted_aborts() {
    let refusal = Refusal::new("overlap", "somebody holds it");
    let mut world = World::new(Manners {
        refuse_inject: Some(refusal),
        ..Manners::default()
    });
    let document = world.experiment(
        "1s",
        json!({"method": [fault("one", "1s"), fault("two", "1s")]}),
    );
    let done = world.run(document).await;
    assert!(
        done.has(|event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::Action))
    );
    assert_eq!(done.finished.run.injections.len(), 1);
}

#[tokio::test]
async fn fault_without_effect_is_inconclusive() {
    let mut world = World::new(Manners {
        no_effect: true,
        ..Manners::default()
    });
    let mut document = world.experiment("100ms", json!({}));
    document["steady-state-hypothesis"]["probes"] = json!([{"type": "probe", "name": "always", "tolerance": 0,
        "provider": {"type": "process", "path": "true"}}]);
    let done = world.run(document).await;
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Inconclusive,
        "{}",
        done.reasons()
    );
}

#[tokio::test]
async fn run_with_missing_programs_is_not_started_and_names_all_of_them() {
    let mut world = World::new(Manners::default());
    let no_program = world.healthy().display().to_string();
    let program = |path: &str| json!({"type": "process", "path": path});
    let python =
        |module: &str, func: &str| json!({"type": "python", "module": module, "func": func});
    let action =
        |name: &str, provider| json!({"type": "action", "name": name, "provider": provider});
    let document = world.experiment(
        "100ms",
        json!({
            "abort": [{"name": "rule", "probe": {"type": "probe", "name": "watch", "tolerance": 0, "provider": program("no-such-watch")}}],
            "rollbacks": [
                action("one", program("/no/such/program")),
                action("two", program("no-such-program")),
                action("three", python("no_such_module", "f")),
                action("four", python("os", "no_such_function")),
                action("five", python("os.path", "exists")),
                action("six", program("true")),
                action("seven", program(&no_program)),
            ],
        }),
    );
    let done = world.run(document.clone()).await;
    assert_eq!(done.outcome(), 3);
    assert!(!world.was_injected());
    assert!(
        !done.has(|event| matches!(event, Event::Sampled { .. })),
        "not even the gate"
    );
    let reasons = done.reasons();
    for (place, what) in [
        ("$.abort[0].probe", "no-such-watch"),
        ("$.rollbacks[0]", "/no/such/program"),
        ("$.rollbacks[1]", "no-such-program"),
        ("$.rollbacks[2]", "no_such_module"),
        ("$.rollbacks[3]", "no_such_function"),
        ("$.rollbacks[6]", &no_program),
    ] {
        assert!(
            reasons.contains(place) && reasons.contains(what),
            "{place}: {reasons}"
        );
    }
    assert!(
        !reasons.contains("$.rollbacks[4]") && !reasons.contains("$.rollbacks[5]"),
        "{reasons}"
    );

    // What is never played need not be there.
    let mut never = document;
    never["abort"] = json!([]);
    never["runtime"] = json!({"rollbacks": {"strategy": "never"}});
    let mut world = World::new(Manners::default());
    let done = world.run(never).await;
    assert!(world.was_injected(), "{}", done.reasons());
}

#[tokio::test]
async fn probe_that_breaks_is_inconclusive() {
    let mut world = World::new(Manners::default());
    let mut document = world.experiment("100ms", json!({}));
    document["steady-state-hypothesis"]["probes"][0]["provider"] =
        json!({"type": "prometheus", "url": "http://127.0.0.1:1", "query": "up"});
    let done = world.run(document).await;
    assert_eq!(done.outcome(), 3);
    assert!(done.has(|event| matches!(
        event,
        Event::Sampled {
            judgement: Judgement::Unknown,
            ..
        }
    )));
}

#[tokio::test]
async fn concurrent_faults_beyond_the_limit_are_refused_or_aborted() {
    let background = |name: &str| {
        let mut action = fault(name, "5s");
        action["background"] = json!(true);
        action
    };
    let radius = json!({"concurrent-faults": 1});
    let mut world = World::new(Manners::default());
    let document = world.experiment(
        "5s",
        json!({"method": [background("one"), background("two")], "blast-radius": radius}),
    );
    let done = world.run(document).await;
    assert_eq!(done.outcome(), 3);
    assert!(
        done.reasons().contains("(rule: blast-radius)") && !world.was_injected(),
        "{}",
        done.reasons()
    );

    // What lies between takes a time that nobody knows beforehand.
    let mut world = World::new(Manners::default());
    let between =
        json!({"type": "action", "name": "wait", "provider": {"type": "process", "path": "true"}});
    let method = json!([background("one"), between, background("two")]);
    let document = world.experiment(
        "5s",
        json!({"method": method, "blast-radius": radius, "abort": []}),
    );
    let done = world.run(document).await;
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
    assert_eq!(done.finished.run.injections.len(), 1);
    assert!(world.healthy().exists());
}

#[tokio::test]
async fn blast_radius_ends_a_run_that_takes_too_long() {
    let mut world = World::new(Manners::default());
    let slow = json!({"type": "action", "name": "wait", "provider": {"type": "process", "path": "sleep", "arguments": ["20"]}});
    let mut first = fault("pause", "150ms");
    first["background"] = json!(true);
    let document = world.experiment(
        "1s",
        json!({"method": [first, slow], "blast-radius": {"duration": "300ms"}, "abort": []}),
    );
    let began = Instant::now();
    let done = world.run(document).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(
        done.has(
            |event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::BlastRadius)
        )
    );
}
