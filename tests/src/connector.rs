//! An agent that joins a controller and connects to it, by its own program.

use crate::crash::Place;
use crate::processes;
use crate::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Stdio};

/// Joins with these further words.
///
/// # Errors
/// What was said on stderr when that failed.
///
/// # Panics
/// The agent does not start.
pub fn join(place: &Place, controller: &str, token: &str, more: &[&str]) -> Result<(), String> {
    let mut words = vec!["join", "--controller", controller, "--token", token];
    words.extend(more);
    let mut command = place.agent(&words, None);
    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// A connector, killed with all of its own when dropped.
pub struct Connector(Child);

impl Connector {
    /// Starts a connector of the agent in this place.
    ///
    /// # Panics
    /// It does not start.
    pub fn new(place: &Place) -> Self {
        Connector::with(place, &[])
    }

    /// The same with further words on its command line.
    ///
    /// # Panics
    /// It does not start.
    pub fn with(place: &Place, more: &[&str]) -> Self {
        let words = [&["connect"], more].concat();
        Connector(place.agent(&words, None).spawn().expect("it starts"))
    }

    /// A connector that was started already.
    pub fn of(child: Child) -> Self {
        Connector(child)
    }

    /// The process id of the connector.
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// The process ids of its guardian and its worker.
    ///
    /// # Panics
    /// They are not there.
    pub fn agent(&self) -> (i32, i32) {
        let child = |of: i32| {
            let found = processes::alive().into_values().find(|p| p.parent == of);
            found.expect("it has a child").pid
        };
        let guardian = child(self.pid());
        (guardian, child(guardian))
    }

    /// Tells it to end, and waits for its exit code.
    ///
    /// # Panics
    /// It is not there.
    pub fn ends(&mut self) -> Option<i32> {
        strike(self.pid(), Signal::SIGTERM);
        self.0.wait().expect("it is a child").code()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        wait_until("nothing of ours is left", || {
            processes::of_backburn().is_empty()
        });
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// The process is not there.
pub fn strike(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there");
}
