//! Crash trials side by side: each of some processes has process, mount and network namespaces of its own and does one trial
//! after another. Most of a trial is waiting, so more of them than processors is right.

use crate::crash::trial;
use crate::crash_cases::{PROGRAMS, case};
use crate::crash_strike::Strike;
use crate::programs;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

/// One trial to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number, for whoever asked.
    pub number: u64,
    /// The case's name.
    pub case: String,
    /// What befalls whom.
    pub strike: Strike,
}

/// What a trial came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The trial.
    pub task: Task,
    /// Whether the strike hit.
    pub reached: bool,
    /// What was not as before, in words.
    pub residue: Option<String>,
    /// How long after the end that was due the host was as before.
    pub late: Duration,
    /// How many effects the worker came to.
    pub effects: usize,
}

/// The word by which the program `crash` is started again as a slot.
pub const SLOT: &str = "slot";

/// Does the tasks, so many at a time, each as it comes. `program` is the program `crash`. Needs root.
///
/// # Panics
/// Namespaces can't be made.
pub fn run(
    program: &Path,
    slots: usize,
    tasks: impl Iterator<Item = Task> + Send,
    mut done: impl FnMut(Outcome),
) {
    let tasks = Mutex::new(tasks);
    let (tell, told) = channel();
    std::thread::scope(|threads| {
        for _ in 0..slots.max(1) {
            let (tasks, tell) = (&tasks, tell.clone());
            threads.spawn(move || {
                let mut slot: Option<Slot> = None;
                loop {
                    let next = tasks.lock().expect("no slot has panicked").next();
                    let Some(task) = next else { break };
                    let outcome = slot
                        .get_or_insert_with(|| Slot::start(program))
                        .do_one(&task);
                    // What was left behind is nothing for the next trial to find.
                    if outcome.residue.is_some() {
                        slot = None;
                    }
                    if tell.send(outcome).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        for outcome in told {
            done(outcome);
        }
    });
}

/// What is missing for trials on this machine, in words.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root, and namespaces are made".into());
    }
    let missing = PROGRAMS
        .iter()
        .find(|program| !programs::is_there(program))?;
    Some(format!(
        "`{missing}` is not installed; `tests/run` installs it"
    ))
}

struct Slot {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Slot {
    fn start(program: &Path) -> Self {
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--mount-proc"])
            .args(["--kill-child=KILL", "--"])
            .arg(program)
            .arg(SLOT)
            .env("BACKBURN_BINARIES", binaries(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` starts");
        Slot {
            stdin: child.stdin.take().expect("it is piped"),
            stdout: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    fn do_one(&mut self, task: &Task) -> Outcome {
        let mut line = String::new();
        let said = writeln!(self.stdin, "{}\t{}", task.case, task.strike)
            .and_then(|()| self.stdout.read_line(&mut line))
            .ok()
            .and_then(|_| serde_json::from_str::<Value>(&line).ok());
        let failed = || json!({"reached": true, "residue": "the trial itself failed", "late": 0});
        let said = said.unwrap_or_else(failed);
        Outcome {
            task: task.clone(),
            reached: said["reached"].as_bool().unwrap_or(true),
            residue: said["residue"].as_str().map(str::to_owned),
            late: Duration::from_millis(said["late"].as_u64().unwrap_or(0)),
            effects: said["effects"].as_u64().unwrap_or(0) as usize,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The folder of the programs under test: what is named, else where the program `crash` is itself.
fn binaries(program: &Path) -> PathBuf {
    match std::env::var_os("BACKBURN_BINARIES") {
        Some(folder) => folder.into(),
        None => program.parent().unwrap_or(Path::new("/")).to_owned(),
    }
}

/// Is a slot: reads a trial a line, and says what it came to.
///
/// # Panics
/// A trial could not be done.
pub fn serve() {
    crate::network::ip(&["link", "set", "lo", "up"]);
    for line in std::io::stdin().lines() {
        let line = line.expect("standard input can be read");
        let (name, strike) = line.split_once('\t').expect("it is CASE, tab, STRIKE");
        let strike: Strike = strike.parse().expect("it is a strike");
        let case = case(name).unwrap_or_else(|| panic!("there is no case `{name}`"));
        let trial = trial(case, &strike);
        let said = json!({
            "reached": trial.reached,
            "residue": trial.residue,
            "late": trial.late.as_millis() as u64,
            "effects": trial.effects,
        });
        println!("{said}");
        // We are process 1 here: whoever lost its parent is ours to take leave of.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
    }
}
