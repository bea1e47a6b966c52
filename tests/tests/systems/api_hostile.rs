//! Who calls the controller and means no good, or does not know better: odd and slow HTTP, crowds, agents that say they are
//! others, say too much, or never go. Everybody else is served meanwhile.

use backburn_tests::api::{Connection, Controller, request};
use backburn_tests::wait::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn is_served(controller: &Controller) {
    assert_eq!(controller.ask("GET", "/healthz", "", None).status, 200);
}

#[test]
fn odd_http_is_answered_by_the_standard() {
    let mut controller = Controller::default();
    let health = request("GET", "/healthz", "", None);
    let mut connection = controller.connect();
    // One after the other, and all at once.
    for _ in 0..3 {
        connection.send(&health);
        assert_eq!(
            connection.answer(false).map(|answer| answer.status),
            Some(200)
        );
    }
    connection.send(&health.repeat(5));
    for _ in 0..5 {
        assert_eq!(
            connection.answer(false).map(|answer| answer.status),
            Some(200)
        );
    }
    let head = controller.ask("HEAD", "/healthz", "", None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let mut connection = controller.connect();
    connection.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(
        connection.answer(false).map(|answer| answer.status),
        Some(200)
    );
    assert!(
        connection.is_closed(),
        "a connection of HTTP/1.0 is for one request"
    );
    let mut connection = controller.connect();
    let admin = &controller.admin;
    let expects = format!(
        "POST /api/v1/join-tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    );
    connection.send(expects.as_bytes());
    assert_eq!(connection.head().map(|answer| answer.status), Some(100));
    connection.send(b"{}");
    assert_eq!(
        connection.answer(false).map(|answer| answer.status),
        Some(201)
    );
    // What is refused is refused before the body is sent.
    let mut connection = controller.connect();
    connection.send(expects.replace(admin.as_str(), "nonsense").as_bytes());
    connection.answer(false).expect("an answer").problem(401);

    let headers = |count: usize, length: usize| {
        let value = "v".repeat(length);
        let lines: String = (0..count)
            .map(|number| format!("h{number}: {value}\r\n"))
            .collect();
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{lines}\r\n")
    };
    for flood in [
        headers(500, 10),
        headers(1, 100_000),
        headers(90, 10_000),
        "GET\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
            .to_owned(),
        "GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)),
    ] {
        let mut connection = controller.connect();
        connection.send(flood.as_bytes());
        if let Some(answer) = connection.answer(false) {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
        assert!(connection.is_closed());
    }
    is_served(&controller);
    assert!(controller.lives());
}

#[test]
fn slow_client_is_dropped_and_others_are_served() {
    let controller = Controller::default();
    let mut slow: Vec<Connection> = Vec::new();
    for part in [
        "",
        "GET /healthz HT",
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-more: ",
    ] {
        for _ in 0..5 {
            let mut connection = controller.connect();
            connection.send(part.as_bytes());
            slow.push(connection);
        }
    }
    // Served once, and silent since.
    let mut idle = controller.connect();
    idle.send(&request("GET", "/healthz", "", None));
    assert_eq!(idle.answer(false).map(|answer| answer.status), Some(200));
    slow.push(idle);
    let mut body = controller.connect();
    let admin = &controller.admin;
    let head = format!(
        "POST /api/v1/halt HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    body.send(head.as_bytes());
    is_served(&controller);
    for mut connection in slow {
        assert!(
            connection.is_closed(),
            "a slow head is waited for without end"
        );
    }
    is_served(&controller);
    body.answer(false).expect("an answer").problem(408);
    assert_eq!(controller.get("/api/v1/halt")["halted"], false);
}

#[test]
fn crowd_of_clients_waits_and_halt_is_served() {
    let mut controller = Controller::default();
    let crowd: Vec<Connection> = (0..600)
        .map(|_| {
            let mut connection = controller.connect();
            connection.send(b"GET ");
            connection
        })
        .collect();
    let pulled = controller.ask("POST", "/api/v1/halt", &controller.admin, Some(&json!({})));
    assert_eq!(pulled.status, 200);
    assert!(controller.lives());
    drop(crowd);
    is_served(&controller);
}

/// The events of a stream until it ends: name, id, data; a comment has the name `:`.
fn events(connection: &mut Connection) -> Vec<(String, String, String)> {
    let (mut found, mut event) = (Vec::new(), BTreeMap::new());
    while let Some(line) = connection.line() {
        if line.starts_with(':') {
            found.push((":".to_owned(), String::new(), String::new()));
        } else if let Some((field, value)) = line.split_once(": ") {
            event.insert(field.to_owned(), value.to_owned());
        } else if line.is_empty() && !event.is_empty() {
            let mut take = |field: &str| event.remove(field).unwrap_or_default();
            let (name, id, data) = (take("event"), take("id"), take("data"));
            let is_last = name == "closed";
            found.push((name, id, data));
            if is_last {
                break;
            }
        }
    }
    found
}

#[test]
fn followed_journal_reaches_its_end_despite_slow_readers() {
    let controller = Controller::default();
    let mut document = backburn_tests::api::experiment("long");
    // Longer than a comment keeps a connection alive.
    document["method"][0]["pauses"] = json!({"before": 17});
    let run = controller.begun("long", &document);
    let path = format!("/api/v1/runs/{run}/stream");
    let follow = |more: &str| {
        let mut connection = controller.connect();
        let head =
            String::from_utf8(request("GET", &path, &controller.admin, None)).expect("UTF-8");
        connection.send(
            head.replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1)
                .as_bytes(),
        );
        connection
    };
    // One never reads, and some go away.
    let deaf = follow("");
    drop((0..5).map(|_| follow("")).collect::<Vec<_>>());
    let mut followers: Vec<Connection> = (0..20).map(|_| follow("")).collect();
    let mut first = None;
    for follower in &mut followers {
        let head = follower.head().expect("an answer");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let told = events(follower);
        assert_eq!(told.last().map(|(name, ..)| name.as_str()), Some("closed"));
        assert!(
            told.iter().any(|(name, ..)| name == ":"),
            "nothing says that it lives"
        );
        let entries: Vec<_> = told
            .into_iter()
            .filter(|(name, ..)| name == "entry")
            .collect();
        for (index, (_, id, data)) in entries.iter().enumerate() {
            assert_eq!(*id, (index + 1).to_string());
            assert!(serde_json::from_str::<Value>(data).is_ok_and(|entry| entry.is_object()));
        }
        assert_eq!(*first.get_or_insert_with(|| entries.clone()), entries);
    }
    let whole = first.expect("a journal");
    assert!(whole.len() > 3);
    let kept = controller.get(&format!("/api/v1/runs/{run}/events"));
    assert_eq!(kept.as_array().map(Vec::len), Some(whole.len()));
    // Whoever lost the connection goes on where it was; nonsense is from the start.
    for (last, from) in [("2", 2), ("x", 0), ("99999", whole.len())] {
        let mut again = follow(&format!("last-event-id: {last}\r\n"));
        assert_eq!(again.head().map(|head| head.status), Some(200));
        let told: Vec<_> = events(&mut again)
            .into_iter()
            .filter(|(name, ..)| name == "entry")
            .collect();
        assert_eq!(told, whole[from..]);
    }
    drop(deaf);
}

#[test]
fn followers_are_limited_and_halt_is_served() {
    let controller = Controller::default();
    let mut document = backburn_tests::api::experiment("long");
    document["method"][0]["pauses"] = json!({"before": 600});
    let path = "/api/v1/experiments/long";
    let put = controller.ask("PUT", path, &controller.admin, Some(&document));
    assert_eq!(put.status, 200, "{}", put.text());
    let path = format!("{path}/runs");
    let begun = controller.ask("POST", &path, &controller.admin, Some(&json!({})));
    let run = begun.json()["run"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/runs/{run}/stream");
    let follow = || {
        let mut connection = controller.connect();
        connection.send(&request("GET", &path, &controller.admin, None));
        let head = connection.head().expect("an answer");
        (head.status, connection)
    };
    let followers: Vec<Connection> = (0..256)
        .map(|number| {
            let (status, connection) = follow();
            assert_eq!(status, 200, "follower {number}");
            connection
        })
        .collect();
    assert_eq!(follow().0, 503);
    let pulled = controller.ask("POST", "/api/v1/halt", &controller.admin, Some(&json!({})));
    assert_eq!(pulled.status, 200);
    drop(followers);
    wait_until("there is room again", || follow().0 == 200);
}

/// An agent's first words.
fn hello(name: &str) -> Value {
    json!({"say": "hello", "agent": name, "version": "1", "labels": {}, "recovered": [], "owed": []})
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[test]
fn hostile_agent_speaks_only_for_itself_and_is_dropped() {
    let mut controller = Controller::default();
    let papers = ["db-1", "db-2", "db-3"].map(|name| controller.join(name));
    let is_connected =
        |name: &str| controller.get(&format!("/api/v1/agents/{name}"))["connected"] == true;
    let mut well = controller.link(&papers[2]);
    well.send(&line(&hello("db-3")));
    wait_until("the third is there", || is_connected("db-3"));

    // It says it is another: it is who its certificate says.
    let mut first = controller.link(&papers[0]);
    first.send(&line(&hello("db-2")));
    wait_until("the first is there", || is_connected("db-1"));
    assert!(!is_connected("db-2"));
    // It tells of what it was never asked for.
    let run = controller.ran("checkout");
    for told in [
        json!({"say": "ended", "injection": run, "cause": "done", "clean": false, "took": "1s"}),
        json!({"say": "struck", "run": run, "rule": "all", "seen": "nothing"}),
        json!({"say": "all-reverted", "request": 7, "owed": []}),
    ] {
        first.send(&line(&told));
    }
    // It is still spoken to, and heard.
    let mut asking = controller.connect();
    let path = "/api/v1/agents/db-1/faults";
    asking.send(&request("GET", path, &controller.admin, None));
    let asked = std::iter::from_fn(|| first.line()).find(|line| line.contains("describe"));
    let asked: Value = serde_json::from_str(&asked.expect("it is asked")).expect("JSON");
    let request = &asked["request"];
    first.send(&line(
        &json!({"say": "described", "request": request, "faults": []}),
    ));
    let answer = asking.answer(false).expect("an answer");
    assert_eq!((answer.status, answer.json()), (200, json!([])));
    // It comes again: the link before is closed.
    let mut second = controller.link(&papers[0]);
    second.send(&line(&hello("db-1")));
    assert!(first.is_closed());
    wait_until("it is there again", || is_connected("db-1"));

    // What is too much, or nothing.
    let labels = |count: usize, length: usize| -> Value {
        let labels = (0..count).map(|number| (format!("l{number}"), json!("v".repeat(length))));
        Value::Object(labels.collect())
    };
    let with = |field: &str, value: Value| {
        let mut hello = hello("db-1");
        hello[field] = value;
        line(&hello)
    };
    let reports = [
        hello("db-1"),
        json!({"say": "struck", "run": "r", "rule": "r", "seen": "s"}),
    ]
    .map(|report| line(&report));
    let said: [(Vec<u8>, &str); 9] = [
        (with("labels", labels(65, 1)), "65 labels"),
        (
            with("labels", labels(1, 257)),
            "a label of more than 256 bytes",
        ),
        (
            with("version", json!("v".repeat(300))),
            "a name of more than 256 bytes",
        ),
        (with("faults", json!(vec!["f"; 300])), "300 faults"),
        (with("held", json!(vec!["i"; 10_001])), "10001 injections"),
        (
            line(&json!({"say": "struck", "run": "r", "rule": "r", "seen": "s"})),
            "did not introduce itself first",
        ),
        (b"{\"say\": \"hel\n".to_vec(), "it sent an unknown report"),
        (vec![b' '; (4 << 20) + 70_000], "a line of more than"),
        (
            [reports[0].clone(), reports[1].repeat(20_100)].concat(),
            "it sent more than 20000 messages",
        ),
    ];
    for (bytes, why) in said {
        let mut link = controller.link(&papers[0]);
        link.send(&bytes);
        assert!(link.is_closed(), "{why}");
        wait_until(why, || controller.said().contains(why));
        assert!(is_connected("db-3"), "another pays for {why}");
    }
    // Revoked: it is nobody at once, whether or not it goes, and does not come back.
    let revoked = controller.ask("DELETE", "/api/v1/agents/db-2", &controller.admin, None);
    assert_eq!(revoked.status, 200);
    let mut link = controller.link(&papers[1]);
    link.send(&line(&hello("db-2")));
    assert!(link.is_closed());
    let mut stays = controller.link(&papers[0]);
    stays.send(&line(&hello("db-1")));
    wait_until("it is there", || is_connected("db-1"));
    controller.ask("DELETE", "/api/v1/agents/db-1", &controller.admin, None);
    assert!(!is_connected("db-1"));
    assert!(stays.is_closed());
    assert!(well.line().is_some_and(|line| line.contains("beat")));
    let pulled = controller.ask("POST", "/api/v1/halt", &controller.admin, Some(&json!({})));
    assert_eq!(pulled.status, 200);
    assert!(controller.lives());
}
