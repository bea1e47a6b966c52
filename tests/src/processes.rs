//! The processes there are, for telling what is left over.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A process: by its id and its start time, since ids come back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// In clock ticks since boot.
    pub start: u64,
    /// As `ps -o comm` shows it.
    pub name: String,
    /// As in `/proc/PID/stat`: `T` and `t` stand still.
    pub state: char,
    /// Its parent's id.
    pub parent: i32,
}

/// Every process that lives. The dead that nobody has asked after are not counted: in a
/// container, process 1 often does not.
pub fn alive() -> BTreeMap<i32, Process> {
    let folders = std::fs::read_dir("/proc").expect("/proc is mounted");
    let numbers = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter_map(process)
        .filter(|process| !matches!(process.state, 'Z' | 'X'))
        .map(|p| (p.pid, p))
        .collect()
}

/// One process, where it is there.
pub fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain some.
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    Some(Process {
        pid,
        start: fields.get(19)?.parse().ok()?,
        name: before.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
    })
}

/// The processes of this name.
pub fn named(name: &str) -> Vec<Process> {
    alive()
        .into_values()
        .filter(|process| process.name == name)
        .collect()
}

/// Those of Backburn's own that live: agents, guardians and helpers, but not the demo's service.
pub fn of_backburn() -> Vec<Process> {
    let is_ours = |process: &Process| {
        // By the program's file: an agent starts as `/proc/self/exe`.
        let program = std::fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
        let program = program.to_string_lossy();
        let program = program.trim_end_matches(" (deleted)");
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        let is_demo = line.split(|byte| *byte == 0).nth(1) == Some(b"demo-service");
        (program.ends_with("/backburn") || program.ends_with("/backburn-agent")) && !is_demo
    };
    alive().into_values().filter(is_ours).collect()
}

/// As [`kill_at_once`], for those that may have left already. When they were killed; nothing where none of them was there.
pub fn try_kill_at_once(pids: &[i32]) -> Option<Instant> {
    let send = |signal| {
        let sent = pids.iter().map(|&pid| kill(Pid::from_raw(pid), signal));
        sent.filter(Result::is_ok).count()
    };
    let there = send(Signal::SIGSTOP);
    let killed = Instant::now();
    send(Signal::SIGKILL);
    (there > 0).then_some(killed)
}

/// Kills all of these with nothing between: each is stopped first, so that none sees another's
/// end and acts on it before its own. Returns when they were killed.
///
/// # Panics
/// One of them is not there, or does not stop.
pub fn kill_at_once(pids: &[i32]) -> Instant {
    let send = |signal| {
        for &pid in pids {
            kill(Pid::from_raw(pid), signal).expect("it is there to get a signal");
        }
    };
    send(Signal::SIGSTOP);
    let started = Instant::now();
    let stands = |&pid: &i32| process(pid).is_some_and(|process| process.state == 'T');
    while !pids.iter().all(stands) {
        assert!(started.elapsed() < Duration::from_secs(5), "not stopped");
        std::thread::sleep(Duration::from_micros(200));
    }
    let killed = Instant::now();
    send(Signal::SIGKILL);
    killed
}
