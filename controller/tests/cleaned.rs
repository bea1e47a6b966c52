//! A run that ended not clean, and its agent, which later observes that nothing is left.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod controller;
mod support;

use backburn::store::{EnrolledAgent, RunFilter, SqliteStore, Store};
use backburn_experiments::journal::Outcome;
use controller::Controller;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::Manners;
use tokio::io::DuplexStream;

const LONG: Duration = Duration::from_secs(30);

fn enrolled(controller: &Controller, at: Timestamp) {
    let agent = EnrolledAgent {
        name: "a".into(),
        serials: Vec::new(),
        labels: BTreeMap::new(),
        labels_by: None,
        heard: None,
        enrolled: at,
        revoked: None,
    };
    controller.store.put_agent(&agent).unwrap();
}

/// Connects the fake agent, and waits until the fleet knows it.
async fn connect(controller: &Controller, folder: &Path) {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
    let fleet = Arc::clone(controller.service.fleet());
    let mut changes = fleet.changes();
    let serving = Arc::clone(&fleet);
    tokio::spawn(async move {
        serving
            .serve("a", ([127, 0, 0, 1], 1).into(), ours, || false)
            .await
    });
    let manners = Manners {
        unclean: true,
        labels: vec![("host".into(), "a".into())],
        ..Manners::default()
    };
    let healthy = folder.join("healthy");
    std::fs::write(&healthy, "").unwrap();
    tokio::spawn(support::agent(
        theirs,
        "a".into(),
        manners,
        Arc::default(),
        healthy,
        1,
    ));
    let known = changes.wait_for(|_| fleet.count() == 1);
    drop(tokio::time::timeout(LONG, known).await.unwrap().unwrap());
}

/// Runs one pause, and waits until the run is closed. Returns its id.
async fn run(controller: &Controller) -> String {
    let mut pause = support::fault("pause", "50ms");
    pause["provider"]["targets"] = json!("it");
    let experiment = json!({
        "title": "a pause", "description": "a test",
        "targets": {"it": {"labels": {"host": "a"}}},
        "method": [pause],
    });
    let request = json!({"experiment": experiment.to_string()});
    let started = controller.ask("POST", "/api/v1/runs", Some(&request)).await;
    assert_eq!(started.status, 201, "{}", started.body);
    let run = started.json()["run"].as_str().unwrap().to_owned();
    if let Some(mut events) = controller.service.follow(&run) {
        let closed = async { while events.changed().await.is_ok() {} };
        tokio::time::timeout(LONG, closed).await.unwrap();
    }
    let closed = controller.store.run(&run).unwrap();
    assert_eq!(
        closed.end.as_ref().unwrap().outcome,
        Outcome::NotClean,
        "{closed:?}"
    );
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_not_clean_whose_agent_observes_nothing_is_noted_as_cleaned() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    enrolled(&controller, Timestamp::now());
    connect(&controller, data.path()).await;
    let run = run(&controller).await;
    let path = format!("/api/v1/runs/{run}");
    let cleaned = async {
        loop {
            let found = controller.ask("GET", &path, None).await.json();
            if found["cleaned"].is_string() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(LONG, cleaned).await.unwrap();
    assert_eq!(found["outcome"], "not-clean", "the verdict stays as it is");
    let notes = controller.ask("GET", &format!("{path}/notes"), None).await;
    let notes = notes.json();
    assert_eq!(notes[0]["kind"], "cleaned");
    assert_eq!(notes[0]["body"]["agents"], json!(["a"]));
    assert_eq!(controller.service.unproved_injections(), 0);
    assert_eq!(controller.store.verify_audit(None).unwrap().broken, None);

    // The export has the notes, and an import of one that was altered is refused.
    let mut export = Vec::new();
    controller.store.export(&mut export).unwrap();
    let export = String::from_utf8(export).unwrap();
    let import = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store")).unwrap();
        store
            .import(&mut text.as_bytes())
            .map(|_| store.notes(&run).unwrap())
    };
    assert_eq!(
        import(&export).unwrap(),
        controller.store.notes(&run).unwrap()
    );
    let altered = export.replace(r#""body":{"agents":["a"]}"#, r#""body":{"agents":["b"]}"#);
    assert_ne!(altered, export);
    let refused = import(&altered).unwrap_err().to_string();
    assert!(refused.contains("was changed"), "{refused}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_not_clean_whose_agent_joined_later_is_not_noted_as_cleaned() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    connect(&controller, data.path()).await;
    let run = run(&controller).await;
    // Another host has the name by now.
    enrolled(&controller, Timestamp::now());
    let filter = RunFilter {
        outcome: Some(Outcome::NotClean),
        ..RunFilter::default()
    };
    let known = controller.store.run(&run).unwrap();
    assert_eq!(
        controller.store.runs(&filter, None, 10).unwrap().len(),
        1,
        "{known:?}"
    );
    let none = BTreeSet::new();
    let agent = controller.service.observes_nothing(&run, "a", &none);
    assert!(!tokio::time::timeout(LONG, agent).await.unwrap());
    assert_eq!(controller.store.unclean_runs().unwrap(), [run]);
    assert_eq!(controller.service.unproved_injections(), 1);
    controller.stop().await;
}
