//! Notifications by mail: servers that hang, ask to come back, refuse, close the connection or take it for some only.

use crate::support::api::TestController;
use backburn::service::FleetPolicy;
use backburn::store::Role;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// How a mail server behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    /// Says nothing, not even a greeting.
    Hangs,
    /// Answers 451 to the first message.
    GreylistsOnce,
    /// Answers 550 to every receiver.
    Refuses,
    /// Closes the first connection after the data, before it has answered.
    DropsOnce,
    /// Takes it for `ada` at once, and for `bob` the second time.
    TakesForSomeFirst,
}

/// The conversations of a server: what each client said, by line.
type Heard = Arc<Mutex<Vec<Vec<String>>>>;

async fn server(manner: Manner) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Heard::default();
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = {
                let mut kept = kept.lock().unwrap();
                kept.push(Vec::new());
                kept.len()
            };
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                if manner == Manner::Hangs {
                    std::future::pending::<()>().await;
                }
                let is_first = number == 1;
                let mut stream = BufReader::new(stream);
                stream
                    .write_all(b"220-hello\r\n220 here\r\n")
                    .await
                    .unwrap();
                let mut is_data = false;
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap() == 0 {
                        return;
                    }
                    let line = line.trim_end().to_owned();
                    kept.lock().unwrap()[number - 1].push(line.clone());
                    let answer = match line.split(' ').next().unwrap() {
                        "." if manner == Manner::DropsOnce && is_first => return,
                        "." if manner == Manner::GreylistsOnce && is_first => "451 later",
                        "." => {
                            is_data = false;
                            "250 taken"
                        }
                        _ if is_data => continue,
                        "EHLO" => "250-x\r\n250 SIZE 1000",
                        "RCPT" if manner == Manner::Refuses => "550 no such user",
                        "RCPT"
                            if manner == Manner::TakesForSomeFirst
                                && is_first
                                && line.contains("bob") =>
                        {
                            "450 busy"
                        }
                        "DATA" => {
                            is_data = true;
                            "354 go on"
                        }
                        "QUIT" => "221 bye",
                        _ => "250 ok",
                    };
                    stream
                        .write_all(format!("{answer}\r\n").as_bytes())
                        .await
                        .unwrap();
                }
            });
        }
    });
    (port, heard)
}

fn target(name: &str, port: u16) -> Value {
    json!({"name": name, "events": ["status-update"], "smtp": {
        "host": "127.0.0.1", "port": port, "security": "plain",
        "from": "backburn@example.org", "to": ["ada@example.org", "bob@example.org"]}})
}

/// How often a server was told each of these commands.
fn count(heard: &Heard, command: &str) -> usize {
    let heard = heard.lock().unwrap();
    heard
        .iter()
        .flatten()
        .filter(|line| line.starts_with(command))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_tried_again_where_that_helps_and_delays_nobody() {
    let manners = [
        Manner::Hangs,
        Manner::Takes,
        Manner::GreylistsOnce,
        Manner::Refuses,
        Manner::DropsOnce,
        Manner::TakesForSomeFirst,
    ];
    let mut servers = Vec::new();
    for manner in manners {
        servers.push((manner, server(manner).await));
    }
    let mut targets: Vec<Value> = (servers.iter())
        .map(|(manner, (port, _))| target(&format!("{manner:?}"), *port))
        .collect();
    // Nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    targets.push(target("closed", closed.local_addr().unwrap().port()));
    drop(closed);
    let controller = TestController::with_policy(json!({"notifications": targets}));
    let ada = controller.token("ada", Role::Operator);
    let document = json!({"game-day": {"title": "Checkout", "purpose": "We learn.",
        "steps": [{"title": "Talk", "hidden": false, "lasts": "1h"}]}});
    let request = json!({"document": document, "begin": true, "prerequisites-met": true});
    let (status, begun) = controller
        .ask("POST", "/api/v1/game-days", &ada, Some(request))
        .await;
    assert_eq!(status, 201, "{begun}");
    let path = format!("/api/v1/game-days/{}/notes", begun["id"].as_str().unwrap());
    let update = json!({"kind": "update", "audience": "internal", "impact": "Slow\r\n.\r\nQUIT\r\nBcc: x@y"});
    let (status, said) = controller.ask("POST", &path, &ada, Some(update)).await;
    assert_eq!(status, 201, "{said}");
    let heard = |manner: Manner| &servers.iter().find(|(is, _)| *is == manner).unwrap().1.1;
    // Four have it, one refuses; two still wait.
    controller
        .until("those that can are done", || {
            controller.service.notification_counts() == (4, 1)
        })
        .await;
    for (manner, messages, connections) in [
        (Manner::Takes, 1, 1),
        (Manner::GreylistsOnce, 2, 2),
        (Manner::Refuses, 0, 1),
        (Manner::DropsOnce, 2, 2),
        (Manner::TakesForSomeFirst, 2, 2),
    ] {
        assert_eq!(count(heard(manner), "DATA"), messages, "{manner:?}");
        assert_eq!(
            heard(manner).lock().unwrap().len(),
            connections,
            "{manner:?}"
        );
    }
    // Who has it does not get it again.
    assert_eq!(
        count(
            heard(Manner::TakesForSomeFirst),
            "RCPT TO:<ada@example.org>"
        ),
        1
    );
    assert_eq!(
        count(
            heard(Manner::TakesForSomeFirst),
            "RCPT TO:<bob@example.org>"
        ),
        2
    );
    // What was written is neither a command nor a header, and each attempt says that it is the same message.
    for manner in [Manner::Takes, Manner::DropsOnce] {
        let heard = heard(manner).lock().unwrap();
        assert!(
            heard.iter().flatten().all(|line| !line.starts_with("Bcc")),
            "{heard:?}"
        );
        let ids: Vec<&String> = heard
            .iter()
            .flatten()
            .filter(|line| line.starts_with("Message-ID"))
            .collect();
        assert!(
            !ids.is_empty() && ids.iter().all(|id| *id == ids[0]),
            "{ids:?}"
        );
    }
    assert_eq!(count(heard(Manner::Takes), "QUIT"), 1);
}

#[test]
fn policy_with_wrong_mail_server_is_refused_with_all_problems() {
    let problems = |smtp: Value| -> Vec<String> {
        let mut whole = json!({"from": "a@x", "to": ["b@x"]});
        whole
            .as_object_mut()
            .unwrap()
            .extend(smtp.as_object().unwrap().clone());
        let policy = json!({"notifications": [{"name": "mail", "smtp": whole}]});
        let wrong = FleetPolicy::of(&policy.to_string())
            .err()
            .unwrap_or_default();
        wrong
            .iter()
            .map(|problem| {
                problem
                    .at
                    .trim_start_matches("$.notifications[0]")
                    .to_owned()
            })
            .collect()
    };
    assert!(problems(json!({"host": "mail.example.org"})).is_empty());
    assert!(problems(json!({"host": "::1", "security": "plain"})).is_empty());
    assert!(problems(json!({"host": "mail", "security": "plain", "allow-plain": true})).is_empty());
    assert_eq!(
        problems(json!({"host": "mail", "security": "plain"})),
        [".smtp.security"]
    );
    assert_eq!(
        problems(
            json!({"host": "mail", "security": "plain", "allow-plain": true, "user": "u", "password-file": "/p"})
        ),
        [".smtp.user"]
    );
    assert_eq!(problems(json!({"host": "mail", "user": "u"})), [".smtp"]);
    assert_eq!(
        problems(json!({"host": "mail:25", "from": "a@x\r\nRCPT", "to": ["b@x", "Bob <b@x>"]})),
        [".smtp.to[1]", ".smtp.from"]
    );
    assert_eq!(problems(json!({"host": "mail/25"})), [".smtp.host"]);
    let both = json!({"notifications": [{"name": "mail", "url": "https://x", "format": "slack",
        "smtp": {"host": "h", "from": "a@x", "to": ["b@x"]}}]});
    assert_eq!(FleetPolicy::of(&both.to_string()).unwrap_err().len(), 2);
}
