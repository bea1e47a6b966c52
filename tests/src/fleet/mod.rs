//! A fleet as people run it: the controller's own program, and agents that have joined it, each on a host of its own,
//! which is a network namespace at the bridge and a table of processes in which nobody sees its neighbours.

mod host;
mod told;

pub use host::{Host, Victim, strike};
pub use told::{Ended, Said, said};

use crate::nodes::Nodes;
use crate::plain_http::{self, Answer};
use crate::wait::wait_within;
use crate::{programs, runs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long anything is waited for: an agent that lost its controller may take a break of half a minute.
pub const LONG: Duration = Duration::from_secs(120);
/// The programs that a fleet needs.
pub const PROGRAMS: [&str; 5] = ["unshare", "nsenter", "ip", "tail", "sh"];
/// The name of the processes that a test has hit.
pub const VICTIM: &str = "tail";
/// The address of the bridge, where the controller is.
const HERE: &str = "10.8.0.254";
const PORT: u16 = 7420;

/// That the controller answers, which no fault of a test changes: a run that measures nothing is never held.
pub fn hypothesis() -> Value {
    json!({"title": "The controller answers", "probes": [{
        "type": "probe", "name": "controller",
        "tolerance": {"type": "jsonpath", "path": "$.connected", "expect": [true]},
        "provider": {"type": "tcp", "host": HERE, "port": PORT, "timeout": 20}}]})
}

/// An experiment that pauses a victim on each agent of this role.
pub fn pause(role: &str, duration: &str) -> Value {
    json!({
        "title": role, "description": "A process stands still",
        "targets": {"all": {"labels": {"role": role}, "select": "all"}},
        "steady-state-hypothesis": hypothesis(),
        "method": [{"type": "action", "name": "pause", "provider": {
            "type": "fault", "fault": "process-pause", "targets": "all", "duration": duration,
            "arguments": {"process": {"name": VICTIM}}}}],
    })
}

/// How a controller is started.
#[derive(Debug, Clone)]
pub struct Given {
    /// The owner's policy.
    pub policy: Option<Value>,
    /// The lease.
    pub lease: &'static str,
    /// Where it keeps its data; below the fleet's folder where left out.
    pub data: Option<PathBuf>,
    /// The program `backburn` that is the controller.
    pub controller: PathBuf,
    /// The program `backburn` that the agents are at first.
    pub agents: PathBuf,
}

impl Default for Given {
    fn default() -> Self {
        Given {
            policy: None,
            lease: "30s",
            data: None,
            controller: programs::backburn(),
            agents: programs::backburn(),
        }
    }
}

/// A controller with its agents.
pub struct Fleet {
    /// The agents' hosts, in the order in which they were named.
    pub hosts: Vec<Host>,
    controller: Option<Child>,
    given: Given,
    // The last to go.
    folder: tempfile::TempDir,
}

impl Fleet {
    /// A controller, and agents with these names and labels, connected. To be called in namespaces of the test's own, once.
    ///
    /// # Panics
    /// Something does not start.
    pub fn new(agents: &[(&str, &[&str])], given: Given) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let nodes = Nodes::new(agents.len());
        let host = |(node, (name, _)): (usize, &(&str, _))| {
            let mut host = Host::new(&nodes, node, name, folder.path());
            host.program.clone_from(&given.agents);
            host
        };
        let hosts = agents.iter().enumerate().map(host).collect();
        let mut fleet = Fleet {
            hosts,
            controller: None,
            given,
            folder,
        };
        fleet.start(&[]);
        for (host, (name, labels)) in fleet.hosts.iter().zip(agents) {
            let mut words = vec!["join-token"];
            labels
                .iter()
                .for_each(|label| words.extend(["--label", label]));
            let token = fleet.says(&words).out;
            let mut words = vec!["join", "--controller", HERE_PORT, "--token", token.trim()];
            words.extend(["--name", name]);
            let joined = host.agent(&words).status().expect("it starts");
            assert!(joined.success(), "{name} joins: {joined}");
        }
        fleet.connect();
        fleet
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the controller keeps its data.
    pub fn data(&self) -> PathBuf {
        let own = || self.folder.path().join("controller");
        self.given.data.clone().unwrap_or_else(own)
    }

    /// What the controller has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("controller.log")).unwrap_or_default()
    }

    /// Starts the controller, with these variables.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        let is_up = self.try_start(environment);
        assert!(is_up, "the controller ended: {}", self.log());
    }

    /// The same where it may die of it. Whether it came up.
    ///
    /// # Panics
    /// It neither comes up nor ends.
    pub fn try_start(&mut self, environment: &[(&str, &str)]) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("controller.log"))
            .expect("a log can be written");
        let mut command = Command::new(&self.given.controller);
        let data = self.data();
        command.args([
            "controller",
            "--listen",
            &format!("0.0.0.0:{PORT}"),
            "--data",
        ]);
        command
            .arg(&data)
            .args(["--name", HERE, "--lease", self.given.lease]);
        if let Some(policy) = &self.given.policy {
            let file = self.folder.path().join("policy.json");
            std::fs::write(&file, policy.to_string()).expect("a policy can be written");
            command.arg("--policy").arg(file);
        }
        let controller = command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("the controller starts");
        self.controller = Some(controller);
        let mut is_up = false;
        wait_within("the controller listens, or ends", LONG, || {
            is_up = std::net::TcpStream::connect((HERE, PORT)).is_ok();
            is_up || self.is_over()
        });
        is_up
    }

    /// Tells the controller to end, and starts this program in its place, with the same data.
    ///
    /// # Panics
    /// It does not end well, or does not come up.
    pub fn replace_controller(&mut self, program: PathBuf) {
        assert_eq!(self.end(), Some(0), "{}", self.log());
        self.given.controller = program;
        self.start(&[]);
    }

    /// Whether the controller has ended.
    pub fn is_over(&mut self) -> bool {
        let over = |child: &mut Child| child.try_wait().expect("a child can be waited for");
        self.controller
            .as_mut()
            .is_none_or(|child| over(child).is_some())
    }

    /// Kills the controller, with SIGKILL.
    ///
    /// # Panics
    /// It is not there.
    pub fn kill(&mut self) {
        let mut controller = self.controller.take().expect("a controller runs");
        controller.kill().expect("it is there to be killed");
        controller.wait().expect("it ends");
    }

    /// Sends the controller a signal.
    ///
    /// # Panics
    /// It is not there.
    pub fn signal(&self, signal: Signal) {
        let controller = self.controller.as_ref().expect("it runs");
        kill(Pid::from_raw(controller.id() as i32), signal).expect("it is there");
    }

    /// Tells the controller to end, and gives its exit code.
    ///
    /// # Panics
    /// It does not end.
    pub fn end(&mut self) -> Option<i32> {
        let mut controller = self.controller.take().expect("a controller runs");
        let pid = Pid::from_raw(controller.id() as i32);
        kill(pid, Signal::SIGTERM).expect("it is there");
        controller.wait().expect("it ends").code()
    }

    /// The same, where one runs.
    ///
    /// # Panics
    /// It does not end.
    pub fn end_if_it_runs(&mut self) {
        if !self.is_over() {
            self.end();
        }
    }

    /// Has every agent that is not connected connect, and waits until all are.
    ///
    /// # Panics
    /// Not in time.
    pub fn connect(&mut self) {
        for host in &mut self.hosts {
            host.connect();
        }
        self.until_connected();
    }

    /// Waits until every agent is connected, and none takes part in a run.
    ///
    /// # Panics
    /// Not in time.
    pub fn until_connected(&self) {
        wait_within("every agent is connected", LONG, || {
            let agents = self.says(&["agents", "--json"]);
            assert_eq!(agents.code, 0, "{agents:?}");
            let agents = agents.json();
            let free = |host: &Host| {
                let is = |agent: &&Value| agent["name"] == host.name.as_str();
                let agent = agents.as_array().into_iter().flatten().find(is);
                agent.is_some_and(|agent| agent["connected"] == true && agent["runs"] == json!([]))
            };
            self.hosts.iter().all(free)
        });
    }

    /// A host, by its agent's name.
    ///
    /// # Panics
    /// There is none.
    pub fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// There is none.
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        let found = self.hosts.iter_mut().find(|host| host.name == name);
        found.unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// A command to the controller, with the first token.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_as(&self.data().join("admin-token"), words)
    }

    /// The same with another token's file.
    pub fn command_as(&self, token: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(programs::backburn());
        command
            .args(words)
            .env("BACKBURN_CONTROLLER", HERE_PORT)
            .env("BACKBURN_TOKEN_FILE", token)
            .env_remove("BACKBURN_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// What a command to the controller says.
    ///
    /// # Panics
    /// It does not start.
    pub fn says(&self, words: &[&str]) -> Said {
        said(&mut self.command(words))
    }

    /// The same, said by the owner of another token.
    ///
    /// # Panics
    /// It does not start.
    pub fn says_as(&self, token: &Path, words: &[&str]) -> Said {
        said(&mut self.command_as(token, words))
    }

    /// Makes a token with this role; the file that it is in.
    ///
    /// # Panics
    /// There is none.
    pub fn token(&self, name: &str, role: &str) -> PathBuf {
        let made = self.says(&["tokens", "make", name, "--role", role]);
        assert_eq!(made.code, 0, "{made:?}");
        let file = self.folder.path().join(format!("{name}.token"));
        std::fs::write(&file, made.out).expect("a token can be written");
        file
    }

    /// Writes an experiment into a file of this name.
    ///
    /// # Panics
    /// It can't be written.
    pub fn file(&self, name: &str, document: &Value) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.json"));
        std::fs::write(&file, document.to_string()).expect("an experiment can be written");
        file
    }

    /// Has the controller keep an experiment.
    ///
    /// # Panics
    /// It is wrong.
    pub fn apply(&self, name: &str, document: &Value) {
        let file = self.file(name, document);
        let applied = self.says(&["apply", &file.display().to_string()]);
        assert_eq!(applied.code, 0, "{applied:?}");
    }

    /// Runs an experiment to its end; what is printed, and the verdict.
    ///
    /// # Panics
    /// There is none.
    pub fn run(&self, name: &str, document: &Value) -> Ended {
        self.run_with(name, document, &[])
    }

    /// The same with more words to the command.
    ///
    /// # Panics
    /// There is no verdict.
    pub fn run_with(&self, name: &str, document: &Value, more: &[&str]) -> Ended {
        self.apply(name, document);
        let words = ["run", name, "--wait", "--json", "--seed", "7"];
        told::ended(self.says(&[&words[..], more].concat()))
    }

    /// Starts a run, and does not wait. Its id.
    ///
    /// # Panics
    /// It does not start.
    pub fn begin(&self, name: &str, document: &Value) -> String {
        self.apply(name, document);
        let begun = self.says(&["run", name, "--seed", "7"]);
        assert_eq!(begun.code, 0, "{begun:?}");
        begun.out.trim().to_owned()
    }

    /// Waits until a run is over.
    ///
    /// # Panics
    /// Not in time.
    pub fn until_over(&self, run: &str) -> Ended {
        told::ended(self.says(&["runs", run, "--follow", "--json"]))
    }

    /// A run, as the controller shows it.
    ///
    /// # Panics
    /// There is none.
    pub fn shown(&self, run: &str) -> Value {
        self.says(&["runs", run, "--json"]).json()
    }

    /// Asks the API: `GET /api/v1/…`.
    ///
    /// # Panics
    /// Nobody answers.
    pub fn ask(&self, request: &str) -> Answer {
        let token = std::fs::read_to_string(self.data().join("admin-token"));
        let token = token.expect("there is a first token");
        plain_http::ask(HERE_PORT, &token, request).expect("the controller answers")
    }

    /// Waits until nothing is left of any fault on any host: no process of a helper, nothing in a ledger.
    ///
    /// # Panics
    /// Something is left.
    pub fn until_clean(&self) {
        wait_within("every ledger is empty", LONG, || {
            self.hosts
                .iter()
                .all(|host| runs::owed(&host.state).is_empty())
        });
    }
}

/// Where the controller is called.
pub const HERE_PORT: &str = "10.8.0.254:7420";

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(controller) = &mut self.controller {
            // One that is gone is what is wanted.
            controller.kill().ok();
            controller.wait().ok();
        }
        if std::thread::panicking() {
            println!("the controller said:\n{}", self.log());
            for host in &self.hosts {
                let log = std::fs::read_to_string(host.state.with_extension("log"));
                println!("{} said:\n{}", host.name, log.unwrap_or_default());
            }
        }
    }
}
