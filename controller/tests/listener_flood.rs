//! A halt while the controller's port is flooded: by connections that say nothing, that say half of something, or that say
//! something without a token.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod controller;

use controller::Controller;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What is promised.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// More than the port has room for, of the silent ones and of the others.
const SILENT: usize = 2600;
const SPEAKING: usize = 600;

fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most > 12_000, "this test needs 12,000 open files");
}

async fn halt_is_fast(controller: &Controller, flood: &str) {
    let began = Instant::now();
    let answer = controller
        .ask("POST", "/api/v1/halt", Some(&json!({})))
        .await;
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{flood}: {}", answer.body);
    assert!(took < MAX_DELAY, "{flood}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halt_flooded_port_is_not_delayed() {
    raise_limit();
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    let mut flood = Vec::new();
    for _ in 0..SILENT {
        flood.push(TcpStream::connect(controller.address).await.unwrap());
    }
    halt_is_fast(&controller, "silent connections").await;

    // The first bytes of a hello that would be long.
    for _ in 0..SPEAKING {
        let mut stream = TcpStream::connect(controller.address).await.unwrap();
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        flood.push(stream);
    }
    halt_is_fast(&controller, "half of a handshake").await;

    let mut clients = Vec::new();
    for number in 0..SPEAKING {
        let mut stream = controller.connect().await.unwrap();
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"POST /api/v1/halt HTTP/1.1\r\nhost: localhost\r\n",
            // Answered, and kept open.
            _ => b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        stream.write_all(said).await.unwrap();
        stream.flush().await.unwrap();
        clients.push(stream);
    }
    halt_is_fast(&controller, "clients without a token").await;
    drop((flood, clients));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_with_a_token_outlives_a_flood_of_clients_without_one() {
    raise_limit();
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    let mut known = controller.connect().await.unwrap();
    let token = &controller.token;
    let request = format!(
        "GET /api/v1/halt HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let mut answered = async || {
        use tokio::io::AsyncReadExt as _;
        known.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}") {
            let mut room = [0; 4096];
            let count = known.read(&mut room).await.unwrap();
            assert!(count > 0, "the connection was closed");
            said.extend_from_slice(&room[..count]);
        }
        String::from_utf8(said).unwrap()
    };
    assert!(answered().await.starts_with("HTTP/1.1 200"));
    let mut clients = Vec::new();
    for _ in 0..SPEAKING {
        clients.push(controller.connect().await.unwrap());
    }
    assert!(answered().await.starts_with("HTTP/1.1 200"));
}
