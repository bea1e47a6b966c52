//! Game days: their documents, how one goes on, what is noted, and what participants with a blind token see of it.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "game_days/report.rs"]
mod report;
mod support;
#[path = "game_days/ten_questions.rs"]
mod ten_questions;
#[path = "game_days/updates.rs"]
mod updates;

use backburn::service::Service;
use backburn::store::{NoteStream, Role, RunNote, SqliteStore, Store as _};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::Manners;
use support::api::{TestController, TestToken};

/// Names that would tell a participant what happens.
const TELLING: [&str; 5] = [
    "slow-database",
    "The database is slow",
    "process-pause",
    "db-1",
    "What breaks",
];

struct World {
    controller: TestController,
    ada: TestToken,
    eve: TestToken,
    bob: TestToken,
}

impl Drop for World {
    fn drop(&mut self) {
        for run in self.controller.service.active_runs().into_keys() {
            self.controller
                .service
                .stop(&run, "the test is over".into());
        }
    }
}

fn experiment(host: &str, duration: &str) -> Value {
    json!({
        "title": "The database is slow", "description": "a test",
        "targets": {"db": {"labels": {"host": host}}},
        "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "duration": duration, "targets": "db"}}],
    })
}

fn day(steps: Value) -> Value {
    json!({"game-day": {
        "title": "Checkout", "purpose": "We learn whether we notice.",
        "duties": {"facilitator": "ada", "scribe": "bob"},
        "updates": {"every": "1h", "internal": "{title}: {impact} Next: {next}"},
        "steps": steps,
    }})
}

/// A controller with agents, two experiments, an operator, a viewer and a blind operator; its game days go on.
async fn world() -> World {
    let controller = TestController::new();
    for name in ["db-1", "web-1"] {
        let labels = [("host", name)];
        controller.agent(name, &labels, Manners::default()).await;
    }
    let ada = controller.token("ada", Role::Operator);
    let eve = controller.token("eve", Role::Viewer);
    let bob = controller.token_with("bob", Role::Operator, |kept| kept.is_blind = true);
    tokio::spawn(Arc::clone(&controller.service).keep_game_days());
    let world = World {
        controller,
        ada,
        eve,
        bob,
    };
    for (name, host, duration) in [
        ("slow-database", "db-1", "20s"),
        ("short", "db-1", "50ms"),
        ("web", "web-1", "50ms"),
    ] {
        let path = format!("/api/v1/experiments/{name}");
        world
            .ok("PUT", &path, &world.ada, Some(experiment(host, duration)))
            .await;
    }
    world
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

    async fn ok(&self, method: &str, path: &str, token: &TestToken, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, token, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// Prepares and begins a game day. Its path.
    async fn begin(&self, document: Value) -> String {
        let request = json!({"document": document, "begin": true, "prerequisites-met": true});
        let begun = self
            .ok("POST", "/api/v1/game-days", &self.ada, Some(request))
            .await;
        format!("/api/v1/game-days/{}", begun["id"].as_str().unwrap())
    }

    /// Waits until the game day is as wanted.
    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let shown = self.ok("GET", path, &self.ada, None).await;
                if holds(&shown) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        shown.unwrap_or_else(|_| panic!("it is not so: {what}"))
    }

    async fn until_state(&self, path: &str, state: &str) -> Value {
        self.until(path, state, |shown| shown["state"] == state)
            .await
    }

    async fn note(&self, path: &str, token: &TestToken, note: Value) -> Value {
        self.ok("POST", &format!("{path}/notes"), token, Some(note))
            .await
    }

    async fn notes(&self, path: &str, token: &TestToken) -> Vec<Value> {
        let notes = self.ok("GET", &format!("{path}/notes"), token, None).await;
        notes.as_array().unwrap().clone()
    }

    fn verified(&self) {
        let verified = tokio::task::block_in_place(|| self.controller.store.verify_audit(None));
        assert_eq!(verified.unwrap().broken, None);
    }
}

/// The kinds of these notes; of the state, the state.
fn words(notes: &[Value]) -> Vec<&str> {
    let word = |note: &'_ Value| -> String {
        let kind = note["kind"].as_str().unwrap();
        note["body"]["state"].as_str().unwrap_or(kind).to_owned()
    };
    // Leaked by a test that is about to end.
    notes.iter().map(|note| &*word(note).leak()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_goes_through_its_steps_and_notes_everything() {
    let world = world().await;
    let path = world
        .begin(day(json!([
            {"experiment": "short", "prompts": [{"name": "call", "text": "The phone rings"}], "discuss": "by-hand"},
            {"title": "Who is on call?", "lasts": "10ms"},
        ])))
        .await;
    let shown = world.until_state(&path, "discussion").await;
    let run = shown["steps"][0]["run"].as_str().unwrap().to_owned();
    assert_eq!(shown["steps"][0]["prompts"][0]["given"], true);
    assert!(shown["update-due"].is_string());
    let told = world
        .ok("GET", &format!("/api/v1/runs/{run}"), &world.eve, None)
        .await;
    assert_eq!(
        (&told["because"], &told["state"]),
        (&json!("game-day"), &json!("over"))
    );

    let mark = json!({"kind": "mark", "mark": "detected", "text": "Alert"});
    let mark = world.note(&path, &world.ada, mark).await;
    let earlier = "2026-01-01T10:00:00Z";
    let of = mark["number"].as_u64().unwrap();
    let correction =
        json!({"kind": "correction", "of": of, "happened": earlier, "why": "The pager was faster"});
    let correction = world.note(&path, &world.ada, correction).await;
    let decision = json!({"kind": "decision", "text": "We fail over", "why": "It is down"});
    let decision = world.note(&path, &world.ada, decision).await;
    assert_eq!(decision["body"]["by"], "ada");
    let update = json!({"kind": "update", "audience": "internal", "impact": "Payments are slow."});
    let update = world.note(&path, &world.ada, update).await;
    let text = update["body"]["text"].as_str().unwrap();
    assert!(
        text.starts_with("Checkout: Payments are slow. Next: "),
        "{text}"
    );
    assert!(update["body"]["next"].is_string());
    let duty =
        json!({"kind": "duty", "duty": "scribe", "to": "eve", "from": "bob", "why": "He is ill"});
    world.note(&path, &world.ada, duty).await;

    world
        .ok("POST", &format!("{path}/next"), &world.ada, None)
        .await;
    let shown = world.until_state(&path, "ended").await;
    assert_eq!(
        (&shown["why"], &shown["duties"]["scribe"]),
        (&Value::Null, &json!(["eve"]))
    );
    let notes = world.notes(&path, &world.eve).await;
    let wanted = [
        "starting",
        "running",
        "prompt",
        "discussion",
        "mark",
        "correction",
        "decision",
        "update",
        "duty",
        "starting",
        "running",
        "discussion",
        "ended",
    ];
    assert_eq!(words(&notes), wanted);
    let marked = &notes[4];
    assert_eq!(
        (&marked["happened"], &marked["corrected-by"]),
        (&json!(earlier), &correction["number"])
    );
    assert_ne!(marked["at"], earlier, "both times are kept");
    assert_eq!(notes[1]["previous"], notes[0]["hash"]);

    // Over, but its times can still be corrected; the run has notes of its own.
    world
        .note(
            &path,
            &world.ada,
            json!({"kind": "correction", "of": of, "happened": "2026-01-01T09:59:00Z"}),
        )
        .await;
    let run_path = format!("/api/v1/runs/{run}");
    world
        .note(
            &run_path,
            &world.ada,
            json!({"kind": "link", "title": "Graph", "url": "https://grafana.example.org/d/1"}),
        )
        .await;
    assert_eq!(world.notes(&run_path, &world.eve).await.len(), 1);
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn tabletop_game_day_injects_nothing_and_records_alike() {
    let world = world().await;
    let request = json!({"document": day(json!([{"experiment": "slow-database", "lasts": "1h", "discuss": "by-hand"}])), "mode": "tabletop"});
    let prepared = world
        .ok("POST", "/api/v1/game-days", &world.ada, Some(request))
        .await;
    assert_eq!(
        (&prepared["state"], &prepared["mode"]),
        (&json!("prepared"), &json!("tabletop"))
    );
    let path = format!("/api/v1/game-days/{}", prepared["id"].as_str().unwrap());
    let next = format!("{path}/next");
    let states = ["running", "discussion", "ended"];
    for state in states {
        let shown = world.ok("POST", &next, &world.ada, None).await;
        assert_eq!(shown["state"], state);
        if state != "ended" {
            world
                .note(
                    &path,
                    &world.ada,
                    json!({"kind": "mark", "mark": "question"}),
                )
                .await;
        }
    }
    let (status, problem) = world.ask("POST", &next, &world.ada, None).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:backburn:problem:game-day"))
    );
    let runs = world.ok("GET", "/api/v1/runs", &world.eve, None).await;
    assert_eq!(runs, json!([]));
    assert!(world.controller.file("db-1").exists());
    let notes = world.notes(&path, &world.eve).await;
    assert_eq!(
        words(&notes),
        ["starting", "running", "mark", "discussion", "mark", "ended"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_that_cannot_be_held_is_refused_with_reasons() {
    let world = world().await;
    let post = async |body: Value| {
        world
            .ask("POST", "/api/v1/game-days", &world.ada, Some(body))
            .await
    };
    let problems = |answer: &Value| -> Vec<(String, String)> {
        let all = answer["problems"].as_array().unwrap().iter();
        all.map(|problem| {
            (
                problem["at"].as_str().unwrap().to_owned(),
                problem["hint"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
    };
    let mut wrong =
        day(json!([{"experiment": "slow-databse"}, {"experiment": "short", "version": 7}]));
    wrong["game-day"]["schedule"] = json!({"at": "2020-01-01T00:00:00Z"});
    let (status, answer) = post(json!({"document": wrong})).await;
    assert_eq!(status, 422, "{answer}");
    let found = problems(&answer);
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(
        places,
        [
            "$.game-day.schedule.at",
            "$.game-day.steps[0].experiment",
            "$.game-day.steps[1].experiment"
        ]
    );
    assert_eq!(found[1].1, "did you mean `slow-database`?");

    // Somebody must hold each duty, and prerequisites must be checked off.
    let mut open = day(json!([{"lasts": "1h"}]));
    open["game-day"]["duties"]["scribe"] = json!([]);
    open["game-day"]["prerequisites"] = json!(["The dashboards are open"]);
    let (status, answer) =
        post(json!({"document": open, "begin": true, "prerequisites-met": true})).await;
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:backburn:problem:duty")),
        "{answer}"
    );
    let days = world.ok("GET", "/api/v1/game-days", &world.eve, None).await;
    assert_eq!(days, json!([]), "what is refused is not prepared");
    let (status, answer) =
        post(json!({"document": open, "duties": {"communications": ["bob"]}})).await;
    assert_eq!(status, 409, "{answer}");
    let prepared = world
        .ok(
            "POST",
            "/api/v1/game-days",
            &world.ada,
            Some(json!({"document": open, "duties": {"scribe": ["bob"]}})),
        )
        .await;
    let path = format!("/api/v1/game-days/{}", prepared["id"].as_str().unwrap());
    let (status, answer) = world
        .ask("POST", &format!("{path}/next"), &world.ada, None)
        .await;
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:backburn:problem:prerequisites"))
    );
    for (note, at) in [
        (
            json!({"kind": "prerequisite", "number": 2, "met": true}),
            "$.number",
        ),
        (
            json!({"kind": "duty", "duty": "communications", "to": "eve"}),
            "$.duty",
        ),
        (
            json!({"kind": "duty", "duty": "scribe", "to": "eve", "from": "ada"}),
            "$.from",
        ),
        (
            json!({"kind": "correction", "of": 9, "happened": "2026-01-01T00:00:00Z"}),
            "$.of",
        ),
        (
            json!({"kind": "update", "audience": "outward", "impact": "x", "next": "2020-01-01T00:00:00Z"}),
            "$.next",
        ),
    ] {
        let (status, answer) = world
            .ask(
                "POST",
                &format!("{path}/notes"),
                &world.ada,
                Some(note.clone()),
            )
            .await;
        assert_eq!(
            (status, problems(&answer)[0].0.as_str()),
            (422, at),
            "{note}: {answer}"
        );
    }
    world
        .note(
            &path,
            &world.ada,
            json!({"kind": "prerequisite", "number": 1, "met": true}),
        )
        .await;
    let begun = world
        .ok("POST", &format!("{path}/next"), &world.ada, None)
        .await;
    assert_eq!(
        (&begun["state"], &begun["prerequisites"][0]["met"]),
        (&json!("running"), &json!(true))
    );
    let (status, _) = world
        .ask(
            "POST",
            &format!("{path}/notes"),
            &world.eve,
            Some(json!({"kind": "note", "text": "x"})),
        )
        .await;
    assert_eq!(status, 403, "a viewer adds nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_game_days_that_meet_on_an_agent_are_refused_and_the_first_goes_on() {
    let world = world().await;
    let first = world
        .begin(day(
            json!([{"experiment": "slow-database"}, {"experiment": "short"}]),
        ))
        .await;
    let request = |steps: Value| Some(json!({"document": day(steps), "begin": true}));
    let (status, answer) = world
        .ask(
            "POST",
            "/api/v1/game-days",
            &world.ada,
            request(json!([{"lasts": "1s"}, {"experiment": "short"}])),
        )
        .await;
    assert_eq!(status, 409, "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    let id = first.rsplit('/').next().unwrap();
    assert!(
        detail.contains("agent `db-1`") && detail.contains(id),
        "{detail}"
    );
    let second = world.begin(day(json!([{"experiment": "web"}]))).await;
    world.until_state(&second, "ended").await;
    let shown = world.ok("GET", &first, &world.eve, None).await;
    assert_eq!(shown["state"], "running");

    // A stop ends the run, too.
    let run = shown["steps"][0]["run"].as_str().unwrap().to_owned();
    let stopped = world
        .ok(
            "POST",
            &format!("{first}/stop"),
            &world.ada,
            Some(json!({"why": "It is late"})),
        )
        .await;
    assert_eq!(
        (&stopped["state"], &stopped["why"]),
        (&json!("ended"), &json!("stopped by `ada`: It is late"))
    );
    let path = format!("/api/v1/runs/{run}");
    world
        .until(&path, "the run is over", |run| run["state"] == "over")
        .await;
    world.begin(day(json!([{"experiment": "short"}]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_ends_a_game_day_and_none_begins_meanwhile() {
    let world = world().await;
    let path = world
        .begin(day(
            json!([{"experiment": "slow-database"}, {"lasts": "1h"}]),
        ))
        .await;
    world
        .until(&path, "the run", |shown| {
            shown["steps"][0]["run"].is_string()
        })
        .await;
    world
        .controller
        .until("the fault acts", || !world.controller.file("db-1").exists())
        .await;
    world
        .ok(
            "POST",
            "/api/v1/halt",
            &world.ada,
            Some(json!({"why": "enough"})),
        )
        .await;
    let shown = world.until_state(&path, "ended").await;
    assert!(
        shown["why"].as_str().unwrap().contains("halted the fleet"),
        "{shown}"
    );
    let run = shown["steps"][0]["run"].as_str().unwrap();
    world
        .until(&format!("/api/v1/runs/{run}"), "aborted", |run| {
            run["outcome"] == "aborted"
        })
        .await;
    let (status, answer) = world
        .ask(
            "POST",
            "/api/v1/game-days",
            &world.ada,
            Some(json!({"document": day(json!([{"lasts": "1h"}])), "begin": true})),
        )
        .await;
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:backburn:problem:halt"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_that_is_paused_waits_until_it_is_resumed() {
    let world = world().await;
    let path = world
        .begin(day(
            json!([{"lasts": "1h", "discuss": "10ms"}, {"lasts": "1h"}]),
        ))
        .await;
    world
        .ok(
            "POST",
            &format!("{path}/pause"),
            &world.ada,
            Some(json!({"why": "lunch"})),
        )
        .await;
    let next = format!("{path}/next");
    let (status, answer) = world.ask("POST", &next, &world.ada, None).await;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(
        world
            .ask(
                "POST",
                &format!("{path}/pause"),
                &world.ada,
                Some(json!({}))
            )
            .await
            .0,
        409
    );
    world
        .ok("POST", &format!("{path}/resume"), &world.ada, None)
        .await;
    assert_eq!(
        world
            .ask("POST", &format!("{path}/resume"), &world.ada, None)
            .await
            .0,
        409
    );
    world.ok("POST", &next, &world.ada, None).await;
    world
        .until(&path, "step 2", |shown| {
            shown["step"] == 2 && shown["state"] == "running"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_game_day_is_prepared_at_its_time_and_stored_in_versions() {
    let world = world().await;
    let path = "/api/v1/game-day-documents/weekly";
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let mut weekly = day(json!([{"lasts": "10ms"}]));
    let first = world
        .ok("PUT", path, &world.ada, Some(weekly.clone()))
        .await;
    assert_eq!(
        (&first["version"], &first["changed"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        world
            .ok("PUT", path, &world.ada, Some(weekly.clone()))
            .await["changed"],
        false
    );
    weekly["game-day"]["schedule"] = json!({"at": soon.to_string()});
    assert_eq!(
        world.ok("PUT", path, &world.ada, Some(weekly)).await["version"],
        2
    );
    let shown = world.ok("GET", path, &world.eve, None).await;
    assert_eq!(shown["next"], soon.to_string());
    let versions = world
        .ok("GET", &format!("{path}/versions"), &world.eve, None)
        .await;
    assert_eq!(versions.as_array().unwrap().len(), 2);
    world
        .until("/api/v1/game-days", "it was held", |days| {
            days[0]["state"] == "ended" && days[0]["name"] == "weekly" && days[0]["version"] == 2
        })
        .await;
    assert_eq!(
        world.controller.audited("scheduled game day")[0]["outcome"],
        "prepared"
    );
    world.ok("DELETE", path, &world.ada, None).await;
    assert_eq!(world.ask("GET", path, &world.eve, None).await.0, 404);
    let days = world.ok("GET", "/api/v1/game-days", &world.eve, None).await;
    assert_eq!(days.as_array().unwrap().len(), 1);
}

/// What a blind participant is answered everywhere about a game day and its run.
async fn all_answers(world: &World, path: &str, run: &str) -> Vec<(String, u16, String)> {
    let description = world
        .controller
        .ask("GET", "/api/v1/openapi.json", &world.bob, None)
        .await
        .1;
    let mut answers = Vec::new();
    let id = path.rsplit('/').next().unwrap();
    for route in description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, item)| item["get"].is_object())
    {
        let route = route.0;
        let name = match route.contains("experiments") {
            true => "slow-database",
            false => "db-1",
        };
        let filled = route.replace("{run}", run).replace("{name}", name);
        let filled = match route.contains("approvals") {
            true => filled.replace("{id}", run),
            false => filled.replace("{id}", id),
        };
        let response = world
            .controller
            .open("GET", &filled, &world.bob, None)
            .await;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = String::new();
        // A stream does not end while the run goes on.
        let limit = Duration::from_millis(if route.ends_with("stream") {
            300
        } else {
            10_000
        });
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(limit, body.frame()).await {
            if let Ok(data) = frame.into_data() {
                text.push_str(&String::from_utf8_lossy(&data));
            }
        }
        answers.push((filled, status, text));
    }
    assert!(answers.len() > 20);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn blind_participant_sees_nothing_telling_in_any_answer_until_it_is_revealed() {
    let world = world().await;
    let path = world
        .begin(day(json!([
            {"title": "What breaks", "experiment": "slow-database", "discuss": "by-hand",
             "prompts": [{"name": "hint", "text": "psst, db-1", "to": "facilitator"}, {"name": "call", "text": "slow-database calls", "to": "scribe"}]},
            {"title": "What breaks then", "experiment": "short", "discuss": "by-hand"},
        ])))
        .await;
    let shown = world
        .until(&path, "the prompts", |shown| {
            shown["steps"][0]["prompts"][1]["given"] == true
        })
        .await;
    let run = shown["steps"][0]["run"].as_str().unwrap().to_owned();
    world
        .controller
        .until("the fault acts", || !world.controller.file("db-1").exists())
        .await;
    let run_path = format!("/api/v1/runs/{run}");
    world
        .note(
            &path,
            &world.ada,
            json!({"kind": "note", "text": "DB-1 is hit by process-pause"}),
        )
        .await;
    world
        .note(
            &path,
            &world.ada,
            json!({"kind": "note", "text": "for us alone", "facilitators": true}),
        )
        .await;
    world
        .note(
            &run_path,
            &world.ada,
            json!({"kind": "note", "text": "see slow-database"}),
        )
        .await;
    world
        .note(
            &path,
            &world.bob,
            json!({"kind": "mark", "mark": "detected", "text": "It is slow"}),
        )
        .await;
    for (route, _, text) in all_answers(&world, &path, &run).await {
        if route == "/api/v1/faults" || route == "/api/v1/openapi.json" {
            continue;
        }
        for word in TELLING {
            assert!(
                !text.to_lowercase().contains(&word.to_lowercase()),
                "{route} has `{word}`: {text}"
            );
        }
        assert!(!text.contains("for us alone"), "{route}: {text}");
        assert!(!text.contains("backburn_injections"), "{route}: {text}");
    }
    // What a filter leaves out would tell, too.
    let found = world
        .ok(
            "GET",
            "/api/v1/runs?experiment=slow-database",
            &world.bob,
            None,
        )
        .await;
    assert_eq!(found, json!([]));
    let hidden = world.ok("GET", &run_path, &world.bob, None).await;
    assert_eq!(
        (&hidden["title"], &hidden["state"]),
        (&json!("[hidden]"), &json!("open"))
    );
    let seen = world.notes(&path, &world.bob).await;
    assert_eq!(
        words(&seen),
        ["starting", "running", "prompt", "note", "mark"]
    );
    assert_eq!(seen[2]["body"]["text"], "[hidden] calls");
    for (method, path) in [
        ("POST", "/api/v1/experiments/slow-database/runs".to_owned()),
        ("POST", format!("{path}/next")),
        ("POST", format!("{path}/reveal")),
        ("GET", "/api/v1/agents/db-1".to_owned()),
    ] {
        let (status, answer) = world
            .ask(
                method,
                &path,
                &world.bob,
                (method == "POST").then(|| json!({})),
            )
            .await;
        assert_eq!(
            (status, &answer["type"]),
            (403, &json!("urn:backburn:problem:blind")),
            "{path}"
        );
    }

    // The run is over, and its discussion reveals it; what comes next stays hidden.
    world
        .ok(
            "POST",
            &format!("{run_path}/stop"),
            &world.bob,
            Some(json!({})),
        )
        .await;
    world.until_state(&path, "discussion").await;
    let shown = world.ok("GET", &path, &world.bob, None).await;
    assert_eq!(
        (
            &shown["steps"][0]["experiment"],
            &shown["steps"][1]["experiment"],
            &shown["document"]
        ),
        (&json!("slow-database"), &Value::Null, &Value::Null)
    );
    let run = world.ok("GET", &run_path, &world.bob, None).await;
    assert_eq!(run["title"], "The database is slow");
    let events = world
        .ok("GET", &format!("{run_path}/events"), &world.bob, None)
        .await;
    assert!(events.to_string().contains("process-pause"));
    world
        .ok(
            "POST",
            &format!("{path}/reveal"),
            &world.ada,
            Some(json!({})),
        )
        .await;
    let shown = world.ok("GET", &path, &world.bob, None).await;
    assert_eq!(shown["steps"][1]["experiment"], "short");
    assert!(shown["document"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_streamed_once_and_in_order_from_where_the_client_was() {
    let world = world().await;
    let path = world.begin(day(json!([{"lasts": "1h"}]))).await;
    let stream = format!("{path}/notes/stream");
    let read = async |after: u64, wanted: usize, add: &[&str]| -> Vec<u64> {
        let response = world
            .controller
            .open("GET", &format!("{stream}?after={after}"), &world.eve, None)
            .await;
        let mut body = response.into_body();
        for text in add {
            world
                .note(&path, &world.ada, json!({"kind": "note", "text": text}))
                .await;
        }
        let mut text = String::new();
        while text.matches("id:").count() < wanted {
            let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
            let data = frame.unwrap().unwrap().unwrap().into_data().unwrap();
            text.push_str(&String::from_utf8_lossy(&data));
        }
        let ids = text.lines().filter_map(|line| line.strip_prefix("id:"));
        ids.map(|id| id.trim().parse().unwrap()).collect()
    };
    assert_eq!(read(0, 4, &["one", "two"]).await, [1, 2, 3, 4]);
    assert_eq!(read(3, 2, &["three"]).await, [4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_goes_on_after_a_restart_and_its_export_is_whole() {
    let world = world().await;
    let path = world
        .begin(day(
            json!([{"experiment": "short", "discuss": "by-hand"}, {"lasts": "10ms"}]),
        ))
        .await;
    world.until_state(&path, "discussion").await;
    world
        .note(&path, &world.ada, json!({"kind": "note", "text": "before"}))
        .await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    let (export, notes) = tokio::task::block_in_place(|| {
        let mut export = Vec::new();
        world.controller.store.export(&mut export).unwrap();
        let notes = world
            .controller
            .store
            .notes_of(NoteStream::GameDay, &id, 0)
            .unwrap();
        (String::from_utf8(export).unwrap(), notes)
    });
    let import = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store")).unwrap();
        store.import(&mut text.as_bytes()).map(|_| (folder, store))
    };
    let (_folder, store) = import(&export).unwrap();
    assert_eq!(store.notes_of(NoteStream::GameDay, &id, 0).unwrap(), notes);
    let altered = export.replace(r#"{"text":"before"}"#, r#"{"text":"after"}"#);
    assert_ne!(altered, export);
    assert!(import(&altered).is_err());

    // Another controller of the same store goes on where this one was.
    let other: Arc<Service> = support::api::service_of(
        Arc::new(store),
        &world.controller.folder.path().join("policy.json"),
    );
    tokio::spawn(Arc::clone(&other).keep_game_days());
    let ada = backburn::service::Actor::from(
        &tokio::task::block_in_place(|| other.store().api_token(&world.ada.id)).unwrap(),
    );
    let next = other.clone();
    let id_ = id.clone();
    tokio::task::spawn_blocking(move || next.next_of_game_day(&ada, &id_).unwrap())
        .await
        .unwrap();
    let over = || {
        tokio::task::block_in_place(|| other.held_game_day(&id))
            .unwrap()
            .progress
            .ended
            .is_some()
    };
    world.controller.until("it is over there", over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_was_about_to_start_when_the_controller_ended_is_discussed() {
    let world = world().await;
    let document = day(json!([{"experiment": "slow-database", "discuss": "by-hand"}]));
    let request = json!({ "document": document });
    let prepared = world
        .ok("POST", "/api/v1/game-days", &world.ada, Some(request))
        .await;
    let id = prepared["id"].as_str().unwrap();
    // All that the store has if the controller dies at that moment.
    let note = RunNote {
        at: jiff::Timestamp::now(),
        who: "ada".into(),
        kind: "state".into(),
        body: json!({"state": "starting", "step": 1}),
    };
    let service = &world.controller.service;
    tokio::task::block_in_place(|| service.record_note(NoteStream::GameDay, id, &note)).unwrap();
    service.game_days_changed();
    let path = format!("/api/v1/game-days/{id}");
    world.until_state(&path, "discussion").await;
    let notes = world.notes(&path, &world.eve).await;
    let why = notes[1]["body"]["why"].as_str().unwrap();
    assert!(why.contains("ended before the step had started"), "{why}");
    assert!(world.controller.file("db-1").exists());
    let runs = world.ok("GET", "/api/v1/runs", &world.eve, None).await;
    assert_eq!(runs, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn game_day_of_another_team_does_not_exist() {
    let world = world().await;
    let pia = world
        .controller
        .team_token("pia", Role::Operator, &["payments"]);
    let sam = world
        .controller
        .team_token("sam", Role::Operator, &["shop"]);
    let document = day(json!([{"lasts": "1h"}]));
    let stored = "/api/v1/game-day-documents/of-pay";
    world.ok("PUT", stored, &pia, Some(document.clone())).await;
    let request = json!({"name": "of-pay", "begin": true});
    let begun = world
        .ok("POST", "/api/v1/game-days", &pia, Some(request.clone()))
        .await;
    let path = format!("/api/v1/game-days/{}", begun["id"].as_str().unwrap());
    for (method, path, body) in [
        ("GET", stored.to_owned(), None),
        ("DELETE", stored.to_owned(), None),
        ("GET", path.clone(), None),
        ("GET", format!("{path}/notes"), None),
        ("POST", format!("{path}/next"), None),
        ("POST", format!("{path}/stop"), Some(json!({}))),
        ("POST", "/api/v1/game-days".into(), Some(request)),
    ] {
        let (status, answer) = world.ask(method, &path, &sam, body).await;
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    assert_eq!(world.ask("PUT", stored, &sam, Some(document)).await.0, 409);
    for list in ["/api/v1/game-days", "/api/v1/game-day-documents"] {
        assert_eq!(world.ok("GET", list, &sam, None).await, json!([]));
        let own = world.ok("GET", list, &pia, None).await;
        assert_eq!(own.as_array().unwrap().len(), 1);
    }
}
