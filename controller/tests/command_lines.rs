//! Command lines of processes may have secrets: no answer of a controller, to whomever, has one of a victim's or of anybody else.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/controller.rs"]
mod controller;

use controller::Controller;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// A part of the victim's command line, which no document names.
const MARKER: &str = "0.0271828182845";

fn agent(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(snapbox::cmd::cargo_bin!("backburn"));
    command
        .arg("agent")
        .args(words)
        .arg("--state")
        .arg(state)
        .env_remove("BACKBURN_POLICY")
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

fn experiment(port: u16, process: &Value) -> Value {
    json!({
        "title": "a pause", "description": "a test",
        "targets": {"all": {"labels": {"role": "x"}, "select": "all"}},
        "steady-state-hypothesis": {"title": "no process is asked", "probes": [{
            "type": "probe", "name": "controller", "tolerance": true,
            "provider": {"type": "tcp", "host": "127.0.0.1", "port": port, "timeout": 20}}]},
        "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "targets": "all", "duration": "1s",
             "arguments": {"process": process}}}],
        "blast-radius": {"agents": {"max": 1}, "victims-per-agent": 1},
    })
}

/// Controls what was said: nobody was told of the marker.
struct Answers<'a> {
    controller: &'a Controller,
    viewer: String,
    count: usize,
}

impl Answers<'_> {
    async fn of(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let bearer = format!("authorization: Bearer {}\r\n", self.viewer);
        let viewers = self.controller.request(method, path, &bearer, body).await;
        let admins = self.controller.ask(method, path, body).await;
        for answer in [&viewers, &admins] {
            assert!(
                !answer.body.contains(MARKER),
                "{method} {path}: {}",
                answer.body
            );
            self.count += 1;
        }
        (admins.status, admins.body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_of_a_victim_is_in_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(&folder.path().join("controller")).await;
    let labels = json!({"labels": {"role": "x"}});
    let made = controller
        .ask("POST", "/api/v1/join-tokens", Some(&labels))
        .await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let state = folder.path().join("agent");
    let named = format!("localhost:{}", controller.address.port());
    let words = [
        "join",
        "--controller",
        &named,
        "--token",
        &token,
        "--name",
        "a",
    ];
    assert!(agent(&state, &words).status().await.unwrap().success());
    let mut connected = agent(&state, &["connect"]).spawn().unwrap();
    let fleet = Arc::clone(controller.service.fleet());
    let mut changes = fleet.changes();
    let is_in = changes.wait_for(|_| fleet.get("a").is_some());
    let is_in = tokio::time::timeout(Duration::from_secs(60), is_in).await;
    drop(is_in.unwrap().unwrap());

    let mut victim = Command::new("sleep");
    let mut victim = victim
        .args(["6007", MARKER])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let viewer = json!({"name": "eve", "role": "viewer"});
    let made = controller
        .ask("POST", "/api/v1/tokens", Some(&viewer))
        .await;
    let mut answers = Answers {
        controller: &controller,
        viewer: made.json()["token"].as_str().unwrap().to_owned(),
        count: 0,
    };
    // Nothing that matches anybody but the victim and the agent itself.
    let (port, mut runs) = (controller.address.port(), Vec::new());
    for (name, process, is_held) in [
        ("hit", json!({"command-line": "^sleep 6007 "}), true),
        // All that match are spared, and none matches: what is said then names processes, too.
        ("spared", json!({"pid": connected.id().unwrap()}), false),
        ("nobody", json!({"command-line": "^sleep 6007 $"}), false),
    ] {
        let path = format!("/api/v1/experiments/{name}");
        let document = experiment(port, &process);
        let (status, applied) = answers.of("PUT", &path, Some(&document)).await;
        assert_eq!(status, 200, "{applied}");
        let (status, plan) = answers
            .of("POST", &format!("{path}/plan"), Some(&json!({})))
            .await;
        assert_eq!(
            (status, plan.contains("sleep (")),
            (200, name != "spared" && name != "nobody"),
            "{plan}"
        );
        let runs_of = format!("{path}/runs");
        let begun = controller.ask("POST", &runs_of, Some(&json!({}))).await;
        assert!(!begun.body.contains(MARKER), "{}", begun.body);
        let Some(run) = begun.json()["run"].as_str().map(str::to_owned) else {
            assert!(!is_held, "{}", begun.body);
            continue;
        };
        // It is over when its stream is.
        let stream = format!("/api/v1/runs/{run}/stream");
        let (_, events) = answers.of("GET", &stream, None).await;
        assert_eq!(events.contains("\"held\""), is_held, "{events}");
        runs.push(run);
    }
    assert!(!runs.is_empty());
    let text = json!({"experiment": experiment(port, &json!({"name": "sleep"})).to_string()});
    answers.of("POST", "/api/v1/plans", Some(&text)).await;

    let description = backburn::api::description();
    let mut doctor = String::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        // The stream of a run's notes does not end, and has what the list of notes has.
        if methods.get("get").is_none() || path.ends_with("/notes/stream") {
            continue;
        }
        for run in &runs {
            let path = path.replace("{run}", run).replace("{id}", run);
            let is_agents = path.contains("/agents/");
            let path = path.replace("{name}", if is_agents { "a" } else { "hit" });
            let (_, said) = answers.of("GET", &path, None).await;
            if path.ends_with("/doctor") {
                doctor = said;
            }
        }
    }
    assert!(
        doctor.contains("\"name\""),
        "the doctor has not answered: {doctor}"
    );
    assert!(answers.count > 50, "{}", answers.count);
    assert!(victim.try_wait().unwrap().is_none(), "the victim lives");
    connected.kill().await.unwrap();
    controller.stop().await;
}
