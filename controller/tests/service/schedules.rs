//! Schedules act for whoever applied them, and can be paused.

use crate::world::{World, actor, blocking, on_host};
use backburn::store::{RunRecord, Trigger};
use backburn_experiments::journal::{Event, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

fn often(agent: &str) -> Value {
    let mut document = on_host(agent, "1ms");
    document["schedule"] = json!({"random": {"mean-time-between": "1s"}});
    document
}

/// The scheduled runs that are over, oldest first.
fn scheduled(world: &World) -> Vec<RunRecord> {
    let mut runs = world.runs();
    runs.retain(|run| run.new.because == Trigger::Schedule && run.end.is_some());
    runs.reverse();
    runs
}

fn count(world: &World, outcome: Outcome) -> usize {
    let runs = scheduled(world);
    let of = runs
        .iter()
        .filter(|run| run.end.as_ref().is_some_and(|end| end.outcome == outcome));
    of.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_has_the_rights_of_whoever_applied_it() {
    let policy = json!({"rules": [{"name": "only bob", "labels": {"host": "b"}, "who": ["bob"]}]});
    let world = World::new(policy, &["a", "b"]).await;
    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world.apply("free", &often("a"), "ada");
    world
        .until("a scheduled run has run", || {
            count(&world, Outcome::Inconclusive) > 0
        })
        .await;
    assert!(scheduled(&world).iter().all(|run| run.new.who == "ada"));
    blocking(|| {
        world
            .store()
            .remove_experiment("free", "ada", Timestamp::now())
    })
    .unwrap();

    // Its own words do not give it more than its author has.
    world.apply("bobs", &often("b"), "ada");
    let of = |name: &str| {
        let mut runs = scheduled(&world);
        runs.retain(|run| {
            run.new
                .experiment
                .as_ref()
                .is_some_and(|of| of.name == name)
        });
        runs
    };
    world
        .until("one was refused", || !of("bobs").is_empty())
        .await;
    let refused = of("bobs").remove(0);
    let reasons = refused.end.unwrap().verdict["reasons"].to_string();
    assert!(
        reasons.contains("token `ada` may not target these agents"),
        "{reasons}"
    );
    world
        .until("it is in the audit log", || {
            let entries = world.audit("scheduled run");
            entries.iter().any(|entry| {
                entry.record.outcome == "refused" && entry.record.detail["run"] == refused.new.id
            })
        })
        .await;
    world.apply("bobs", &often("b"), "bob");
    let before = scheduled(&world).len();
    world
        .until("one was started", || {
            scheduled(&world)[before..]
                .iter()
                .any(|run| run.end.as_ref().unwrap().outcome == Outcome::Inconclusive)
        })
        .await;
    schedules.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_of_a_revoked_token_stops_visibly_until_it_is_applied_again() {
    let world = World::new(json!({}), &["a"]).await;
    world.apply("often", &often("a"), "ada");
    blocking(|| world.store().revoke_api_token("id-ada", Timestamp::now())).unwrap();
    let stopped = || {
        let all = blocking(|| world.service.scheduled(Timestamp::now(), 1)).unwrap();
        all[0].stopped.clone()
    };
    assert_eq!(stopped().as_deref(), Some("token `ada` was revoked"));
    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world
        .until("it is recorded", || count(&world, Outcome::NotStarted) == 1)
        .await;
    let run = scheduled(&world).remove(0);
    assert!(
        matches!(&world.events(&run.new.id)[1], Event::NotStarted { rule, reason, hint: Some(hint) }
            if rule == "schedule" && reason == "the schedule is stopped: token `ada` was revoked" && hint.starts_with("apply `often` again"))
    );
    // The same document, applied by somebody who may.
    assert!(!blocking(|| world.service.owns_schedule("often", &actor("bob"))).unwrap());
    world.apply("often", &often("a"), "bob");
    assert_eq!(stopped(), None);
    world
        .until("it starts again", || {
            count(&world, Outcome::Inconclusive) > 0
        })
        .await;
    assert_eq!(
        count(&world, Outcome::NotStarted),
        1,
        "it was recorded once"
    );
    schedules.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_that_is_paused_starts_nothing_until_it_is_resumed() {
    let world = World::new(json!({}), &["a", "b"]).await;
    world.apply("paused", &often("a"), "ada");
    world.apply("plain", &on_host("a", "1ms"), "ada");
    let pause = |name: &str| {
        blocking(|| {
            world
                .service
                .pause_schedule(name, Some("a drill".into()), &actor("bob"))
        })
    };
    assert!(pause("plain").is_err(), "it has no schedule");
    assert!(pause("nothing").is_err());
    pause("paused").unwrap();
    assert!(pause("paused").is_err(), "it is paused already");
    assert_eq!(world.audit("pause-schedule").len(), 1);
    let world = world.restart();
    world.connect("a", Default::default()).await;
    world.connect("b", Default::default()).await;
    let listed = blocking(|| world.service.scheduled(Timestamp::now(), 1)).unwrap();
    let pause = listed[0].paused.clone().unwrap();
    assert_eq!(
        (pause.who.as_str(), pause.why.as_deref()),
        ("bob", Some("a drill"))
    );

    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world.apply("other", &often("b"), "ada");
    world
        .until("the other one has run three times", || {
            scheduled(&world).len() > 2
        })
        .await;
    assert!(
        scheduled(&world)
            .iter()
            .all(|run| run.new.experiment.as_ref().unwrap().name == "other")
    );
    assert!(blocking(|| world.service.resume_schedule("paused", &actor("bob"))).unwrap());
    world
        .until("it runs again", || {
            scheduled(&world)
                .iter()
                .any(|run| run.new.experiment.as_ref().unwrap().name == "paused")
        })
        .await;
    assert!(!blocking(|| world.service.resume_schedule("paused", &actor("bob"))).unwrap());
    schedules.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_run_that_its_guard_keeps_from_starting_is_recorded() {
    let world = World::new(json!({}), &["a"]).await;
    let mut guarded = often("a");
    guarded["schedule"]["guard"] = json!({"type": "probe", "name": "calm", "tolerance": 200,
        "provider": {"type": "http", "url": "http://127.0.0.1:1/"}});
    world.apply("guarded", &guarded, "ada");
    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world
        .until("it is recorded", || count(&world, Outcome::NotStarted) > 0)
        .await;
    schedules.abort();
    let run = scheduled(&world).remove(0);
    assert!(
        matches!(&world.events(&run.new.id)[1], Event::NotStarted { rule, reason, .. } if rule == "guard" && reason.contains("`calm`"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn due_time_during_the_last_run_is_recorded_as_an_overlap() {
    let world = World::new(json!({}), &["a"]).await;
    let mut long = often("a");
    long["method"][0]["provider"]["duration"] = json!("60s");
    world.apply("long", &long, "ada");
    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world
        .until("it is recorded", || count(&world, Outcome::NotStarted) > 0)
        .await;
    schedules.abort();
    let run = scheduled(&world).remove(0);
    assert!(
        matches!(&world.events(&run.new.id)[1], Event::NotStarted { rule, .. } if rule == "overlap")
    );
    for run in world.service.active_runs().into_keys() {
        world.service.stop(&run, "the test is over".into());
        world.over(&run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_passed_without_a_controller_are_recorded_as_one_run_and_counted() {
    let world = World::new(json!({}), &["a"]).await;
    let mut hourly = on_host("a", "1ms");
    // Half an hour away, whenever the test runs.
    let minute = (Timestamp::now().as_second() / 60 + 30) % 60;
    hourly["schedule"] = json!({"cron": format!("{minute} * * * *")});
    world.apply("hourly", &hourly, "ada");
    let last = Timestamp::now() - jiff::SignedDuration::from_mins(3 * 60);
    let kept = json!({
        "schedule": hourly["schedule"], "version": 1, "progress": {"last": last},
    });
    blocking(|| world.store().set("schedule/hourly", &kept)).unwrap();
    let schedules = tokio::spawn(Arc::clone(&world.service).keep_schedules());
    world
        .until("it is recorded", || count(&world, Outcome::NotStarted) > 0)
        .await;
    schedules.abort();
    assert_eq!(scheduled(&world).len(), 1);
    let run = scheduled(&world).remove(0);
    let events = world.events(&run.new.id);
    assert!(
        matches!(&events[1], Event::NotStarted { rule, reason, hint, .. }
            if rule == "missed" && reason.contains("not running at")
            && reason.ends_with("and at 2 due times before")
            && hint.as_ref().is_some_and(|hint| hint.contains("catch-up"))),
        "{events:?}"
    );
    assert_eq!(world.service.missed_times(), 3);
    let audited = world.audit("scheduled run").remove(0).record;
    assert_eq!(
        (&audited.detail["run"], &audited.detail["times"]),
        (&json!(run.new.id), &json!(3))
    );
}
