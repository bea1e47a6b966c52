//! Who uses a controller: tokens and the people they belong to, the way in when all are lost, and the log of what they did.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::pki::tokens::break_glass;
use backburn::store::{
    AuditHead, ImportError, Role, SqliteStore, Store, TokenOrigin, verify_audit_lines,
};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::Manners;
use support::api::{TestController, TestToken};

fn experiment(duration: &str) -> Value {
    json!({
        "title": "a pause", "description": "a test",
        "targets": {"all": {"labels": {"role": "web"}, "select": {"count": 1}}},
        "method": [{"type": "action", "name": "pause",
            "provider": {"type": "fault", "fault": "process-pause", "targets": "all", "duration": duration}}],
        "blast-radius": {"agents": {"max": 1}, "victims-per-agent": 1},
    })
}

#[tokio::test]
async fn token_belongs_to_the_person_that_was_given() {
    let controller = TestController::new();
    let admin = controller.token("admin", Role::Admin);
    for (body, person) in [
        (
            json!({"name": "laptop", "role": "operator", "person": "ada@example.org"}),
            "ada@example.org",
        ),
        (json!({"name": "ci", "role": "viewer"}), "ci"),
    ] {
        let (status, made) = controller
            .ask("POST", "/api/v1/tokens", &admin, Some(body))
            .await;
        assert_eq!((status, &made["person"]), (201, &json!(person)), "{made}");
    }
    let wrong = json!({"name": "x", "role": "viewer", "person": "ada\u{202e}"});
    let (status, _) = controller
        .ask("POST", "/api/v1/tokens", &admin, Some(wrong))
        .await;
    assert_eq!(status, 400);
    // The person is in the audit log wherever the token's name does not say who it was.
    let phone = controller.token_with("phone", Role::Operator, |kept| kept.person = "ada".into());
    let (status, _) = controller.ask("DELETE", "/api/v1/halt", &phone, None).await;
    assert_eq!(status, 200);
    let entry = &controller.audited("resume")[0];
    assert_eq!(
        (&entry["who"], &entry["detail"]["person"]),
        (&json!("phone"), &json!("ada"))
    );
}

#[tokio::test]
async fn person_revoked_loses_all_tokens_at_once() {
    let controller = TestController::new();
    let admin = controller.token("admin", Role::Admin);
    let ada = ["laptop", "phone"]
        .map(|name| controller.token_with(name, Role::Operator, |kept| kept.person = "ada".into()));
    let (status, answer) = controller
        .ask("DELETE", "/api/v1/people/ada", &admin, None)
        .await;
    assert_eq!(
        (status, answer["revoked"].as_array().unwrap().len()),
        (200, 2)
    );
    for token in &ada {
        assert_eq!(
            controller.ask("GET", "/api/v1/halt", token, None).await.0,
            401
        );
    }
    assert_eq!(controller.audited("revoke person")[0]["about"], "ada");
    assert_eq!(
        controller
            .ask("DELETE", "/api/v1/people/eve", &admin, None)
            .await
            .0,
        404
    );
    // Nor can the last admin be shut out as a person.
    let (status, problem) = controller
        .ask("DELETE", "/api/v1/people/admin", &admin, None)
        .await;
    assert_eq!(status, 409, "{problem}");
    let (status, problem) = controller
        .ask(
            "DELETE",
            &format!("/api/v1/tokens/{}", admin.id),
            &admin,
            None,
        )
        .await;
    assert_eq!(status, 409);
    assert!(
        problem["hint"].as_str().unwrap().contains("tokens make"),
        "{problem}"
    );
    assert_eq!(
        controller
            .ask("GET", "/api/v1/tokens", &admin, None)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn broken_glass_gives_an_admin_beside_a_running_controller() {
    let controller = TestController::new();
    let revoked = controller.token_with("admin", Role::Admin, |kept| {
        kept.revoked = Some(Timestamp::now());
    });
    assert_eq!(
        controller
            .ask("GET", "/api/v1/tokens", &revoked, None)
            .await
            .0,
        401
    );
    let beside = SqliteStore::open_shared(&controller.folder.path().join("store")).unwrap();
    let expires = Timestamp::now() + SignedDuration::from_hours(1);
    let token = break_glass(&beside, &controller.authority, expires).unwrap();
    drop(beside);
    let token = TestToken {
        id: token.id.clone(),
        text: token.to_string(),
    };
    let (status, tokens) = controller.ask("GET", "/api/v1/tokens", &token, None).await;
    assert_eq!(status, 200);
    let made = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|made| made["id"] == token.id.as_str());
    assert_eq!(made.unwrap()["expires"], expires.to_string());
    assert_eq!(
        controller.store.api_token(&token.id).unwrap().origin,
        TokenOrigin::BreakGlass
    );
    assert_eq!(
        controller.audited("break-glass")[0]["about"],
        token.id.as_str()
    );
    assert_eq!(controller.store.verify_audit(None).unwrap().broken, None);
}

/// Reads a stream until it ends or this time has passed. What it said, and whether it ended.
async fn read_within(
    response: hyper::Response<axum::body::Body>,
    limit: Duration,
) -> (String, bool) {
    let mut body = response.into_body();
    let mut said = String::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            said += &String::from_utf8_lossy(frame.data_ref().unwrap());
        }
    };
    let ended = tokio::time::timeout(limit, reading).await.is_ok();
    (said, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_ends_soon_after_its_token() {
    let controller = TestController::new();
    let admin = controller.token("admin", Role::Admin);
    controller
        .agent("a", &[("role", "web")], Manners::default())
        .await;
    let path = "/api/v1/experiments/slow";
    assert_eq!(
        controller
            .ask("PUT", path, &admin, Some(experiment("20s")))
            .await
            .0,
        200
    );
    let (status, begun) = controller
        .ask("POST", &format!("{path}/runs"), &admin, Some(json!({})))
        .await;
    assert_eq!(status, 201, "{begun}");
    let run = begun["run"].as_str().unwrap();
    let path = format!("/api/v1/runs/{run}/stream");
    let soon = Timestamp::now() + SignedDuration::from_millis(700);
    let expiring =
        controller.token_with("expiring", Role::Viewer, |kept| kept.expires = Some(soon));
    let viewer = controller.token("viewer", Role::Viewer);
    let staying = controller.open("GET", &path, &admin, None).await;
    let expires = controller.open("GET", &path, &expiring, None).await;
    let revoked = controller.open("GET", &path, &viewer, None).await;
    let began = Instant::now();
    controller
        .store
        .revoke_api_token(&viewer.id, Timestamp::now())
        .unwrap();
    let (said, ended) = read_within(revoked, Duration::from_secs(5)).await;
    assert!(
        ended && began.elapsed() < Duration::from_secs(2),
        "{:?}: {said}",
        began.elapsed()
    );
    assert!(!said.contains("event: closed"), "{said}");
    let (_, ended) = read_within(expires, Duration::from_secs(5)).await;
    assert!(
        ended && began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    // A valid token sees the run to its end.
    assert_eq!(
        controller
            .ask(
                "POST",
                &format!("/api/v1/runs/{run}/stop"),
                &admin,
                Some(json!({}))
            )
            .await
            .0,
        202
    );
    let (said, ended) = read_within(staying, Duration::from_secs(20)).await;
    assert!(ended && said.contains("event: closed"), "{said}");
    controller
        .until("the end is in the audit log", || {
            !controller.audited("end run").is_empty()
        })
        .await;
    let started = &controller.audited("start run")[0];
    assert_eq!(started["about"], run);
    assert_eq!(started["detail"]["version"], 1);
    assert!(started["detail"]["seed"].is_u64(), "{started}");
    assert_eq!(controller.audited("end run")[0]["outcome"], "aborted");
}

#[tokio::test]
async fn audit_head_that_was_kept_reveals_a_log_that_was_cut_or_rewritten() {
    let controller = TestController::new();
    let admin = controller.token("admin", Role::Admin);
    for _ in 0..4 {
        controller.ask("DELETE", "/api/v1/halt", &admin, None).await;
    }
    let (_, chain) = controller
        .ask("GET", "/api/v1/audit/chain", &admin, None)
        .await;
    let head = chain["head"].as_str().unwrap().to_owned();
    assert_eq!(
        head,
        format!("{}:{}", chain["number"], chain["hash"].as_str().unwrap())
    );
    let check = async |head: &str| {
        controller
            .ask(
                "GET",
                &format!("/api/v1/audit/chain?head={head}"),
                &admin,
                None,
            )
            .await
    };
    controller.ask("DELETE", "/api/v1/halt", &admin, None).await;
    assert_eq!(
        check(&head).await.1["broken"],
        Value::Null,
        "it has grown since"
    );
    assert_eq!(check("4:abc").await.0, 400);
    // Cut short, and written on as if nothing had happened: whole in itself.
    let database =
        rusqlite::Connection::open(controller.folder.path().join("store/store.db")).unwrap();
    database
        .execute("DELETE FROM audit WHERE number > 3", [])
        .unwrap();
    assert!(
        check(&head).await.1["broken"]
            .as_str()
            .unwrap()
            .contains("ends before")
    );
    for _ in 0..3 {
        controller.ask("DELETE", "/api/v1/halt", &admin, None).await;
    }
    assert_eq!(
        check(&head).await.1["broken"].as_str().unwrap(),
        "entry 4: its hash is not the known one"
    );
    let (_, plain) = controller
        .ask("GET", "/api/v1/audit/chain", &admin, None)
        .await;
    assert_eq!(plain["broken"], Value::Null);
    // The same without the controller.
    let known: AuditHead = head.parse().unwrap();
    let store = controller.folder.path().join("store");
    let offline = SqliteStore::verify_audit_of(&store, Some(&known)).unwrap();
    assert!(offline.broken.unwrap().why.contains("known"));
    assert_eq!(
        SqliteStore::verify_audit_of(&store, None).unwrap().broken,
        None
    );
}

#[tokio::test]
async fn audit_lines_are_verified_offline_from_exports_and_from_what_audit_prints() {
    let controller = TestController::new();
    let admin = controller.token("admin", Role::Admin);
    for why in ["to see \u{e9}\n", "again"] {
        let halt = json!({"why": why});
        controller
            .ask("POST", "/api/v1/halt", &admin, Some(halt))
            .await;
    }
    controller.ask("DELETE", "/api/v1/halt", &admin, None).await;
    let head = controller.store.verify_audit(None).unwrap().head;
    let mut export = Vec::new();
    controller.store.export(&mut export).unwrap();
    let export = String::from_utf8(export).unwrap();
    let (_, entries) = controller.ask("GET", "/api/v1/audit", &admin, None).await;
    let entries = entries.as_array().unwrap();
    let printed: Vec<String> = entries.iter().map(|entry| format!("{entry}\n")).collect();
    let verify = |text: &str, known: Option<&AuditHead>| {
        let (first, chain) = verify_audit_lines(&mut text.as_bytes(), known).unwrap();
        (
            first,
            chain.head,
            chain.broken.map(|broken| (broken.number, broken.why)),
        )
    };
    for text in [&export, &printed.concat()] {
        assert_eq!(verify(text, Some(&head)), (1, head, None));
        let changed = text.replace("again", "nothing");
        assert_eq!(verify(&changed, None).2.unwrap().0, 2);
    }
    // A part of the log is verified from where it begins, and against an entry that it continues.
    let part = printed[1..].concat();
    assert_eq!(verify(&part, Some(&head)), (2, head, None));
    let first = AuditHead {
        number: 1,
        hash: entries[0]["hash"].as_str().unwrap().parse().unwrap(),
    };
    assert_eq!(verify(&part, Some(&first)).2, None);
    let forged = AuditHead {
        number: 1,
        hash: head.hash,
    };
    assert!(verify(&part, Some(&forged)).2.is_some());
    assert!(
        verify(&printed[2], Some(&first)).2.is_some(),
        "entry 2 is missing"
    );
    assert!(
        verify(&printed[..2].concat(), Some(&head)).2.is_some(),
        "cut short"
    );
    assert!(verify_audit_lines(&mut "nonsense".as_bytes(), None).is_err());

    // An export whose log was altered is not imported.
    let other = tempfile::tempdir().unwrap();
    let other = SqliteStore::open(other.path()).unwrap();
    match other.import(&mut export.replace("again", "nothing").as_bytes()) {
        Err(ImportError::Problems(problems)) => {
            assert!(
                problems[0].what.contains("broken at entry 2"),
                "{problems:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(other.audited(0, 9).unwrap().len(), 0);
    other.import(&mut export.as_bytes()).unwrap();
    assert_eq!(other.verify_audit(Some(&head)).unwrap().broken, None);
}
