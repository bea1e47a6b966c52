//! What the shipped program takes for an experiment, and what it says of what is not: keys that are there twice, names and
//! values of variables, addresses, controls, and the reasons of tolerances that fail.

use backburn_tests::api::{Controller, experiment, request};
use backburn_tests::programs::{backburn, backburn_agent};
use backburn_tests::web;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is a place for temporary files")
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it starts");
    Said {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// `backburn` with these words, in this folder, without a policy of the host's own.
fn says(folder: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(backburn());
    command.current_dir(folder).args(words);
    if matches!(words.first(), Some(&"run" | &"plan")) {
        command.args(["--state", "state"]);
    }
    said(&mut command)
}

fn write(folder: &Path, name: &str, text: impl AsRef<str>) {
    std::fs::write(folder.join(name), text.as_ref()).expect("a file can be written");
}

/// An experiment whose only probe is measured once, before an empty method.
fn probing(provider: &Value, tolerance: &Value) -> Value {
    json!({
        "title": "t", "description": "d",
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": tolerance, "provider": provider}
        ]},
        "method": []
    })
}

#[test]
fn duplicate_json_key_is_refused_by_every_command() {
    let folder = folder();
    let path = folder.path();
    let document = probing(&json!({"type": "process", "path": "true"}), &json!(0)).to_string();
    write(path, "fine.json", &document);
    write(
        path,
        "twice.json",
        document.replace("\"tolerance\":0", "\"tolerance\":1,\"tolerance\":0"),
    );
    for command in ["validate", "run", "plan"] {
        let refused = says(path, &[command, "twice.json"]);
        assert_eq!(refused.code, 2, "{command}: {}", refused.stderr);
        let at = "$.steady-state-hypothesis.probes[0].tolerance";
        assert!(refused.stderr.contains(at), "{command}: {}", refused.stderr);
    }

    write(
        path,
        "vars.json",
        r#"{"configuration": {"a": {"b": 1, "b": 2}}}"#,
    );
    let refused = says(path, &["validate", "fine.json", "--var-file", "vars.json"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("$.configuration.a.b"),
        "{}",
        refused.stderr
    );

    let policy = r#"{"deny-faults": ["cpu-stress"], "deny-faults": []}"#;
    write(path, "policy.json", policy);
    let arguments = r#"{"process": {"name": "nginx", "name": "sleep"}}"#;
    for (words, at) in [
        (
            vec!["plan", "cpu-stress", "--policy", "policy.json"],
            "$.deny-faults",
        ),
        (
            vec!["plan", "process-pause", "--arguments", arguments],
            "$.process.name",
        ),
    ] {
        let refused = said(
            Command::new(backburn_agent())
                .current_dir(path)
                .args(&words),
        );
        assert!(refused.code != 0, "{words:?}: {}", refused.stdout);
        let told = refused.stdout + &refused.stderr;
        assert!(told.contains(at), "{words:?}: {told}");
    }
    write(
        path,
        "owner.json",
        r#"{"allow-programs": false, "allow-programs": true}"#,
    );
    let refused = says(
        path,
        &[
            "controller",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "data",
            "--policy",
            "owner.json",
        ],
    );
    assert!(
        refused.code != 0 && refused.stderr.contains("$.allow-programs"),
        "{}",
        refused.stderr
    );
}

#[test]
fn duplicate_json_key_is_refused_by_the_api() {
    let controller = Controller::default();
    let sent = |method: &str, path: &str, body: &str| {
        let whole = String::from_utf8(request(method, path, &controller.admin, Some(&json!(0))))
            .expect("it is text");
        let length = format!("content-length: {}", body.len());
        let head = whole.strip_suffix('0').expect("the body is last");
        let mut connection = controller.connect();
        connection.send((head.replace("content-length: 1", &length) + body).as_bytes());
        connection.answer(false).expect("an answer")
    };
    let named = r#"{"name": "eve", "role": "viewer", "role": "admin"}"#;
    let refused = sent("POST", "/api/v1/tokens", named);
    let problem = refused.problem(400);
    assert_eq!(problem["problems"][0]["at"], "$.role", "{problem}");
    let document = experiment("twice").to_string();
    let document = document.replacen(
        "\"name\":\"look\"",
        "\"name\":\"look\",\"name\":\"other\"",
        1,
    );
    let refused = sent("PUT", "/api/v1/experiments/twice", &document);
    let problem = refused.problem(400);
    assert_eq!(
        problem["problems"][0]["at"], "$.method[0].name",
        "{problem}"
    );
    let asked = json!({"experiment": document});
    let problem = controller
        .ask("POST", "/api/v1/runs", &controller.admin, Some(&asked))
        .problem(422);
    assert_eq!(
        problem["problems"][0]["at"], "$.method[0].name",
        "{problem}"
    );
    assert_eq!(
        controller
            .ask("GET", "/api/v1/experiments/twice", &controller.admin, None)
            .status,
        404
    );
}

#[test]
fn variable_of_the_command_line_is_typed_by_the_document() {
    let folder = folder();
    let path = folder.path();
    let port = web::serve().port();
    let mut document = probing(
        &json!({"type": "tcp", "host": "127.0.0.1", "port": "${port}", "timeout": "${within}"}),
        &json!({"type": "compare", "path": "$.connected", "op": "==", "value": true}),
    );
    document["configuration"] = json!({
        "port": {"type": "env", "key": "NO_SUCH_PORT", "default": 1, "env_var_type": "int"},
        "version": "0", "made": "v${version}"
    });
    document["steady-state-hypothesis"]["probes"] = json!([
        document["steady-state-hypothesis"]["probes"][0],
        {"type": "probe", "name": "word", "tolerance": {"type": "regex", "target": "stdout", "pattern": "^v1.10 1.10 true\n$"},
         "provider": {"type": "process", "path": "echo", "arguments": ["${made}", "${version}", "${flag}"]}}
    ]);
    // `1.10` ends where a line does, so that `1.1` is another.
    write(path, "x.json", document.to_string());
    write(path, "vars.env", format!("port={port}\nwithin=20\n"));
    write(
        path,
        "vars.json",
        json!({"port": port.to_string(), "within": 20}).to_string(),
    );
    let rest = ["--var", "version=1.10", "--var", "flag=true"];
    let on_the_line = format!("port={port}");
    for given in [
        vec!["--var-file", "vars.env"],
        vec!["--var-file", "vars.json"],
        vec!["--var", &on_the_line, "--var", "within=20"],
    ] {
        let words = ["run", "x.json"].iter().chain(&given).chain(&rest);
        let held = says(path, &words.copied().collect::<Vec<_>>());
        assert_eq!(held.code, 0, "{given:?}: {}{}", held.stdout, held.stderr);
    }
    for command in ["validate", "run", "plan"] {
        let words = [
            command,
            "x.json",
            "--var-file",
            "vars.env",
            "--var",
            "prt=1",
        ];
        let refused = says(path, &[&words[..], &rest].concat());
        assert_eq!(refused.code, 2, "{command}: {}", refused.stdout);
        let told = refused.stderr;
        assert!(
            told.contains("`prt`") && told.contains("did you mean `port`?"),
            "{command}: {told}"
        );
    }
}

#[test]
fn unknown_variable_is_refused_by_the_api_with_its_location() {
    let controller = Controller::default();
    let mut document = experiment("typed");
    document["configuration"] = json!({"port": 1});
    let admin = &controller.admin;
    let put = controller.ask("PUT", "/api/v1/experiments/typed", admin, Some(&document));
    assert_eq!(put.status, 200, "{}", put.text());
    for path in ["plan", "runs"] {
        let path = format!("/api/v1/experiments/typed/{path}");
        let refused = controller.ask(
            "POST",
            &path,
            admin,
            Some(&json!({"variables": {"prt": 1}})),
        );
        let problem = refused.problem(422);
        assert_eq!(problem["problems"][0]["at"], "$.variables.prt", "{problem}");
        assert_eq!(
            problem["problems"][0]["hint"], "did you mean `port`?",
            "{problem}"
        );
    }
}

#[test]
fn wrong_port_of_a_url_is_refused_and_never_replaced() {
    let folder = folder();
    let path = folder.path();
    let port = web::serve().port();
    for wrong in [
        "http://127.0.0.1:99999/".to_owned(),
        "http://127.0.0.1:-1/".to_owned(),
        "http://127.0.0.1:0/".to_owned(),
        format!("http://127.0.0.1:{port}O/"),
    ] {
        for provider in [
            json!({"type": "http", "url": wrong}),
            json!({"type": "prometheus", "url": wrong, "query": "up"}),
        ] {
            let mut document = probing(
                &provider,
                &json!({"type": "range", "range": [0, 999], "target": "status"}),
            );
            write(path, "written.json", document.to_string());
            let invalid = says(path, &["run", "written.json"]);
            assert_eq!(invalid.code, 2, "{provider}: {}", invalid.stdout);
            let at = "$.steady-state-hypothesis.probes[0].provider.url";
            assert!(
                invalid.stderr.contains(at),
                "{provider}: {}",
                invalid.stderr
            );
            document["steady-state-hypothesis"]["probes"][0]["provider"]["url"] = json!("${url}");
            write(path, "variable.json", document.to_string());
            let given = format!("url={wrong}");
            let unknown = says(path, &["run", "variable.json", "--var", &given]);
            assert_eq!(
                unknown.code, 3,
                "{provider}: {}{}",
                unknown.stdout, unknown.stderr
            );
            let told = unknown.stdout + &unknown.stderr;
            assert!(told.contains("could not be measured"), "{provider}: {told}");
        }
    }
    // There is no such page, and it is this server that says so.
    let legal = probing(
        &json!({"type": "http", "url": format!("http://127.0.0.1:{port}?x=1")}),
        &json!(404),
    );
    write(path, "legal.json", legal.to_string());
    let held = says(path, &["run", "legal.json"]);
    assert_eq!(held.code, 0, "{}{}", held.stdout, held.stderr);
}

#[test]
fn controls_are_refused_unless_ignored_on_request() {
    let folder = folder();
    let path = folder.path();
    let mut document = probing(&json!({"type": "process", "path": "true"}), &json!(0));
    document["controls"] =
        json!([{"name": "safeguards", "provider": {"type": "python", "module": "m"}}]);
    write(path, "x.json", document.to_string());
    for command in ["validate", "run", "plan"] {
        let refused = says(path, &[command, "x.json"]);
        assert_eq!(refused.code, 2, "{command}: {}", refused.stdout);
        let told = refused.stderr;
        assert!(
            told.contains("$.controls") && told.contains("--ignore-controls"),
            "{command}: {told}"
        );
        let taken = says(path, &[command, "x.json", "--ignore-controls"]);
        assert_eq!(taken.code, 0, "{command}: {}{}", taken.stdout, taken.stderr);
        assert!(
            taken.stderr.contains("ignoring the controls $.controls"),
            "{}",
            taken.stderr
        );
    }
    let controller = Controller::default();
    let admin = &controller.admin;
    let at = "/api/v1/experiments/controlled";
    let mut kept = experiment("controlled");
    kept["method"][0]["controls"] = document["controls"].clone();
    let refused = controller.ask("PUT", at, admin, Some(&kept)).problem(422);
    assert_eq!(
        refused["problems"][0]["at"], "$.method[0].controls",
        "{refused}"
    );
    let taken = controller.ask(
        "PUT",
        &format!("{at}?ignore-controls=true"),
        admin,
        Some(&kept),
    );
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert_eq!(taken.json()["left-out"], json!(["$.method[0].controls"]));
    assert_eq!(controller.get(at)["document"], experiment("controlled"));
    let mut asked = json!({"experiment": kept.to_string()});
    let refused = controller
        .ask("POST", "/api/v1/plans", admin, Some(&asked))
        .problem(422);
    assert_eq!(
        refused["problems"][0]["at"], "$.method[0].controls",
        "{refused}"
    );
    asked["ignore-controls"] = json!(true);
    let taken = controller.ask("POST", "/api/v1/plans", admin, Some(&asked));
    assert_eq!(taken.status, 200, "{}", taken.text());
}

#[test]
fn failed_tolerance_is_explained_in_console_report_and_journal() {
    let folder = folder();
    let path = folder.path();
    let mut document = probing(
        &json!({"type": "process", "path": "echo", "arguments": ["replication lag is 42 s ${token}"]}),
        &json!({"type": "regex", "target": "stdout", "pattern": "lag is [0-9] s"}),
    );
    document["secrets"] = json!({"s": {"token": "hunter2"}});
    write(path, "x.json", document.to_string());
    let words = ["run", "x.json", "--junit", "j.xml", "--journal", "j.json"];
    let ended = says(path, &words);
    assert_eq!(ended.code, 3, "{}{}", ended.stdout, ended.stderr);
    let read = |name: &str| std::fs::read_to_string(path.join(name)).expect("it was written");
    for (whence, text) in [
        ("console", ended.stdout + &ended.stderr),
        ("JUnit", read("j.xml")),
        ("journal", read_all(&path.join("state"))),
    ] {
        let seen = "stdout `replication lag is 42 s ***` is out of tolerance";
        assert!(text.contains(seen), "{whence}: {text}");
        assert!(!text.contains("hunter"), "{whence}: {text}");
    }
    assert!(!read("j.json").contains("hunter"));
}

#[test]
fn difference_from_the_chaos_toolkit_is_noted_when_it_decides() {
    let folder = folder();
    let path = folder.path();
    write(
        path,
        "gate.json",
        probing(&json!({"type": "process", "path": "false"}), &json!(0)).to_string(),
    );
    let ended = says(path, &["run", "gate.json"]);
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    assert!(
        ended
            .stderr
            .contains("note: where the hypothesis fails before the method, the Chaos Toolkit"),
        "{}",
        ended.stderr
    );

    // Broken until somebody has looked, and well again.
    let sh = |script: &str| json!({"type": "process", "path": "sh", "arguments": ["-c", script]});
    let step =
        |name: &str, script: &str| json!({"type": "action", "name": name, "provider": sh(script)});
    let mut document = probing(
        &sh("test ! -e broken || { touch seen; exit 1; }"),
        &json!(0),
    );
    document["method"] = json!([
        step("break it", "touch broken"),
        step("wait", "until test -e seen; do sleep 0.05; done"),
        step("mend it", "rm broken"),
    ]);
    write(path, "broken.json", document.to_string());
    for (strategy, named) in [
        ("continuously", true),
        ("during-method-only", true),
        ("default", false),
    ] {
        std::fs::remove_file(path.join("seen")).ok();
        if strategy == "default" {
            write(path, "seen", "");
        }
        let words = [
            "run",
            "broken.json",
            "--hypothesis-strategy",
            strategy,
            "--hypothesis-frequency",
            "100ms",
        ];
        let ended = says(path, &words);
        assert_eq!(
            ended.code,
            i32::from(named),
            "{strategy}: {}{}",
            ended.stdout,
            ended.stderr
        );
        let note = format!("note: with `{strategy}`, the Chaos Toolkit exits with 0");
        assert_eq!(
            ended.stderr.contains(&note),
            named,
            "{strategy}: {}",
            ended.stderr
        );
    }
}

/// The text of every file beneath a folder.
fn read_all(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => all += &read_all(&path),
            false => all += &std::fs::read_to_string(&path).unwrap_or_default(),
        }
    }
    all
}

#[test]
fn multiplying_variables_are_refused_before_they_fill_memory() {
    let folder = folder();
    let large = "x".repeat(400_000);
    let document = json!({
        "title": "t", "description": "d", "configuration": {"large": large},
        "method": (0..100).map(|number| json!({"type": "action", "name": format!("a{number}"),
            "provider": {"type": "process", "path": "true", "arguments": ["${large}"]}})).collect::<Vec<_>>()
    });
    write(folder.path(), "x.json", document.to_string());
    let refused = says(folder.path(), &["validate", "x.json"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains(
            "$.method[20].provider.arguments[0]: with this, variables put more than 8 MiB"
        ),
        "{:.500}",
        refused.stderr
    );
}
