//! Notifications: destinations that answer late, with an error, with a redirect or never do not delay a run, nor each other.

use crate::support::Manners;
use crate::support::api::TestController;
use crate::world::on_host;
use backburn::service::FleetPolicy;
use backburn::store::{Role, Store as _};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How a destination answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sink {
    Ok,
    /// With status 500 the first time.
    FailsOnce,
    /// To another path, which answers with 200.
    Redirects,
    Hangs,
}

/// What a destination was sent: the path, and the body.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a destination. Its address, and what it is sent.
async fn sink(manner: Sink) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    let received = Received::default();
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut text = String::new();
                let mut part = [0; 4096];
                let whole = loop {
                    let count = stream.read(&mut part).await.unwrap();
                    text.push_str(std::str::from_utf8(&part[..count]).unwrap());
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head.lines().find_map(|line| {
                        line.to_lowercase()
                            .strip_prefix("content-length: ")
                            .map(str::to_owned)
                    });
                    let length: usize = length.map_or(0, |length| length.parse().unwrap());
                    if body.len() >= length {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let path = whole.0.split(' ').nth(1).unwrap().to_owned();
                let count = {
                    let mut kept = kept.lock().unwrap();
                    kept.push((
                        path.clone(),
                        serde_json::from_str(&whole.1).unwrap_or_default(),
                    ));
                    kept.len()
                };
                let answer = match manner {
                    Sink::Hangs => return std::future::pending().await,
                    Sink::FailsOnce if count == 1 => "500 Oops\r\n",
                    Sink::Redirects if path == "/hook" => "302 Found\r\nlocation: /else\r\n",
                    _ => "200 OK\r\n",
                };
                let answer =
                    format!("HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    (address, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_a_run_reach_those_that_answer_and_delay_nothing() {
    let (good, to_good) = sink(Sink::Ok).await;
    let (flaky, to_flaky) = sink(Sink::FailsOnce).await;
    let (elsewhere, to_elsewhere) = sink(Sink::Redirects).await;
    let (silent, _) = sink(Sink::Hangs).await;
    let denied = sink(Sink::Ok).await;
    let port = denied
        .0
        .split(':')
        .next_back()
        .unwrap()
        .trim_end_matches("/hook")
        .to_owned();
    let controller = TestController::with_policy(json!({
        "deny-http": [format!("127.0.0.1:{port}")],
        "notifications": [
            {"name": "silent", "url": silent},
            {"name": "good", "url": good},
            {"name": "slack", "url": flaky, "format": "slack", "events": ["run-started"]},
            {"name": "elsewhere", "url": elsewhere, "events": ["run-started"]},
            {"name": "denied", "url": denied.0},
        ],
    }));
    controller
        .agent("a", &[("role", "web"), ("host", "a")], Manners::default())
        .await;
    let ada = controller.token("ada", Role::Operator);
    let run = controller
        .running("pay", &ada, on_host("a", "50ms"), "a")
        .await;
    controller
        .until("the run is over", || {
            controller.store.run(&run).unwrap().end.is_some()
        })
        .await;
    let kinds = || -> Vec<String> {
        let sent = to_good.lock().unwrap();
        sent.iter()
            .map(|(_, body)| body["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    controller
        .until("both are delivered", || kinds().len() == 2)
        .await;
    let mut sent = kinds();
    sent.sort();
    assert_eq!(sent, ["run-ended", "run-started"]);
    let bodies = to_good.lock().unwrap().clone();
    assert!(
        bodies.iter().all(|(_, body)| body["run"] == json!(run)),
        "{bodies:?}"
    );
    // It is tried again a second later, and says the same.
    controller
        .until("it is tried again", || to_flaky.lock().unwrap().len() == 2)
        .await;
    let tried = to_flaky.lock().unwrap().clone();
    assert_eq!(tried[0], tried[1]);
    assert!(tried[0].1["text"].as_str().unwrap().contains(&run));
    let counts = || controller.service.notification_counts();
    // Both to `denied`, and the redirected one.
    controller
        .until("the others have failed", || counts() == (3, 3))
        .await;
    assert_eq!(to_elsewhere.lock().unwrap().len(), 1);
    assert!(denied.1.lock().unwrap().is_empty());
}

#[test]
fn policy_with_wrong_notifications_is_refused_with_all_problems() {
    let policy = json!({"notifications": [
        {"name": "a", "url": "ftp://x"},
        {"name": "a", "url": "https://x", "url-file": "/x"},
        {"name": "b"},
    ]});
    let problems = FleetPolicy::of(&policy.to_string()).unwrap_err();
    let at: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        at,
        [
            "$.notifications[0].url",
            "$.notifications[1]",
            "$.notifications[1].name",
            "$.notifications[2]"
        ]
    );
}
