//! A host of a fleet's: its own network, its own table of processes, an agent, and somebody to be hit.

use super::{LONG, VICTIM};
use crate::nodes::Nodes;
use crate::processes::{self, Process, process};
use crate::programs;
use crate::software::Software;
use crate::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A host with an agent.
pub struct Host {
    /// The agent's name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its network namespace.
    pub port: String,
    /// Where the agent keeps its state.
    pub state: PathBuf,
    /// The program `backburn` that is the agent from when it starts again.
    pub program: PathBuf,
    keeper: Child,
    /// The host's first process, as it is seen from here.
    first: i32,
    connector: Option<Child>,
}

/// A process that is to be hit.
#[derive(Debug)]
pub struct Victim {
    process: Process,
    _outside: Software,
}

impl Host {
    pub(super) fn new(nodes: &Nodes, node: usize, name: &str, folder: &Path) -> Self {
        // Its first process asks after the dead, as a host's does.
        let keeper = nodes
            .command(node, "unshare")
            .args([
                "--pid",
                "--mount",
                "--fork",
                "--mount-proc",
                "--kill-child=KILL",
            ])
            .args(["--", "sh", "-c", "sleep infinity & wait"])
            .spawn()
            .expect("`unshare` starts");
        let first = only_child(keeper.id() as i32, "sh");
        Host {
            name: name.to_owned(),
            address: nodes.address(node),
            port: format!("port{node}"),
            state: folder.join(name),
            program: programs::backburn(),
            keeper,
            first,
            connector: None,
        }
    }

    /// A program that is to run on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command
            .args(["--net", "--pid", "--mount", "--"])
            .arg(program);
        command
    }

    pub(super) fn agent(&self, words: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command
            .arg("agent")
            .args(words)
            .arg("--state")
            .arg(&self.state);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the connector, where it does not run.
    ///
    /// # Panics
    /// It does not start.
    pub fn connect(&mut self) {
        if self
            .connector
            .as_mut()
            .is_some_and(|one| matches!(one.try_wait(), Ok(None)))
        {
            return;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.state.with_extension("log"))
            .expect("a log can be written");
        let mut command = self.agent(&["connect"]);
        let policy = self.state.with_extension("policy");
        if policy.exists() {
            command.arg("--policy").arg(policy);
        }
        command
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        self.connector = Some(command.spawn().expect("it starts"));
    }

    /// Has the agent obey this policy, from when it connects again.
    ///
    /// # Panics
    /// It can't be written.
    pub fn obey(&mut self, policy: &Value) {
        let file = self.state.with_extension("policy");
        std::fs::write(file, policy.to_string()).expect("a policy can be written");
        self.disconnect();
        self.connect();
    }

    /// The connector, the agent's guardian and its worker.
    ///
    /// # Panics
    /// They are not there in time.
    pub fn processes(&self) -> [i32; 3] {
        let outside = self.connector.as_ref().expect("it connects").id() as i32;
        let connector = only_child(outside, "backburn");
        let guardian = only_child(connector, "");
        [connector, guardian, only_child(guardian, "")]
    }

    /// Waits until a connector that was killed is gone.
    ///
    /// # Panics
    /// It does not run.
    pub fn reap(&mut self) {
        let mut outside = self.connector.take().expect("it connects");
        // `nsenter` stands still with a child that was stopped before it was killed.
        strike(outside.id() as i32, Signal::SIGCONT);
        outside.wait().expect("it ends");
    }

    /// Tells the connector to end, and waits until it has; its exit code.
    ///
    /// # Panics
    /// It does not run.
    pub fn disconnect(&mut self) -> Option<i32> {
        let mut outside = self.connector.take().expect("it connects");
        let connector = only_child(outside.id() as i32, "backburn");
        // One that has only just started does not listen yet, and would die of it.
        wait_within("it listens to signals", LONG, || listens(connector));
        kill(Pid::from_raw(connector), Signal::SIGTERM).expect("it is there");
        outside.wait().expect("it ends").code()
    }

    /// Starts somebody to be hit, and waits until it has its name.
    ///
    /// # Panics
    /// It does not start.
    pub fn victim(&self) -> Victim {
        self.victim_with(&["-f", "/dev/null"])
    }

    /// The same with these words, to tell it from others by.
    ///
    /// # Panics
    /// It does not start.
    pub fn victim_with(&self, words: &[&str]) -> Victim {
        let outside = Software::start(self.command(VICTIM).args(words));
        let pid = only_child(outside.pid(), VICTIM);
        let process = process(pid).expect("it lives");
        Victim {
            process,
            _outside: outside,
        }
    }

    /// The host's first process, as it is seen from here.
    pub fn first(&self) -> i32 {
        self.first
    }

    /// The processes of this host's that are Backburn's own.
    pub fn ours(&self) -> Vec<Process> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.first);
        let mut ours = processes::of_backburn();
        ours.retain(|process| namespace(process.pid) == own);
        ours
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With its first process everything there goes.
        self.keeper.kill().ok();
        self.keeper.wait().ok();
        if let Some(connector) = &mut self.connector {
            connector.kill().ok();
            connector.wait().ok();
        }
    }
}

impl Victim {
    /// Its process id, as seen from here.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Whether it is held, by a signal or by tracing.
    ///
    /// # Panics
    /// It is gone.
    pub fn is_paused(&self) -> bool {
        let now = process(self.process.pid).filter(|now| now.start == self.process.start);
        matches!(now.expect("the victim lives").state, 'T' | 't')
    }

    /// Waits until it is held.
    ///
    /// # Panics
    /// Not in time.
    pub fn until_paused(&self) {
        wait_within("the victim is paused", LONG, || self.is_paused());
    }

    /// Waits until it runs.
    ///
    /// # Panics
    /// Not in time.
    pub fn until_free(&self) {
        wait_within("the victim runs on", LONG, || !self.is_paused());
    }
}

/// The only child of a process, once it is there and has this name; any name where that is empty.
fn only_child(parent: i32, name: &str) -> i32 {
    let mut found = None;
    wait_within(
        &format!("process {parent} has a child `{name}`"),
        LONG,
        || {
            let all = processes::alive();
            let mut children = all.values().filter(|process| process.parent == parent);
            found = (children.next())
                .filter(|child| name.is_empty() || child.name == name)
                .map(|child| child.pid);
            found.is_some()
        },
    );
    found.expect("it was found")
}

/// Sends a signal.
///
/// # Panics
/// The process is not there.
pub fn strike(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there to get a signal");
}

/// Whether a process has blocked SIGTERM, to read it from a descriptor. Source: proc(5), `SigBlk`.
fn listens(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0)
}
