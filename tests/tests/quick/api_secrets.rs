//! What must not be told, and what must be: secrets of tokens and of experiments, who did what, and what the policy lets
//! the controller read of its own host.

use backburn_tests::api::{Controller, LONG, experiment, request};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Whether a text is anywhere in the files of a folder.
fn is_in(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(is_in(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn token_secret_is_shown_once_and_stored_nowhere() {
    let controller = Controller::default();
    let first = std::fs::metadata(controller.data().join("admin-token")).expect("it is there");
    assert_eq!(first.permissions().mode() & 0o777, 0o600);
    let (id, token) = controller.token("somebody", "viewer", None);
    let secret = token.split('.').nth(2).expect("a secret");
    let made = controller.ask(
        "POST",
        "/api/v1/join-tokens",
        &controller.admin,
        Some(&json!({})),
    );
    let join = made.json()["token"].as_str().expect("a token").to_owned();
    let join = join.split('.').nth(2).expect("a secret").to_owned();
    let admin = controller.admin.split('.').nth(2).expect("a secret");
    let store = controller.data().join("store");
    assert!(
        !is_in(&store, "somebody").is_empty(),
        "the store's files are looked into"
    );
    for path in ["/api/v1/tokens", "/api/v1/join-tokens", "/api/v1/audit"] {
        let told = controller.ask("GET", path, &controller.admin, None).text();
        for secret in [secret, admin, &join] {
            assert!(!told.contains(secret), "{path} tells a secret");
        }
    }
    for secret in [secret, admin, &join] {
        assert_eq!(is_in(&store, secret), Vec::<String>::new());
        assert!(!controller.said().contains(secret));
    }
    // A connection that stands does not keep what was revoked.
    let mut connection = controller.connect();
    connection.send(&request("GET", "/api/v1/halt", &token, None));
    assert_eq!(
        connection.answer(false).map(|answer| answer.status),
        Some(200)
    );
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(
        controller
            .ask("DELETE", &path, &controller.admin, None)
            .status,
        204
    );
    connection.send(&request("GET", "/api/v1/halt", &token, None));
    connection.answer(false).expect("an answer").problem(401);
    let known = controller.get("/api/v1/tokens");
    let known = known.as_array().expect("a list").iter();
    let known = known.clone().find(|known| known["id"] == id.as_str());
    assert!(known.is_some_and(|known| known["revoked"].is_string()));
    // Good for a while, and then not.
    let (_, short) = controller.token("short", "viewer", Some("1s"));
    wait_within("it does not expire", LONG, || {
        controller.ask("GET", "/api/v1/halt", &short, None).status != 200
    });
}

#[test]
fn audit_log_names_each_actor_and_detects_changes() {
    let controller = Controller::default();
    let (_, operator) = controller.token("olga", "operator", None);
    let (_, viewer) = controller.token("vera", "viewer", None);
    let name = "/api/v1/experiments/x";
    let ask = |token: &str, method: &str, path: &str, body: Option<Value>| {
        controller.ask(method, path, token, body.as_ref())
    };
    assert_eq!(
        ask(&operator, "PUT", name, Some(experiment("x"))).status,
        200
    );
    let begun = ask(&operator, "POST", &format!("{name}/runs"), Some(json!({})));
    let run = begun.json()["run"].as_str().expect("an id").to_owned();
    assert_eq!(
        ask(
            &operator,
            "POST",
            &format!("/api/v1/runs/{run}/stop"),
            Some(json!({}))
        )
        .status,
        202
    );
    assert_eq!(
        ask(
            &operator,
            "POST",
            "/api/v1/halt",
            Some(json!({"why": "to see"}))
        )
        .status,
        200
    );
    ask(&operator, "POST", &format!("{name}/runs"), Some(json!({}))).problem(409);
    assert_eq!(ask(&operator, "DELETE", "/api/v1/halt", None).status, 200);
    assert_eq!(ask(&operator, "DELETE", name, None).status, 200);
    let made = ask(
        &controller.admin,
        "POST",
        "/api/v1/join-tokens",
        Some(json!({})),
    );
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        ask(
            &controller.admin,
            "DELETE",
            &format!("/api/v1/join-tokens/{id}"),
            None
        )
        .status,
        204
    );
    drop(controller.join("db-1"));
    assert_eq!(
        ask(&controller.admin, "DELETE", "/api/v1/agents/db-1", None).status,
        200
    );
    ask(&viewer, "POST", "/api/v1/halt", Some(json!({}))).problem(403);
    // Who asks without end says no more, and does not fill the disk.
    for _ in 0..50 {
        ask(&operator, "DELETE", "/api/v1/agents/db-1", None).problem(403);
    }
    let log = controller.get("/api/v1/audit?limit=1000");
    let log = log.as_array().expect("a list");
    let has = |who: &str, role: &str, what: &str, about: &str, outcome: &str| {
        let found = log.iter().any(|entry| {
            entry["who"] == who
                && entry["role"] == role
                && entry["what"] == what
                && (entry["about"] == about || about.is_empty())
                && entry["outcome"] == outcome
        });
        assert!(found, "{who} {what} {about}: {log:#?}");
    };
    has("olga", "operator", "apply", "x", "done");
    has("olga", "operator", "run", "x", "asked");
    has("olga", "operator", "run", "x", "refused");
    has("olga", "operator", "halt", "everything", "done");
    has("olga", "operator", "resume", "everything", "asked");
    has("olga", "operator", "remove", "x", "done");
    has("admin", "admin", "make token", "", "asked");
    has("admin", "admin", "make join token", &id, "asked");
    has("admin", "admin", "remove join token", &id, "done");
    has("admin", "admin", "revoke agent", "db-1", "done");
    has("vera", "viewer", "ask", "POST /api/v1/halt", "refused");
    has(
        "olga",
        "operator",
        "ask",
        "DELETE /api/v1/agents/db-1",
        "refused",
    );
    let stops = log
        .iter()
        .filter(|entry| entry["what"] == "stop" && entry["about"] == run.as_str());
    assert_eq!(stops.count(), 1);
    let refused = log
        .iter()
        .filter(|entry| entry["what"] == "ask" && entry["who"] == "olga");
    assert_eq!(refused.count(), 10);

    let chain = controller.get("/api/v1/audit/chain");
    assert_eq!(chain["broken"], Value::Null);
    assert_eq!(chain["number"], log.len());
    assert_eq!(chain["hash"], log[log.len() - 1]["hash"]);
    let database =
        rusqlite::Connection::open(controller.data().join("store/store.db")).expect("a database");
    let changed = database
        .execute("UPDATE audit SET who = 'nobody' WHERE number = 3", [])
        .expect("SQL");
    assert_eq!(changed, 1);
    let broken = controller.get("/api/v1/audit/chain")["broken"].to_string();
    assert!(broken.contains("entry 3"), "{broken}");
}

#[test]
fn secrets_are_shown_nowhere_and_reads_follow_the_policy() {
    let outside = tempfile::tempdir().expect("a place");
    let folder = tempfile::tempdir().expect("a place");
    std::fs::write(folder.path().join("key"), "the-files-secret").expect("it can be written");
    std::fs::write(outside.path().join("key"), "the-outsiders-secret").expect("it can be written");
    std::os::unix::fs::symlink(outside.path().join("key"), folder.path().join("link"))
        .expect("a link");
    let policy = json!({"environment": ["SHOP_*"], "folders": [folder.path()]});
    let controller = Controller::new(
        Some(&policy),
        &[
            ("SHOP_KEY", "the-shops-secret"),
            ("OTHER_KEY", "the-others-secret"),
        ],
    );
    let web = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = web.local_addr().expect("it has one");
    // Whoever is asked tells all that it heard.
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = web.accept().expect("somebody comes");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}");
        stream.write_all(answer.as_bytes()).expect("it is read");
        head
    });
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut document = experiment("secrets");
    document["secrets"] = json!({
        "shop": {"key": {"type": "env", "key": "SHOP_KEY"}, "file": {"type": "file", "path": file("key")}},
    });
    document["method"][0]["secrets"] = json!(["shop"]);
    document["method"][0]["provider"] = json!({
        "type": "http", "url": format!("http://{address}/${{key}}"), "headers": {"x-key": "${file}"},
    });
    let path = "/api/v1/experiments/secrets";
    let run = controller.begun("secrets", &document);
    let mut stream = controller.connect();
    stream.send(&request(
        "GET",
        &format!("/api/v1/runs/{run}/stream"),
        &controller.admin,
        None,
    ));
    let followed = stream.answer(false).expect("an answer").text();
    assert!(followed.contains("event: closed"), "{followed}");
    let heard = heard.join().expect("it was asked");
    assert!(heard.contains("/the-shops-secret"), "{heard}");
    assert!(heard.contains("the-files-secret"), "{heard}");
    let mut told = followed;
    for path in ["", "/versions"] {
        told += &controller
            .get(&format!("/api/v1/experiments/secrets{path}"))
            .to_string();
    }
    for path in ["", "/events"] {
        told += &controller
            .get(&format!("/api/v1/runs/{run}{path}"))
            .to_string();
    }
    told += &controller.get("/api/v1/audit").to_string();
    told += &controller.said();
    for secret in ["the-shops-secret", "the-files-secret"] {
        assert!(!told.contains(secret), "{secret} is told: {told}");
        assert_eq!(is_in(&controller.data(), secret), Vec::<String>::new());
    }
    // All that the policy does not allow is told at once.
    let away = format!(
        "{}/../{}/key",
        folder.path().display(),
        outside.path().file_name().expect("a name").display()
    );
    document["secrets"] = json!({"shop": {
        "other": {"type": "env", "key": "OTHER_KEY"},
        "away": {"type": "file", "path": away},
        "link": {"type": "file", "path": file("link")},
    }});
    document["method"] = json!([
        {"type": "probe", "name": "program", "tolerance": 0, "provider": {"type": "process", "path": "/bin/true"}},
    ]);
    let refused = controller.ask("PUT", path, &controller.admin, Some(&document));
    let problem = refused.problem(422);
    let problems = problem["problems"].to_string();
    for what in [
        "secrets.shop.other",
        "secrets.shop.away",
        "secrets.shop.link",
    ] {
        assert!(problems.contains(what), "{what}: {problems}");
    }
    document["secrets"] = json!({});
    let problem = controller
        .ask("PUT", path, &controller.admin, Some(&document))
        .problem(422);
    assert!(
        problem["problems"]
            .to_string()
            .contains("would run a program"),
        "{problem}"
    );
    // Wherever a provider can stand, there is no way around it.
    let program = json!({"type": "process", "path": "/bin/true"});
    let asked = json!({"type": "http", "url": "http://127.0.0.1:1/"});
    let judged = json!({"type": "probe", "name": "judge", "provider": program});
    let twice = json!({"type": "probe", "name": "judge", "provider": asked, "tolerance": judged});
    let probe = |provider: &Value, tolerance: &Value| json!({"type": "probe", "name": "p", "provider": provider, "tolerance": tolerance});
    let mut from = probe(&program, &judged);
    from["from"] = "all".into();
    for (at, key, value) in [
        ("$.method[0]", "method", json!([probe(&asked, &judged)])),
        ("$.method[0]", "method", json!([probe(&asked, &twice)])),
        ("$.method[0]", "method", json!([from])),
        (
            "$.rollbacks[0]",
            "rollbacks",
            json!([{"type": "action", "name": "a", "provider": program}]),
        ),
        (
            "$.abort[0].probe",
            "abort",
            json!([{"name": "a", "probe": probe(&program, &json!(0))}]),
        ),
        (
            "$.schedule.guard",
            "schedule",
            json!({"at": "2099-01-01T00:00:00Z", "guard": probe(&program, &json!(0))}),
        ),
    ] {
        let mut document = experiment("secrets");
        document["targets"] = json!({"all": {"labels": {"role": "web"}}});
        document[key] = value;
        let refused = controller.ask("PUT", path, &controller.admin, Some(&document));
        let problems = refused.problem(422)["problems"].clone();
        let found = problems.as_array().expect("a list").iter();
        let mut found = found.filter(|problem| problem["at"] == at);
        let what = found.next().unwrap_or_else(|| panic!("{at}: {problems}"));
        assert!(
            what.to_string().contains("would run a program"),
            "{problems}"
        );
    }
    for secret in ["the-outsiders-secret", "the-others-secret"] {
        assert!(!refused.text().contains(secret));
    }
}

#[test]
fn secret_written_in_a_document_never_comes_back() {
    let controller = Controller::default();
    let (_, operator) = controller.token("olga", "operator", None);
    let secret = "written-out-secret";
    let mut document = experiment("written");
    document["secrets"] = json!({"shop": {"key": secret}});
    document["method"][0]["secrets"] = json!({"own": secret});
    let path = "/api/v1/experiments/written";
    let put = |document: &Value| controller.ask("PUT", path, &operator, Some(document));
    let mut told = put(&document).text();
    document["secrets"]["shop"]["key"] = "another-secret".into();
    let second = put(&document).json();
    assert_eq!(
        (&second["version"], &second["changed"]),
        (&json!(2), &json!(true))
    );
    told += &second.to_string();
    for path in ["", "?version=1", "/versions"] {
        told += &controller
            .get(&format!("/api/v1/experiments/written{path}"))
            .to_string();
    }
    told += &controller.get("/api/v1/experiments").to_string();
    told += &controller.get("/api/v1/audit").to_string();
    told += &controller.said();
    for secret in [secret, "another-secret"] {
        assert!(!told.contains(secret), "{told}");
    }
    // What is shown can be applied again: the secret stays.
    let shown = controller.get(path)["document"].clone();
    assert_eq!(shown["secrets"]["shop"]["key"], json!({"type": "stored"}));
    assert_eq!(put(&shown).json()["changed"], false);
    let elsewhere = "/api/v1/experiments/elsewhere";
    let refused = controller.ask("PUT", elsewhere, &operator, Some(&shown));
    let problems = refused.problem(422)["problems"].to_string();
    assert!(problems.contains("$.secrets.shop.key"), "{problems}");
}

#[test]
fn variable_of_a_request_reads_nothing_of_the_controllers_host() {
    let folder = tempfile::tempdir().expect("a place");
    std::fs::write(folder.path().join("a"), "content-of-a").expect("it can be written");
    let policy = json!({"environment": ["SHOP_*"], "folders": [folder.path()]});
    let controller = Controller::new(Some(&policy), &[("SHOP_KEY", "value-of-the-shop")]);
    let (_, operator) = controller.token("olga", "operator", None);
    let (_, viewer) = controller.token("vera", "viewer", None);
    let mut document = experiment("given");
    document["configuration"] = json!({
        "n": 1, "which": "a", "port": {"type": "env", "key": "SHOP_KEY"},
        "file": {"type": "file", "path": format!("{}/${{which}}", folder.path().display())},
    });
    document["method"][0]["pauses"] = json!({"before": "${n}"});
    document["method"][0]["name"] = json!("${file}");
    let put = controller.ask(
        "PUT",
        "/api/v1/experiments/given",
        &operator,
        Some(&document),
    );
    assert_eq!(put.status, 200, "{put:?}");
    let inline =
        |variables: &Value| json!({"experiment": document.to_string(), "variables": variables});
    let stored = |variables: &Value| json!({ "variables": variables });
    for (variables, place) in [
        (json!({"n": {"type": "env", "key": "SHOP_KEY"}}), "n"),
        (
            json!({"n": {"type": "file", "path": folder.path().join("a")}}),
            "n",
        ),
        (json!({"which": "b"}), "file"),
    ] {
        for path in [
            "/api/v1/experiments/given/plan",
            "/api/v1/experiments/given/runs",
        ] {
            let refused = controller.ask("POST", path, &operator, Some(&stored(&variables)));
            let problem = refused.problem(422)["problems"].to_string();
            assert!(problem.contains(place), "{path}: {problem}");
            for value in ["value-of-the-shop", "content-of-a"] {
                assert!(!problem.contains(value), "{problem}");
            }
        }
        for path in ["/api/v1/plans", "/api/v1/runs"] {
            let refused = controller.ask("POST", path, &operator, Some(&inline(&variables)));
            let problem = refused.problem(422)["problems"].to_string();
            assert!(!problem.contains("value-of-the-shop"), "{problem}");
        }
    }
    // Whoever may only read chooses no values.
    let path = "/api/v1/experiments/given/plan";
    let refused = controller.ask("POST", path, &viewer, Some(&json!({"variables": {"n": 2}})));
    let problem = refused.problem(403).to_string();
    assert!(problem.contains("operator"), "{problem}");
    let planned = controller.ask("POST", path, &viewer, Some(&json!({})));
    assert_eq!(planned.status, 200, "{planned:?}");
    let audit = controller.get("/api/v1/audit?limit=1000");
    let planned = audit.as_array().expect("a list").iter();
    let planned = planned.filter(|entry| entry["what"] == "plan" && entry["who"] == "vera");
    assert_eq!(planned.count(), 1);
}
