//! The report of a game day: what it says, to whom, and that it can be made again as it was.

use super::{World, day, experiment, world};
use backburn::report::{ReportEvidence, ReportFormat};
use backburn::store::{OwnedKind, Store as _};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// The report at this path with this query, as text.
pub(super) async fn text(world: &World, path: &str, query: &str) -> String {
    let path = format!("{path}/report?{query}");
    let response = world.controller.open("GET", &path, &world.eve, None).await;
    let policy = response.headers()["content-security-policy"].clone();
    assert!(policy.to_str().unwrap().ends_with("sandbox"), "{policy:?}");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn objective<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["objectives"].as_array().unwrap().iter();
    let mut named = all.filter(|one| one["name"] == name);
    named.next().unwrap_or_else(|| panic!("{name}: {report}"))
}

/// A live day with a hypothesis that holds and a talk, with all that people can add.
async fn held_day(world: &World) -> (String, String) {
    let mut measured = experiment("db-1", "50ms");
    let shop = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = shop.local_addr().unwrap().port();
    // Leaked by a test that is about to end.
    std::mem::forget(shop);
    measured["steady-state-hypothesis"] = json!({"title": "The shop answers", "probes": [
        {"type": "probe", "name": "shop", "tolerance": true,
            "provider": {"type": "tcp", "host": "127.0.0.1", "port": port}}]});
    let path = "/api/v1/experiments/measured";
    world.ok("PUT", path, &world.ada, Some(measured)).await;
    let mut document = day(json!([
        {"title": "What breaks", "experiment": "measured", "seed": 7, "discuss": "by-hand"},
        {"title": "Who is on call?",
            "prompts": [{"name": "late", "text": "The press calls", "after": "1h"}]},
    ]));
    document["game-day"]["objectives"] =
        json!({"detect-within": "5m", "mitigate-within": "15m", "error-budget": "2%"});
    document["game-day"]["runbooks"] =
        json!([{"title": "Slow database", "url": "https://wiki.example.org/db"}]);
    let path = world.begin(document).await;
    let shown = world.until_state(&path, "discussion").await;
    let run = shown["steps"][0]["run"].as_str().unwrap().to_owned();
    for note in [
        json!({"kind": "mark", "mark": "detected", "text": "The alert came"}),
        json!({"kind": "mark", "mark": "wrong-runbook", "text": "Page 2 names the old host"}),
        json!({"kind": "mark", "mark": "question", "text": "Who may fail over?"}),
        json!({"kind": "decision", "text": "We fail over", "by": "bob", "why": "The replica is healthy"}),
        json!({"kind": "note", "text": "Only for those who lead", "facilitators": true}),
        json!({"kind": "duty", "duty": "scribe", "to": "eve", "from": "bob"}),
    ] {
        world.note(&path, &world.ada, note).await;
    }
    // The second step begins, and ends before its prompt is due.
    let next = format!("{path}/next");
    world.ok("POST", &next, &world.ada, None).await;
    world.ok("POST", &next, &world.ada, None).await;
    world.until_state(&path, "ended").await;
    (path, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_report_answers_what_a_reader_asks() {
    let world = world().await;
    let (path, run) = held_day(&world).await;
    let id = path.rsplit('/').next().unwrap();
    for (about, due) in [(id, "2099-01-31"), (run.as_str(), "2099-02-28")] {
        let action = json!({"title": format!("Mend what {about} has shown"), "owner": "payments", "due": due, "run": about});
        world
            .ok("POST", "/api/v1/actions", &world.ada, Some(action))
            .await;
    }
    let report: Value = serde_json::from_str(&text(&world, &path, "format=json").await).unwrap();
    let run_report = &report["steps"][0]["report"];
    assert_eq!(run_report["verdict"]["outcome"], "held", "{run_report}");
    assert_eq!(run_report["hits"][0]["agent"], "db-1");
    assert_eq!(run_report["hits"][0]["clean"], true);
    assert_eq!(run_report["rerun"]["seed"], 7);
    let detected = objective(&report, "step 1: time to detect, by people");
    assert_eq!(
        (&detected["wanted"], &detected["met"]),
        (&json!("within 5m"), &json!(true))
    );
    assert!(
        detected["measured"]
            .as_str()
            .unwrap()
            .ends_with(", marked by ada"),
        "{detected}"
    );
    let mitigated = objective(&report, "step 1: time to mitigate");
    assert_eq!(
        (&mitigated["measured"], &mitigated["met"]),
        (&json!("nobody marked it"), &json!(false))
    );
    let budget = objective(&report, "step 1: error budget spent");
    assert_eq!(budget["met"], true, "{budget}");
    objective(&report, "step 1: time to clean, of the slowest fault");
    assert_eq!(report["decisions"][0]["by"], "bob");
    assert_eq!(report["duties"]["scribe"], json!(["eve"]));
    assert_eq!(report["actions"].as_array().unwrap().len(), 2);
    let untested = report["untested"].to_string();
    assert!(untested.contains("prompt late was not given"), "{untested}");
    // One timeline, by time, in which the machine and people meet.
    let timeline = report["timeline"].as_array().unwrap();
    let seconds: Vec<f64> = timeline
        .iter()
        .map(|item| item["seconds"].as_f64().unwrap())
        .collect();
    assert!(seconds.is_sorted() && seconds[0].abs() < 1.0, "{seconds:?}");
    let sources = timeline.iter().map(|item| item["source"].as_str().unwrap());
    let sources: std::collections::BTreeSet<&str> = sources.collect();
    assert_eq!(Vec::from_iter(sources), ["machine", "note"]);
    for format in ["html", "markdown"] {
        let text = text(&world, &path, &format!("format={format}")).await;
        for (number, said) in [
            (1, "We learn whether we notice."),
            (2, "held"),
            (3, "marked by ada"),
            (4, "process-pause"),
            (5, "We fail over"),
            (6, "shop"),
            (7, "Page 2 names the old host"),
            (8, "observed to be gone"),
            (9, "2099-01-31"),
            (10, "earlier run"),
            (11, "backburn gameday run FILE"),
            (12, "was not given"),
            (13, "backburn-report run=gd-"),
        ] {
            let begins = [format!("<h2>{number}. "), format!("## {number}. ")];
            let section = begins
                .iter()
                .find_map(|begin| text.split_once(begin.as_str()));
            let section = section.unwrap_or_else(|| panic!("{number}: {text}")).1;
            let section = section
                .split("<h2>")
                .next()
                .unwrap()
                .split("\n## ")
                .next()
                .unwrap();
            assert!(section.contains(said), "{number}: {said}: {section}");
        }
        assert!(!text.contains("those who lead"), "{text}");
        assert!(!text.contains("<script") && !text.contains("http-equiv=\"refresh"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_report_as_of_its_evidence_has_the_same_bytes() {
    let world = world().await;
    let (path, run) = held_day(&world).await;
    let mut written = Vec::new();
    for format in [
        ReportFormat::Html,
        ReportFormat::Markdown,
        ReportFormat::Json,
    ] {
        let query = format!("format={}", format.word());
        let first = text(&world, &path, &query).await;
        assert_eq!(first, text(&world, &path, &query).await);
        assert_eq!(ReportFormat::of(&first), format);
        written.push((query, first));
    }
    let late = json!({"kind": "note", "text": "Seen later"});
    world.note(&path, &world.ada, late.clone()).await;
    world
        .note(&format!("/api/v1/runs/{run}"), &world.ada, late)
        .await;
    let action = json!({"title": "Mend it", "owner": "payments", "run": run});
    world
        .ok("POST", "/api/v1/actions", &world.ada, Some(action))
        .await;
    for (query, first) in written {
        let now = text(&world, &path, &query).await;
        assert_eq!(now.matches("Seen later").count(), 2);
        let evidence = ReportEvidence::find(&first).unwrap();
        assert_eq!(evidence.run_notes, [0]);
        let changed = ReportEvidence::find(&now).unwrap();
        assert_eq!(changed.run_notes, [1]);
        assert_ne!(
            changed.journal, evidence.journal,
            "notes of runs are covered"
        );
        let (notes, actions) = (evidence.notes, evidence.actions);
        let query = format!("{query}&notes={notes}&actions={actions}&run-notes=0");
        assert_eq!(text(&world, &path, &query).await, first);
    }
    let wrong = format!("{path}/report?run-notes=1,x");
    assert_eq!(world.ask("GET", &wrong, &world.eve, None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_report_is_refused_while_it_goes_on_and_for_blind_tokens() {
    let world = world().await;
    let path = world
        .begin(day(json!([{"experiment": "short", "discuss": "by-hand"}])))
        .await;
    let report = format!("{path}/report");
    let (status, problem) = world.ask("GET", &report, &world.eve, None).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:backburn:problem:open"))
    );
    world.until_state(&path, "discussion").await;
    world
        .ok("POST", &format!("{path}/next"), &world.ada, None)
        .await;
    world.until_state(&path, "ended").await;
    // Everything is revealed, and the report still has what facilitators know.
    let (status, problem) = world.ask("GET", &report, &world.bob, None).await;
    assert_eq!(
        (status, &problem["type"]),
        (403, &json!("urn:backburn:problem:blind"))
    );
    assert_eq!(
        world
            .ask("GET", "/api/v1/game-days/gd-none/report", &world.eve, None)
            .await
            .0,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_report_leaves_out_the_run_of_another_team() {
    let world = world().await;
    let (path, run) = held_day(&world).await;
    let id = path.rsplit('/').next().unwrap();
    let own = |kind, id: &str, team: &str| {
        let teams = [team.to_owned()].into();
        tokio::task::block_in_place(|| world.controller.store.set_owners(kind, id, &teams))
            .unwrap();
    };
    own(OwnedKind::GameDay, id, "shop");
    own(OwnedKind::Run, &run, "banking");
    let report = text(&world, &path, "format=markdown").await;
    assert!(
        report.contains("belongs to other teams than the game day"),
        "{report}"
    );
    assert!(
        !report.contains("db-1") && !report.contains("process-pause"),
        "{report}"
    );
    let banker = world
        .controller
        .team_token("ivy", backburn::store::Role::Viewer, &["banking"]);
    let asked = format!("{path}/report");
    assert_eq!(world.ask("GET", &asked, &banker, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tabletop_report_measures_from_the_start_of_a_step() {
    let world = world().await;
    let mut document = day(json!([{"experiment": "short", "lasts": "1h", "discuss": "by-hand"}]));
    document["game-day"]["objectives"] = json!({"detect-within": "5m", "recover-within": "1h"});
    document["game-day"]["mode"] = json!("tabletop");
    let path = world.begin(document).await;
    let mark = json!({"kind": "mark", "mark": "detected"});
    world.note(&path, &world.ada, mark).await;
    for state in ["discussion", "ended"] {
        world
            .ok("POST", &format!("{path}/next"), &world.ada, None)
            .await;
        world.until_state(&path, state).await;
    }
    let report: Value = serde_json::from_str(&text(&world, &path, "format=json").await).unwrap();
    let detected = objective(&report, "step 1: time to detect, in the exercise");
    assert_eq!(detected["met"], true, "{detected}");
    let recovered = objective(&report, "step 1: time to recover, in the exercise");
    assert_eq!(recovered["met"], false, "{recovered}");
    assert!(
        report["untested"][0]
            .as_str()
            .unwrap()
            .contains("nothing is injected")
    );
    let text = text(&world, &path, "format=markdown").await;
    assert!(text.contains("No experiment ran."), "{text}");
}
