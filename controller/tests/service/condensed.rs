//! Runs in brief, as the page opens them.

use crate::support::api::{TestController, TestToken};
use backburn::store::{NewRun, Role, Store as _, Trigger};
use backburn_experiments::journal::JournalEntry;
use jiff::Timestamp;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/runs/long/condensed";

fn entry(elapsed: f64, mut event: Value) -> JournalEntry {
    event["at"] = "2026-11-01T10:00:00Z".into();
    event["elapsed"] = elapsed.into();
    serde_json::from_value(event).unwrap()
}

fn sample(number: u32, probe: &str, output: Value, judgement: &str) -> JournalEntry {
    entry(
        f64::from(number) / 5.0,
        json!({"event": "sampled", "phase": "method", "probe": probe, "hypothesis": true,
            "judgement": judgement, "output": output, "took": "7ms"}),
    )
}

/// A controller with an open run of so many samples of each of two probes: the value of one has a spike, and the other fails once.
fn with_run(samples: u32) -> (TestController, TestToken) {
    let controller = TestController::new();
    let eve = controller.token("eve", Role::Viewer);
    let run = NewRun {
        id: "long".into(),
        experiment: None,
        title: "Long".into(),
        seed: 1,
        who: "ada".into(),
        because: Trigger::Asked,
        started: Timestamp::UNIX_EPOCH,
    };
    controller.store.open_run(&run).unwrap();
    let mut entries = vec![entry(
        0.0,
        json!({"event": "phase-started", "phase": "method"}),
    )];
    for number in 1..=samples {
        let (value, judgement) = match number {
            1_234 => (99.5, "outside"),
            number => (f64::from(number % 10), "within"),
        };
        entries.push(sample(number, "busy", json!(value), "within"));
        let page = json!({"status": 200, "body": "x".repeat(if number + 20 > samples { 5_000 } else { 5 })});
        entries.push(sample(number, "page", page, judgement));
    }
    controller.store.append_all("long", &entries).unwrap();
    (controller, eve)
}

#[tokio::test(flavor = "multi_thread")]
async fn condensed_run_is_small_keeps_spikes_and_failures_and_says_what_follows() {
    let (controller, eve) = with_run(20_000);
    let (status, brief) = controller.ask("GET", PATH, &eve, None).await;
    assert_eq!(status, 200, "{brief}");
    assert_eq!(
        (&brief["after"], &brief["elapsed"]),
        (&json!(40_001), &json!(4_000.0))
    );
    assert!(
        brief.to_string().len() < 400_000,
        "{}",
        brief.to_string().len()
    );
    let [busy, page] = [&brief["probes"][0], &brief["probes"][1]];
    assert_eq!(
        (&busy["probe"], &busy["numeric"], &page["numeric"]),
        (&json!("busy"), &json!(true), &json!(false))
    );
    for (probe, within, outside) in [(busy, 20_000, 0), (page, 19_999, 1)] {
        assert_eq!(
            (&probe["within"], &probe["outside"], &probe["unknown"]),
            (&json!(within), &json!(outside), &json!(0))
        );
        let points = probe["points"]["at"].as_array().unwrap();
        assert!((1_000..8_000).contains(&points.len()), "{}", points.len());
        assert_eq!(
            (&points[0], points.last().unwrap()),
            (&json!(0.2), &json!(4_000.0))
        );
        assert_eq!(probe["latest"].as_array().unwrap().len(), 20);
    }
    let values = busy["points"]["value"].as_array().unwrap();
    assert!(values.contains(&json!(99.5)));
    let place = page["points"]["outside"][0].as_u64().unwrap() as usize;
    assert_eq!(page["points"]["at"][place], 246.8);
    // The journal's texts are longer than a table has room for.
    assert_eq!(page["latest"][19]["output"], "(long, and left out here)");
    let kinds: Vec<&str> = brief["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["event"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["phase-started", "sampled", "sampled"]);

    // What was read is not read again, and what follows is added.
    let last = sample(20_001, "busy", json!("none"), "unknown");
    controller.store.append("long", &last).unwrap();
    let (_, brief) = controller.ask("GET", PATH, &eve, None).await;
    assert_eq!(
        (&brief["after"], &brief["probes"][0]["unknown"]),
        (&json!(40_002), &json!(1))
    );
    assert_eq!(brief["probes"][0]["latest"][19], json!(last));
    assert_eq!(brief["events"].as_array().unwrap().len(), 4);

    let (status, _) = controller
        .ask("GET", "/api/v1/runs/other/condensed", &eve, None)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn condensed_run_of_many_viewers_at_once_is_the_same_for_all() {
    let (controller, eve) = with_run(2_000);
    let asks = (0..50).map(|_| controller.ask("GET", PATH, &eve, None));
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(answers[0].1["after"], 4_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn condensed_run_that_is_removed_is_not_there_any_more() {
    let (controller, eve) = with_run(10);
    assert_eq!(controller.ask("GET", PATH, &eve, None).await.0, 200);
    let end = backburn::store::RunEnd {
        ended: Timestamp::UNIX_EPOCH,
        outcome: backburn_experiments::journal::Outcome::Held,
        verdict: json!({}),
    };
    controller.store.close_run("long", &end).unwrap();
    controller.store.forget_run(Timestamp::now()).unwrap();
    assert_eq!(controller.ask("GET", PATH, &eve, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn condensed_run_with_a_line_that_is_no_event_is_a_problem_and_stays_one() {
    let (controller, eve) = with_run(3_000);
    let file = controller.folder.path().join("store/store.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    connection
        .execute("UPDATE events SET entry = '{}' WHERE number = 4000", [])
        .unwrap();
    for _ in 0..2 {
        let (status, problem) = controller.ask("GET", PATH, &eve, None).await;
        assert_eq!(status, 503, "{problem}");
    }
}
