//! Coverage: a service is said to survive a fault only where the fault was seen to act on one of its agents, and the hypothesis held.

use crate::support::Manners;
use crate::support::api::TestController;
use backburn::store::{NewRun, Role, RunEnd, Store as _, Trigger};
use backburn_experiments::journal::{JournalEntry, Outcome};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Stores a run in which a fault was injected on an agent, so many days ago.
fn store_run(
    controller: &TestController,
    id: &str,
    days: i64,
    fault: &str,
    agent: &str,
    acts: bool,
    outcome: Outcome,
) {
    let started = Timestamp::now() - SignedDuration::from_hours(24 * days);
    let new = NewRun {
        id: id.into(),
        experiment: None,
        title: "t".into(),
        seed: 1,
        who: "ada".into(),
        because: Trigger::Asked,
        started,
    };
    controller.store.open_run(&new).unwrap();
    let events = [
        json!({"event": "run-started", "run": id, "title": "t", "seed": 1, "version": "0", "hypothesis": [],
            "looks": {"before": false, "during": false, "after": false}}),
        json!({"event": "phase-started", "phase": "method"}),
        json!({"event": "injection-requested", "injection": "i", "activity": "a", "fault": fault, "agent": agent}),
        json!({"event": "injected", "injection": "i", "plan": {"victims": [], "changes": []}}),
        json!({"event": "effect-seen", "injection": "i", "effect": {"acts": acts, "seen": "\"event\":\"sampled\""}}),
        json!({"event": "injection-ended", "injection": "i", "cause": "done", "clean": true, "took": "1ms"}),
        json!({"event": "run-ended"}),
    ];
    for event in events {
        let mut entry = json!({"at": started.to_string(), "elapsed": 0.0});
        entry
            .as_object_mut()
            .unwrap()
            .extend(event.as_object().unwrap().clone());
        let entry: JournalEntry = serde_json::from_value(entry).unwrap();
        controller.store.append(id, &entry).unwrap();
    }
    let end = RunEnd {
        ended: started,
        outcome,
        verdict: json!({}),
    };
    controller.store.close_run(id, &end).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn coverage_counts_only_faults_that_were_seen_to_act() {
    let controller = TestController::new();
    for (name, service, team) in [
        ("a", "shop", "web"),
        ("b", "shop", "web"),
        ("c", "bank", "pay"),
    ] {
        let labels = [("service", service), ("team", team)];
        controller.agent(name, &labels, Manners::default()).await;
    }
    let eve = controller.token("eve", Role::Viewer);
    let held = Outcome::Held;
    store_run(&controller, "1", 200, "network-delay", "a", true, held);
    store_run(&controller, "2", 100, "disk-fill", "a", true, held);
    store_run(
        &controller,
        "3",
        5,
        "process-pause",
        "a",
        true,
        Outcome::Deviated,
    );
    store_run(&controller, "4", 3, "process-pause", "b", true, held);
    store_run(&controller, "5", 3, "process-kill", "a", false, held);
    store_run(&controller, "6", 2, "cpu-stress", "b", true, held);
    store_run(
        &controller,
        "7",
        1,
        "cpu-stress",
        "b",
        true,
        Outcome::Deviated,
    );
    store_run(
        &controller,
        "8",
        1,
        "memory-stress",
        "a",
        true,
        Outcome::Aborted,
    );
    store_run(&controller, "9", 1, "process-pause", "stranger", true, held);
    let (status, known) = controller.ask("GET", "/api/v1/coverage", &eve, None).await;
    assert_eq!(status, 200, "{known}");
    let services: Vec<&Value> = (known.as_array().unwrap().iter())
        .map(|one| &one["service"])
        .collect();
    assert_eq!(services, ["bank", "shop"]);
    assert_eq!(known[0]["tried"], json!([]));
    let tried = |fault: &str| -> Option<(bool, f64, Value)> {
        let mut all = known[1]["tried"].as_array().unwrap().iter();
        let found = all.find(|one| one["fault"] == fault)?;
        Some((
            found["survived"].as_bool().unwrap(),
            found["trust"].as_f64().unwrap(),
            found["held-in"].clone(),
        ))
    };
    assert_eq!(tried("process-pause"), Some((true, 1.0, json!("4"))));
    // What held a long time ago is trusted less, and in the end not at all.
    let (survived, trust, _) = tried("disk-fill").unwrap();
    assert!(survived && (0.5..0.6).contains(&trust), "{trust}");
    assert_eq!(tried("network-delay"), Some((true, 0.0, json!("1"))));
    assert_eq!(tried("cpu-stress"), Some((false, 0.0, json!("6"))));
    assert_eq!(tried("memory-stress"), Some((false, 0.0, Value::Null)));
    assert_eq!(tried("process-kill"), None);
    // A second request, which reads no journal again, answers the same.
    assert_eq!(
        controller
            .ask("GET", "/api/v1/coverage", &eve, None)
            .await
            .1,
        known
    );

    let badge = "/api/v1/coverage/badge?service=shop";
    let answer = controller.open("GET", badge, &eve, None).await;
    assert_eq!(answer.headers()["content-type"], "image/svg+xml");
    let svg = answer.into_body().collect().await.unwrap().to_bytes();
    let svg = String::from_utf8(svg.into()).unwrap();
    assert!(svg.contains("survives: 2 of 5 faults"), "{svg}");
    assert_eq!(
        controller
            .ask("GET", "/api/v1/coverage/badge?service=none", &eve, None)
            .await
            .0,
        404
    );
    // Another team's agents and runs do not exist.
    let pat = controller.team_token("pat", Role::Viewer, &["pay"]);
    let (_, known) = controller.ask("GET", "/api/v1/coverage", &pat, None).await;
    assert_eq!(
        (known.as_array().unwrap().len(), &known[0]["service"]),
        (1, &json!("bank"))
    );
    assert_eq!(controller.ask("GET", badge, &pat, None).await.0, 404);
}
