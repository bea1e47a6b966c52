//! Commands that ask a controller: what they print for people, where, and with which exit code.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

use serde_json::{Value, json};
use snapbox::cmd::cargo_bin;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

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
        let mut command = Command::new(cargo_bin!("backburn"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("BACKBURN_CONTROLLER", &self.address)
            .env("BACKBURN_TOKEN_FILE", self.token())
            .env("BACKBURN_STATE", self.folder.path().join("state"))
            .env("NO_COLOR", "1")
            .env_remove("BACKBURN_TOKEN")
            .env_remove("BACKBURN_POLICY");
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

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
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
        (
            &["tokens"] as &[&str],
            "ID NAME PERSON ROLE CREATED VALID",
            "admin",
        ),
        (
            &["experiments"],
            "NAME VERSION SCHEDULED TITLE",
            "nightly  1        yes        A method without faults",
        ),
        (
            &["experiments", "versions", "one"],
            "VERSION AT WHO CHANGE",
            "admin  applied",
        ),
        (
            &["schedules", "--count", "2"],
            "EXPERIMENT VERSION AT TIME ZONE",
            "nightly     1",
        ),
    ] {
        let said = controller.says(words);
        assert_eq!(said.code, 0, "{said:?}");
        let mut lines = said.out.lines();
        let found: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(found.join(" "), headers, "{words:?}");
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
    let json = controller.says(&["runs", id, "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["id"], &json["seed"]), (&json!(id), &json!(5)));
}
