//! The real `backburn controller`, as a process, and its HTTP interface, from a test's side.

use crate::plain_http;
use crate::programs::backburn;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything is waited for.
const LONG: Duration = Duration::from_secs(120);

/// A controller; killed when dropped.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    data: PathBuf,
    child: Child,
    token: String,
}

impl Daemon {
    /// Starts one with this data folder.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(data: &Path) -> Self {
        Daemon::start_at(data, "127.0.0.1:0")
    }

    fn start_at(data: &Path, listen: &str) -> Self {
        let mut child = Command::new(backburn())
            .args(["controller", "--listen", listen, "--data"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the controller starts");
        let mut says = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = says.next().expect("it says where it listens");
            let line = line.expect("it says UTF-8");
            if let Some(rest) = line.strip_prefix("listening on ") {
                let address = rest.split(',').next().unwrap_or_default();
                break address.parse().expect("it listens at an address");
            }
        };
        // Whatever it still has to say belongs to the test's output.
        std::thread::spawn(move || {
            says.map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        let token = std::fs::read_to_string(data.join("admin-token"));
        Daemon {
            address,
            data: data.to_owned(),
            child,
            token: token.expect("it wrote that").trim().to_owned(),
        }
    }

    /// Kills it with SIGKILL, and starts it again at the same address.
    ///
    /// # Panics
    /// It does not come up.
    pub fn dies_and_comes_again(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
        *self = Daemon::start_at(&self.data.clone(), &self.address.to_string());
    }

    /// The token of its first admin.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks over HTTP. The status, and what came back.
    ///
    /// # Panics
    /// It does not answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (address, request) = (self.address.to_string(), format!("{method} {path}"));
        let answer = match body {
            Some(body) => plain_http::ask_json(&address, &self.token, &request, body),
            None => plain_http::ask(&address, &self.token, &request),
        };
        let answer = answer.unwrap_or_else(|error| panic!("{request}: {error}"));
        (answer.status, answer.json())
    }

    /// The same, and it is done.
    ///
    /// # Panics
    /// It is refused.
    pub fn done(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// Starts a run of an experiment that was put there. Its id.
    ///
    /// # Panics
    /// It does not begin.
    pub fn run(&self, experiment: &str) -> String {
        let path = format!("/api/v1/experiments/{experiment}/runs");
        let begun = self.done("POST", &path, Some(&serde_json::json!({})));
        begun["run"].as_str().expect("it has begun").to_owned()
    }

    /// Waits until a run is closed.
    ///
    /// # Panics
    /// It is not, in time.
    pub fn closed(&self, run: &str) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let found = self.done("GET", &format!("/api/v1/runs/{run}"), None);
            if !found["ended"].is_null() {
                return found;
            }
            assert!(Instant::now() < until, "it goes on: {found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every event of a run, from its journal.
    ///
    /// # Panics
    /// They can't be had.
    pub fn events(&self, run: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let path = format!("/api/v1/runs/{run}/events?after={}&limit=1000", all.len());
            match self.done("GET", &path, None) {
                Value::Array(page) if page.is_empty() => return all,
                Value::Array(page) => {
                    all.extend(page.into_iter().map(|mut event| event["entry"].take()))
                }
                other => panic!("no events: {other}"),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
