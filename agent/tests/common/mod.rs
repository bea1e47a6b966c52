//! Victims and helpers for tests. Each is killed when it is dropped.
#![allow(dead_code)]

use backburn_agent::helpers::HelperSpec;
use backburn_agent::processes::{ProcessId, ProcessTable};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The agent's program.
pub const AGENT: &str = env!("CARGO_BIN_EXE_backburn-agent");

/// Waits until something is so, a good while.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "waited 10 s in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A child to be hit.
pub struct VictimProcess {
    pub child: Child,
    pub id: ProcessId,
    out: Option<BufReader<ChildStdout>>,
}

impl VictimProcess {
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// A child with this standard input.
    pub fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
        let table = ProcessTable::default();
        let id = table.identify(child.id() as i32).unwrap();
        // The kernel lets the parent go on a moment before it has put the child's words in place.
        while table.alive(id) && table.arguments(id.pid).is_empty() {
            std::thread::yield_now();
        }
        let out = child.stdout.take().map(BufReader::new);
        VictimProcess { child, id, out }
    }

    /// A child that sleeps for a minute.
    pub fn sleep() -> Self {
        Self::start(Command::new("sleep").arg("60"))
    }

    /// The next line that it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for VictimProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A child that runs a Python program and has said `ready`.
pub fn python(program: &str) -> VictimProcess {
    let mut victim = VictimProcess::start(Command::new("python3").args(["-c", program]));
    assert_eq!(victim.line(), "ready");
    victim
}

/// A helper of this test's.
pub struct Helper {
    pub child: Child,
    pub id: ProcessId,
    /// Its first line.
    pub said: String,
}

impl Helper {
    /// Starts one and waits for its first line.
    pub fn start(role: &HelperSpec, deadline_ms: u64) -> Self {
        Self::start_as_child_of(std::process::id(), role, deadline_ms)
    }

    /// Starts one that is told that its parent is this one.
    pub fn start_as_child_of(parent: u32, role: &HelperSpec, deadline_ms: u64) -> Self {
        let mut child = Command::new(AGENT)
            .args([
                "helper",
                "test-mark",
                &parent.to_string(),
                &deadline_ms.to_string(),
            ])
            .arg(serde_json::to_string(role).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = ProcessTable::default().identify(child.id() as i32).unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        Helper { child, id, said }
    }

    /// What it saw when it was ready.
    #[track_caller]
    pub fn ready(&self) -> String {
        self.word("ready")
    }

    /// Why it failed.
    #[track_caller]
    pub fn failed(&self) -> String {
        self.word("failed")
    }

    #[track_caller]
    fn word(&self, key: &str) -> String {
        let said: serde_json::Value = serde_json::from_str(&self.said).unwrap_or_default();
        said[key]
            .as_str()
            .unwrap_or_else(|| panic!("not `{key}`: {}", self.said))
            .to_owned()
    }

    /// Kills it, as anything might.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A line of `/proc/PID/status`.
pub fn status_line(pid: i32, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap()
        .trim()
        .to_owned()
}

/// Whether a test that wants root can run. Where it can't, that is said, and under CI it fails.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it wants root");
        assert!(
            std::env::var_os("CI").is_none(),
            "no test is skipped under CI"
        );
    }
    root
}

/// Those who take or watch the machine's memory take turns, whether they are threads of one process or processes of their own.
pub fn alone() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resources.lock");
    let file = File::create(path).expect("a file can be made");
    file.lock().expect("a file can be locked");
    file
}

/// What is measured of the whole machine may be disturbed by others on it: one quiet moment of twenty will do.
#[track_caller]
pub fn in_one_of_twenty(what: &str, trial: impl FnMut() -> bool) {
    assert!(
        std::iter::repeat_with(trial).take(20).any(|so| so),
        "never in twenty trials: {what}"
    );
}
