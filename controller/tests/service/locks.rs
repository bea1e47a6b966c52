//! Locks by name: of the runs that were started with the same lock, one is open at a time.

use crate::world::{World, actor, blocking, on_host};
use backburn::service::{RunSpec, RunStartError};
use serde_json::json;
use std::time::Duration;

async fn world() -> World {
    let world = World::new(json!({"rules": []}), &["a", "b"]).await;
    for name in ["a", "b"] {
        world.apply(name, &on_host(name, "60s"), "ada");
    }
    world
}

fn locked(world: &World, name: &str, lock: &str) -> RunSpec {
    RunSpec {
        lock: Some(lock.into()),
        ..world.spec(name, "ada")
    }
}

fn start(world: &World, spec: RunSpec) -> Result<String, RunStartError> {
    blocking(|| world.service.start(spec))
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_held_by_an_open_run_refuses_another() {
    let world = world().await;
    let first = start(&world, locked(&world, "a", "staging")).unwrap();
    world.until_hit("a").await;
    let before = world.runs().len();
    let Err(RunStartError::Refusal(refusal)) = start(&world, locked(&world, "b", "staging")) else {
        panic!("it starts");
    };
    assert_eq!(refusal.rule, "lock");
    assert_eq!(
        refusal.what,
        format!("lock `staging` is held by run `{first}` of `ada`")
    );
    assert_eq!(world.runs().len(), before, "nothing is recorded as a run");
    // Another lock, and none, are free.
    let other = start(&world, locked(&world, "b", "production")).unwrap();
    assert!(
        world
            .service
            .until_unlocked("staging", Duration::ZERO)
            .await
            .is_err()
    );
    world.service.stop(&first, "the test is over".into());
    world.over(&first).await;
    world
        .service
        .until_unlocked("staging", Duration::from_secs(20))
        .await
        .unwrap();
    world.service.stop(&other, "the test is over".into());
    world.over(&other).await;
    world
        .service
        .until_unlocked("production", Duration::from_secs(20))
        .await
        .unwrap();
    let next = start(&world, locked(&world, "b", "staging")).unwrap();
    world.service.stop(&next, "the test is over".into());
    world.over(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_with_another_name_is_invalid() {
    let world = world().await;
    let Err(RunStartError::Invalid(problems)) = start(&world, locked(&world, "a", "a b")) else {
        panic!("it starts");
    };
    assert_eq!(problems[0].at, "$.lock");
    assert!(world.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_of_a_waiting_run_is_taken_when_it_is_approved() {
    let world = World::new(
        json!({"rules": [{"name": "two", "labels": {"role": "web"}, "approval": true}]}),
        &["a", "b"],
    )
    .await;
    for name in ["a", "b"] {
        world.apply(name, &on_host(name, "60s"), "ada");
    }
    let wait = |name: &str| match start(&world, locked(&world, name, "staging")) {
        Err(RunStartError::Waits(waiting)) => waiting.approval.run,
        other => panic!("{other:?}"),
    };
    // Both wait: whoever only waits holds nothing.
    let (first, second) = (wait("a"), wait("b"));
    let approve = |id: &str| blocking(|| world.service.approve(id, None, &actor("bob")));
    approve(&first).unwrap();
    world.until_hit("a").await;
    let Err(RunStartError::Refusal(refusal)) = approve(&second) else {
        panic!("it starts");
    };
    assert_eq!(refusal.rule, "lock");
    assert!(
        blocking(|| world.service.waiting_run(&second)).is_ok(),
        "it waits on"
    );
    world.service.stop(&first, "the test is over".into());
    world.over(&first).await;
    world
        .service
        .until_unlocked("staging", Duration::from_secs(20))
        .await
        .unwrap();
    approve(&second).unwrap();
    world.service.stop(&second, "the test is over".into());
    world.over(&second).await;
}
