//! The command line as people meet it: what is said, where, and with which exit code.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

use serde_json::{Value, json};
use snapbox::cmd::{Command, OutputAssert, cargo_bin};
use snapbox::str;
use std::path::Path;
use std::time::{Duration, Instant};

/// `backburn` in this folder, with its state there.
fn backburn(folder: &Path, words: &[&str]) -> Command {
    Command::new(cargo_bin!("backburn"))
        .args(words)
        .current_dir(folder)
        .env("BACKBURN_STATE", folder.join("state"))
        .env("NO_COLOR", "1")
        .env_remove("BACKBURN_POLICY")
        .timeout(Duration::from_secs(30))
}

fn folder_with(document: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.json"), document.to_string()).unwrap();
    folder
}

fn validate(document: &Value) -> OutputAssert {
    backburn(folder_with(document).path(), &["validate", "x.json"]).assert()
}

fn pause(more: Value) -> Value {
    let mut provider = json!({"type": "fault", "fault": "process-pause", "duration": "1s",
        "arguments": {"process": {"name": "no-such-process"}}});
    for (key, value) in more.as_object().unwrap() {
        provider[key] = value.clone();
    }
    json!({"title": "t", "description": "d", "method": [{"type": "action", "name": "pause", "provider": provider}]})
}

#[test]
fn fault_that_is_unknown_is_refused_with_the_nearest_name() {
    validate(&pause(json!({"fault": "process-paus"})))
        .code(2)
        .stdout_eq("")
        .stderr_eq(str![[r#"
error: x.json: 1 problem
  $.method[0].provider.fault: there is no fault `process-paus`
    hint: did you mean `process-pause`?[..]

"#]]);
}

#[test]
fn document_problems_are_shown_all_at_once() {
    let mut document = pause(json!({"duratoin": "1s"}));
    document["title"] = json!(3);
    validate(&document)
        .code(2)
        .stdout_eq("")
        .stderr_eq(str![[r#"
error: x.json: 2 problems
  $.title: `3` stands where text is wanted
  $.method[0].provider.duratoin: `duratoin` is not known here
    hint: did you mean `duration`? There are also `type`, `fault`, `targets`, `every`, `arguments`

"#]]);
}

#[test]
fn duration_that_is_missing_is_refused() {
    let mut document = pause(json!({}));
    document["method"][0]["provider"]
        .as_object_mut()
        .unwrap()
        .remove("duration");
    validate(&document).code(2).stderr_eq(str![[r#"
error: x.json: 1 problem
  $.method[0].provider: `duration` is missing: `process-pause` lasts, and every fault ends by itself
    hint: e.g. `"duration": "30s"`

"#]]);
}

#[test]
fn variable_that_is_missing_is_a_problem_of_the_document() {
    let mut document = pause(json!({}));
    document["configuration"] = json!({"a": {"type": "env", "key": "NO_SUCH_VARIABLE_HERE"}});
    document["method"][0]["name"] = json!("pause ${b}");
    validate(&document).code(2).stderr_eq(str![[r#"
error: x.json: 2 problems
  $.configuration.a: the environment variable `NO_SUCH_VARIABLE_HERE` is not set
    hint: set `NO_SUCH_VARIABLE_HERE`, or give a `default`
  $.method[0].name: there is no variable `b`
    hint: did you mean `${a}`? (`$${b}` keeps the text as it is)

"#]]);
}

#[test]
fn document_that_is_not_json_or_not_a_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.json"), "{\"title\": ").unwrap();
    backburn(folder.path(), &["validate", "broken.json"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: broken.json: 1 problem
  line 1, column 10: this is no JSON: EOF while parsing a value
    hint: a `}`, a `]` or a `"` is missing at the end

"#]]);
    for command in ["validate", "run", "plan"] {
        backburn(folder.path(), &[command, "missing.json"])
            .assert()
            .code(2)
            .stdout_eq("")
            .stderr_eq(str![[r#"
error: missing.json: no such file or directory

"#]]);
    }
}

#[test]
fn validate_prints_valid_and_json() {
    let folder = folder_with(&pause(json!({})));
    backburn(folder.path(), &["validate", "x.json"])
        .assert()
        .code(0)
        .stderr_eq(str![[r#"
warning: x.json: nothing is measured: the hypothesis has no probes that are checked, and no activity has a tolerance; the verdict of a run will be inconclusive. Add probes with a tolerance to `steady-state-hypothesis`

"#]])
        .stdout_eq(str![[r#"
x.json: valid

"#]]);
    let output = backburn(folder.path(), &["validate", "--json", "x.json", "y.json"])
        .assert()
        .code(2);
    let found: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(
        (&found[0]["valid"], &found[1]["valid"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn command_line_mistakes_are_refused_by_name() {
    let folder = folder_with(&pause(json!({})));
    for words in [
        &["rnu"] as &[&str],
        &["run"],
        &["run", "x.json", "--seed", "many"],
        &["run", "x.json", "--rollback-strategy", "maybe"],
        &["run", "x.json", "--hypothesis-frequency", "soon"],
        &["run", "x.json", "--label", "role"],
        &["run", "x.json", "--var", "novalue"],
    ] {
        let output = backburn(folder.path(), words)
            .assert()
            .code(2)
            .stdout_eq("");
        assert!(
            output.get_output().stderr.starts_with(b"error: "),
            "{words:?}"
        );
    }
    assert!(!folder.path().join("state").exists());
}

#[test]
fn run_without_a_victim_is_not_started() {
    let folder = folder_with(&pause(json!({})));
    backburn(folder.path(), &["plan", "x.json", "--seed", "1"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
t
  on [..], seed 1

pause: process-pause for 1s
  refused: [..] (rule: no-match)
...
"#]]);
    backburn(folder.path(), &["run", "x.json"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
not started: t
  action `pause`: [..] (rule: no-match)
  run [..], seed [..], journal [..]
...
"#]]);
}

#[test]
fn percentage_that_selects_nothing_is_refused_with_a_hint() {
    let mut document = pause(json!({"targets": "here"}));
    document["targets"] = json!({"here": {"labels": {"role": "web"}, "select": {"percent": 10}}});
    let folder = folder_with(&document);
    backburn(folder.path(), &["run", "x.json", "--label", "role=web"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
not started: t
  [..]10 %[..] (rule: no-match)
  run [..]

hint: [..]

"#]]);
}

#[test]
fn run_without_a_fault_holds_and_is_reported_in_every_format() {
    let folder = folder_with(&json!({
        "title": "all is well", "description": "d",
        "secrets": {"api": {"token": {"type": "file", "path": "secret"}}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "zero", "tolerance": 0, "provider": {"type": "process", "path": "echo", "arguments": ["${token}"]}}]},
        "method": [{"type": "action", "name": "say", "provider": {"type": "process", "path": "echo", "arguments": ["${word}", "${token}"]}}],
        "configuration": {"word": "unsaid"},
    }));
    std::fs::write(folder.path().join("secret"), "hunter2\n").unwrap();
    let words = [
        "run",
        "x.json",
        "--json",
        "--journal",
        "j.json",
        "--junit",
        "j.xml",
        "--var",
        "word=said",
        "--seed",
        "5",
    ];
    let output = backburn(folder.path(), &words).assert().code(0);
    let stdout = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["event"], "run-started");
    assert_eq!(lines[0]["seed"], 5);
    assert_eq!(lines.last().unwrap()["verdict"]["outcome"], "held");
    assert!(stdout.contains("said ***"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let journal: Value = serde_json::from_str(&read("j.json")).unwrap();
    assert_eq!(
        (&journal["status"], &journal["deviated"]),
        (&json!("completed"), &json!(false))
    );
    assert!(read("j.xml").contains("failures=\"0\""));
    let events = std::fs::read_dir(folder.path().join("state/runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let stderr = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    for text in [
        stdout,
        stderr,
        read("j.json"),
        read("j.xml"),
        std::fs::read_to_string(events).unwrap(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn report_that_cannot_be_written_keeps_the_run_from_starting() {
    let folder = folder_with(&pause(json!({})));
    backburn(
        folder.path(),
        &["run", "x.json", "--journal", "no/such/folder/j.json"],
    )
    .assert()
    .code(2);
    assert!(!folder.path().join("state").exists());
    backburn(
        folder.path(),
        &["run", "x.json", "--state", "/proc/nowhere"],
    )
    .assert()
    .code(2)
    .stderr_eq(str![[r#"
error: the journal cannot be written to /proc/nowhere: [..]
hint: give a writable directory with `--state`

"#]]);
}

/// A run of a method that sleeps, in the background of the test.
fn sleeper(folder: &Path) -> (std::process::Child, i32) {
    let mut child = started(folder, &["run", "x.json"]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let text = std::fs::read_to_string(folder.join("pid")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            return (child, pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("the sleeper did not start: {:?}", child.wait());
}

fn started(folder: &Path, words: &[&str]) -> std::process::Child {
    std::process::Command::new(cargo_bin!("backburn"))
        .args(words)
        .current_dir(folder)
        .env("BACKBURN_STATE", folder.join("state"))
        .env_remove("BACKBURN_POLICY")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn sleeping() -> tempfile::TempDir {
    folder_with(&json!({"title": "t", "description": "d", "method": [
        {"type": "action", "name": "sleep", "provider": {"type": "process", "path": "sh", "arguments": ["-c", "echo $$ > pid; exec sleep 100"]}}]}))
}

fn is_gone(pid: i32) -> bool {
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    let began = Instant::now();
    while alive() && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    !alive()
}

fn kill(child: &std::process::Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        signal,
    )
    .unwrap();
}

#[test]
fn run_that_gets_sigterm_ends_with_its_children() {
    let folder = sleeping();
    let (child, pid) = sleeper(folder.path());
    kill(&child, nix::sys::signal::Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .starts_with("aborted: t\n  operator: SIGTERM received\n")
    );
    assert!(is_gone(pid));
}

#[test]
fn run_that_gets_user_signals_goes_on_and_says_so() {
    use nix::sys::signal::Signal;
    let folder = sleeping();
    let (child, pid) = sleeper(folder.path());
    kill(&child, Signal::SIGUSR1);
    kill(&child, Signal::SIGUSR2);
    // What ends the run comes after them, and is told apart.
    kill(&child, Signal::SIGHUP);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        out.starts_with("aborted: t\n  operator: SIGHUP received\n"),
        "{out}"
    );
    assert!(err.contains("SIGHUP: ending the run"), "{err}");
    assert!(is_gone(pid));
}

#[test]
fn user_signal_to_a_run_is_ignored() {
    let folder = folder_with(&json!({"title": "t", "description": "d", "method": [
        {"type": "action", "name": "ask for trouble", "provider": {"type": "process", "path": "sh",
            "arguments": ["-c", "kill -USR1 $PPID; kill -USR2 $PPID"]}},
        {"type": "action", "name": "go on", "provider": {"type": "process", "path": "touch", "arguments": ["done"]}}]}));
    let output = backburn(folder.path(), &["run", "x.json"]).assert().code(0);
    let err = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    for name in ["SIGUSR1", "SIGUSR2"] {
        let wanted = format!("{name} is ignored: the run goes on; Ctrl-C or SIGTERM ends it\n");
        assert!(err.contains(&wanted), "{err}");
    }
    assert!(folder.path().join("done").exists());
}

#[test]
fn command_line_mistakes_are_answered_with_the_nearest_word() {
    let folder = tempfile::tempdir().unwrap();
    for (words, wanted) in [
        (
            &["rnu"] as &[&str],
            "error: unrecognized subcommand `rnu`\nhint: did you mean `run`?\n",
        ),
        (
            &["staus"],
            "error: unrecognized subcommand `staus`\nhint: did you mean `status`?\n",
        ),
        (
            &["inject"],
            "error: unrecognized subcommand `inject`\nhint: did you mean `backburn agent inject`?\n",
        ),
        (
            &["doctor"],
            "error: unrecognized subcommand `doctor`\nhint: did you mean `backburn agent doctor`?\n",
        ),
        (
            &["xyzzy"],
            "error: unrecognized subcommand `xyzzy`\nhint: `backburn help` lists the commands\n",
        ),
        (
            &["run", "x.json", "--sed", "7"],
            "error: unexpected argument `--sed` found\nhint: did you mean `--seed`?\n",
        ),
        (
            &["agents", "revok", "a"],
            "error: unrecognized subcommand `revok`\nhint: did you mean `revoke`?\n",
        ),
        (
            &["runs", "--follow"],
            "error: the following required arguments were not provided:\n  <RUN>\nhint: `backburn runs --help` shows how it is used\n",
        ),
    ] {
        backburn(folder.path(), words)
            .assert()
            .code(2)
            .stdout_eq("")
            .stderr_eq(wanted);
    }
}

#[test]
fn controller_that_cannot_be_used_is_answered_with_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let address = format!("127.0.0.1:{port}");
    let token = format!("bbt1.0123.{}.{}", "0".repeat(64), "1".repeat(64));
    let says = |words: &[&str], token: Option<&str>| {
        let mut command = backburn(folder.path(), words)
            .env_remove("BACKBURN_CONTROLLER")
            .env_remove("BACKBURN_TOKEN")
            .env_remove("BACKBURN_TOKEN_FILE");
        if let Some(token) = token {
            command = command.env("BACKBURN_TOKEN", token);
        }
        let output = command.assert().code(2).stdout_eq("");
        String::from_utf8(output.get_output().stderr.clone()).unwrap()
    };
    let none = says(&["agents"], None);
    assert!(
        none.starts_with("error: no controller is given\nhint: use `--controller"),
        "{none}"
    );
    let none = says(&["agents", "--controller", &address], None);
    assert!(
        none.starts_with("error: no token is given\nhint: "),
        "{none}"
    );
    let none = says(
        &["agents", "--controller", &address, "--token-file", "none"],
        None,
    );
    assert!(
        none.starts_with("error: the token file none: no such file"),
        "{none}"
    );
    let refused = says(&["agents", "--controller", &address], Some(&token));
    assert!(
        refused
            .contains("hint: nothing listens there: check that `backburn controller` is running"),
        "{refused}"
    );
    let unknown = says(
        &["agents", "--controller", "no-such-host.invalid"],
        Some(&token),
    );
    assert!(
        unknown.contains("hint: this name has no address here"),
        "{unknown}"
    );
}

#[test]
fn run_that_gets_sigkill_leaves_its_journal_and_no_child() {
    let folder = sleeping();
    let (child, pid) = sleeper(folder.path());
    kill(&child, nix::sys::signal::Signal::SIGKILL);
    child.wait_with_output().unwrap();
    assert!(is_gone(pid));
    let journal = std::fs::read_dir(folder.path().join("state/runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(journal).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "activity-started");
}

#[test]
fn stdout_that_is_closed_does_not_end_the_run() {
    let folder = folder_with(&json!({"title": "t", "description": "d", "method": [
        {"type": "action", "name": "wait", "provider": {"type": "process", "path": "sleep", "arguments": ["0.3"]}},
        {"type": "action", "name": "touch", "provider": {"type": "process", "path": "touch", "arguments": ["done"]}}]}));
    let mut child = started(folder.path(), &["run", "x.json", "--json"]);
    drop((child.stdout.take(), child.stderr.take()));
    // It ran to its end, and nobody has read what it came to.
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(folder.path().join("done").exists());
}

#[test]
fn help_and_lists_are_printed_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["--help"] as &[&str],
        &["run", "--help"],
        &["faults"],
        &["schema"],
        &["agent", "--help"],
        &["man"],
        &["man", "run"],
        &["completions", "bash"],
    ] {
        let output = backburn(folder.path(), words)
            .assert()
            .code(0)
            .stderr_eq("");
        assert!(!output.get_output().stdout.is_empty(), "{words:?}");
    }
    let schema = backburn(folder.path(), &["schema"]).assert().code(0);
    let schema: Value = serde_json::from_slice(&schema.get_output().stdout).unwrap();
    assert!(schema["properties"]["method"].is_object());
}

#[test]
fn schedules_are_listed_with_their_next_times() {
    let mut document = pause(json!({}));
    document["schedule"] = json!({"cron": "30 2 * * SAT,SUN", "time-zone": "Europe/Amsterdam",
        "blackouts": ["2027-04-03"], "guard": {"type": "probe", "name": "calm", "tolerance": true,
        "provider": {"type": "process", "path": "true"}}});
    let folder = folder_with(&document);
    let words = [
        "schedules",
        "x.json",
        "--count",
        "3",
        "--after",
        "2027-03-27T00:00:00Z",
    ];
    backburn(folder.path(), &words)
        .assert()
        .code(0)
        .stderr_eq("")
        .stdout_eq(str![[r#"
x.json: t
  cron 30 2 * * SAT,SUN, Europe/Amsterdam, not 2027-04-03, if its guard passes
    Sat 2027-03-27 02:30:00 +01:00  in 1h30m
    Sun 2027-03-28 03:00:00 +02:00  in 25h
    Sun 2027-04-04 02:30:00 +02:00  in 8 days

"#]]);
    backburn(folder.path(), &[&words[..], &["--json"]].concat())
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
[
  {
    "file": "x.json",
    "title": "t",
    "schedule": {
...
    },
    "times": [
      {
        "at": "2027-03-27T01:30:00Z"
      },
      {
        "at": "2027-03-28T01:00:00Z"
      },
      {
        "at": "2027-04-04T00:30:00Z"
      }
    ]
  }
]

"#]]);
    document["schedule"] = json!({"at": "2027-01-01T00:00:00Z"});
    let folder = folder_with(&document);
    backburn(folder.path(), &words)
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
x.json: t
  once at 2027-01-01T00:00:00Z
  over: no further runs

"#]]);
    document["schedule"]["time-zone"] = json!("Europe/Amsterdm");
    let folder = folder_with(&document);
    backburn(folder.path(), &words)
        .assert()
        .code(2)
        .stdout_eq("")
        .stderr_eq(str![[r#"
error: x.json: 1 problem
  $.schedule.time-zone: there is no time zone `Europe/Amsterdm`
    hint: did you mean `Europe/Amsterdam`?

"#]]);
}
