//! The API held to its own description by Schemathesis, and its figures to Prometheus's conventions by the Prometheus
//! client's parser.

use backburn_tests::api::{Answer, Controller};
use backburn_tests::programs::root;
use backburn_tests::toolkit::oracle;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What is left out of the main pass, and why. Each is called in a pass of its own, or elsewhere.
const APART: [(&str, &str); 5] = [
    (
        "/api/v1/halt",
        "once pulled, nothing would start any more: it has a pass of its own",
    ),
    (
        "/api/v1/tokens/{id}",
        "the pass would find its own token in the list and revoke it: `api_secrets` revokes",
    ),
    (
        "/api/v1/people/{name}",
        "the pass would find its own person and remove it with all its tokens: the test `people` removes",
    ),
    (
        "/api/v1/runs/{run}/notes/stream",
        "it stays open, so that each request would take the whole time limit: the test `game_days` follows",
    ),
    (
        "/api/v1/game-days/{id}/notes/stream",
        "it stays open, so that each request would take the whole time limit: the test `game_days` follows",
    ),
];

/// What Schemathesis is told of single operations.
const CONFIGURATION: &str = r#"
# A document that fits its schema may still be no experiment, e.g. by the name of a fault: `problems` says why.
[[operations]]
include-name = "PUT /api/v1/experiments/{name}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]

# What a label or a team may be called is told in words: reserved names, bytes, invisible characters; and an admin has all teams.
[[operations]]
include-path-regex = "^/api/v1/(join-tokens|tokens|agents/.*/labels)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409"]

# Names of what is there, so that the handlers are reached.
[[operations]]
include-path-regex = "^/api/v1/agents/"
parameters = { "path.name" = "db-1" }

[[operations]]
include-path-regex = "^/api/v1/runs/"
parameters = { "path.run" = "RUN" }

# Whether a variable is known is the document's to say, and a text may be no experiment.
[[operations]]
include-path-regex = "^/api/v1/experiments/.*/"
parameters = { "path.name" = "checkout" }
checks.positive_data_acceptance.expected-statuses = ["2xx", "403", "404", "409", "422", "423"]

# Whether a text is one line, a date is past, an experiment or a run known is no question of a schema.
[[operations]]
include-path-regex = "^/api/v1/actions"
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]

# Which kinds of notes a run has, and what else a game day needs.
[[operations]]
include-path-regex = "^/api/v1/(runs/.*/notes|game-days|game-day-documents)"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404", "409", "422"]

[[operations]]
include-path-regex = "^/api/v1/(plans|runs)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "403", "404", "409", "422", "423"]
"#;

/// Schemathesis with these words, against this controller.
fn pass(controller: &Controller, python: &std::path::Path, run: &str, words: &[&str]) -> String {
    let file = controller.folder().join("schemathesis.toml");
    std::fs::write(&file, CONFIGURATION.replace("RUN", run)).expect("it can be written");
    let output = Command::new(python.with_file_name("st"))
        .arg("--config-file")
        .arg(&file)
        .arg("run")
        .arg(format!(
            "https://localhost:{}/api/v1/openapi.json",
            controller.address.port()
        ))
        .args([
            "--header",
            &format!("Authorization: Bearer {}", controller.admin),
        ])
        .arg("--tls-verify")
        .arg(controller.authority())
        .args(["--checks", "all", "--seed", "4", "--max-examples", "10"])
        .args(["--request-timeout", "60", "--generation-database", "none"])
        .args([
            "--continue-on-failure",
            "--suppress-health-check",
            "all",
            "--no-color",
        ])
        .args(words)
        .current_dir(controller.folder())
        .env("HOME", controller.folder())
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{said}");
    said
}

#[test]
fn api_matches_its_description() {
    let Some(python) = oracle() else {
        return;
    };
    let mut controller = Controller::default();
    let run = controller.ran("checkout");
    drop(controller.join("db-1"));
    let mut words = Vec::new();
    for (path, why) in APART {
        println!("apart: {path}: {why}");
        words.extend(["--exclude-path", path]);
    }
    let description = controller.get("/api/v1/openapi.json");
    let operations = |is_meant: &dyn Fn(&str) -> bool| -> usize {
        let paths = description["paths"].as_object().expect("paths").iter();
        let meant = paths.filter(|(path, _)| is_meant(path));
        meant
            .map(|(_, operations)| operations.as_object().expect("operations").len())
            .sum()
    };
    let all = operations(&|_| true);
    let apart = operations(&|path| APART.iter().any(|(apart, _)| *apart == path));
    let levers = operations(&|path| path == "/api/v1/halt");
    assert!(all > 30 && levers == 3, "{all} operations, {levers} levers");
    let selected = |count: usize| format!("Operations:       {count} selected / {all} total");
    let said = pass(&controller, python, &run, &words);
    assert!(said.contains(&selected(all - apart)), "{said}");
    let said = pass(
        &controller,
        python,
        &run,
        &["--include-path", "/api/v1/halt"],
    );
    assert!(said.contains(&selected(levers)), "{said}");
    assert!(controller.lives());
    assert_eq!(controller.get("/api/v1/audit/chain")["broken"], Value::Null);
}

fn figures(controller: &Controller) -> Answer {
    let answer = controller.ask("GET", "/metrics", &controller.admin, None);
    assert_eq!(answer.status, 200);
    answer
}

#[test]
fn metrics_follow_conventions_and_have_bounded_labels() {
    let controller = Controller::default();
    controller.ran("checkout");
    let series = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("backburn_http_requests_total"));
        lines
            .map(|line| line.rsplit_once(' ').expect("a figure").0.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let knock = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            controller
                .ask(&format!("WORD{number}"), "/api/v1/halt", "", None)
                .problem(405);
            controller
                .ask("GET", &format!("/nowhere/{number}"), "", None)
                .problem(404);
            controller
                .ask(
                    "GET",
                    &format!("/api/v1/agents/a{number}"),
                    &controller.admin,
                    None,
                )
                .problem(404);
        }
    };
    knock(0..3);
    let before = figures(&controller);
    let kind = before.header("content-type").expect("a type");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    knock(3..40);
    let after = figures(&controller);
    let mut more = series(&after.text());
    more.retain(|line| !series(&before.text()).contains(line) && !line.contains("/metrics"));
    assert!(more.is_empty(), "{more:?}");

    let Some(python) = oracle() else { return };
    let mut reader = Command::new(python)
        .arg(root().join("tests/oracle/metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = reader.stdin.take().expect("it is piped");
    input.write_all(&after.body).expect("it is read");
    drop(input);
    let output = reader.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the figures can't be read");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["problems"], json!([]));
    let families = &said["families"];
    for (family, kind) in [
        ("backburn_http_requests", "counter"),
        ("backburn_http_request_seconds", "histogram"),
        ("backburn_runs", "counter"),
        ("backburn_runs_open", "gauge"),
        ("backburn_agents_connected", "gauge"),
        ("backburn_agents_unresponsive", "gauge"),
        ("backburn_halted", "gauge"),
    ] {
        assert_eq!(families[family]["type"], kind, "{families}");
    }
}
