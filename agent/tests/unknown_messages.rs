//! A controller that is newer than the agent: what the agent does not know, it skips or refuses, and its link stays.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Agent {
    process: Child,
    link: BufReader<UnixStream>,
    _state: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test starts the program")]
        let process = Command::new(env!("CARGO_BIN_EXE_backburn-agent"))
            .args(["serve", "--name", "a", "--state"])
            .arg(state.path())
            .env_remove("BACKBURN_POLICY")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Agent {
            process,
            link: BufReader::new(ours),
            _state: state,
        }
    }

    fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.link.get_mut().write_all(line.as_bytes()).unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.link.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{line}`: {error}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn agent_of_a_newer_controller_skips_or_refuses_what_it_does_not_know() {
    let mut agent = Agent::start();
    let hello = agent.hear();
    assert_eq!(
        (&hello["say"], &hello["protocol"]),
        (&json!("hello"), &json!({"oldest": 1, "newest": 2}))
    );
    agent.say(&json!({"say": "welcome", "protocol": 2, "version": "9.0.0", "song": "la"}));
    // Nobody waits for an answer: skipped.
    agent.say(&json!({"say": "dance", "steps": [1, 2]}));
    // Somebody waits: refused, whether the message or only its content is unknown.
    agent.say(&json!({"say": "dance", "request": 7}));
    agent.say(&json!({"say": "probe", "request": 8, "provider": {"type": "crystal-ball"}}));
    for request in [7, 8] {
        let refused = agent.hear();
        assert_eq!(
            (&refused["say"], &refused["request"]),
            (&json!("refused"), &json!(request))
        );
        assert_eq!(refused["refusal"]["rule"], "protocol");
    }
    // Nobody else would watch these rules: the run that relies on them ends.
    agent.say(&json!({"say": "watch", "run": "r", "rules": [{"name": "x", "host": {"metric": "karma"}, "every": "1s", "failures": 1}]}));
    let struck = agent.hear();
    assert_eq!(
        (&struck["say"], &struck["run"]),
        (&json!("struck"), &json!("r"))
    );
    // Unknown fields of known messages are ignored.
    agent.say(&json!({"say": "beat", "lease": "10s", "answer": true, "tempo": 120}));
    assert_eq!(agent.hear(), json!({"say": "alive"}));
    agent.say(&json!({"say": "goodbye", "kiss": true}));
    assert!(agent.process.wait().unwrap().success());
}

#[test]
fn agent_that_is_refused_or_welcomed_in_an_unknown_version_ends_its_link_cleanly() {
    let refusal = json!({"rule": "protocol", "what": "too new", "hint": "upgrade the controller"});
    for message in [
        json!({"say": "refused", "refusal": refusal}),
        json!({"say": "welcome", "protocol": 9}),
    ] {
        let mut agent = Agent::start();
        agent.hear();
        agent.say(&message);
        let mut line = String::new();
        assert_eq!(agent.link.read_line(&mut line).unwrap(), 0, "{line}");
        assert!(agent.process.wait().unwrap().success());
    }
}
