//! What a controller suggests for its agents.

use crate::support::Manners;
use crate::support::api::{TestController, TestToken};
use backburn::store::Role;
use backburn_experiments::wire::Refusal;
use serde_json::{Value, json};

fn services() -> Value {
    json!([{"name": "shop", "processes": 2, "unit": "shop.service", "is-in-own-network": true,
        "listening": ["0.0.0.0:8080"], "peers": ["10.0.0.7:5432"]},
        {"name": "\u{1b}[2J", "processes": 1, "is-in-own-network": true, "listening": ["0.0.0.0:81"], "peers": []}])
}

fn with_services() -> Manners {
    Manners {
        services: services(),
        ..Manners::default()
    }
}

async fn suggested(controller: &TestController, agent: &str, token: &TestToken) -> (u16, Value) {
    let path = format!("/api/v1/agents/{agent}/suggestions");
    controller.ask("GET", &path, token, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_of_an_agent_are_planned_on_it_ready_to_run_and_audited() {
    let controller = TestController::new();
    controller
        .agent("web-1", &[("host", "web-1")], with_services())
        .await;
    controller
        .agent("web-2", &[("host", "web-2")], with_services())
        .await;
    let ada = controller.token("ada", Role::Operator);
    let (status, answer) = suggested(&controller, "web-1", &ada).await;
    assert_eq!(status, 200, "{answer}");
    // This controller knows one fault that lasts; the others are left out, and it is said why.
    let ready = answer["suggestions"].as_array().unwrap();
    assert_eq!(ready.len(), 1, "{answer}");
    assert_eq!(
        (&ready[0]["name"], &ready[0]["fault"]),
        (&json!("pause-shop"), &json!("process-pause"))
    );
    assert!(
        ready[0]["reason"]
            .as_str()
            .unwrap()
            .contains("shop of shop.service on port 8080")
    );
    let mut left_out = answer["left-out"].as_array().unwrap().iter();
    let slow = left_out.find(|one| one["why"] == "there is no fault `network-latency`");
    assert!(
        slow.unwrap()["names"]
            .as_array()
            .unwrap()
            .contains(&json!("slow-shop")),
        "{answer}"
    );
    assert!(!answer.to_string().contains("[2J"), "{answer}");

    // It hits this agent and no other, and can be stored and planned as it is.
    let document = &ready[0]["experiment"];
    assert_eq!(
        document["targets"]["agent"]["labels"],
        json!({"host": "web-1"})
    );
    assert_eq!(
        document["steady-state-hypothesis"]["probes"][0]["from"],
        "agent"
    );
    let (status, stored) = controller
        .ask(
            "PUT",
            "/api/v1/experiments/pause-shop",
            &ada,
            Some(document.clone()),
        )
        .await;
    assert_eq!(status, 200, "{stored}");
    let (status, plan) = controller
        .ask(
            "POST",
            "/api/v1/experiments/pause-shop/plan",
            &ada,
            Some(json!({})),
        )
        .await;
    assert_eq!(
        (status, &plan["agents"]),
        (200, &json!(["web-1"])),
        "{plan}"
    );
    let audited = controller.audited("suggest");
    assert_eq!(
        (audited.len(), &audited[0]["about"], &audited[0]["outcome"]),
        (1, &json!("web-1"), &json!("asked")),
        "{audited:?}"
    );
    let runs = controller.ask("GET", "/api/v1/runs", &ada, None).await;
    assert_eq!(runs, (200, json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_require_the_role_the_team_and_eyes() {
    let controller = TestController::new();
    let labels = [("host", "web-1"), ("team", "shop")];
    controller.agent("web-1", &labels, with_services()).await;
    let eve = controller.token("eve", Role::Viewer);
    let pat = controller.token_with("pat", Role::Operator, |kept| kept.is_blind = true);
    let shop = controller.team_token("shop", Role::Operator, &["shop"]);
    let pay = controller.team_token("pay", Role::Operator, &["payments"]);
    for (token, expected) in [(&eve, 403), (&pat, 403), (&shop, 200), (&pay, 404)] {
        let (status, answer) = suggested(&controller, "web-1", token).await;
        assert_eq!(status, expected, "{answer}");
    }
    assert_eq!(controller.audited("suggest").len(), 1);
    assert_eq!(suggested(&controller, "nobody", &shop).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_for_one_of_two_hosts_of_one_name_select_by_all_labels_or_are_refused() {
    let controller = TestController::new();
    controller
        .agent("web-1", &[("host", "web"), ("zone", "a")], with_services())
        .await;
    controller
        .agent("web-2", &[("host", "web"), ("zone", "b")], with_services())
        .await;
    let ada = controller.token("ada", Role::Operator);
    let (status, answer) = suggested(&controller, "web-1", &ada).await;
    assert_eq!(status, 200, "{answer}");
    let labels = &answer["suggestions"][0]["experiment"]["targets"]["agent"]["labels"];
    assert_eq!(
        (&labels["host"], &labels["zone"]),
        (&json!("web"), &json!("a"))
    );
    controller
        .agent("web-3", &[("host", "web"), ("zone", "a")], with_services())
        .await;
    let (status, answer) = suggested(&controller, "web-1", &ada).await;
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:backburn:problem:no-match")),
        "{answer}"
    );
    assert!(
        answer["hint"].as_str().unwrap().contains("agents label"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_that_an_agent_or_a_policy_refuses_are_left_out_with_the_reason() {
    let controller = TestController::with_policy(json!({"rules": [
        {"name": "nobody", "labels": {"role": "db"}, "who": ["root"]}]}));
    let refuses = Manners {
        refuse_plan: Some(Refusal::new("protected", "the shop is protected here")),
        ..with_services()
    };
    controller
        .agent("web-1", &[("host", "web-1")], refuses)
        .await;
    controller
        .agent("db-1", &[("host", "db-1"), ("role", "db")], with_services())
        .await;
    let odd = Manners {
        services: json!({"not": "a list"}),
        ..Manners::default()
    };
    controller.agent("odd", &[("host", "odd")], odd).await;
    let ada = controller.token("ada", Role::Operator);
    for (agent, why) in [("web-1", "the shop is protected here"), ("db-1", "nobody")] {
        let (status, answer) = suggested(&controller, agent, &ada).await;
        assert_eq!(
            (status, &answer["suggestions"]),
            (200, &json!([])),
            "{answer}"
        );
        assert!(answer["left-out"].to_string().contains(why), "{answer}");
    }
    let (status, answer) = suggested(&controller, "odd", &ada).await;
    assert_eq!(
        (status, &answer["type"]),
        (503, &json!("urn:backburn:problem:agent")),
        "{answer}"
    );
}
