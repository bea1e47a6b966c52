//! The policy's ceilings over all open runs, quiet hours, and loading the policy again.

use crate::world::{World, blocking, not_started, on_host, pause};
use backburn::service::FleetPolicy;
use backburn_experiments::journal::{Event, Outcome};
use serde_json::{Value, json};
use std::sync::Arc;

fn rule(more: Value) -> Value {
    let mut rule = json!({"name": "ceiling", "labels": {"role": "web"}});
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    json!({"rules": [rule]})
}

/// A world in which a run of `ada` holds agent `a`, under this rule.
async fn with_open_run(rule: Value) -> (World, String) {
    let world = World::new(rule, &["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        world.apply(name, &on_host(name, "60s"), "ada");
    }
    let run = world.start("a", "ada").unwrap();
    world.until_hit("a").await;
    (world, run)
}

async fn stop(world: &World, run: &str) {
    world.service.stop(run, "the test is over".into());
    world.over(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ceilings_count_all_open_runs() {
    for (ceiling, of) in [
        (json!({"max-runs": 1}), "at most 1 run is allowed"),
        (json!({"max-agents": 1}), "at most 1 are allowed"),
        (json!({"max-percent": "34%"}), "at most 1 are allowed"),
        (json!({"max-faults": 1}), "at most 1 are allowed"),
    ] {
        let (world, run) = with_open_run(rule(ceiling.clone())).await;
        let (_, refusal) = not_started(world.start("b", "bob"));
        assert_eq!(refusal.rule, "policy", "{ceiling}");
        assert!(
            refusal
                .what
                .contains(&format!("beside run `{run}` of `ada`")),
            "{refusal}"
        );
        assert!(refusal.hint.as_ref().unwrap().contains(of), "{refusal}");
        // A plan says the same.
        let spec = world.spec("b", "bob");
        assert!(world.service.plan(spec).await.is_err());
        stop(&world, &run).await;
        let next = world.start("b", "bob").unwrap();
        world.until_hit("b").await;
        stop(&world, &next).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ceilings_of_a_rule_count_for_each_token_or_person() {
    for (per, allowed, refused) in [
        ("token", "ada-laptop", "ada"),
        ("person", "bob", "ada-laptop"),
    ] {
        let (world, run) = with_open_run(rule(json!({"max-runs": 1, "per": per}))).await;
        not_started(world.start("b", refused));
        let other = world.start("c", allowed).unwrap();
        world.until_hit("c").await;
        stop(&world, &other).await;
        stop(&world, &run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_start_at_once_do_not_pass_a_ceiling_together() {
    let world = World::new(rule(json!({"max-runs": 1})), &["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        world.apply(name, &on_host(name, "60s"), "ada");
    }
    let starts = ["a", "b", "c"].map(|name| {
        let (service, spec) = (Arc::clone(&world.service), world.spec(name, "ada"));
        tokio::task::spawn_blocking(move || service.start(spec).ok())
    });
    let mut started = Vec::new();
    for start in starts {
        started.extend(start.await.unwrap());
    }
    let is_hit = || {
        ["a", "b", "c"]
            .map(|name| usize::from(!world.file(name).exists()))
            .iter()
            .sum::<usize>()
    };
    let is_settled = || {
        is_hit() > 0
            && started
                .iter()
                .filter(|run| world.run(run).end.is_none())
                .count()
                == 1
    };
    world.until("one run is left", is_settled).await;
    assert_eq!(is_hit(), 1);
    for run in started {
        match world.run(&run).end {
            None => stop(&world, &run).await,
            Some(end) => assert_eq!(end.outcome, Outcome::NotStarted, "{}", end.verdict),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_count_up_to_the_blast_radius_of_the_run() {
    let world = World::new(rule(json!({"max-faults": 1})), &["a"]).await;
    let mut document = on_host("a", "50ms");
    let action = document["method"][0].clone();
    document["method"] = json!([action.clone(), action]);
    document["method"][1]["name"] = json!("pause again");
    world.apply("twice", &document, "ada");
    let (_, refusal) = not_started(world.start("twice", "ada"));
    assert!(refusal.what.contains("2 faults at a time"), "{refusal}");
    assert!(refusal.hint.unwrap().contains("concurrent-faults"));
    document["blast-radius"] = json!({"concurrent-faults": 1});
    world.apply("twice", &document, "ada");
    let run = world.start("twice", "ada").unwrap();
    let (outcome, reasons) = world.over(&run).await;
    assert_eq!(outcome, Outcome::Inconclusive, "{reasons}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_end_what_acts_unless_the_rule_says_otherwise() {
    let (world, run) = with_open_run(json!({})).await;
    let quiet = |more: Value| {
        let mut policy = rule(json!({"quiet": [{"hours": "00:00-24:00"}]}));
        for (key, value) in more.as_object().unwrap() {
            policy["rules"][0][key] = value.clone();
        }
        policy
    };
    world
        .set_policy(&quiet(json!({"quiet-ends": false})))
        .unwrap();
    let now = jiff::Timestamp::now();
    assert!(world.service.end_quiet_runs(now).is_empty());
    // Nothing new starts in either case.
    let (_, refusal) = not_started(world.start("b", "ada"));
    assert!(refusal.what.contains("at this time"), "{refusal}");
    let others = json!({"labels": {"role": "db"}});
    world.set_policy(&quiet(others)).unwrap();
    assert!(world.service.end_quiet_runs(now).is_empty());

    world.set_policy(&quiet(json!({}))).unwrap();
    let rules = tokio::spawn(Arc::clone(&world.service).keep_rules());
    let (outcome, reasons) = world.over(&run).await;
    rules.abort();
    assert_eq!(outcome, Outcome::Aborted, "{reasons}");
    assert!(
        reasons.contains("the quiet hours of the controller's rule `ceiling` have begun"),
        "{reasons}"
    );
    assert!(world.file("a").exists(), "it was reverted");
    let aborts = world.events(&run);
    let aborts = aborts
        .iter()
        .filter(|event| matches!(event, Event::Aborted(_)))
        .count();
    assert_eq!(aborts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_that_is_wrong_is_not_loaded_again() {
    let world = World::new(rule(json!({"who": ["bob"]})), &["a"]).await;
    world.apply("rest", &on_host("a", "50ms"), "ada");
    not_started(world.start("rest", "ada"));
    for wrong in [
        json!({"rules": [{"name": "n", "max-agents": "many"}]}),
        json!({"rules": [{"name": "n", "max-percent": "120%"}]}),
        json!({"rules": [{"name": "n", "faults": ["process-pauze"]}]}),
        json!({"rules": [{"name": "n", "quiet": [{"hours": "25:00-26:00"}]}]}),
    ] {
        let why = world.set_policy(&wrong).expect_err(&wrong.to_string());
        assert!(why.contains("$.rules[0]"), "{why}");
        not_started(world.start("rest", "ada"));
    }
    assert_eq!(world.audit("load-policy").len(), 4);
    assert!(
        world
            .audit("load-policy")
            .iter()
            .all(|entry| entry.record.outcome == "refused")
    );

    let changes = world
        .set_policy(&rule(json!({"who": ["ada", "nobody"]})))
        .unwrap();
    assert_eq!(changes, ["rule `ceiling`: `who` changed"]);
    let entry = &world.audit("load-policy")[4];
    assert_eq!(entry.record.outcome, "done");
    assert_eq!(entry.record.detail["changes"], json!(changes));
    assert_eq!(entry.record.detail["unknown-tokens"], json!(["nobody"]));
    let run = world.start("rest", "ada").unwrap();
    world.over(&run).await;
}

#[test]
fn policy_with_an_unknown_fault_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let load = |faults: Value| {
        let policy = json!({"rules": [{"name": "n", "faults": faults}]});
        std::fs::write(&path, policy.to_string()).unwrap();
        FleetPolicy::load(&path, &["process-pause", "network-latency"])
            .map_err(|error| error.to_string())
    };
    assert!(load(json!(["process-*", "network-latency", "*"])).is_ok());
    let why = load(json!(["network-latencie", "proces-*"])).unwrap_err();
    assert!(
        why.contains("$.rules[0].faults[0]") && why.contains("did you mean `network-latency`?"),
        "{why}"
    );
    assert!(
        why.contains("$.rules[0].faults[1]") && why.contains("no fault begins like `proces-*`"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_says_whose_run_has_the_agent() {
    let (world, run) = with_open_run(json!({})).await;
    world.apply(
        "all",
        &pause(json!({"role": "web"}), json!("all"), "1s"),
        "bob",
    );
    let second = world.start("all", "bob").unwrap();
    let (outcome, reasons) = world.over(&second).await;
    assert_eq!(outcome, Outcome::NotStarted);
    assert!(
        reasons.contains(&format!(
            "agent `a` takes part in run `{run}` of `ada` since "
        )),
        "{reasons}"
    );
    let hint = world.run(&second).end.unwrap().verdict["hint"].to_string();
    assert!(
        hint.contains(&format!("wait until run `{run}` is over")),
        "{hint}"
    );
    stop(&world, &run).await;
    assert!(blocking(|| world.store().open_runs()).unwrap().is_empty());
}
