//! Moving a controller to another address, and replacing its authority, while an agent and tokens are in use: with the programs
//! that people use.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod controller;

use controller::Controller;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn backburn(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backburn"));
    command.args(arguments).env_remove("BACKBURN_DATA");
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

/// Asks for the agents, as a person with this token. What was answered, or why nothing was.
fn agents(address: &str, token: &str) -> Result<String, String> {
    let output = backburn(&["agents", "--json", "--controller", address])
        .env("BACKBURN_TOKEN", token)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(text(&output)),
        false => Err(text(&output)),
    }
}

struct Connected(Child);

impl Connected {
    fn start(state: &Path) -> Self {
        let mut command = backburn(&["agent", "connect", "--state"]);
        Connected(command.arg(state).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

async fn until_connected(controller: &Controller, count: usize) {
    let fleet = controller.service.fleet();
    let mut changes = fleet.changes();
    let reached = changes.wait_for(|_| fleet.count() == count);
    drop(tokio::time::timeout(LONG, reached).await.unwrap().unwrap());
}

async fn new_token(controller: &Controller, name: &str) -> String {
    let request = json!({"name": name, "role": "viewer"});
    let made = controller
        .ask("POST", "/api/v1/tokens", Some(&request))
        .await;
    made.json()["token"].as_str().unwrap().to_owned()
}

async fn join(controller: &Controller, address: &str, state: &Path) {
    let made = controller
        .ask("POST", "/api/v1/join-tokens", Some(&json!({})))
        .await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let mut join = backburn(&["agent", "join", "--name", "a", "--controller", address]);
    done(join.args(["--token", &token, "--state"]).arg(state));
}

fn credentials(state: &Path) -> Value {
    let kept = std::fs::read_to_string(state.join("controller.json")).unwrap();
    serde_json::from_str(&kept).unwrap()
}

fn certificates(pem: &Value) -> usize {
    pem.as_str().unwrap().matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_is_replaced_while_an_agent_and_tokens_are_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("data"), folder.path().join("state"));
    let controller = Controller::start(&data).await;
    let address = format!("localhost:{}", controller.address.port());
    let old = new_token(&controller, "old").await;
    join(&controller, &address, &state).await;
    let connected = Connected::start(&state);
    until_connected(&controller, 1).await;

    let rotate = |more: &[&str]| {
        let mut command = backburn(&["controller", "rotate-authority", "--data"]);
        command.arg(&data).args(more);
        command
    };
    let refused = rotate(&["--finish"]).output().unwrap();
    assert!(
        text(&refused).contains("not being replaced"),
        "{}",
        text(&refused)
    );
    let before = controller.authority.fingerprint();
    done(&mut rotate(&[]));
    assert!(controller.authority.reload().unwrap());
    assert_ne!(controller.authority.fingerprint(), before);
    let refused = rotate(&[]).output().unwrap();
    assert!(text(&refused).contains("already"), "{}", text(&refused));

    // Both kinds of tokens are accepted, and the agent reconnects with what it has.
    let new = new_token(&controller, "new").await;
    assert!(agents(&address, &old).unwrap().contains("\"a\""));
    assert!(agents(&address, &new).unwrap().contains("\"a\""));
    drop(connected);
    until_connected(&controller, 0).await;
    let connected = Connected::start(&state);
    until_connected(&controller, 1).await;
    assert_eq!(controller.registry.count_of_retiring(), 1);
    drop(connected);
    until_connected(&controller, 0).await;
    // The end would shut the agent out, which is said, and not done.
    let refused = rotate(&["--finish"]).output().unwrap();
    assert!(
        text(&refused).contains("1 agent has no certificate of the new authority: a\nhint:"),
        "{}",
        text(&refused)
    );
    assert_eq!(refused.status.code(), Some(2));

    // A renewal, which is due as soon as the certificate seems old, brings both authorities.
    let mut kept = credentials(&state);
    kept["since"] = json!(1);
    std::fs::write(state.join("controller.json"), kept.to_string()).unwrap();
    let connected = Connected::start(&state);
    until_connected(&controller, 1).await;
    assert_eq!(certificates(&credentials(&state)["authority"]), 2);
    assert_eq!(controller.registry.count_of_retiring(), 0);

    done(&mut rotate(&["--finish"]));
    assert!(controller.authority.reload().unwrap());
    drop(connected);
    until_connected(&controller, 0).await;
    let connected = Connected::start(&state);
    until_connected(&controller, 1).await;
    assert!(agents(&address, &new).unwrap().contains("\"a\""));
    let refused = agents(&address, &old).unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert_eq!(controller.store.verify_audit(None).unwrap().broken, None);
    drop(connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_moves_to_another_address_of_the_same_controller_only() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("data"), folder.path().join("state"));
    let controller = Controller::start(&data).await;
    let other = Controller::start(&folder.path().join("other")).await;
    let port = controller.address.port();
    join(&controller, &format!("localhost:{port}"), &state).await;

    let move_to = |address: &str| {
        let mut command = backburn(&["agent", "move", "--controller", address, "--state"]);
        command.arg(&state).output().unwrap()
    };
    let refused = move_to(&format!("localhost:{}", other.address.port()));
    assert!(!refused.status.success(), "another controller is not taken");
    assert!(
        text(&refused).contains("not signed by the authority"),
        "{}",
        text(&refused)
    );
    assert_eq!(
        credentials(&state)["controller"],
        format!("localhost:{port}")
    );

    let moved = move_to(&format!("127.0.0.1:{port}"));
    assert!(moved.status.success(), "{}", text(&moved));
    assert_eq!(
        credentials(&state)["controller"],
        format!("127.0.0.1:{port}")
    );
    let connected = Connected::start(&state);
    until_connected(&controller, 1).await;
    drop(connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_ends_without_agents_that_have_not_renewed_by_force_only() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("data"), folder.path().join("state"));
    let controller = Controller::start(&data).await;
    let address = format!("localhost:{}", controller.address.port());
    join(&controller, &address, &state).await;
    let rotate = |more: &[&str]| {
        let mut command = backburn(&["controller", "rotate-authority", "--data"]);
        command.arg(&data).args(more).output().unwrap()
    };
    assert!(rotate(&[]).status.success());
    assert!(controller.authority.reload().unwrap());
    assert!(!rotate(&["--force"]).status.success(), "what is forced?");
    assert_eq!(rotate(&["--finish"]).status.code(), Some(2));
    // One that is revoked is not waited for, one that joins later has a certificate of the new authority.
    let revoked = controller
        .ask("DELETE", "/api/v1/agents/a", None)
        .await
        .status;
    assert_eq!(revoked, 200);
    join(&controller, &address, &folder.path().join("again")).await;
    let ended = rotate(&["--finish"]);
    assert!(ended.status.success(), "{}", text(&ended));

    assert!(rotate(&[]).status.success());
    let forced = rotate(&["--finish", "--force"]);
    assert!(forced.status.success(), "{}", text(&forced));
    assert!(
        text(&forced).contains("warning: 1 agent has no certificate of the new authority: a; "),
        "{}",
        text(&forced)
    );
    let audited = controller.store.audited(0, 1000).unwrap();
    let last = audited
        .iter()
        .rfind(|entry| entry.record.what == "rotate-authority");
    assert_eq!(
        last.unwrap().record.detail,
        json!({"finish": true, "without-renewal": ["a"]})
    );
}
