//! What is said of a run: by commands to a controller, and by the run's own events.

use serde_json::Value;
use std::process::Command;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Said {
    /// What was printed as JSON.
    ///
    /// # Panics
    /// It was something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A run that was followed to its end.
#[derive(Debug)]
pub struct Ended {
    /// The exit code of whoever waited.
    pub code: i32,
    /// The run's id.
    pub run: String,
    /// The verdict.
    pub verdict: Value,
    /// The events.
    pub events: Vec<Value>,
    /// What was said on standard error.
    pub err: String,
}

impl Ended {
    /// Events of this kind.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        let of = |event: &&Value| event["event"] == kind;
        self.events.iter().filter(of).collect()
    }

    /// The names of the agents that were asked to inject.
    pub fn hit(&self) -> Vec<String> {
        let asked = self.of("injection-requested");
        let mut names: Vec<String> = asked
            .iter()
            .filter_map(|event| Some(event["agent"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }
}

pub(super) fn ended(said: Said) -> Ended {
    let mut events: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let last = events
        .pop()
        .unwrap_or_else(|| panic!("no verdict: {said:?}"));
    Ended {
        code: said.code,
        run: last["run"].as_str().unwrap_or_default().to_owned(),
        verdict: last["verdict"].clone(),
        events,
        err: said.err,
    }
}

/// What a command says.
///
/// # Panics
/// It does not start.
pub fn said(command: &mut Command) -> Said {
    let output = command.output().expect("it starts");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
