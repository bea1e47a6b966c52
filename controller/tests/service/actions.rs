//! Actions, and the reports that name them: an action that names an experiment closes only by a run that proves the fix.

use crate::support::api::{TestController, TestToken};
use crate::world::on_host;
use backburn::report::{ReportEvidence, ReportFormat};
use backburn::store::{
    ExperimentRef, NewRun, OwnedKind, Role, RunEnd, RunNote, Store as _, Trigger,
};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{
    Event, HypothesisTiming, JournalEntry, Judgement, Phase, Run, Verdict, verdict,
};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Stores a run of an experiment that is over. Its hypothesis is checked once, if `judgement` is given.
fn store_run(
    controller: &TestController,
    id: &str,
    experiment: &str,
    started: Timestamp,
    judgement: Option<Judgement>,
) {
    let new = NewRun {
        id: id.into(),
        experiment: Some(ExperimentRef {
            name: experiment.into(),
            version: 1,
        }),
        title: "a pause".into(),
        seed: 7,
        who: "ada".into(),
        because: Trigger::Asked,
        started,
    };
    controller.store.open_run(&new).unwrap();
    let mut events = vec![Event::RunStarted {
        run: id.into(),
        title: "a pause".into(),
        seed: 7,
        version: "0.1.0".into(),
        hypothesis: judgement.iter().map(|_| "p".to_owned()).collect(),
        hypothesis_timing: HypothesisTiming {
            before: false,
            during: false,
            after: judgement.is_some(),
        },
        sha256: None,
        recovery_within: None,
        approved_by: None,
        question: None,
        tolerances: Default::default(),
    }];
    if let Some(judgement) = judgement {
        events.extend(
            [Phase::Method, Phase::Revert, Phase::After].map(|phase| Event::PhaseStarted { phase }),
        );
        events.push(Event::Sampled {
            phase: Phase::After,
            probe: "p".into(),
            hypothesis: true,
            judgement,
            output: json!(1),
            why: None,
            took: HumanDuration::millis(3),
        });
    }
    events.push(Event::RunEnded);
    let entries: Vec<JournalEntry> = (events.into_iter())
        .map(|event| JournalEntry {
            at: started,
            elapsed: 0.0,
            event,
        })
        .collect();
    controller.store.append_all(id, &entries).unwrap();
    let verdict: Verdict = verdict(&Run::fold(&entries).unwrap());
    let end = RunEnd {
        ended: started,
        outcome: verdict.outcome,
        verdict: json!(verdict),
    };
    controller.store.close_run(id, &end).unwrap();
}

async fn controller() -> (TestController, TestToken, TestToken) {
    let controller = TestController::new();
    let ada = controller.token("ada", Role::Operator);
    let eve = controller.token("eve", Role::Viewer);
    for name in ["pay", "other"] {
        let path = format!("/api/v1/experiments/{name}");
        let document = Some(on_host("a", "50ms"));
        let (status, applied) = controller.ask("PUT", &path, &ada, document).await;
        assert_eq!(status, 200, "{applied}");
    }
    (controller, ada, eve)
}

async fn add(controller: &TestController, token: &TestToken, body: Value) -> Value {
    let (status, added) = controller
        .ask("POST", "/api/v1/actions", token, Some(body))
        .await;
    assert_eq!(status, 201, "{added}");
    added
}

async fn text(controller: &TestController, path: &str, token: &TestToken) -> (u16, String) {
    let answer = controller.open("GET", path, token, None).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn action_that_names_an_experiment_closes_only_by_a_later_run_that_held() {
    let (controller, ada, _) = controller().await;
    let before = Timestamp::now() - SignedDuration::from_secs(60);
    store_run(&controller, "early", "pay", before, Some(Judgement::Within));
    let body = json!({"title": "raise the timeout", "owner": "payments", "severity": "high", "experiment": "pay", "run": "early"});
    let added = add(&controller, &ada, body).await;
    assert_eq!(
        (&added["state"], &added["proof"]),
        (&json!("open"), &Value::Null)
    );
    let later = Timestamp::now() + SignedDuration::from_secs(1);
    store_run(
        &controller,
        "deviated",
        "pay",
        later,
        Some(Judgement::Outside),
    );
    store_run(&controller, "unmeasured", "pay", later, None);
    store_run(
        &controller,
        "elsewhere",
        "other",
        later,
        Some(Judgement::Within),
    );
    let id = added["id"].as_u64().unwrap();
    let close = format!("/api/v1/actions/{id}/close");
    for (run, why) in [
        (Some("early"), "started before"),
        (Some("deviated"), "did not hold"),
        (Some("unmeasured"), "nothing was measured"),
        (Some("elsewhere"), "is not of experiment"),
        (None, "no run of experiment `pay`"),
    ] {
        let (status, problem) = controller
            .ask("POST", &close, &ada, Some(json!({"run": run})))
            .await;
        assert_eq!(
            (status, &problem["type"]),
            (409, &json!("urn:backburn:problem:proof")),
            "{problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(why),
            "{problem}"
        );
        assert!(
            problem["hint"]
                .as_str()
                .unwrap()
                .contains("backburn run pay")
        );
    }
    let (status, problem) = controller
        .ask("POST", &close, &ada, Some(json!({"run": "none"})))
        .await;
    assert_eq!(status, 422, "{problem}");
    store_run(&controller, "proof", "pay", later, Some(Judgement::Within));
    let (_, shown) = controller
        .ask("GET", &format!("/api/v1/actions/{id}"), &ada, None)
        .await;
    assert_eq!(shown["proof"], "proof");
    let (status, closed) = controller.ask("POST", &close, &ada, Some(json!({}))).await;
    assert_eq!(
        (status, &closed["proved-by"]),
        (200, &json!("proof")),
        "{closed}"
    );
    let (status, problem) = controller.ask("POST", &close, &ada, Some(json!({}))).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:backburn:problem:closed"))
    );
    let path = format!("/api/v1/actions/{id}");
    let (status, _) = controller
        .ask("PATCH", &path, &ada, Some(json!({"owner": "bob"})))
        .await;
    assert_eq!(status, 409);
    assert_eq!(
        (
            controller.audited("add-action").len(),
            controller.audited("close-action").len()
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn action_with_wrong_content_is_refused_with_what_would_do() {
    let (controller, ada, eve) = controller().await;
    for (body, what) in [
        (json!({"title": " ", "owner": "x"}), "no title"),
        (json!({"title": "x", "owner": ""}), "no owner"),
        (
            json!({"title": "x", "owner": "x", "due": "2020-01-01"}),
            "in the past",
        ),
        (
            json!({"title": "x", "owner": "x", "due": "soon"}),
            "not a date",
        ),
        (
            json!({"title": "x", "owner": "x", "severity": "huge"}),
            "not a severity",
        ),
        (
            json!({"title": "x", "owner": "x", "experiment": "none"}),
            "no experiment",
        ),
        (json!({"title": "x", "owner": "x", "run": "none"}), "no run"),
    ] {
        let (status, problem) = controller
            .ask("POST", "/api/v1/actions", &ada, Some(body))
            .await;
        assert_eq!(status, 422, "{problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(what),
            "{problem}"
        );
        assert!(problem["hint"].is_string(), "{problem}");
    }
    let body = Some(json!({"title": "x", "owner": "x"}));
    assert_eq!(
        controller
            .ask("POST", "/api/v1/actions", &eve, body)
            .await
            .0,
        403
    );
    assert_eq!(
        controller.ask("GET", "/api/v1/actions", &eve, None).await,
        (200, json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_listed_overdue_first_and_only_to_their_team() {
    let (controller, ada, eve) = controller().await;
    let yesterday = Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .yesterday()
        .unwrap();
    add(&controller, &ada, json!({"title": "someday", "owner": "a"})).await;
    add(
        &controller,
        &ada,
        json!({"title": "soon", "owner": "a", "due": "2099-01-01"}),
    )
    .await;
    // What was due in the future when it was added is overdue later.
    let overdue = backburn::store::ActionChange::Added {
        title: "late".into(),
        owner: "a".into(),
        due: Some(yesterday),
        severity: Default::default(),
        experiment: Some("pay".into()),
        run: None,
    };
    let id = controller
        .store
        .append_action_change(None, Timestamp::now(), "ada", &overdue)
        .unwrap();
    let (_, listed) = controller.ask("GET", "/api/v1/actions", &eve, None).await;
    let titles: Vec<&str> = (listed.as_array().unwrap().iter())
        .map(|one| one["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["late", "soon", "someday"]);
    // After its date, the run that would prove the fix is proposed.
    assert_eq!(
        (&listed[0]["state"], &listed[0]["proposed"]),
        (&json!("overdue"), &json!("pay"))
    );
    let (_, metrics) = text(&controller, "/metrics", &eve).await;
    for sample in [
        "backburn_actions{state=\"open\"} 2",
        "backburn_actions{state=\"overdue\"} 1",
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }
    let payments = controller.team_token("pat", Role::Operator, &["payments"]);
    let path = format!("/api/v1/actions/{id}");
    assert_eq!(
        controller
            .ask("GET", "/api/v1/actions", &payments, None)
            .await
            .1,
        json!([])
    );
    assert_eq!(controller.ask("GET", &path, &payments, None).await.0, 404);
    assert_eq!(
        controller
            .ask("PATCH", &path, &payments, Some(json!({})))
            .await
            .0,
        404
    );
    let own = add(
        &controller,
        &payments,
        json!({"title": "ours", "owner": "pat"}),
    )
    .await;
    let (_, listed) = controller
        .ask("GET", "/api/v1/actions", &payments, None)
        .await;
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["id"]),
        (1, &own["id"])
    );
    // Export and import keep them.
    let mut lines = Vec::new();
    controller.store.export(&mut lines).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = backburn::store::SqliteStore::open(folder.path()).unwrap();
    copy.import(&mut &lines[..]).unwrap();
    assert_eq!(
        copy.action_changes().unwrap(),
        controller.store.action_changes().unwrap()
    );
    assert_eq!(
        copy.owners(OwnedKind::Action, &own["id"].to_string())
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn report_over_the_api_can_be_made_again_as_it_was() {
    let (controller, ada, eve) = controller().await;
    let at = Timestamp::now();
    store_run(
        &controller,
        "first",
        "pay",
        at - SignedDuration::from_secs(60),
        Some(Judgement::Outside),
    );
    store_run(&controller, "second", "pay", at, Some(Judgement::Within));
    let note = |text: &str| RunNote {
        at,
        who: "ada".into(),
        kind: "note".into(),
        body: json!({"text": text}),
    };
    controller
        .store
        .append_note("second", &note("<b>looked</b> at the dashboard"))
        .unwrap();
    add(
        &controller,
        &ada,
        json!({"title": "raise the timeout", "owner": "a", "run": "second"}),
    )
    .await;
    for format in [
        ReportFormat::Html,
        ReportFormat::Markdown,
        ReportFormat::Json,
    ] {
        let path = format!("/api/v1/runs/second/report?format={}", format.word());
        let (status, report) = text(&controller, &path, &eve).await;
        assert_eq!(status, 200, "{report}");
        // Earlier runs, notes and actions are in it.
        for part in ["first", "looked", "raise the timeout"] {
            assert!(report.contains(part), "{part}: {report}");
        }
        assert_eq!(
            format == ReportFormat::Json,
            report.contains("<b>looked"),
            "{report}"
        );
        let evidence = ReportEvidence::find(&report).unwrap();
        controller
            .store
            .append_note("second", &note("later"))
            .unwrap();
        let (_, changed) = text(&controller, &path, &eve).await;
        assert_ne!(changed, report);
        let as_of = format!(
            "{path}&notes={}&actions={}",
            evidence.notes, evidence.actions
        );
        assert_eq!(text(&controller, &as_of, &eve).await.1, report);
    }
    let answer = controller
        .open("GET", "/api/v1/runs/second/report?format=html", &eve, None)
        .await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(
        text(&controller, "/api/v1/runs/second/report?format=pdf", &eve)
            .await
            .0,
        400
    );
    assert_eq!(
        text(&controller, "/api/v1/runs/none/report", &eve).await.0,
        404
    );
    let pat = controller.team_token("pat", Role::Viewer, &["payments"]);
    assert_eq!(
        text(&controller, "/api/v1/runs/second/report", &pat)
            .await
            .0,
        404
    );
    // Whoever sees a run by its teams is told nothing of runs and actions of others.
    let payments = std::collections::BTreeSet::from(["payments".to_owned()]);
    controller
        .store
        .set_owners(OwnedKind::Run, "second", &payments)
        .unwrap();
    let (status, report) = text(&controller, "/api/v1/runs/second/report", &pat).await;
    assert_eq!(status, 200);
    assert!(
        !report.contains("first") && !report.contains("raise the timeout"),
        "{report}"
    );
    let open = NewRun {
        id: "open".into(),
        experiment: None,
        title: "t".into(),
        seed: 1,
        who: "ada".into(),
        because: Trigger::Asked,
        started: at,
    };
    controller.store.open_run(&open).unwrap();
    assert_eq!(
        text(&controller, "/api/v1/runs/open/report", &eve).await.0,
        409
    );
}
