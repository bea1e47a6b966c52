//! The provider `load` against servers on loopback: that latency counts from when a request was due, that failures are told by kind, and
//! that a load ends when it should.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::providers::{ProbeContext, measure};
use backburn_experiments::document::Provider;
use backburn_experiments::wire::ProbeOutcome;
use serde_json::{Value, json};
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Serves connections on a free port, each on a thread of its own, until the test ends.
fn serve(service: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Arc::new(service);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let service = Arc::clone(&service);
            std::thread::spawn(move || service(stream));
        }
    });
    port
}

/// Reads the head of a request without a body. False at the end.
fn read_request(from: &mut impl std::io::BufRead) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match from.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line == "\r\n" => return true,
            Ok(_) => {}
        }
    }
}

/// A server that answers the n-th request of all by what `answer` does with it.
fn answering(answer: impl Fn(u64, &mut TcpStream) + Send + Sync + 'static) -> u16 {
    let number = AtomicU64::new(0);
    serve(move |stream| {
        let mut to = stream.try_clone().unwrap();
        let mut from = BufReader::new(stream);
        while read_request(&mut from) {
            answer(number.fetch_add(1, Ordering::SeqCst), &mut to);
        }
    })
}

fn ok(_: u64, to: &mut TcpStream) {
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .ok();
}

async fn load(port: u16, more: Value) -> ProbeOutcome {
    let mut provider = json!({"type": "load", "url": format!("http://127.0.0.1:{port}/")});
    provider
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let provider: Provider = serde_json::from_value(provider).unwrap();
    let context = ProbeContext::default();
    let measured = measure(&provider, None, &context);
    tokio::time::timeout(Duration::from_secs(20), measured)
        .await
        .unwrap()
}

#[track_caller]
fn value(outcome: ProbeOutcome) -> Value {
    match outcome {
        ProbeOutcome::Output(value) => value,
        other => panic!("{other:?}"),
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

#[tokio::test]
async fn load_requests_are_sent_at_their_rate_over_few_connections() {
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    let port = serve(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut to = stream.try_clone().unwrap();
        let mut from = BufReader::new(stream);
        while read_request(&mut from) {
            ok(0, &mut to);
        }
    });
    let measured = value(load(port, json!({"rate": 200, "duration": "500ms"})).await);
    assert_eq!(
        (&measured["requests"], &measured["answered"]),
        (&json!(100), &json!(100))
    );
    assert_eq!(measured["error_rate"], 0.0);
    assert_eq!(measured["statuses"], json!({"200": 100}));
    assert_eq!(measured["rate"], 200.0, "{measured}");
    assert!(
        connections.load(Ordering::SeqCst) <= 20,
        "they are kept: {connections:?}"
    );
    let bursts = value(load(port, json!({"rate": 200, "duration": "500ms", "burst": 40})).await);
    assert_eq!(bursts["requests"], 120, "at 0, 200 and 400 ms");
}

#[tokio::test]
async fn load_pause_of_the_server_counts_for_all_that_were_due_meanwhile() {
    // Once, all stands still for 600 ms.
    let port = answering(|number, to| {
        if number == 50 {
            std::thread::sleep(Duration::from_millis(600));
        }
        ok(number, to);
    });
    let measured = value(
        load(
            port,
            json!({"rate": 200, "duration": "1500ms", "connections": 1}),
        )
        .await,
    );
    assert_eq!(
        (&measured["requests"], &measured["answered"]),
        (&json!(300), &json!(300))
    );
    // A closed loop would have seen a single slow request of 300. In the open loop 120 waited, from 600 ms down to none.
    let (p50, p90, longest) = (
        number(&measured, "p50"),
        number(&measured, "p90"),
        number(&measured, "max"),
    );
    assert!(p50 < 300.0, "{measured}");
    assert!((300.0..600.0).contains(&p90), "{measured}");
    assert!((600.0..1000.0).contains(&longest), "{measured}");
}

#[tokio::test]
async fn load_target_that_hangs_ends_in_time_and_counts_what_was_never_sent() {
    let port = serve(|stream| {
        let mut from = BufReader::new(stream);
        while read_request(&mut from) {}
    });
    let began = Instant::now();
    let hangs = json!({"rate": 100, "duration": "400ms", "timeout": "300ms", "connections": 2, "burst": 10});
    let ProbeOutcome::NoAnswer(why) = load(port, hangs).await else {
        panic!("nobody answered")
    };
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(why.contains("none of 40 requests"), "{why}");
    assert!(
        why.contains("timeout: ") && why.contains("unsent: "),
        "{why}"
    );
    // The same at the end only: half is answered.
    let port = answering(|number, to| {
        if number < 20 {
            ok(number, to);
        }
    });
    let hangs = json!({"rate": 100, "duration": "400ms", "timeout": "300ms"});
    let measured = value(load(port, hangs).await);
    assert_eq!(
        (&measured["answered"], &measured["failed"]),
        (&json!(20), &json!(20))
    );
    assert_eq!(measured["errors"], json!({"timeout": 20}));
    assert_eq!(measured["error_rate"], 0.5);
    assert!(
        number(&measured, "p99") >= 300.0,
        "what was not answered waited: {measured}"
    );
}

#[tokio::test]
async fn load_failures_are_told_by_kind() {
    let port = answering(|number, to| match number % 5 {
        0 => ok(number, to),
        1 => drop(to.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")),
        2 => drop(to.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        )),
        3 => {
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
                .ok();
            to.shutdown(std::net::Shutdown::Both).ok();
        }
        _ => {
            to.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").ok();
        }
    });
    let measured = value(load(port, json!({"rate": 100, "duration": "500ms"})).await);
    assert_eq!(
        measured["errors"],
        json!({"closed": 10, "protocol": 10, "status-503": 10})
    );
    assert_eq!(measured["statuses"], json!({"200": 20, "503": 10}));
    assert_eq!(measured["error_rate"], 0.6);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let outcome = load(closed, json!({"rate": 50, "duration": "200ms"})).await;
    assert!(
        matches!(&outcome, ProbeOutcome::NoAnswer(why) if why.contains("refused: 10")),
        "{outcome:?}"
    );
    for url in ["http://nobody.invalid/", "https://127.0.0.1:1/"] {
        let provider = json!({"type": "load", "url": url, "rate": 5, "verify_tls": false});
        let provider: Provider = serde_json::from_value(provider).unwrap();
        let outcome = measure(&provider, None, &ProbeContext::default()).await;
        assert!(matches!(outcome, ProbeOutcome::NoAnswer(_)), "{outcome:?}");
    }
    let metadata = json!({"type": "load", "url": "http://169.254.169.254/", "rate": 5});
    let provider: Provider = serde_json::from_value(metadata).unwrap();
    let outcome = measure(&provider, None, &ProbeContext::default()).await;
    assert!(
        matches!(&outcome, ProbeOutcome::Broken(why) if why.contains("allow-http")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn load_that_nobody_waits_for_stops() {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let port = answering(move |number, to| {
        counted.fetch_add(1, Ordering::SeqCst);
        ok(number, to);
    });
    let long = load(port, json!({"rate": 500, "duration": "60s"}));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), long)
            .await
            .is_err()
    );
    // A thread that waits notices within a tenth of a second.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let then = requests.load(Ordering::SeqCst);
    assert!(then > 20, "{then}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(requests.load(Ordering::SeqCst), then);
}
