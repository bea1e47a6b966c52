//! What cannot be written to the audit log is not done, whatever the operation.

use crate::support::Manners;
use crate::support::api::{TestController, TestToken};
use crate::world::on_host;
use backburn::store::{Role, Store as _, TokenOrigin};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Operations that change nothing of what is stored before somebody is known, or that must not wait for the store.
const EXEMPT: [&str; 5] = [
    "POST /api/v1/halt",
    "POST /api/v1/login/code",
    "POST /api/v1/login/device",
    "POST /api/v1/login/device/{id}",
    "POST /api/v1/login/page",
];

struct Walk {
    controller: TestController,
    walked: BTreeSet<String>,
}

impl Walk {
    fn sql(&self, statement: &str) {
        let file = self.controller.folder.path().join("store/store.db");
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    /// Everything that is stored, and the agents that are connected.
    fn everything(&self) -> (String, usize, usize) {
        let mut text = Vec::new();
        let store = &self.controller.store;
        tokio::task::block_in_place(|| store.export_with_secrets(&mut text)).unwrap();
        let service = &self.controller.service;
        let text = String::from_utf8(text).unwrap();
        // Its first line says when it was made.
        let rest = text.split_once('\n').unwrap().1.to_owned();
        (rest, service.fleet().count(), service.active_runs().len())
    }

    /// Asks for this while nothing can be audited, when nothing may change, and then once more. What is answered then.
    async fn step(
        &mut self,
        method: &str,
        route: &str,
        subject: &str,
        token: &TestToken,
        body: Option<Value>,
    ) -> Value {
        self.walked.insert(format!("{method} {route}"));
        let path = match (route.find('{'), route.find('}')) {
            (Some(begin), Some(end)) => {
                format!("{}{subject}{}", &route[..begin], &route[end + 1..])
            }
            _ => route.to_owned(),
        };
        let controller = &self.controller;
        controller
            .until("no run is open", || {
                controller.service.active_runs().is_empty()
            })
            .await;
        self.sql(
            "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END",
        );
        let before = self.everything();
        let (status, problem) = controller.ask(method, &path, token, body.clone()).await;
        assert!(status >= 400, "{method} {path}: {status} {problem}");
        let after = self.everything();
        assert_eq!(after, before, "{method} {path} changed something");
        self.sql("DROP TRIGGER no_audit");
        let (status, answer) = controller.ask(method, &path, token, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operation_that_cannot_be_audited_is_not_done() {
    let controller = TestController::with_policy(json!({"rules": [
        {"name": "two of us", "labels": {"role": "pay"}, "approval": true},
    ]}));
    for (name, role) in [("a", "pay"), ("b", "db")] {
        let labels = [("role", role), ("host", name)];
        controller.agent(name, &labels, Manners::default()).await;
    }
    let admin = controller.token("root", Role::Admin);
    let ada = controller.token("ada", Role::Operator);
    let team = controller.team_token("pia", Role::Operator, &["payments"]);
    let visitor =
        controller.token_with("vic", Role::Viewer, |kept| kept.origin = TokenOrigin::Login);
    controller.token("eve", Role::Viewer);
    let mut walk = Walk {
        controller,
        walked: BTreeSet::new(),
    };

    for method in ["POST", "DELETE"] {
        walk.step(method, "/api/v1/session", "", &ada, None).await;
    }
    let put = "/api/v1/experiments/{name}";
    let mut nightly = on_host("b", "50ms");
    nightly["schedule"] = json!({"cron": "0 3 * * *"});
    let pay = on_host("a", "50ms");
    for (name, document, token) in [
        ("nightly", &nightly, &ada),
        ("pay", &pay, &ada),
        ("of-team", &pay, &team),
    ] {
        walk.step("PUT", put, name, token, Some(document.clone()))
            .await;
    }
    // Whose rights a schedule has is changed by the same document, too.
    walk.step("PUT", put, "nightly", &admin, Some(nightly.clone()))
        .await;
    for what in ["pause", "resume"] {
        let route = format!("/api/v1/schedules/{{name}}/{what}");
        let body = (what == "pause").then(|| json!({}));
        walk.step("POST", &route, "nightly", &ada, body).await;
    }
    let plan = format!("{put}/plan");
    walk.step("POST", &plan, "nightly", &ada, Some(json!({})))
        .await;
    let text = json!({"experiment": on_host("b", "50ms").to_string()});
    walk.step("POST", "/api/v1/plans", "", &ada, Some(text.clone()))
        .await;
    walk.step("POST", "/api/v1/runs", "", &ada, Some(text))
        .await;

    // Runs that wait for approval, and each way to end that.
    let run = format!("{put}/runs");
    let mut noted = String::new();
    for end in ["withdraw", "reject", "approve", "stop"] {
        let begun = walk.step("POST", &run, "pay", &ada, Some(json!({}))).await;
        let id = begun["approval"]["id"].as_str().unwrap();
        noted = id.to_owned();
        let approvals = "/api/v1/approvals/{id}";
        match end {
            "withdraw" => {
                let route = format!("{approvals}/withdraw");
                walk.step("POST", &route, id, &ada, None).await
            }
            "reject" => {
                let route = format!("{approvals}/reject");
                walk.step("POST", &route, id, &admin, Some(json!({}))).await
            }
            "approve" => walk.step("POST", approvals, id, &admin, None).await,
            _ => {
                let route = "/api/v1/runs/{run}/stop";
                walk.step("POST", route, id, &ada, Some(json!({}))).await
            }
        };
    }
    let note = json!({"kind": "note", "text": "It begins"});
    let route = "/api/v1/runs/{run}/notes";
    walk.step("POST", route, &noted, &ada, Some(note.clone()))
        .await;
    let steps = json!([{"lasts": "1h"}, {"lasts": "1h"}]);
    let day = json!({"game-day": {"title": "x", "purpose": "y", "steps": steps}});
    let documents = "/api/v1/game-day-documents/{name}";
    walk.step("PUT", documents, "drill", &ada, Some(day)).await;
    let name = json!({"name": "drill"});
    let prepared = walk
        .step("POST", "/api/v1/game-days", "", &ada, Some(name))
        .await;
    let id = prepared["id"].as_str().unwrap();
    for (what, body) in [
        ("next", None),
        ("notes", Some(note)),
        ("pause", Some(json!({}))),
        ("resume", None),
        ("reveal", Some(json!({}))),
        ("stop", Some(json!({}))),
    ] {
        let route = format!("/api/v1/game-days/{{id}}/{what}");
        walk.step("POST", &route, id, &ada, body).await;
    }
    walk.step("DELETE", documents, "drill", &ada, None).await;

    let action = json!({"title": "Time out sooner", "owner": "payments"});
    let actions = "/api/v1/actions";
    let added = walk.step("POST", actions, "", &ada, Some(action)).await;
    let id = added["id"].to_string();
    let owner = json!({"owner": "shop"});
    walk.step("PATCH", "/api/v1/actions/{action}", &id, &ada, Some(owner))
        .await;
    let close = "/api/v1/actions/{action}/close";
    walk.step("POST", close, &id, &ada, Some(json!({}))).await;

    let halt = json!({"why": "a test"});
    let halted = walk
        .controller
        .ask("POST", "/api/v1/halt", &ada, Some(halt));
    assert_eq!(halted.await.0, 200);
    walk.step("DELETE", "/api/v1/halt", "", &ada, None).await;
    walk.step("DELETE", put, "nightly", &ada, None).await;

    for (route, body) in [
        ("/api/v1/join-tokens", json!({"labels": {"role": "db"}})),
        ("/api/v1/tokens", json!({"name": "ci", "role": "viewer"})),
    ] {
        let made = walk.step("POST", route, "", &admin, Some(body)).await;
        let id = made["id"].as_str().unwrap();
        walk.step("DELETE", &format!("{route}/{{id}}"), id, &admin, None)
            .await;
    }
    walk.step("DELETE", "/api/v1/people/{name}", "eve", &admin, None)
        .await;
    walk.step("DELETE", "/api/v1/login", "", &visitor, None)
        .await;
    let labels = json!({"set": {"role": "web"}, "remove": []});
    let agents = "/api/v1/agents/{name}";
    walk.step(
        "PATCH",
        &format!("{agents}/labels"),
        "b",
        &admin,
        Some(labels),
    )
    .await;
    walk.step("DELETE", agents, "b", &admin, None).await;

    let description = backburn::api::description();
    let mut operations = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if !matches!(method.as_str(), "get" | "parameters") {
                operations.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    walk.walked.extend(EXEMPT.map(str::to_owned));
    let left: Vec<_> = operations.symmetric_difference(&walk.walked).collect();
    assert!(
        left.is_empty(),
        "give each of these a step, with which its audit entry is shown to come first: {left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_acts_is_stopped_even_if_that_cannot_be_audited() {
    let controller = TestController::new();
    let labels = [("role", "web"), ("host", "a")];
    controller.agent("a", &labels, Manners::default()).await;
    let ada = controller.token("ada", Role::Operator);
    let run = controller
        .running("long", &ada, on_host("a", "20s"), "a")
        .await;
    let walk = Walk {
        controller,
        walked: BTreeSet::new(),
    };
    walk.sql("CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END");
    let path = format!("/api/v1/runs/{run}/stop");
    let (status, answer) = (walk.controller)
        .ask("POST", &path, &ada, Some(json!({})))
        .await;
    assert_eq!(
        (status, &answer["stopping"]),
        (202, &json!(true)),
        "{answer}"
    );
    let file = walk.controller.file("a");
    walk.controller
        .until("the fault is reverted", || file.exists())
        .await;
}
