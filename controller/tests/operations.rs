//! What operators ask a controller for: whether it is ready, what it measures of itself, and what it logs.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod controller;

use backburn::pki::owner_certificate::OwnerCertificate;
use controller::Controller;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readyz_halted_controller_is_ready_and_says_that_it_is_halted() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    let ready = controller.request("GET", "/readyz", "", None).await;
    assert_eq!(
        (ready.status, &ready.json()["halted"]),
        (200, &json!(false))
    );
    controller
        .ask("POST", "/api/v1/halt", Some(&json!({})))
        .await;
    let ready = controller.request("GET", "/readyz", "", None).await;
    assert_eq!((ready.status, &ready.json()["halted"]), (200, &json!(true)));
    let metrics = controller.ask("GET", "/metrics", None).await.body;
    assert!(metrics.contains("\nbackburn_halted 1\n"), "{metrics}");
    let resumed = controller.ask("DELETE", "/api/v1/halt", None).await;
    assert_eq!(resumed.status, 200);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_id_is_in_the_answer_the_problem_and_the_audit_log() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path()).await;
    let bearer = format!("authorization: Bearer {}\r\n", controller.token);
    let given = format!("{bearer}x-request-id: deploy-42\r\n");
    let halted = controller
        .request("POST", "/api/v1/halt", &given, Some(&json!({})))
        .await;
    assert_eq!(halted.headers["x-request-id"], "deploy-42");
    let audited = controller.store.audited(0, 100).unwrap();
    let entry = audited.iter().find(|entry| entry.record.what == "halt");
    assert_eq!(entry.unwrap().record.detail["request-id"], "deploy-42");

    let refused = controller
        .request("GET", "/api/v1/runs/none", &given, None)
        .await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.json()["request-id"], "deploy-42");

    // One that could be an instruction to a terminal is replaced.
    let odd = format!("{bearer}x-request-id: a\tb\r\n");
    let refused = controller.request("GET", "/nowhere", &odd, None).await;
    let made = refused.headers["x-request-id"].clone();
    assert_eq!(made.len(), 16, "{made}");
    assert_eq!(refused.json()["request-id"], Value::from(made));
    controller.stop().await;
}

/// The program, run as a daemon: the lines of its log come one by one.
struct Daemon {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStderr>>,
}

impl Daemon {
    fn start(data: &std::path::Path, more: &[&str]) -> Self {
        use std::io::BufRead as _;
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_backburn"))
            .args(["controller", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(more)
            .env_remove("BACKBURN_LOG")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        Daemon { child, lines }
    }

    /// Reads its log up to a line that has this text. Returns all lines until then.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            seen.push(line.unwrap());
            if seen[seen.len() - 1].contains(text) {
                return seen;
            }
        }
        panic!("it ended without `{text}`: {seen:?}");
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(id, signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn controller_other_signals_do_not_end_it_and_each_line_of_its_log_is_json() {
    use nix::sys::signal::Signal;
    let data = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(data.path(), &["--log-format", "json"]);
    let mut lines = daemon.until("the first token");
    for (signal, says) in [
        (Signal::SIGHUP, "reload"),
        (Signal::SIGUSR1, "SIGUSR1"),
        (Signal::SIGUSR2, "SIGUSR2"),
        (Signal::SIGHUP, "reload"),
        (Signal::SIGTERM, "SIGTERM"),
    ] {
        daemon.signal(signal);
        lines.extend(daemon.until(says));
    }
    lines.extend(daemon.lines.by_ref().map(Result::unwrap));
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    for line in &lines {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            entry["message"].is_string() && entry["level"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn controller_hangup_writes_its_log_from_the_level_on_that_the_policy_says() {
    use backburn::store::{SqliteStore, Store as _};
    use nix::sys::signal::Signal;
    let folder = tempfile::tempdir().unwrap();
    let (data, policy) = (
        folder.path().join("data"),
        folder.path().join("policy.json"),
    );
    let says = |level: &str| std::fs::write(&policy, level).unwrap();
    says("{}");
    let mut daemon = Daemon::start(&data, &["--policy", policy.to_str().unwrap()]);
    daemon.until("the first token");
    says(r#"{"log-level": "error"}"#);
    daemon.signal(Signal::SIGHUP);
    // The word that says so comes while the level before is in force.
    assert!(daemon.until("level of the log was changed").len() > 1);
    // What cannot be used changes nothing, and is an error that is seen.
    says(r#"{"log-level": "loud"}"#);
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.until("the policy was not loaded again").len(), 1);
    says(r#"{"log-level": "trace"}"#);
    daemon.signal(Signal::SIGHUP);
    let lines = daemon.until("level of the log was changed");
    assert!(
        !lines.iter().any(|line| line.contains("SIGHUP")),
        "{lines:?}"
    );
    says("{}");
    daemon.signal(Signal::SIGHUP);
    let lines = daemon.until("level of the log was changed");
    assert!(
        lines.iter().any(|line| line.contains("SIGHUP")),
        "{lines:?}"
    );
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));

    let store = SqliteStore::open_shared(&data.join("store")).unwrap();
    let entries = store.audited(0, 100).unwrap().into_iter();
    let loads = entries.filter(|entry| entry.record.what == "load-policy");
    let changes: Vec<Value> = loads
        .map(|entry| entry.record.detail["changes"].clone())
        .collect();
    assert_eq!(
        changes,
        [
            json!(["`log-level` changed from the default to `error`"]),
            Value::Null,
            json!(["`log-level` changed from `error` to `trace`"]),
            json!(["`log-level` changed from `trace` to the default"]),
        ]
    );
}

#[test]
fn agent_user_signals_are_ignored() {
    use backburn_experiments::wire::{Command, Report};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    let state = tempfile::tempdir().unwrap();
    let (mut ours, its) = UnixStream::pair().unwrap();
    let mut guardian = std::process::Command::new(env!("CARGO_BIN_EXE_backburn"))
        .args(["agent", "serve", "--state"])
        .arg(state.path())
        .stdin(std::os::fd::OwnedFd::from(its))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut reports = BufReader::new(ours.try_clone().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Report>(&line.unwrap()).unwrap());
    assert!(matches!(reports.next(), Some(Report::Hello(_))));
    let id = guardian.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let worker: u32 = children.split_whitespace().next().unwrap().parse().unwrap();
    for process in [id, worker] {
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
            kill(Pid::from_raw(process as i32), signal).unwrap();
        }
    }
    let command = Command::RevertAll {
        request: 7,
        run: None,
    };
    let line = serde_json::to_string(&command).unwrap() + "\n";
    ours.write_all(line.as_bytes()).unwrap();
    assert!(reports.any(|report| matches!(report, Report::AllReverted { request: 7, .. })));
    let line = serde_json::to_string(&Command::Shutdown).unwrap() + "\n";
    ours.write_all(line.as_bytes()).unwrap();
    assert_eq!(guardian.wait().unwrap().code(), Some(0));
}

fn alerts() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy/alerts.yml");
    std::fs::read_to_string(path).unwrap()
}

/// A certificate that the owner has made.
fn owner_certificate(folder: &std::path::Path) -> std::sync::Arc<OwnerCertificate> {
    use std::os::unix::fs::PermissionsExt as _;
    let made = rcgen::generate_simple_self_signed(vec!["shop.example.org".into()]).unwrap();
    let (certificate, key) = (folder.join("site.pem"), folder.join("site.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    OwnerCertificate::load(&certificate, &key).unwrap().into()
}

/// The metrics that a text names.
fn named_metrics(text: &str) -> std::collections::BTreeSet<String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character| !is_word(character));
    let named = words.filter(|word| word.starts_with("backburn_"));
    named.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_named_by_an_alert_exist_with_help() {
    let data = tempfile::tempdir().unwrap();
    // Some are there only with a certificate of the owner's.
    let owner = owner_certificate(data.path());
    let controller =
        Controller::start_with(data.path(), |service| service.set_owner_certificate(owner)).await;
    controller
        .ask("POST", "/api/v1/halt", Some(&json!({})))
        .await;
    let metrics = controller.ask("GET", "/metrics", None).await.body;
    let named = named_metrics(&alerts());
    assert!(named.len() >= 10, "{named:?}");
    for name in named {
        let help = format!("# HELP {} ", name.trim_end_matches("_total"));
        assert!(metrics.contains(&help), "{name}: {metrics}");
        let is_sample = |line: &&str| line.starts_with(&name);
        assert!(
            metrics.lines().any(|line| is_sample(&line)),
            "{name}: {metrics}"
        );
    }
    for sample in [
        "backburn_agents_known 0",
        "backburn_tls_certificate_stale 0",
        "backburn_status_page_failures_total 0",
        "backburn_halt_last_clean 1",
        "backburn_schedules_missed_total 0",
        "backburn_store_errors_total{kind=\"full\"} 0",
        "backburn_runs_total{outcome=\"not-clean\"} 0",
        "backburn_injections_owed{state=\"unproved\"} 0",
    ] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }
    let days = metrics.lines().find_map(|line| {
        line.strip_prefix("backburn_certificate_days_left{certificate=\"authority\"} ")
    });
    let days: f64 = days.unwrap().parse().unwrap();
    assert!((7298.0..7301.0).contains(&days), "{days}");
    controller.stop().await;
}

/// Needs promtool: what `BACKBURN_PROMTOOL` names, what `tests/run` has unpacked, or what is found along the path.
#[test]
fn alert_rules_decide_as_promtool_expects() {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/promtool/promtool");
    let unpacked = std::path::Path::new(unpacked);
    let tool = std::env::var_os("BACKBURN_PROMTOOL").unwrap_or_else(|| match unpacked.exists() {
        true => unpacked.into(),
        false => "promtool".into(),
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alerts.yml"), alerts()).unwrap();
    let tests = include_str!("alerts_test.yml");
    std::fs::write(folder.path().join("alerts_test.yml"), tests).unwrap();
    for words in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let mut promtool = std::process::Command::new(&tool);
        let output = match promtool.args(words).current_dir(folder.path()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: alert_rules_decide_as_promtool_expects: there is no promtool");
                return;
            }
            output => output.unwrap(),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}
