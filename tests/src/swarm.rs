//! Very many agents in a process of their own, from a test's side: the program `swarm` says what they are.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything is waited for.
const LONG: Duration = Duration::from_secs(120);

/// The agents; gone when dropped.
pub struct Swarm {
    child: Child,
    told: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

/// How they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How many have a link.
    pub connected: u64,
    /// How many links there have been.
    pub links: u64,
    /// How many faults act.
    pub faults: u64,
    /// How many commands were heard, beats among them.
    pub commands: u64,
    /// What went wrong last, e.g. how a link ended.
    pub trouble: String,
}

impl Swarm {
    /// So many, known to the controller of this data folder, which must not be running. `program` is where the program
    /// `swarm` is: only a test's own file knows.
    ///
    /// # Panics
    /// They can't be made known.
    pub fn enrolled(program: &str, data: &Path, count: usize) -> Self {
        let mut child = Command::new(program)
            .arg(data)
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the swarm starts");
        let told = child.stdin.take();
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut swarm = Swarm { child, told, says };
        assert_eq!(swarm.line(), "enrolled");
        swarm
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the swarm lives");
        line.trim_end().to_owned()
    }

    fn tell(&mut self, line: &str) {
        let told = self.told.as_mut().expect("it has an input");
        writeln!(told, "{line}").expect("the swarm lives");
    }

    /// Has them come to this controller, and come again whenever they lose it.
    pub fn connect(&mut self, address: SocketAddr) {
        self.tell(&format!("connect {address}"));
    }

    /// How they are.
    ///
    /// # Panics
    /// The swarm has died.
    pub fn state(&mut self) -> State {
        self.tell("state");
        let line = self.line();
        let state: Value = serde_json::from_str(&line).expect("a state is JSON");
        let figure = |name: &str| state[name].as_u64().expect("a state has figures");
        State {
            connected: figure("connected"),
            links: figure("links"),
            faults: figure("faults"),
            commands: figure("commands"),
            trouble: state["trouble"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Waits until they are so.
    ///
    /// # Panics
    /// They are not, in time.
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&State) -> bool) -> State {
        let until = Instant::now() + LONG;
        loop {
            let state = self.state();
            if is_so(&state) {
                return state;
            }
            assert!(Instant::now() < until, "not {what}: {state:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        drop(self.told.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
