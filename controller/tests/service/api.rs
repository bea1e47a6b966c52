//! The routes of approvals, runs that were not started, and schedules.

use crate::support::Manners;
use crate::support::api::{TestController, TestToken};
use crate::world::on_host;
use backburn::store::{Role, Store as _};
use serde_json::{Value, json};

async fn controller() -> (TestController, TestToken, TestToken, TestToken) {
    let controller = TestController::with_policy(json!({"rules": [
        {"name": "two of us", "labels": {"role": "pay"}, "approval": true},
        {"name": "nobody", "labels": {"role": "db"}, "who": ["root"]},
    ]}));
    for (name, role) in [("a", "pay"), ("b", "db")] {
        let labels = [("role", role), ("host", name)];
        controller.agent(name, &labels, Manners::default()).await;
    }
    let admin = controller.token("root", Role::Admin);
    let ada = controller.token("ada", Role::Operator);
    let eve = controller.token("eve", Role::Viewer);
    (controller, admin, ada, eve)
}

async fn apply(controller: &TestController, name: &str, document: &Value, token: &TestToken) {
    let path = format!("/api/v1/experiments/{name}");
    let (status, applied) = controller
        .ask("PUT", &path, token, Some(document.clone()))
        .await;
    assert_eq!(status, 200, "{applied}");
}

async fn run(controller: &TestController, name: &str, token: &TestToken) -> (u16, Value) {
    let path = format!("/api/v1/experiments/{name}/runs");
    controller.ask("POST", &path, token, Some(json!({}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_over_the_api_names_the_run_that_was_not_started() {
    let (controller, _, ada, eve) = controller().await;
    apply(&controller, "db", &on_host("b", "50ms"), &ada).await;
    let (status, problem) = run(&controller, "db", &ada).await;
    assert_eq!(
        (status, &problem["type"]),
        (403, &json!("urn:backburn:problem:policy"))
    );
    let id = problem["run"].as_str().unwrap();
    let (_, runs) = controller
        .ask("GET", "/api/v1/runs?outcome=not-started", &eve, None)
        .await;
    assert_eq!(runs[0]["id"], id);
    assert_eq!(
        (&runs[0]["state"], &runs[0]["exit-code"]),
        (&json!("over"), &json!(3))
    );
    assert_eq!(controller.audited("run")[1]["outcome"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_over_the_api_show_the_plan_and_mind_the_role() {
    let (controller, admin, ada, eve) = controller().await;
    apply(&controller, "pay", &on_host("a", "50ms"), &ada).await;
    let (status, begun) = run(&controller, "pay", &ada).await;
    assert_eq!(status, 202, "{begun}");
    let id = begun["approval"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/approvals/{id}");
    let (status, shown) = controller.ask("GET", &path, &eve, None).await;
    assert_eq!(status, 200);
    assert_eq!(shown["plan"]["agents"], json!(["a"]));
    assert_eq!(
        (&shown["who"], &shown["version"]),
        (&json!("ada"), &json!(1))
    );
    let (_, all) = controller.ask("GET", "/api/v1/approvals", &eve, None).await;
    assert_eq!(all, json!([shown]));
    let run_path = format!("/api/v1/runs/{id}");
    let state = async || {
        let (_, run) = controller.ask("GET", &run_path, &eve, None).await;
        (run["state"].clone(), run["outcome"].clone())
    };
    assert_eq!(state().await.0, "waiting-for-approval");
    for end in ["", "/reject", "/withdraw"] {
        let body = (end == "/reject").then(|| json!({}));
        let (status, _) = controller
            .ask("POST", &format!("{path}{end}"), &eve, body)
            .await;
        assert_eq!(status, 403, "{end}");
    }
    let by = |plan: &str| format!("{path}?plan={plan}");
    let (status, problem) = controller
        .ask("POST", &by("0123456789"), &admin, None)
        .await;
    assert_eq!(status, 403, "{problem}");
    let fingerprint = shown["fingerprint"].as_str().unwrap();
    let (status, started) = controller
        .ask("POST", &by(&fingerprint[..8]), &admin, None)
        .await;
    assert_eq!((status, &started["run"]), (201, &json!(id)));
    controller
        .until("it is over", || {
            let run = controller.store.run(&id);
            tokio::task::block_in_place(|| run).unwrap().end.is_some()
        })
        .await;
    let start = &controller.audited("start run")[0];
    assert_eq!(
        (&start["about"], &start["detail"]["approved-by"]),
        (&json!(id), &json!("root"))
    );

    // Whatever ends the wait, over the API.
    for end in ["reject", "withdraw", "remove", "revoke"] {
        let (_, begun) = run(&controller, "pay", &ada).await;
        let id = begun["approval"]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/approvals/{id}");
        let revoke = format!("/api/v1/tokens/{}", ada.id);
        let (status, _) = match end {
            "reject" => {
                controller
                    .ask(
                        "POST",
                        &format!("{path}/reject"),
                        &admin,
                        Some(json!({"why": "no"})),
                    )
                    .await
            }
            "withdraw" => {
                controller
                    .ask("POST", &format!("{path}/withdraw"), &ada, None)
                    .await
            }
            "remove" => {
                controller
                    .ask("DELETE", "/api/v1/experiments/pay", &admin, None)
                    .await
            }
            _ => controller.ask("DELETE", &revoke, &admin, None).await,
        };
        assert!(status < 300, "{end}: {status}");
        let (_, ended) = controller
            .ask("GET", &format!("/api/v1/runs/{id}"), &eve, None)
            .await;
        assert_eq!(ended["outcome"], "not-started", "{end}");
        let (status, _) = controller.ask("GET", &path, &eve, None).await;
        assert_eq!(status, 404, "{end}");
        if end == "remove" {
            apply(&controller, "pay", &on_host("a", "50ms"), &ada).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_over_the_api_is_handed_over_paused_and_resumed() {
    let (controller, admin, ada, eve) = controller().await;
    let mut nightly = on_host("a", "50ms");
    nightly["schedule"] = json!({"cron": "0 3 * * *"});
    apply(&controller, "nightly", &nightly, &ada).await;
    let listed = async || {
        let (_, all) = controller
            .ask("GET", "/api/v1/schedules?count=1", &eve, None)
            .await;
        all[0].clone()
    };
    assert_eq!(listed().await["who"], "ada");
    controller
        .ask(
            "DELETE",
            &format!("/api/v1/tokens/{}", ada.id),
            &admin,
            None,
        )
        .await;
    assert_eq!(listed().await["stopped"], "token `ada` was revoked");
    apply(&controller, "nightly", &nightly, &admin).await;
    let schedule = listed().await;
    assert_eq!(
        (&schedule["who"], &schedule["stopped"]),
        (&json!("root"), &Value::Null)
    );
    assert_eq!(schedule["version"], 1, "it is the same document");
    assert_eq!(controller.audited("apply").len(), 2);

    let pause = "/api/v1/schedules/nightly/pause";
    let why = || Some(json!({"why": "release week"}));
    assert_eq!(controller.ask("POST", pause, &eve, why()).await.0, 403);
    let (status, paused) = controller.ask("POST", pause, &admin, why()).await;
    assert_eq!((status, &paused["who"]), (200, &json!("root")));
    let schedule = listed().await;
    assert_eq!(
        (&schedule["paused"]["why"], &schedule["times"]),
        (&json!("release week"), &json!([]))
    );
    assert_eq!(controller.ask("POST", pause, &admin, why()).await.0, 409);
    let resume = "/api/v1/schedules/nightly/resume";
    let (status, resumed) = controller.ask("POST", resume, &admin, None).await;
    assert_eq!((status, &resumed["was-paused"]), (200, &json!(true)));
    assert_eq!(listed().await["times"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        controller
            .ask("POST", "/api/v1/schedules/none/pause", &admin, why())
            .await
            .0,
        404
    );
}
