//! Runs that wait for approval, and runs that a rule keeps from starting.

use crate::support::Manners;
use crate::world::{World, actor, blocking, not_started, on_host, pause, refused};
use backburn::service::{RequestedDocument, RunStartError};
use backburn::store::{StoreErrorKind, Trigger};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, Outcome};
use backburn_experiments::wire::Victim;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn approval() -> Value {
    json!({"rules": [{"name": "two of us", "approval": true}]})
}

fn victim(id: usize) -> Victim {
    Victim {
        kind: "process".into(),
        id: format!("{id}@1"),
        name: format!("sleep ({id})"),
    }
}

/// An agent whose victim is the one that the counter has.
fn with_victim(id: &Arc<AtomicUsize>) -> Manners {
    let id = Arc::clone(id);
    Manners {
        victims: Some(Arc::new(move || vec![victim(id.load(Ordering::SeqCst))])),
        ..Manners::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_kept_from_starting_is_recorded_with_the_refusal() {
    let policy = json!({"rules": [{"name": "only bob", "who": ["bob"]}]});
    let world = World::new(policy, &["a"]).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let (id, refusal) = not_started(world.start("rest", "ada"));
    assert_eq!(refusal.rule, "policy");
    let run = world.run(&id);
    assert_eq!(run.new.experiment.unwrap().name, "rest");
    assert_eq!(
        (run.new.who.as_str(), run.new.because),
        ("ada", Trigger::Asked)
    );
    let end = run.end.unwrap();
    assert_eq!(end.outcome, Outcome::NotStarted);
    assert_eq!(end.verdict["exit_code"], 3);
    assert!(
        end.verdict["reasons"][0].to_string().contains("`only bob`"),
        "{}",
        end.verdict
    );
    assert!(
        matches!(&world.events(&id)[..], [Event::RunStarted { .. }, Event::NotStarted { rule, .. }, Event::RunEnded] if rule == "policy")
    );
    assert_eq!(world.service.outcomes()["not-started"], 1);

    // One that is not stored, and a halt.
    let mut spec = world.spec("rest", "ada");
    spec.document = RequestedDocument::Inline(on_host("a", "100ms").to_string());
    spec.reference = None;
    let (inline, _) = not_started(blocking(|| world.service.start(spec)));
    assert!(
        matches!(&world.events(&inline)[0], Event::RunStarted { sha256: Some(hash), .. } if hash.len() == 64)
    );
    world.service.halt("bob", None).await;
    let (halted, refusal) = not_started(world.start("rest", "bob"));
    assert_eq!(refusal.rule, "halt");
    let ids: Vec<String> = world.runs().into_iter().map(|run| run.new.id).collect();
    assert_eq!(ids, [halted, inline, id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_run_shows_its_plan_and_keeps_its_id_over_a_restart() {
    let world = World::new(approval(), &["b"]).await;
    let id = Arc::new(AtomicUsize::new(4711));
    world.connect("a", with_victim(&id)).await;
    let mut document = on_host("a", "100ms");
    document["secrets"] = json!({"shop": {"key": "sesame-1234"}});
    document["configuration"] = json!({"note": "none"});
    document["description"] = json!("${note}");
    world.apply("rest", &document, "ada");
    let mut spec = world.spec("rest", "ada");
    spec.variables = json!({"note": "sesame-1234"}).as_object().unwrap().clone();
    let waiting = match blocking(|| world.service.start(spec)) {
        Err(RunStartError::Waits(waiting)) => *waiting,
        other => panic!("{other:?}"),
    };
    let run = waiting.run.new.id.clone();
    assert_eq!(waiting.approval.rule, "two of us");
    let plan = waiting.approval.plan.unwrap();
    assert_eq!(plan["preview"]["agents"], json!(["a"]));
    let injection = &plan["preview"]["injections"][0];
    assert_eq!(injection["plan"]["victims"][0]["name"], "sleep (4711)");
    assert!(!plan.to_string().contains("sesame-1234"), "{plan}");
    let record = world.run(&run);
    assert!(record.waiting && record.end.is_none());
    assert!(world.file("a").exists(), "nothing was injected");

    let world = world.restart();
    assert!(world.run(&run).waiting, "a restart does not end the wait");
    world.connect("a", with_victim(&id)).await;
    world.connect("b", Manners::default()).await;
    assert_eq!(world.approve(&run, "bob").unwrap(), run);
    let (outcome, reasons) = world.over(&run).await;
    // It measures nothing, but it did what was approved.
    assert_eq!(outcome, Outcome::Inconclusive, "{reasons}");
    let record = world.run(&run);
    assert!(!record.waiting && record.new.seed == 7 && record.new.who == "ada");
    let events = world.events(&run);
    assert!(
        matches!(&events[0], Event::RunStarted { approved_by: Some(who), .. } if who == "bob"),
        "{events:?}"
    );
    assert!(
        blocking(|| world.service.waiting_runs())
            .unwrap()
            .is_empty()
    );
    assert_eq!(refused(world.approve(&run, "bob")).rule, "not-there");
}

#[tokio::test(flavor = "multi_thread")]
async fn approval_by_the_same_person_is_refused_with_whatever_token() {
    let world = World::new(approval(), &["a"]).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let id = world.wait("rest", "ada").run.new.id;
    for token in ["ada", "ada-laptop"] {
        let refusal = refused(world.approve(&id, token));
        assert!(refusal.what.contains("asked for this run"), "{refusal}");
    }
    assert!(world.run(&id).waiting);
    // Both at once start it once.
    let services = [(); 2].map(|()| {
        let (service, id) = (Arc::clone(&world.service), id.clone());
        tokio::task::spawn_blocking(move || service.approve(&id, None, &actor("bob")))
    });
    let mut started = 0;
    for approved in services {
        started += usize::from(approved.await.unwrap().is_ok());
    }
    assert_eq!(started, 1);
    world.over(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_that_has_changed_requires_another_approval() {
    let world = World::new(approval(), &[]).await;
    let id = Arc::new(AtomicUsize::new(1));
    world.connect("a", with_victim(&id)).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let waiting = world.wait("rest", "ada");
    let run = waiting.run.new.id;
    let seen = waiting.approval.fingerprint.unwrap();

    id.store(2, Ordering::SeqCst);
    let refusal = refused(world.approve(&run, "bob"));
    assert_eq!(refusal.rule, "approval");
    assert!(
        refusal.what.contains("sleep (2) instead of sleep (1)"),
        "{refusal}"
    );
    assert!(world.run(&run).waiting && world.file("a").exists());

    // Who has seen the old plan does not approve the new one.
    let by_plan = |plan: &str| blocking(|| world.service.approve(&run, Some(plan), &actor("bob")));
    assert_eq!(refused(by_plan(&seen)).rule, "approval");
    assert_eq!(refused(by_plan("")).rule, "approval");
    let waiting = blocking(|| world.service.waiting_run(&run)).unwrap();
    let seen = waiting.approval.fingerprint.unwrap();
    assert_eq!(by_plan(&seen[..16]).unwrap(), run);
    let (outcome, reasons) = world.over(&run).await;
    assert_eq!(outcome, Outcome::Inconclusive, "{reasons}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_have_changed_require_another_approval() {
    let world = World::new(approval(), &["a"]).await;
    let all = pause(json!({"role": "web"}), json!("all"), "100ms");
    world.apply("rest", &all, "ada");
    let run = world.wait("rest", "ada").run.new.id;
    world.connect("b", Manners::default()).await;
    let refusal = refused(world.approve(&run, "bob"));
    assert!(refusal.what.contains("a, b instead of a"), "{refusal}");
    world.approve(&run, "bob").unwrap();
    let (outcome, _) = world.over(&run).await;
    assert_eq!(outcome, Outcome::Inconclusive);
}

/// An agent that names another victim from its n-th plan on.
async fn changes_at(plan: usize) -> (World, String) {
    let world = World::new(approval(), &[]).await;
    let count = Arc::new(AtomicUsize::new(0));
    let manners = Manners {
        victims: Some(Arc::new(move || {
            vec![victim(usize::from(
                count.fetch_add(1, Ordering::SeqCst) + 1 >= plan,
            ))]
        })),
        ..Manners::default()
    };
    world.connect("a", manners).await;
    world.apply("rest", &on_host("a", "60s"), "ada");
    let run = world.wait("rest", "ada").run.new.id;
    world.approve(&run, "bob").unwrap();
    (world, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn victims_that_change_after_the_approval_are_not_hit() {
    // The first plan is for the request, the second for the approval, and the third is the run's.
    let (world, run) = changes_at(3).await;
    let (outcome, reasons) = world.over(&run).await;
    assert_eq!(outcome, Outcome::NotStarted, "{reasons}");
    assert!(reasons.contains("(rule: approval)"), "{reasons}");
    assert!(
        !world
            .events(&run)
            .iter()
            .any(|event| matches!(event, Event::InjectionRequested { .. }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn victims_that_change_at_the_injection_are_reverted_at_once() {
    let (world, run) = changes_at(4).await;
    let (outcome, reasons) = world.over(&run).await;
    assert_eq!(outcome, Outcome::Aborted, "{reasons}");
    assert!(
        reasons.contains("other victims than those that were approved"),
        "{reasons}"
    );
    assert!(world.file("a").exists(), "it was reverted");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_without_a_start() {
    let world = World::new(approval(), &["a"]).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let refusal = |result: Result<(), RunStartError>| match result {
        Err(RunStartError::Refusal(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let ended = |id: &str, why: &str| {
        let run = world.run(id);
        let end = run.end.unwrap();
        assert_eq!(end.outcome, Outcome::NotStarted);
        let reasons = end.verdict["reasons"].to_string();
        assert!(
            reasons.contains(why) && reasons.contains("(rule: approval)"),
            "{reasons}"
        );
        assert!(!run.waiting);
    };
    let service = &world.service;

    let id = world.wait("rest", "ada").run.new.id;
    let own = blocking(|| service.reject(&id, None, &actor("ada-laptop")));
    assert!(refusal(own).hint.unwrap().contains("withdraw"));
    blocking(|| service.reject(&id, Some("not today"), &actor("bob"))).unwrap();
    ended(&id, "rejected by `bob`: not today");

    let id = world.wait("rest", "ada").run.new.id;
    let other = blocking(|| service.withdraw(&id, &actor("bob")));
    assert!(refusal(other).hint.unwrap().contains("reject"));
    blocking(|| service.withdraw(&id, &actor("ada-laptop"))).unwrap();
    ended(&id, "withdrawn by `ada-laptop`");

    let id = world.wait("rest", "ada").run.new.id;
    assert!(blocking(|| service.stop_or_withdraw(&id, "stopped by `bob`".into())).unwrap());
    ended(&id, "stopped by `bob`");
    assert!(!blocking(|| service.stop_or_withdraw(&id, String::new())).unwrap());

    // A newer version changes nothing: what was asked for waits on.
    let id = world.wait("rest", "ada").run.new.id;
    world.apply("rest", &on_host("a", "200ms"), "ada");
    blocking(|| service.end_lapsed_waits()).unwrap();
    assert!(world.run(&id).waiting);
    blocking(|| {
        world
            .store()
            .remove_experiment("rest", "ada", Timestamp::now())
    })
    .unwrap();
    blocking(|| service.end_lapsed_waits()).unwrap();
    ended(&id, "experiment `rest` was removed");

    world.apply("rest", &on_host("a", "100ms"), "ada");
    let id = world.wait("rest", "ada").run.new.id;
    blocking(|| world.store().revoke_api_token("id-ada", Timestamp::now())).unwrap();
    assert_eq!(refused(world.approve(&id, "bob")).rule, "not-there");
    ended(&id, "token `ada` was revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_expires() {
    let world = World::expiring(approval(), &["a"], HumanDuration::millis(1)).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let id = world.wait("rest", "ada").run.new.id;
    let rules = tokio::spawn(Arc::clone(&world.service).keep_rules());
    let (outcome, reasons) = world.over(&id).await;
    rules.abort();
    assert_eq!(outcome, Outcome::NotStarted);
    assert!(reasons.contains("nobody approved it before"), "{reasons}");
    assert_eq!(world.audit("end-wait").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_at_the_approval_leaves_the_run_waiting() {
    let world = World::new(approval(), &["a"]).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let id = world.wait("rest", "ada").run.new.id;
    world.service.halt("bob", None).await;
    assert_eq!(refused(world.approve(&id, "bob")).rule, "halt");
    assert!(world.run(&id).waiting);
    blocking(|| world.service.resume()).unwrap();
    world
        .set_policy(
            &json!({"rules": [{"name": "two of us", "approval": true, "max-duration": "1ms"}]}),
        )
        .unwrap();
    assert_eq!(refused(world.approve(&id, "bob")).rule, "policy");
    assert!(world.run(&id).waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_could_not_start_does_not_wait() {
    let world = World::new(approval(), &[]).await;
    let refuses = Manners {
        refuse_plan: Some(backburn_experiments::wire::Refusal::new(
            "policy", "not here",
        )),
        ..Manners::default()
    };
    world.connect("a", refuses).await;
    world.apply("rest", &on_host("a", "100ms"), "ada");
    let (id, refusal) = not_started(world.start("rest", "ada"));
    assert!(refusal.what.contains("not here"), "{refusal}");
    assert!(!world.run(&id).waiting);
}

#[test]
fn approvals_of_a_version_1_store_become_waiting_runs() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    connection
        .execute_batch(include_str!("../../src/store/sqlite/1.sql"))
        .unwrap();
    let old = json!([{"id": "r1", "experiment": "rest", "version": 1, "seed": 9_007_199_254_740_991_u64,
        "variables": {"a": 1}, "who": "ada", "at": "2026-01-01T00:00:00.5Z", "rule": "two of us"}]);
    connection
        .execute_batch(&format!(
            "INSERT INTO experiments VALUES ('rest', 1, '{{\"title\": \"a rest\"}}', 'ada', '2026-01-01T00:00:00Z');
             INSERT INTO settings VALUES ('approvals', '{old}');
             PRAGMA user_version = 1; PRAGMA application_id = {};",
            0x426b_426e
        ))
        .unwrap();
    drop(connection);
    use backburn::store::{SqliteStore, Store};
    let store = SqliteStore::open(folder.path()).unwrap();
    let waiting = store.waiting_runs().unwrap();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    let (run, approval) = (&waiting[0].run, &waiting[0].approval);
    assert_eq!(
        (run.new.id.as_str(), run.new.title.as_str()),
        ("r1", "a rest")
    );
    assert_eq!(run.new.seed, 9_007_199_254_740_991);
    assert_eq!(approval.person, "ada");
    assert_eq!(json!(approval.variables), json!({"a": 1}));
    assert_eq!(approval.expires.to_string(), "2026-01-02T00:00:00Z");
    assert_eq!(
        (approval.plan.as_ref(), approval.fingerprint.as_ref()),
        (None, None)
    );
    assert_eq!(store.setting("approvals").unwrap(), None);
    assert!(
        store.open_runs().unwrap().is_empty(),
        "it is no run that a crash interrupted"
    );

    // The same of an export.
    let export = format!(
        "{{\"kind\":\"backburn-export\",\"format\":1}}\n{{\"kind\":\"experiment\",\"name\":\"rest\",\"version\":1,\"document\":{{}},\"who\":\"ada\",\"at\":\"2026-01-01T00:00:00Z\"}}\n{{\"kind\":\"setting\",\"name\":\"approvals\",\"value\":{old}}}\n{{\"kind\":\"end\",\"records\":2}}\n"
    );
    let other = tempfile::tempdir().unwrap();
    let other = SqliteStore::open(other.path()).unwrap();
    other.import(&mut export.as_bytes()).unwrap();
    assert_eq!(other.waiting_runs().unwrap().len(), 1);
    let mut exported = Vec::new();
    other.export(&mut exported).unwrap();
    let third = tempfile::tempdir().unwrap();
    let third = SqliteStore::open(third.path()).unwrap();
    third.import(&mut &exported[..]).unwrap();
    assert_eq!(third.waiting_runs().unwrap(), other.waiting_runs().unwrap());
    let gone = store.replace_approval(approval).and_then(|()| {
        let taken = store.take_waiting_run("r1", Some("another"), Timestamp::now())?;
        assert!(taken.is_none());
        store.take_waiting_run("r1", None, Timestamp::now())?;
        store.replace_approval(approval)
    });
    assert_eq!(gone.unwrap_err().kind, StoreErrorKind::NotThere);
}
