//! Commands that ask a controller: what they print for people, where, and with which exit code.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod program;

use program::Said;
use serde_json::{Value, json};
use snapbox::cmd::cargo_bin;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A controller on a port of its own, which ends with the test.
struct Controller {
    folder: tempfile::TempDir,
    child: Child,
    address: String,
}

impl Controller {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(cargo_bin!("backburn"))
            .args(["controller", "--listen", "127.0.0.1:0", "--data", "data"])
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("listening on ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it has ended");
        }
        let port = line.split([':', ',']).nth(1).unwrap().to_owned();
        // Nobody may have to wait for the log to be read.
        std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Controller {
            folder,
            child,
            address: format!("localhost:{port}"),
        }
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("data/admin-token")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program::command(self.folder.path(), words);
        command
            .env("BACKBURN_CONTROLLER", &self.address)
            .env("BACKBURN_TOKEN_FILE", self.token())
            .env_remove("BACKBURN_TOKEN");
        command
    }

    fn says(&self, words: &[&str]) -> Said {
        Said::from(self.command(words).output().unwrap())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write(folder: &Path, name: &str, document: &Value) {
    std::fs::write(folder.join(name), document.to_string()).unwrap();
}

/// A method without faults, whose program the owner of the controller does not allow.
fn harmless() -> Value {
    json!({"title": "A method without faults", "description": "d", "method": [
        {"type": "probe", "name": "connects", "tolerance": true,
         "provider": {"type": "http", "url": "http://127.0.0.1:9/", "timeout": 1}}]})
}

#[test]
fn list_without_entries_prints_that_on_stderr_only() {
    let controller = Controller::start();
    for (words, wanted) in [
        (&["agents"] as &[&str], "no agents have joined\n"),
        (&["experiments"], "no experiments are stored\n"),
        (&["runs"], "no runs were found\n"),
        (&["approvals"], "no runs wait for approval\n"),
        (&["schedules"], "no stored experiment has a schedule\n"),
    ] {
        let said = controller.says(words);
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (0, "", wanted),
            "{words:?}"
        );
        let json = controller.says(&[words, &["--json"]].concat());
        assert_eq!((json.code, json.out.as_str()), (0, "[]\n"), "{words:?}");
    }
}

#[test]
fn list_with_entries_has_headers_above_aligned_columns() {
    let controller = Controller::start();
    let folder = controller.folder.path();
    let mut scheduled = harmless();
    scheduled["schedule"] = json!({"cron": "0 3 * * *"});
    write(folder, "nightly.json", &scheduled);
    write(folder, "one.json", &harmless());
    assert_eq!(
        controller.says(&["apply", "nightly.json", "one.json"]).code,
        0
    );
    for (words, headers, first) in [
        (&["tokens"] as &[&str], "ID NAME ", "admin"),
        (
            &["experiments"],
            "NAME VERSION ",
            "nightly  1        yes        A method without faults",
        ),
        (
            &["experiments", "versions", "one"],
            "VERSION AT WHO ",
            "admin  applied",
        ),
        (
            &["schedules", "--count", "2"],
            "EXPERIMENT VERSION AT ",
            "nightly     1",
        ),
    ] {
        let said = controller.says(words);
        assert_eq!(said.code, 0, "{said:?}");
        let mut lines = said.out.lines();
        let found: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert!(found.join(" ").starts_with(headers), "{said:?}");
        assert!(lines.next().unwrap().contains(first), "{said:?}");
    }
}

#[test]
fn status_names_who_halted_and_why() {
    let controller = Controller::start();
    let calm = controller.says(&["status"]);
    assert_eq!((calm.code, calm.err.as_str()), (0, ""), "{calm:?}");
    assert_eq!(
        calm.out,
        "halt: none, runs can start\nruns: none\nowed: nothing\nagents: 0 connected\n"
    );
    assert_eq!(
        controller
            .says(&["halt", "--why", "the shop is on fire"])
            .code,
        0
    );
    let halted = controller.says(&["status"]);
    assert_eq!(halted.code, 0, "{halted:?}");
    assert!(
        halted.out.starts_with("HALTED by admin since 20"),
        "{halted:?}"
    );
    assert!(
        halted.out.contains(": the shop is on fire; nothing starts"),
        "{halted:?}"
    );
    let json: Value = serde_json::from_str(&controller.says(&["status", "--json"]).out).unwrap();
    assert_eq!(json["halt"]["halted"], true);
    // Without a controller, or beside one, the status is that of this host.
    let local = controller.says(&["status", "--local"]);
    assert_eq!((local.code, local.err.as_str()), (0, "nothing is owed\n"));
}

#[test]
fn runs_of_an_id_is_a_report_for_people_and_json_for_machines() {
    let controller = Controller::start();
    let folder = controller.folder.path();
    write(folder, "one.json", &harmless());
    assert_eq!(controller.says(&["apply", "one.json"]).code, 0);
    let followed = controller.says(&["run", "one", "--wait", "--seed", "5"]);
    let runs: Value = serde_json::from_str(&controller.says(&["runs", "--json"]).out).unwrap();
    let id = runs[0]["id"].as_str().unwrap();
    let shown = controller.says(&["runs", id]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{shown:?}");
    let report = shown.out.strip_prefix(followed.out.as_str());
    let context = report.unwrap_or_else(|| panic!("{shown:?} is not {followed:?}"));
    assert!(
        context.starts_with("  experiment one, version 1; requested by admin, from 20"),
        "{shown:?}"
    );
    // The beginning of an id is enough, and times are to the second.
    let begin = controller.says(&["runs", &id[..15]]);
    assert_eq!(begin.out, shown.out, "{begin:?}");
    let started = context.split("from ").nth(1).unwrap();
    assert_eq!(
        started.split(' ').next().unwrap().len(),
        "2026-11-01T10:00:00Z".len()
    );
    let nobody = controller.says(&["runs", "nobody"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
    assert!(
        nobody
            .err
            .contains("hint: `backburn runs` lists the runs of the controller"),
        "{nobody:?}"
    );
    let json = controller.says(&["runs", id, "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["id"], &json["seed"]), (&json!(id), &json!(5)));
}

/// A process of the test that ends with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An agent reverts what it owes when it is told to end.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

/// Has an agent join and connect, and waits until it is connected.
fn agent(controller: &Controller, name: &str) -> Process {
    let token = controller.says(&["join-token"]).out;
    let state = controller.folder.path().join(name);
    let state = state.to_str().unwrap();
    let join = [
        "agent",
        "join",
        "--controller",
        &controller.address,
        "--token",
        token.trim(),
        "--name",
        name,
        "--state",
        state,
    ];
    let joined = controller.says(&join);
    assert_eq!(joined.code, 0, "{joined:?}");
    let connected = controller
        .command(&["agent", "connect", "--state", state])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the agent is connected", || {
        controller
            .says(&["status"])
            .out
            .contains("agents: 1 connected")
    });
    Process(connected)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn status_shows_what_acts_where_and_how_long_and_lines_name_action_and_agent() {
    let controller = Controller::start();
    let _agent = agent(&controller, "web-1");
    let mark = format!("7{}", std::process::id());
    let _victim = Process(Command::new("sleep").arg(&mark).spawn().unwrap());
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let document = json!({"title": "One rests", "description": "d",
        "targets": {"here": {"labels": {"host": host}, "select": "all"}},
        "method": [{"type": "action", "name": "rest", "provider": {"type": "fault", "fault": "process-pause", "targets": "here",
            "duration": "40s", "arguments": {"process": {"command-line": format!("^sleep {mark}$")}}}}]});
    write(controller.folder.path(), "rest.json", &document);
    assert_eq!(controller.says(&["apply", "rest.json"]).code, 0);
    let waiting = controller
        .command(&["run", "rest", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut status = controller.says(&["status"]);
    until("the fault acts", || {
        status = controller.says(&["status"]);
        status.out.contains(" left")
    });
    assert_eq!(status.code, 0, "{status:?}");
    let row = status
        .out
        .lines()
        .find(|line| line.contains("process-pause"))
        .unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells[1..4],
        ["rest", "process-pause", "web-1"],
        "{status:?}"
    );
    let left: u64 = cells[4].trim_end_matches('s').parse().unwrap();
    assert!((25..=40).contains(&left), "{row}");
    let shown = controller.says(&["runs", cells[0]]);
    let wanted = "running: One rests\n  phase: method\n  fault: rest (process-pause) on web-1, ";
    assert!(shown.out.starts_with(wanted), "{shown:?}");
    // SIGTERM stops what `run --wait` has started, as Ctrl-C does.
    let pid = nix::unistd::Pid::from_raw(waiting.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = Said::from(waiting.wait_with_output().unwrap());
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.err.contains("rest on web-1: injected: "), "{ended:?}");
    assert!(ended.err.contains("SIGTERM: stopping the run"), "{ended:?}");
    assert!(
        ended.err.contains("rest on web-1: reverted in "),
        "{ended:?}"
    );
}

#[test]
fn run_of_a_file_name_for_a_stored_name_and_the_reverse_is_hinted() {
    let controller = Controller::start();
    write(controller.folder.path(), "rest.json", &harmless());
    assert_eq!(controller.says(&["apply", "rest.json"]).code, 0);
    std::fs::remove_file(controller.folder.path().join("rest.json")).unwrap();
    for command in ["run", "plan"] {
        let said = controller.says(&[command, "rest.json"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.err.contains("rest.json: no such file") && said.err.contains("`rest`"),
            "{said:?}"
        );
    }
    write(controller.folder.path(), "local.json", &harmless());
    let said = controller.says(&["run", "local"]);
    assert!(
        said.code == 2 && said.err.contains("`backburn run local.json`"),
        "{said:?}"
    );
    // Without a controller, a name cannot be one that is stored, and may be a file's.
    for (name, hint) in [
        ("local", "did you mean `local.json`?"),
        ("rest", "--controller HOST"),
    ] {
        let said = controller.says(&["run", name, "--local"]);
        assert!(said.code == 2 && said.err.contains(hint), "{said:?}");
    }
}

/// Text that would clear a terminal, write a line of its own, or be read backwards.
const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\nheld: forged\r\u{202e}\u{200b}\u{2028}\u{7f}";

#[test]
fn hostile_text_of_a_fleet_is_escaped_in_every_list_and_report() {
    let controller = Controller::start();
    let mut document = harmless();
    document["title"] = HOSTILE.into();
    document["description"] = HOSTILE.into();
    document["method"][0]["name"] = HOSTILE.into();
    document["schedule"] = json!({"cron": "@yearly"});
    write(controller.folder.path(), "x.json", &document);
    let is_raw =
        |c: char| c != '\n' && (c < ' ' || "\u{9b}\u{202e}\u{200b}\u{2028}\u{7f}".contains(c));
    let mut shown = Vec::new();
    let mut says = |words: &[&str]| {
        let said = controller.says(words);
        for stream in [&said.out, &said.err] {
            assert!(!stream.contains(is_raw), "{words:?}: {stream:?}");
            let is_forged = |line: &str| line.starts_with("held: forged");
            assert!(!stream.lines().any(is_forged), "{words:?}: {stream}");
        }
        shown.push((
            words.join(" "),
            said.out.contains("\\nheld: forged") || said.err.contains("\\nheld: forged"),
        ));
        said
    };
    says(&["apply", "--dry-run", "x.json"]);
    assert_eq!(says(&["apply", "x.json"]).code, 0);
    says(&["plan", "x"]);
    says(&["run", "x", "--wait"]);
    let runs: Value = serde_json::from_str(&says(&["runs", "--json"]).out).unwrap();
    // JSON has the same values.
    assert_eq!(runs[0]["title"], HOSTILE);
    let id = runs[0]["id"].as_str().unwrap().to_owned();
    for words in [
        &["runs"][..],
        &["runs", &id],
        &["runs", &id, "--json"],
        &["runs", &id, "--follow"],
        &["runs", HOSTILE],
        &["experiments"],
        &["experiments", "show", "x"],
        &["schedules"],
        &["halt", "--why", HOSTILE],
        &["run", "x"],
        &["status"],
        &["status", "--json"],
        &["agents"],
        &["approvals"],
        &["audit"],
        &["audit", "--json"],
        &["tokens"],
        &["stop", &id, "--why", HOSTILE],
        &["agents", "doctor", HOSTILE],
    ] {
        says(words);
    }
    let lists = ["plan x", "run x --wait", "runs", "experiments", "status"];
    for list in lists {
        assert!(
            shown.contains(&(list.to_owned(), true)),
            "{list} shows the text: {shown:?}"
        );
    }
}

/// An experiment whose only probe waits for a server that does not answer, until the run is stopped or a minute has passed.
fn waits_for(port: u16) -> Value {
    json!({"title": "It waits", "description": "d", "method": [
        {"type": "probe", "name": "waits", "tolerance": true,
         "provider": {"type": "http", "url": format!("http://127.0.0.1:{port}/"), "timeout": 60}}]})
}

#[test]
fn run_with_a_held_lock_waits_until_the_other_is_over() {
    let controller = Controller::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let folder = controller.folder.path();
    write(folder, "slow.json", &waits_for(port));
    write(folder, "next.json", &harmless());
    let slow = controller.says(&["run", "slow.json", "--lock", "staging"]);
    assert_eq!(slow.code, 0, "{slow:?}");
    let holder = slow.out.trim();
    let refused = controller.says(&[
        "run",
        "next.json",
        "--lock",
        "staging",
        "--lock-timeout",
        "0s",
    ]);
    assert_eq!(refused.code, 3, "{refused:?}");
    let wanted =
        format!("error: lock `staging` is held by run `{holder}` of `admin` (rule: lock)\nhint: ");
    assert!(refused.err.contains(&wanted), "{}", refused.err);
    // Another lock, and none, are free.
    let other = controller.says(&["run", "next.json", "--lock", "other", "--wait"]);
    assert!(!other.err.contains("lock"), "{other:?}");
    let mut waiting = controller
        .command(&["run", "next.json", "--lock", "staging", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("waiting: ") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it has ended");
    }
    assert!(line.contains(&format!("held by run `{holder}`")), "{line}");
    assert!(waiting.try_wait().unwrap().is_none());
    assert_eq!(controller.says(&["stop", holder]).code, 0);
    std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
    let done = waiting.wait_with_output().unwrap();
    assert_ne!(done.status.code(), Some(3), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("A method without faults"),
        "{done:?}"
    );
    // Whoever waited has left nothing in the audit log but what it started.
    let audit = controller.says(&["audit", "--json"]);
    assert!(audit.out.matches("\"lock\"").count() <= 4, "{}", audit.out);
}

#[test]
fn report_of_a_game_day_verifies_until_somebody_changes_it() {
    let controller = Controller::start();
    let folder = controller.folder.path();
    let day = json!({"game-day": {"title": "A talk", "purpose": "We learn who answers.", "mode": "tabletop",
        "steps": [{"title": "The phone rings", "lasts": "1h", "discuss": "by-hand"}]}});
    write(folder, "talk.json", &day);
    let id = controller.says(&["gameday", "prepare", "talk.json"]);
    let id = id.out.trim();
    let next = || assert_eq!(controller.says(&["gameday", "next", id]).code, 0);
    next();
    let open = controller.says(&["report", id]);
    assert_eq!(open.code, 3, "{open:?}");
    assert!(open.err.contains("is not over"), "{open:?}");
    let blames = controller.says(&["note", id, "Bob should have known"]);
    assert_eq!(blames.code, 0, "{blames:?}");
    next();
    next();
    for (flag, file) in [
        ("--html", "a.html"),
        ("--markdown", "a.md"),
        ("--json", "a.json"),
    ] {
        let written = controller.says(&["report", id, flag, "-o", file]);
        assert_eq!(written.code, 0, "{written:?}");
        assert!(written.err.contains("says `should have`"), "{written:?}");
        let verified = controller.says(&["report", "--verify", file]);
        assert_eq!(verified.code, 0, "{verified:?}");
        // A note that came later changes nothing of what was written.
        assert_eq!(controller.says(&["note", id, "Later"]).code, 0);
        assert_eq!(controller.says(&["report", "--verify", file]).code, 0);
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let changed = text.replacen("The phone rings", "The phone rang", 1);
        std::fs::write(folder.join(file), changed).unwrap();
        let verified = controller.says(&["report", "--verify", file]);
        assert_eq!(verified.code, 1, "{verified:?}");
    }
    let local = controller.says(&["report", id, "--local"]);
    assert_eq!(local.code, 2, "{local:?}");
    assert!(local.err.contains("which a controller keeps"), "{local:?}");
}
