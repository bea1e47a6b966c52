//! An agent that reaches its controller through an HTTP proxy only.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/controller.rs"]
mod controller;

use controller::Controller;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// A proxy that connects everybody to this port, whatever name they ask for. Returns its port and what it was asked.
async fn proxy(to: std::net::SocketAddr) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let heads = Arc::clone(&heads);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                let mut server = TcpStream::connect(to).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok();
            });
        }
    });
    (port, asked)
}

fn agent(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(snapbox::cmd::cargo_bin!("backburn"));
    command
        .arg("agent")
        .args(words)
        .arg("--state")
        .arg(state)
        .env_remove("BACKBURN_POLICY")
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_behind_a_proxy_joins_and_serves_through_it_and_has_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(&folder.path().join("controller")).await;
    let (port, asked) = proxy(controller.address).await;
    // `localhost` with a port at which nobody listens: only the proxy finds the controller.
    let named = "localhost:9";
    for (name, given) in [("given", true), ("environment", false)] {
        let made = controller
            .ask(
                "POST",
                "/api/v1/join-tokens",
                Some(&json!({"labels": {"role": "x"}})),
            )
            .await;
        let token = made.json()["token"].as_str().unwrap().to_owned();
        let state = folder.path().join(name);
        let url = format!("http://user:secret@127.0.0.1:{port}");
        let mut join = agent(
            &state,
            &[
                "join",
                "--controller",
                named,
                "--token",
                &token,
                "--name",
                name,
            ],
        );
        let mut connect = agent(&state, &["connect"]);
        match given {
            true => drop(join.args(["--proxy", &url])),
            false => {
                for command in [&mut join, &mut connect] {
                    command
                        .env("https_proxy", &url)
                        .env("no_proxy", "example.org");
                }
            }
        }
        assert!(join.status().await.unwrap().success());
        let mut connected = connect.spawn().unwrap();
        let fleet = Arc::clone(controller.service.fleet());
        let mut changes = fleet.changes();
        let is_in = changes.wait_for(|_| fleet.get(name).is_some());
        let is_in = tokio::time::timeout(Duration::from_secs(60), is_in).await;
        is_in.unwrap().unwrap();
        // The address of the link is the proxy's, so nobody aims at it as the agent's.
        assert!(!fleet.get(name).unwrap().facts.contains_key("address"));
        connected.kill().await.unwrap();
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4, "{asked:?}");
    for head in asked.iter() {
        assert!(
            head.starts_with("CONNECT localhost:9 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    }
    drop(asked);
    controller.stop().await;
}
