//! Network faults that a test injects: by a program of their own, as a person would.

use crate::crash::Place;
use crate::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The programs that such a test wants.
pub const PROGRAMS: [&str; 5] = ["unshare", "ip", "nft", "ping", "sleep"];
/// Long enough for a busy machine to answer.
pub const SOON: Duration = Duration::from_millis(1500);
/// Long enough to say that nothing comes, where answers take microseconds.
pub const NEVER: Duration = Duration::from_millis(400);

/// A fault that acts, injected by a process of its own.
pub struct Fault {
    /// The program that injects.
    pub inject: Child,
    /// Its ledger.
    pub place: Place,
    /// What it says. Not a pipe: a program that nobody listens to would stand still.
    said: tempfile::NamedTempFile,
}

impl Fault {
    /// Injects, and returns when it acts.
    ///
    /// # Panics
    /// It is not injected.
    #[track_caller]
    pub fn inject(name: &str, arguments: &Value, duration: &str) -> Self {
        let place = Place::default();
        let arguments = arguments.to_string();
        let words = [
            "inject",
            name,
            "--id",
            "trial",
            "--json",
            "--duration",
            duration,
            "--arguments",
            &arguments,
        ];
        let said = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let output = said.reopen().expect("it is there");
        let mut inject = place
            .agent(&words, None)
            .stdout(Stdio::from(output))
            .spawn()
            .expect("the agent starts");
        let until = Instant::now() + Duration::from_secs(10);
        while !place.ledger().contains(&"trial.json".to_owned())
            || helper().is_none_or(|helper| !owns(helper))
        {
            let over = inject.try_wait().expect("a child can be waited for");
            assert!(
                over.is_none() && Instant::now() < until,
                "{name} {arguments}: not injected: {over:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Fault {
            inject,
            place,
            said,
        }
    }

    /// What it was last seen to do; null where it has not been looked at.
    pub fn seen(&self) -> Value {
        let said = std::fs::read_to_string(self.said.path()).unwrap_or_default();
        let whole = said
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        whole
            .map(|line| line["effect"].clone())
            .find(|effect| !effect.is_null())
            .unwrap_or_default()
    }

    /// Ends it; what it was seen to do.
    ///
    /// # Panics
    /// Its end is not clean.
    #[track_caller]
    pub fn end(self) -> Value {
        let pid = Pid::from_raw(self.inject.id() as i32);
        // It may have come to its end already.
        kill(pid, Signal::SIGINT).ok();
        self.wait()
    }

    /// Waits for its end; what it was seen to do.
    ///
    /// # Panics
    /// Its end is not clean.
    #[track_caller]
    pub fn wait(self) -> Value {
        self.wait_for(&[0])
    }

    /// Waits for its end with one of these exit codes. The effect that was told at last.
    ///
    /// # Panics
    /// It ends with another code, or leaves something.
    pub fn wait_for(mut self, codes: &[i32]) -> Value {
        let status = self.inject.wait().expect("it ends");
        let said = std::fs::read_to_string(self.said.path()).expect("it is there");
        let expected = status.code().is_some_and(|code| codes.contains(&code));
        assert!(expected, "{status}: {said}");
        assert!(self.place.ledger().is_empty());
        assert_eq!(helper(), None);
        let ended = said
            .lines()
            .rev()
            .find(|line| line.contains("\"ended\""))
            .expect("it tells of its end");
        let ended: Value = serde_json::from_str(ended).expect("JSON");
        ended["effect"].clone()
    }

    /// Everybody who might put it back: the injecting program, the guardian, the agent and the helper.
    ///
    /// # Panics
    /// They are not four.
    pub fn everybody(&self) -> Vec<i32> {
        let alive = processes::alive();
        let mut all = vec![self.inject.id() as i32];
        let mut next = 0;
        while let Some(parent) = all.get(next).copied() {
            all.extend(
                alive
                    .values()
                    .filter(|process| process.parent == parent)
                    .map(|process| process.pid),
            );
            next += 1;
        }
        assert_eq!(all.len(), 4, "{all:?}");
        all
    }
}

fn helper() -> Option<i32> {
    processes::named("backburn-helper")
        .first()
        .map(|process| process.pid)
}

/// Whether a helper has said that it is ready: then its standard output is closed.
fn owns(helper: i32) -> bool {
    std::fs::read_link(format!("/proc/{helper}/fd/1")).is_ok_and(|path| path.ends_with("null"))
}

/// A figure of what a fault was seen to do.
///
/// # Panics
/// There is none of this name.
pub fn figure(effect: &Value, name: &str) -> f64 {
    effect["figures"][name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {effect}"))
}

/// What `nft list ruleset` says in the namespace of this thread.
///
/// # Panics
/// It fails.
pub fn ruleset() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .expect("`nft` starts");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}
