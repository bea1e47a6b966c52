//! Programs that are run as probes and actions: their own exit is their end, and what they leave running is left alone.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::providers::{ProbeContext, measure};
use backburn_experiments::document::{Activity, Provider};
use backburn_experiments::wire::ProbeOutcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

async fn ask(provider: Value) -> ProbeOutcome {
    let provider: Provider = serde_json::from_value(provider).unwrap();
    let context = ProbeContext::default();
    let measured = measure(&provider, None, &context);
    tokio::time::timeout(Duration::from_secs(60), measured)
        .await
        .unwrap()
}

fn shell(script: &str) -> Value {
    json!({"type": "process", "path": "sh", "arguments": ["-c", script]})
}

fn output(measured: ProbeOutcome) -> Value {
    match measured {
        ProbeOutcome::Output(value) => value,
        other => panic!("{other:?}"),
    }
}

/// A process that a test ends.
struct Left(i32);

impl Left {
    fn is_alive(&self) -> bool {
        // A zombie is gone as far as anybody cares.
        std::fs::read_to_string(format!("/proc/{}/stat", self.0))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0), Signal::SIGKILL).ok();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn pid_in(file: &Path) -> i32 {
    let mut found = None;
    until("a process id is written", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        found = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn process_probe_that_leaves_a_daemon_ends_with_its_own_exit() {
    let folder = tempfile::tempdir().unwrap();
    let (pid, marks) = (folder.path().join("pid"), folder.path().join("marks"));
    for prefix in ["", "setsid "] {
        std::fs::remove_file(&pid).ok();
        std::fs::remove_file(&marks).ok();
        // It goes on writing to both streams that it was given, and notes that it could.
        let daemon = format!(
            "echo $$ > {pid}; while sleep 0.05; do echo out && echo err >&2 && echo x >> {marks}; done",
            pid = pid.display(),
            marks = marks.display()
        );
        let script = format!("{prefix}sh -c '{daemon}' & echo ok; echo no >&2; exit 3");
        let value = output(ask(shell(&script)).await);
        assert_eq!(value["status"], 3, "{value}");
        assert!(
            value["stdout"].as_str().unwrap().contains("ok\n"),
            "{value}"
        );
        assert!(
            value["stderr"].as_str().unwrap().contains("no\n"),
            "{value}"
        );
        let left = Left(pid_in(&pid).await);
        let marked = || std::fs::metadata(&marks).map_or(0, |file| file.len());
        let before = marked();
        until("the daemon writes on", || marked() > before + 8).await;
        assert!(left.is_alive(), "`{prefix}`");
    }
}

#[tokio::test]
async fn process_probe_that_takes_too_long_is_killed_without_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let (own, child) = (folder.path().join("own"), folder.path().join("child"));
    let script = format!(
        "echo $$ > {}; sleep 100 & echo $! > {}; wait",
        own.display(),
        child.display()
    );
    let mut provider = shell(&script);
    provider["timeout"] = json!("500ms");
    let late = ask(provider).await;
    assert!(matches!(late, ProbeOutcome::NoAnswer(_)), "{late:?}");
    let (program, left) = (Left(pid_in(&own).await), Left(pid_in(&child).await));
    until("the program is gone", || !program.is_alive()).await;
    assert!(left.is_alive());

    // The same where nobody waits for it any more.
    std::fs::remove_file(&own).unwrap();
    let task = tokio::spawn(ask(shell(&script)));
    let program = Left(pid_in(&own).await);
    assert!(program.is_alive());
    task.abort();
    until("the program is gone", || !program.is_alive()).await;
}

#[tokio::test]
async fn process_probe_that_writes_without_end_is_broken() {
    let measured = ask(json!({"type": "process", "path": "yes"})).await;
    match measured {
        ProbeOutcome::Broken(why) => assert!(why.contains("16 MiB"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn process_probe_that_reopens_its_streams_is_read() {
    let value = output(ask(shell("echo one > /dev/stderr; echo two >> /dev/stdout")).await);
    assert_eq!(
        value,
        json!({"status": 0, "stdout": "two\n", "stderr": "one\n"})
    );
}

#[tokio::test]
async fn process_probe_without_a_limit_has_the_usual_one() {
    let activity = |kind: &str, more: Value| -> Activity {
        let mut written = json!({"type": kind, "name": "p", "tolerance": 0,
            "provider": {"type": "process", "path": "sleep", "arguments": ["3600"]}});
        let fields = more.as_object().unwrap().clone();
        written.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(written).unwrap()
    };
    let seconds = |activity: Activity| activity.time_limit().map(|limit| limit.0.as_secs_f64());
    assert_eq!(seconds(activity("probe", json!({}))), Some(60.0));
    // An action may take as long as it likes, and what the document says counts.
    assert_eq!(seconds(activity("action", json!({}))), None);
    let limited = activity("probe", json!({"timeout": "100ms"}));
    let context = ProbeContext::default();
    let outcome = measure(&limited.provider, limited.time_limit(), &context).await;
    assert!(!matches!(outcome, ProbeOutcome::Output(_)), "{outcome:?}");
}

#[tokio::test]
async fn process_probe_of_a_text_without_interpreter_is_broken_and_no_shell_runs_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let program = folder.path().join("program");
    std::fs::write(&program, format!("import os\necho > {}\n", ran.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let measured = ask(json!({"type": "process", "path": program})).await;
    assert!(
        matches!(&measured, ProbeOutcome::Broken(why) if why.contains("#!/usr/bin/python3")),
        "{measured:?}"
    );
    assert!(!ran.exists());
}
