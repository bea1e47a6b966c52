//! Faults that could not be injected, and faults that others ended before their time: neither is a run that held.

use backburn_tests::{processes, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A process that is hit; gone with the test.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        let child = Command::new("sleep").arg("1000").spawn();
        Victim(child.expect("it starts"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // One that was killed already is what some tests want.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn experiment(fault: &str, arguments: Value) -> Value {
    json!({
        "title": fault, "description": "A fault, and something that holds all the while",
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": "true"}}]},
        "method": [{"type": "action", "name": "harm", "provider": {
            "type": "fault", "fault": fault, "duration": "120s", "arguments": arguments}}],
    })
}

/// A run that goes on.
struct Going {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Going {
    fn start(mut command: Command, document: &Value, folder: &Path) -> Self {
        let file = folder.join("x.json");
        std::fs::write(&file, document.to_string()).expect("it can be written");
        let mut child = command
            .env("BACKBURN_BINARY", programs::backburn())
            .env("BACKBURN_STATE", folder.join("state"))
            .env_remove("BACKBURN_CONTROLLER")
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Going { child, lines }
    }

    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("it is text");
        Some(serde_json::from_str(&line).expect("it is JSON"))
    }

    /// Waits until the fault is seen to act. The id of its injection.
    fn until_it_acts(&mut self) -> String {
        loop {
            let event = self.next().expect("it acts before the run is over");
            if event["event"] == "effect-seen" && event["effect"]["acts"] == true {
                return event["injection"].as_str().expect("an id").to_owned();
            }
        }
    }

    /// The exit code and the verdict.
    fn end(mut self) -> (Option<i32>, Value) {
        let mut last = Value::Null;
        while let Some(told) = self.next() {
            last = told;
        }
        (
            self.child.wait().expect("it ends").code(),
            last["verdict"].clone(),
        )
    }
}

fn run_json() -> Command {
    let mut command = Command::new(programs::backburn());
    command.args(["run", "x.json", "--json"]);
    command
}

fn assert_inconclusive(case: &str, ended: (Option<i32>, Value)) {
    let (code, verdict) = ended;
    assert_eq!(code, Some(5), "{case}: {verdict:#}");
    let reasons = verdict["reasons"].to_string();
    assert!(
        reasons.contains("stopped acting before its time"),
        "{case}: {reasons}"
    );
    assert_eq!(verdict["owed"], json!([]), "{case}");
}

#[test]
fn fault_with_victims_killed_by_others_is_inconclusive() {
    for many in [1, 3] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let victims: Vec<Victim> = (0..many).map(|_| Victim::new()).collect();
        let pids: Vec<i32> = victims.iter().map(Victim::pid).collect();
        let arguments = json!({"process": {"pid": pids, "select": "all"}});
        let mut going = Going::start(
            run_json(),
            &experiment("process-pause", arguments),
            folder.path(),
        );
        going.until_it_acts();
        for victim in &victims {
            kill(Pid::from_raw(victim.pid()), Signal::SIGKILL).expect("it is there");
        }
        // Long before its 120 s are over.
        assert_inconclusive("killed victims", going.end());
    }
}

#[test]
fn fault_with_a_helper_killed_by_others_is_inconclusive() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let victim = Victim::new();
    for (fault, arguments) in [
        ("process-pause", json!({"process": {"pid": victim.pid()}})),
        ("memory-fill", json!({"size": "16MiB"})),
        ("cpu-stress", json!({"workers": 1, "load-percent": 20})),
        ("disk-fill", json!({"path": folder.path(), "size": "8MiB"})),
    ] {
        let mut going = Going::start(run_json(), &experiment(fault, arguments), folder.path());
        let mark = format!("{}-0", going.until_it_acts());
        let helper = processes::of_backburn()
            .into_iter()
            .find(|process| {
                let words = std::fs::read(format!("/proc/{}/cmdline", process.pid));
                let words = words.unwrap_or_default();
                words
                    .split(|byte| *byte == 0)
                    .any(|word| word == mark.as_bytes())
            })
            .unwrap_or_else(|| panic!("{fault}: there is no helper {mark}"));
        kill(Pid::from_raw(helper.pid), Signal::SIGKILL).expect("it is there");
        assert_inconclusive(fault, going.end());
    }
}

#[test]
fn fault_that_cannot_be_injected_ends_the_run_with_9() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (limit, fault, arguments) in [
        (
            "ulimit -f 1024",
            "disk-fill",
            json!({"path": folder.path(), "size": "64MiB"}),
        ),
        (
            "ulimit -v 2000000",
            "memory-fill",
            json!({"size": "4GiB", "reserve": "1MiB"}),
        ),
    ] {
        let mut command = Command::new("bash");
        let script = format!("{limit}; exec \"$BACKBURN_BINARY\" run x.json --json");
        command.args(["-c", &script]);
        let document = experiment(fault, arguments);
        let (code, verdict) = Going::start(command, &document, folder.path()).end();
        assert_eq!(code, Some(9), "{fault}: {verdict:#}");
        assert_eq!(verdict["outcome"], "not-injected", "{fault}: {verdict:#}");
        let first = verdict["reasons"][0].as_str().expect("a reason");
        assert!(
            first.contains("could not be injected") && !first.contains('\n'),
            "{first}"
        );
        assert_eq!(verdict["owed"], json!([]), "{fault}");
    }
}
