//! Teams: what a token that is limited to them sees, runs and halts.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::fleet::{Fleet, GrantedLabels};
use backburn::service::{FleetPolicy, Service, ServiceConfig};
use backburn::store::{OwnedKind, Role, SqliteStore, Store};
use backburn_experiments::HumanDuration;
use serde_json::{Value, json};
use std::sync::Arc;
use support::Manners;
use support::api::{TestController, TestToken};

/// A pause of all agents with `role=web` that the run knows.
fn experiment() -> Value {
    json!({
        "title": "a pause", "description": "a test",
        "targets": {"web": {"labels": {"role": "web"}, "select": {"percent": 100}}},
        "method": [{"type": "action", "name": "pause",
            "provider": {"type": "fault", "fault": "process-pause", "targets": "web", "duration": "20s"}}],
        "blast-radius": {"agents": {"percent": 100}, "victims-per-agent": 1},
    })
}

struct World {
    controller: TestController,
    admin: TestToken,
    payments: TestToken,
    shop: TestToken,
}

/// Three agents with `role=web`: one of each team, and one of none.
async fn world() -> World {
    world_with(TestController::new()).await
}

async fn world_with(controller: TestController) -> World {
    for (name, labels) in [
        ("pay-1", &[("role", "web"), ("team", "payments")][..]),
        ("shop-1", &[("role", "web"), ("team", "shop")][..]),
        ("lone-1", &[("role", "web")][..]),
    ] {
        controller.agent(name, labels, Manners::default()).await;
    }
    World {
        admin: controller.token("admin", Role::Admin),
        payments: controller.team_token("pia", Role::Operator, &["payments"]),
        shop: controller.team_token("sam", Role::Operator, &["shop"]),
        controller,
    }
}

impl World {
    async fn ask(
        &self,
        method: &str,
        path: &str,
        token: &TestToken,
        body: Option<Value>,
    ) -> (u16, Value) {
        self.controller.ask(method, path, token, body).await
    }

    async fn status(
        &self,
        method: &str,
        path: &str,
        token: &TestToken,
        body: Option<Value>,
    ) -> u16 {
        self.ask(method, path, token, body).await.0
    }

    /// The values of this key in a list.
    async fn listed(&self, path: &str, key: &str, token: &TestToken) -> Vec<String> {
        let (status, list) = self.ask("GET", path, token, None).await;
        assert_eq!(status, 200, "{list}");
        let items = list.as_array().unwrap().iter();
        items
            .map(|item| item[key].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn limited_token_sees_its_own_teams_only() {
    let world = world().await;
    let mut scheduled = experiment();
    scheduled["schedule"] = json!({"cron": "0 3 * * *"});
    for (name, token) in [
        ("of-pay", &world.payments),
        ("of-shop", &world.shop),
        ("of-all", &world.admin),
    ] {
        let path = format!("/api/v1/experiments/{name}");
        assert_eq!(
            world
                .status("PUT", &path, token, Some(scheduled.clone()))
                .await,
            200
        );
    }
    let everything = ["of-all", "of-pay", "of-shop"];
    for (path, key) in [
        ("/api/v1/experiments", "name"),
        ("/api/v1/schedules", "experiment"),
    ] {
        assert_eq!(world.listed(path, key, &world.admin).await, everything);
        assert_eq!(world.listed(path, key, &world.payments).await, ["of-pay"]);
        assert_eq!(world.listed(path, key, &world.shop).await, ["of-shop"]);
    }
    assert_eq!(
        world
            .listed("/api/v1/experiments?limit=1", "name", &world.shop)
            .await,
        ["of-shop"]
    );
    assert_eq!(
        world
            .listed("/api/v1/agents", "name", &world.payments)
            .await,
        ["pay-1"]
    );
    assert_eq!(
        world
            .listed("/api/v1/agents", "name", &world.admin)
            .await
            .len(),
        3
    );

    // What belongs to others does not exist, however its name is written.
    let run = json!({});
    for (method, path, body) in [
        ("GET", "/api/v1/experiments/of-pay", None),
        ("GET", "/api/v1/experiments/of%2Dpay", None),
        ("GET", "/api/v1/experiments/of-pay/versions", None),
        ("DELETE", "/api/v1/experiments/of-pay", None),
        ("POST", "/api/v1/experiments/of-pay/plan", Some(&run)),
        ("POST", "/api/v1/experiments/of-pay/runs", Some(&run)),
        ("GET", "/api/v1/experiments/of-all", None),
        ("GET", "/api/v1/agents/pay-1", None),
        ("GET", "/api/v1/agents/lone-1", None),
        ("GET", "/api/v1/agents/%70ay-1/faults", None),
    ] {
        let (status, problem) = world.ask(method, path, &world.shop, body.cloned()).await;
        assert_eq!(status, 404, "{method} {path}: {problem}");
    }
    assert_eq!(
        world
            .status("GET", "/api/v1/agents/shop-1", &world.shop, None)
            .await,
        200
    );
    // Its name is taken nevertheless, and whoever changes it does not take it away.
    let path = "/api/v1/experiments/of-pay";
    assert_eq!(
        world
            .status("PUT", path, &world.shop, Some(experiment()))
            .await,
        409
    );
    assert_eq!(
        world
            .status("PUT", path, &world.admin, Some(experiment()))
            .await,
        200
    );
    assert_eq!(world.status("GET", path, &world.payments, None).await, 200);
    assert_eq!(
        world.status("DELETE", path, &world.payments, None).await,
        200
    );
    assert_eq!(
        world
            .status("PUT", path, &world.shop, Some(experiment()))
            .await,
        409
    );
    assert_eq!(
        world
            .status("PUT", path, &world.payments, Some(experiment()))
            .await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_token_targets_agents_of_its_teams_only() {
    let world = world().await;
    let inline = json!({"experiment": experiment().to_string()});
    let agents = async |token: &TestToken| {
        let (status, plan) = world
            .ask("POST", "/api/v1/plans", token, Some(inline.clone()))
            .await;
        assert_eq!(status, 200, "{plan}");
        plan["agents"].clone()
    };
    assert_eq!(agents(&world.payments).await, json!(["pay-1"]));
    assert_eq!(
        agents(&world.admin).await,
        json!(["lone-1", "pay-1", "shop-1"])
    );
    let nobody = world
        .controller
        .team_token("nia", Role::Operator, &["nobodys"]);
    let (status, problem) = world
        .ask("POST", "/api/v1/plans", &nobody, Some(inline.clone()))
        .await;
    assert_eq!(status, 409, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("no agent of team nobodys"),
        "{problem}"
    );
    // A team that nobody has confirmed is an agent's own word.
    let granted = GrantedLabels {
        labels: [("role", "web"), ("team", "payments")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        is_confirmed: false,
    };
    world.controller.service.fleet().grant("lone-1", granted);
    assert_eq!(agents(&world.payments).await, json!(["pay-1"]));

    // A run of all teams is seen by those whose agents it targets, and they may stop it.
    let run = world
        .controller
        .running("everywhere", &world.admin, experiment(), "pay-1")
        .await;
    let path = format!("/api/v1/runs/{run}");
    let nobody_sees = world.status("GET", &path, &nobody, None).await;
    assert_eq!(nobody_sees, 404);
    for rest in ["", "/events", "/trace"] {
        let path = format!("{path}{rest}");
        assert_eq!(
            world.status("GET", &path, &world.payments, None).await,
            200,
            "{path}"
        );
        assert_eq!(
            world.status("GET", &path, &nobody, None).await,
            404,
            "{path}"
        );
    }
    assert_eq!(
        world.listed("/api/v1/runs", "id", &world.shop).await,
        [run.as_str()]
    );
    assert!(world.listed("/api/v1/runs", "id", &nobody).await.is_empty());
    let stop = format!("{path}/stop");
    assert_eq!(
        world.status("POST", &stop, &nobody, Some(json!({}))).await,
        404
    );
    assert_eq!(
        world
            .status("POST", &stop, &world.shop, Some(json!({})))
            .await,
        202
    );
    let store = Arc::clone(&world.controller.store);
    world
        .controller
        .until("it is stopped", || store.run(&run).unwrap().end.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_of_a_team_ends_its_runs_and_no_others() {
    let world = world().await;
    let controller = &world.controller;
    let paying = controller
        .running("of-pay", &world.payments, experiment(), "pay-1")
        .await;
    let shopping = controller
        .running("of-shop", &world.shop, experiment(), "shop-1")
        .await;
    let halt = |team: &str| Some(json!({"team": team, "why": "a drill"}));
    for (team, status) in [("shop", 403), ("nobodys", 403)] {
        assert_eq!(
            world
                .status("POST", "/api/v1/halt", &world.payments, halt(team))
                .await,
            status
        );
    }
    assert_eq!(
        world
            .status("POST", "/api/v1/halt", &world.admin, halt("nobodys"))
            .await,
        404
    );
    let (status, report) = world
        .ask("POST", "/api/v1/halt", &world.payments, halt("payments"))
        .await;
    assert_eq!((status, &report["clean"]), (200, &json!(true)), "{report}");
    assert_eq!(report["runs"], json!([paying]));
    assert_eq!(report["agents"].as_array().unwrap().len(), 1);
    assert!(controller.file("pay-1").exists(), "reverted");
    assert!(
        !controller.file("shop-1").exists(),
        "the other team's fault still acts"
    );
    assert!(controller.store.run(&shopping).unwrap().end.is_none());
    let store = Arc::clone(&controller.store);
    controller
        .until("the run is over", || {
            store.run(&paying).unwrap().end.is_some()
        })
        .await;

    // Nothing starts there, whoever asks; not after a restart either.
    let runs = "/api/v1/experiments/of-pay/runs";
    for token in [&world.payments, &world.admin] {
        let (_, refused) = world.ask("POST", runs, token, Some(json!({}))).await;
        let store = Arc::clone(&controller.store);
        if let Some(run) = refused["run"].as_str() {
            controller
                .until("the run is over", || store.run(run).unwrap().end.is_some())
                .await;
        }
        assert!(controller.file("pay-1").exists(), "{refused}");
    }
    let (_, state) = world.ask("GET", "/api/v1/halt", &world.shop, None).await;
    assert_eq!(state["halted"], false);
    assert_eq!(state["teams"][0]["team"], "payments");
    assert_eq!(state["teams"][0]["who"], "pia");
    let beside = SqliteStore::open_shared(&controller.folder.path().join("store")).unwrap();
    let fleet = Arc::new(Fleet::new(HumanDuration::seconds(30)));
    let restarted = Service::new(ServiceConfig {
        store: Arc::new(beside),
        fleet,
        policy: FleetPolicy::default(),
        policy_file: None,
        approval_expires: HumanDuration::seconds(3600),
        check: Box::new(|_, _| Err(Vec::new())),
        catalogue: Vec::new(),
        collector: None,
    })
    .unwrap();
    assert!(restarted.halted_teams().contains_key("payments"));
    drop(restarted);

    assert_eq!(
        world
            .status("DELETE", "/api/v1/halt?team=payments", &world.shop, None)
            .await,
        403
    );
    assert_eq!(
        world
            .status(
                "DELETE",
                "/api/v1/halt?team=payments",
                &world.payments,
                None
            )
            .await,
        200
    );
    let again = controller
        .running("of-pay", &world.payments, experiment(), "pay-1")
        .await;

    // The whole fleet may be halted by anybody who operates, and resumed by whoever did, or by an operator of all teams.
    let (status, report) = world
        .ask("POST", "/api/v1/halt", &world.shop, Some(json!({})))
        .await;
    assert_eq!(
        (status, report["runs"].as_array().unwrap().len()),
        (200, 2),
        "{report}"
    );
    assert!(report["runs"].to_string().contains(&again));
    assert_eq!(
        world
            .status("DELETE", "/api/v1/halt", &world.payments, None)
            .await,
        403
    );
    assert_eq!(
        world
            .status("DELETE", "/api/v1/halt", &world.shop, None)
            .await,
        200
    );
}

#[tokio::test]
async fn policy_rule_of_teams_keeps_others_out() {
    let policy =
        json!({"rules": [{"name": "web", "labels": {"role": "web"}, "teams": ["payments"]}]});
    let world = world_with(TestController::with_policy(policy)).await;
    let inline = json!({"experiment": experiment().to_string()});
    for (token, expected) in [
        (&world.payments, 200),
        (&world.admin, 200),
        (&world.shop, 403),
    ] {
        let body = Some(inline.clone());
        let (status, plan) = world.ask("POST", "/api/v1/plans", token, body).await;
        assert_eq!(status, expected, "{plan}");
        if expected == 403 {
            assert!(
                plan["hint"].as_str().unwrap().contains("teams: payments"),
                "{plan}"
            );
        }
    }
}

#[tokio::test]
async fn teams_of_tokens_are_checked_when_they_are_made() {
    let world = world().await;
    let make = |role: &str, teams: Value| Some(json!({"name": "x", "role": role, "teams": teams}));
    let tokens = "/api/v1/tokens";
    let (status, made) = world
        .ask(
            "POST",
            tokens,
            &world.admin,
            make("viewer", json!(["shop"])),
        )
        .await;
    assert_eq!((status, &made["teams"]), (201, &json!(["shop"])));
    for wrong in [
        make("admin", json!(["shop"])),
        make("viewer", json!(["a b"])),
    ] {
        assert_eq!(world.status("POST", tokens, &world.admin, wrong).await, 400);
    }
    let owners = ["shop".to_owned()].into();
    world
        .controller
        .store
        .set_owners(OwnedKind::Run, "r", &owners)
        .unwrap();
    assert_eq!(
        world.controller.store.owners(OwnedKind::Run, "r").unwrap(),
        owners
    );
    assert!(
        world
            .controller
            .store
            .owners(OwnedKind::Experiment, "r")
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn metrics_of_the_fleet_are_not_for_a_limited_token() {
    let world = world().await;
    let (status, problem) = world.ask("GET", "/metrics", &world.payments, None).await;
    assert_eq!(
        (status, &problem["type"]),
        (403, &json!("urn:backburn:problem:team"))
    );
    assert!(problem["hint"].as_str().unwrap().contains("--role viewer"));
    let viewer = world.controller.token("grafana", Role::Viewer);
    assert_eq!(world.status("GET", "/metrics", &viewer, None).await, 200);
}
