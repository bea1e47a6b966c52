//! A game day of two people, one of whom does not know what happens, and what a reader learns from its report who was not there.

use super::report::text;
use super::{World, day, experiment, world};
use serde_json::{Value, json};

/// The section of this number in a report in Markdown.
fn section(report: &str, number: usize) -> &str {
    let begin = format!("## {number}. ");
    let rest = report
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{number}: {report}"))
        .1;
    rest.split("\n## ").next().unwrap()
}

/// The line of a section that has all of these.
fn line<'a>(section: &'a str, all: &[&str]) -> &'a str {
    let found = section
        .lines()
        .find(|line| all.iter().all(|part| line.contains(part)));
    found.unwrap_or_else(|| panic!("no line has {all:?}: {section}"))
}

/// The first number of a text with this unit, in seconds.
fn seconds(text: &str) -> f64 {
    let words: Vec<&str> = text
        .split([' ', '|', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let of = |number: &str, unit: &str| -> Option<f64> {
        let number: f64 = number.trim_start_matches('+').parse().ok()?;
        match unit {
            "ms" => Some(number / 1000.0),
            "s" => Some(number),
            _ => None,
        }
    };
    words
        .windows(2)
        .find_map(|pair| of(pair[0], pair[1]))
        .unwrap_or_else(|| panic!("no time: {text}"))
}

/// Ada leads, bob responds and does not know what breaks. The path of the day, and the run of its first step.
async fn held(world: &World) -> (String, String) {
    let mut outage = experiment("db-1", "2500ms");
    outage["steady-state-hypothesis"] = json!({"title": "Customers can pay", "probes": [
        {"type": "probe", "name": "paying", "tolerance": true, "from": "db",
            "provider": {"type": "tcp", "host": "127.0.0.1", "port": 1}}]});
    world
        .ok(
            "PUT",
            "/api/v1/experiments/outage",
            &world.ada,
            Some(outage),
        )
        .await;
    let mut document = day(json!([
        {"title": "What breaks", "experiment": "outage", "seed": 7, "discuss": "by-hand"},
        {"title": "The region is gone", "experiment": "short",
            "prompts": [{"name": "press", "text": "The press calls", "after": "1h"}]},
    ]));
    document["game-day"]["objectives"] = json!({"detect-within": "5m", "recover-within": "20m"});
    let path = world.begin(document).await;
    let injected = world.controller.file("db-1");
    world
        .controller
        .until("the fault is injected", || !injected.exists())
        .await;
    // Bob sees that paying fails, and not why.
    let shown = world.ok("GET", &path, &world.bob, None).await;
    assert!(!shown.to_string().contains("What breaks"), "{shown}");
    for note in [
        json!({"kind": "mark", "mark": "detected", "text": "The alert for paying came"}),
        json!({"kind": "decision", "text": "We fail over", "why": "The replica is healthy"}),
        json!({"kind": "mark", "mark": "mitigated", "text": "Paying goes over the replica"}),
    ] {
        world.note(&path, &world.bob, note).await;
    }
    let shown = world.until_state(&path, "discussion").await;
    let run = shown["steps"][0]["run"].as_str().unwrap().to_owned();
    let action = json!({"title": "Alert on failed payments within 30 s", "owner": "payments", "due": "2099-01-31",
        "severity": "high", "experiment": "outage", "run": run});
    world
        .ok("POST", "/api/v1/actions", &world.ada, Some(action))
        .await;
    world
        .ok(
            "POST",
            &format!("{path}/stop"),
            &world.ada,
            Some(json!({"why": "It is late"})),
        )
        .await;
    world.until_state(&path, "ended").await;
    (path, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_report_answers_ten_questions_of_who_was_not_there() {
    let world = world().await;
    let (path, run) = held(&world).await;
    let report = text(&world, &path, "format=markdown").await;
    if let Ok(folder) = std::env::var("REPORTS_TO_READ") {
        let html = text(&world, &path, "format=html").await;
        std::fs::write(format!("{folder}/report.md"), &report).unwrap();
        std::fs::write(format!("{folder}/report.html"), html).unwrap();
    }
    // 1. What was asked?
    let asked = section(&report, 1);
    line(asked, &["We learn whether we notice."]);
    line(asked, &["Customers can pay"]);
    // 2. What was hit?
    let hit = line(section(&report, 4), &["db-1", "process-pause"]);
    assert!(!hit.contains("not seen to act"), "{hit}");
    // 3. and 4. When was it noticed, and by whom?
    let noticed = line(
        section(&report, 3),
        &["step 1: time to detect, by people", "marked by bob"],
    );
    assert!(
        seconds(noticed.split("within 5m").last().unwrap()) < 5.0,
        "{noticed}"
    );
    // 5. What was done?
    line(
        section(&report, 5),
        &["We fail over", "bob", "The replica is healthy"],
    );
    line(section(&report, 3), &["step 1: time to mitigate"]);
    // 6. How long did it hurt?
    let hurt = line(section(&report, 3), &["step 1: time out of tolerance"]);
    let hurt = seconds(hurt);
    assert!((1.0..6.0).contains(&hurt), "{hurt}");
    // 7. What is it worth?
    let worth = section(&report, 2);
    line(worth, &["deviated"]);
    line(worth, &["paying"]);
    // 8. What will be done by when?
    line(
        section(&report, 9),
        &[
            "Alert on failed payments within 30 s",
            "payments",
            "2099-01-31",
            "outage",
        ],
    );
    // 9. How is it run again?
    let again = section(&report, 11);
    line(again, &["backburn gameday run"]);
    line(again, &["1", "outage", "7"]);
    // 10. What was not tested?
    let untested = section(&report, 12);
    line(untested, &["The region is gone"]);
    line(untested, &["press"]);
    // Who did not know may know now, from who tells; the report is for those who led.
    let blind = world
        .ask("GET", &format!("{path}/report"), &world.bob, None)
        .await;
    assert_eq!(blind.0, 403);
    let runs: Value = world
        .ok("GET", &format!("/api/v1/runs/{run}"), &world.ada, None)
        .await;
    assert_eq!(runs["outcome"], "deviated", "{runs}");
}
