//! A victim that only we let go again, for tests of what becomes of it when the ledger is spoiled or can't be seen.

use crate::crash::Place;
use crate::wait::wait_until;
use crate::{processes, programs};
use serde_json::json;
use std::process::{Child, Command, Output, Stdio};

/// A process that is traced, so that it is paused by signals, which nothing in the kernel takes back.
pub struct Victim {
    tracer: Child,
    /// Its id.
    pub pid: i32,
}

impl Victim {
    /// A fresh one, which sleeps.
    ///
    /// # Panics
    /// There is no `strace`.
    pub fn start() -> Self {
        let mut strace = Command::new("strace");
        let tracer = strace.args(["-o", "/dev/null", "-e", "trace=none", "sleep", "1000"]);
        let tracer = tracer.spawn().expect("`strace` starts");
        let mut pid = None;
        wait_until("a traced process sleeps", || {
            let alive = processes::alive().into_values();
            let mut sleeping = alive
                .filter(|process| process.parent == tracer.id() as i32 && process.name == "sleep");
            pid = sleeping
                .next()
                .filter(|process| process.state == 'S')
                .map(|process| process.pid);
            pid.is_some()
        });
        Victim {
            tracer,
            pid: pid.expect("just found"),
        }
    }

    /// Whether it stands still.
    pub fn is_stopped(&self) -> bool {
        processes::process(self.pid).is_some_and(|process| matches!(process.state, 'T' | 't'))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        kill(self.pid);
        self.tracer.kill().ok();
        self.tracer.wait().ok();
    }
}

/// Kills a process.
pub fn kill(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .ok();
}

/// Pauses a victim for long, and returns once it stands still by the entry `one`.
///
/// # Panics
/// That does not come about.
pub fn pause(place: &Place, victim: &Victim) -> Child {
    pause_by(place, victim, |words| place.agent(words, None))
}

/// The same by the agent that begins its command with these words.
///
/// # Panics
/// That does not come about.
pub fn pause_by(place: &Place, victim: &Victim, agent: impl FnOnce(&[&str]) -> Command) -> Child {
    let arguments = json!({"process": {"pid": victim.pid}}).to_string();
    let words = [
        "inject",
        "process-pause",
        "--id",
        "one",
        "--duration",
        "10m",
        "--arguments",
        &arguments,
    ];
    let inject = agent(&words).spawn().expect("the agent starts");
    wait_until("the victim is paused", || {
        !place.ledger().is_empty() && victim.is_stopped()
    });
    inject
}

/// Kills all of ours, so that nobody is left who could put anything back.
///
/// # Panics
/// That does not come about.
pub fn kill_all_of_ours(mut inject: Child) {
    for process in processes::of_backburn() {
        kill(process.pid);
    }
    inject.wait().expect("it ends");
    wait_until("nobody is left", || processes::of_backburn().is_empty());
}

/// Runs the agent by `around`, a program that makes it a place of its own.
///
/// # Panics
/// That does not come about.
pub fn run(place: &Place, around: &[&str], words: &[&str]) -> Output {
    let mut command = Command::new(around.first().expect("a program"));
    command.args(around.get(1..).unwrap_or_default());
    command
        .arg(programs::backburn_agent())
        .args(words)
        .arg("--state")
        .arg(place.state());
    command.stdin(Stdio::null()).output().expect("it starts")
}

/// All that a program said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
