//! What a command says of a run when all goes well, and what it ends with when that can't be written.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

#[path = "support/command.rs"]
mod program;

use program::command;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::{Output, Stdio};

fn ran(folder: &Path, words: &[&str]) -> Output {
    command(folder, words).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn probe(path: &str) -> Value {
    json!({"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": path}})
}

/// A folder with an experiment that holds, one that deviates, and one that only acts.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let with = |path: &str| {
        json!({"title": "t", "description": "d", "method": [],
            "runtime": {"hypothesis": {"strategy": "after-method-only"}},
            "steady-state-hypothesis": {"title": "h", "probes": [probe(path)]}})
    };
    let acts = json!({"title": "t", "description": "d", "method": [
        {"type": "action", "name": "a", "provider": {"type": "process", "path": "true"}}]});
    for (name, document) in [
        ("held.json", with("true")),
        ("deviated.json", with("false")),
        ("acts.json", acts),
    ] {
        std::fs::write(folder.path().join(name), document.to_string()).unwrap();
    }
    folder
}

#[test]
fn report_that_cannot_be_written_is_an_error() {
    let folder = folder();
    for (file, wanted) in [("held.json", 7), ("deviated.json", 1)] {
        for flag in ["--junit", "--journal"] {
            let output = ran(folder.path(), &["run", file, flag, "/dev/full"]);
            let said = text(&output.stderr);
            assert_eq!(code(&output), wanted, "{file} {flag}: {said}");
            assert!(
                said.contains("error: /dev/full could not be written: no space left"),
                "{said}"
            );
            // The verdict is told all the same.
            assert!(!output.stdout.is_empty());
        }
        for words in [&["run", file][..], &["run", file, "--json"]] {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let mut command = command(folder.path(), words);
            let output = command
                .stdout(full)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            let said = text(&output.stderr);
            assert_eq!(code(&output), wanted, "{words:?}: {said}");
            let error = "error: standard output could not be written: no space left";
            assert_eq!(said.matches(error).count(), 1, "said once: {said}");
        }
    }
    for words in [
        &["plan", "held.json"][..],
        &["validate", "held.json"],
        &["schema"],
        &["--help"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = command(folder.path(), words)
            .stdout(full)
            .stderr(Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(7), "{words:?}");
    }
}

#[test]
fn report_to_a_closed_pipe_is_an_error() {
    let folder = folder();
    for (file, wanted) in [("held.json", 7), ("deviated.json", 1)] {
        let mut child = command(folder.path(), &["run", file, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(wanted), "{file}");
    }
}

#[test]
fn report_file_keeps_its_content_until_the_run_is_over() {
    let folder = folder();
    let path = folder.path().join("report.xml");
    // A run that is refused at the last moment leaves the old report, and makes no new one.
    std::fs::write(&path, "old, and longer than nothing").unwrap();
    let words = [
        "run",
        "held.json",
        "--junit",
        "report.xml",
        "--journal",
        "new.json",
        "--state",
        "/proc/nowhere",
    ];
    assert_eq!(code(&ran(folder.path(), &words)), 2);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "old, and longer than nothing"
    );
    assert!(!folder.path().join("new.json").exists());
    // Then it is replaced as a whole.
    std::fs::write(&path, "x".repeat(100_000)).unwrap();
    assert_eq!(
        code(&ran(
            folder.path(),
            &["run", "held.json", "--junit", "report.xml"]
        )),
        0
    );
    let report = std::fs::read_to_string(&path).unwrap();
    assert!(
        report.starts_with("<?xml") && report.trim_end().ends_with("</testsuites>"),
        "{report}"
    );
    // One file for two reports would keep one of them.
    let twice = [
        "run",
        "held.json",
        "--junit",
        "report.xml",
        "--journal",
        "./report.xml",
    ];
    assert_eq!(code(&ran(folder.path(), &twice)), 2);
    // Nobody waits for whoever might read a named pipe.
    nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        code(&ran(
            folder.path(),
            &["run", "held.json", "--junit", "pipe"]
        )),
        2
    );
}

#[test]
fn secrets_of_a_variable_file_are_in_nothing_that_a_local_run_shows_or_keeps() {
    // Encoded, it is another text.
    const SECRET: &str = "s3cr3t/mark+er";
    let folder = tempfile::tempdir().unwrap();
    let document = json!({
        "title": "t", "description": "d",
        "secrets": {"api": {"token": {"type": "env", "key": "SET_BY_NOBODY"}}},
        "runtime": {"hypothesis": {"strategy": "after-method-only"}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "says", "tolerance": {"type": "regex", "target": "stdout", "pattern": "^never$"},
             "provider": {"type": "process", "path": "echo", "arguments": ["${token}"]}}]},
        "method": [
            {"type": "action", "name": "fails", "provider": {"type": "process", "path": "cat", "arguments": ["/nowhere/${token}"]}},
            {"type": "probe", "name": "asks", "provider": {"type": "http", "url": "http://127.0.0.1:1/?q=${token}"}}],
    });
    let values = json!({"secrets": {"api": {"token": SECRET}}});
    for (name, value) in [("x.json", document), ("values.json", values)] {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let given = ["x.json", "--var-file", "values.json"];
    let reports = [
        "--json",
        "--journal",
        "j.json",
        "--junit",
        "j.xml",
        "--markdown",
        "j.md",
    ];
    let run = ran(folder.path(), &[&["run"], &given[..], &reports].concat());
    assert_eq!(code(&run), 1, "{run:?}");
    assert!(text(&run.stdout).contains("***"), "{run:?}");
    std::fs::remove_file(folder.path().join("values.json")).unwrap();
    let id = text(&ran(folder.path(), &["runs", "--json"]).stdout);
    let id: Value = serde_json::from_str(&id).unwrap();
    let id = id[0]["id"].as_str().unwrap();
    for (words, expected) in [
        (&["runs", id][..], 0),
        (&["runs", id, "--json"], 0),
        (&["report", id, "-o", "r.md"], 0),
        (&["report", id, "--html", "-o", "r.html"], 0),
        (&["report", id, "--json", "-o", "r.json"], 0),
    ] {
        let output = ran(folder.path(), words);
        assert_eq!(code(&output), expected, "{words:?}: {output:?}");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("s3cr3t"), "{words:?}: {said}");
    }
    let said = text(&run.stdout) + &text(&run.stderr);
    assert!(!said.contains("s3cr3t"), "{said}");
    let mut files = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    let kept = text(&std::fs::read(entry.path()).unwrap());
                    assert!(!kept.contains("s3cr3t"), "{:?}: {kept}", entry.path());
                    files += 1;
                }
                _ => {}
            }
        }
    }
    assert!(files > 7, "only {files} files were read");
}

#[test]
fn run_without_probes_reports_that_nothing_was_measured() {
    let folder = folder();
    let output = ran(folder.path(), &["run", "acts.json"]);
    assert_eq!(code(&output), 0);
    assert!(
        text(&output.stdout).contains("nothing was measured"),
        "{}",
        text(&output.stdout)
    );
    let output = ran(
        folder.path(),
        &["run", "acts.json", "--json", "--junit", "report.xml"],
    );
    let last = text(&output.stdout).lines().last().unwrap().to_owned();
    let told: Value = serde_json::from_str(&last).unwrap();
    let note = told["verdict"]["notes"][0].as_str().unwrap();
    assert!(note.contains("nothing was measured"), "{told}");
    let report = std::fs::read_to_string(folder.path().join("report.xml")).unwrap();
    assert!(report.contains("nothing was measured"), "{report}");
    let output = ran(folder.path(), &["validate", "acts.json", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        told[0]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("nothing is measured"),
        "{told}"
    );
    let output = ran(folder.path(), &["plan", "acts.json"]);
    assert!(text(&output.stderr).contains("warning: nothing is measured"));
}

#[test]
fn verdict_reports_the_confidence_of_its_samples() {
    let folder = folder();
    let output = ran(
        folder.path(),
        &["run", "held.json", "--junit", "report.xml"],
    );
    let line = "1 check after the method, 0 failed: at 95 % confidence the failure rate is at most 95.0 %, if checks are independent";
    assert!(
        text(&output.stdout).contains(line),
        "{}",
        text(&output.stdout)
    );
    let report = std::fs::read_to_string(folder.path().join("report.xml")).unwrap();
    assert!(report.contains(line), "{report}");
    let output = ran(folder.path(), &["run", "held.json", "--json"]);
    let last = text(&output.stdout).lines().last().unwrap().to_owned();
    let told: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        told["verdict"]["probes"],
        json!([
        {"probe": "p", "when": "after", "looks": 1, "failures": 0, "upper_bound": 0.95}])
    );
    let output = ran(folder.path(), &["plan", "held.json"]);
    assert!(
        text(&output.stdout).contains("about 1 check after the method"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn help_lists_every_exit_code() {
    let folder = folder();
    let help = text(&ran(folder.path(), &["--help"]).stdout);
    // It is wrapped at the terminal's width.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for exit in backburn_experiments::journal::exit_codes() {
        let line = format!("{} {}: {}", exit.code, exit.name, exit.meaning);
        assert!(help.contains(&line), "{line}\n{help}");
    }
}

/// Text that would clear a terminal, set its title, write a line of its own, or be read backwards.
const HOSTILE: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\nheld: forged\r\u{202e}\u{2066}\u{200b}\u{2028}\u{7f}";

#[test]
fn hostile_text_on_every_stream_is_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{HOSTILE}.json").replace('/', "");
    let fault = json!({"type": "fault", "fault": "process-kill", "duration": "1s",
        "arguments": {"process": {"name": HOSTILE}}});
    let documents = [
        json!({"title": HOSTILE, "description": HOSTILE, "method": [
            {"type": "action", "name": HOSTILE, "provider": {"type": "process", "path": "printf", "arguments": HOSTILE}}],
            "runtime": {"hypothesis": {"strategy": "after-method-only"}},
            "schedule": {"cron": "0 3 * * *"},
            "steady-state-hypothesis": {"title": HOSTILE, "probes": [
                {"type": "probe", "name": HOSTILE, "tolerance": {"type": "regex", "target": "stdout", "pattern": "never"},
                 "provider": {"type": "process", "path": "printf", "arguments": [HOSTILE]}}]}}),
        json!({"title": HOSTILE, HOSTILE: 1, "method": [{"type": HOSTILE, "name": HOSTILE}]}),
        json!({"title": HOSTILE, "method": [{"type": "action", "name": HOSTILE, "provider": fault}]}),
    ];
    for document in documents {
        std::fs::write(folder.path().join(&name), document.to_string()).unwrap();
        for words in [
            &["run", &name][..],
            &["run", &name, "--json"],
            &["plan", &name],
            &["plan", &name, "--json"],
            &["validate", &name],
            &["validate", &name, "--json"],
            &["schedules", &name],
            &["schedules", &name, "--json"],
            &[
                "run",
                &name,
                "--junit",
                "report.xml",
                "--journal",
                "journal.json",
            ],
            &["run", &format!("{HOSTILE} is no file")],
            &["run", &name, "--var", HOSTILE],
            &[HOSTILE],
            &["agent", "plan", HOSTILE],
            &["agent", "plan", "process-kill", "--process-name", HOSTILE],
            &["agent", "faults", HOSTILE],
        ] {
            let output = ran(folder.path(), words);
            for stream in [&output.stdout, &output.stderr] {
                let shown = String::from_utf8(stream.clone()).unwrap();
                let raw = |c: char| {
                    c != '\n' && HOSTILE.contains(c) && !"[2J]0;owned31mheld: forged".contains(c)
                };
                assert!(!shown.contains(raw), "{words:?}: {shown:?}");
                let is_forged = |line: &str| line.starts_with("held: forged");
                // The parser of the command line repeats what was typed, line breaks included.
                let is_typed = *words == [HOSTILE] || words[..2] == ["agent", "plan"];
                assert!(
                    is_typed || !shown.lines().any(is_forged),
                    "{words:?}: {shown}"
                );
            }
            if words.contains(&"--json") && output.status.code() != Some(2) {
                for line in text(&output.stdout).lines().filter(|_| words[0] == "run") {
                    serde_json::from_str::<Value>(line).unwrap();
                }
            }
        }
    }
}
