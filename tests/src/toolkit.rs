//! The Chaos Toolkit as a live oracle: one experiment through it and through us, and what is
//! compared of the two journals.

use crate::isolated::skip;
use crate::programs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Who runs an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The Chaos Toolkit, with this Python.
    Toolkit(&'static Path),
    /// `backburn`.
    Ours,
}

/// The Python of the oracle, for as long as the test runs; where it is not installed, the test is skipped.
pub fn oracle() -> Option<&'static Path> {
    let python = programs::oracle();
    if python.is_none() {
        skip("the Chaos Toolkit is not installed; `tests/run` installs it");
    }
    python.map(|path| &*Box::leak(path.into_boxed_path()))
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// How the program ended.
    pub status: ExitStatus,
    /// The journal, in the toolkit's shape, where one was written.
    pub journal: Option<Value>,
    /// What was said on either output.
    pub said: String,
}

impl Ran {
    /// The exit code; -1 for a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    /// The program.
    pub child: Child,
    journal: PathBuf,
    said: PathBuf,
}

/// Starts a run of this document in a folder of its own.
///
/// # Panics
/// The program does not start.
pub fn start(tool: Tool, document: &Value, folder: &Path, flags: &[&str]) -> Running {
    let experiment = folder.join("experiment.json");
    let journal = folder.join("journal.json");
    let said = folder.join("said.txt");
    std::fs::write(&experiment, document.to_string())
        .expect("a temporary folder can be written to");
    let mut command = match tool {
        Tool::Toolkit(python) => {
            let mut command = Command::new(python.with_file_name("chaos"));
            command
                .args(["--no-version-check", "--log-file"])
                .arg(folder.join("toolkit.log"));
            command.arg("--settings").arg(folder.join("settings.yaml"));
            command
                .arg("run")
                .args(flags)
                .arg("--journal-path")
                .arg(&journal);
            command
        }
        Tool::Ours => {
            let mut command = Command::new(programs::backburn());
            command
                .arg("run")
                .args(flags)
                .arg("--journal")
                .arg(&journal);
            command
        }
    };
    let out = std::fs::File::create(&said).expect("a temporary folder can be written to");
    let err = out.try_clone().expect("a file can be shared");
    let child = command
        .arg(&experiment)
        .current_dir(folder)
        .env("HOME", folder)
        .env("BACKBURN_STATE", folder.join("state"))
        .env("PYTHONPATH", programs::root().join("tests/oracle"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BACKBURN_ORACLE_NUMBER", "17")
        .env("BACKBURN_ORACLE_WORD", "seventeen")
        .env("BACKBURN_ORACLE_JSON", r#"{"deep": [1, 2]}"#)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("the program starts");
    Running {
        child,
        journal,
        said,
    }
}

impl Running {
    /// Waits for the end.
    ///
    /// # Panics
    /// The journal is no JSON.
    pub fn finish(mut self) -> Ran {
        let status = self.child.wait().expect("a child can be waited for");
        // Ours is made empty first, so that a place that cannot be written to is found out early.
        let journal = std::fs::read_to_string(&self.journal)
            .ok()
            .filter(|text| !text.is_empty());
        Ran {
            status,
            journal: journal.map(|text| serde_json::from_str(&text).expect("a journal is JSON")),
            said: std::fs::read_to_string(&self.said).unwrap_or_default(),
        }
    }
}

/// Runs this document and waits for the end.
pub fn run(tool: Tool, document: &Value, folder: &Path, flags: &[&str]) -> Ran {
    start(tool, document, folder, flags).finish()
}

/// What two journals must have in common: the status, whether it deviated, what the hypothesis
/// was judged before and after, and how each activity went and what it gave. Activities in the
/// background have no order.
pub fn essence(journal: &Value) -> Value {
    let states = |when: &str| {
        let state = &journal["steady_states"][when];
        if state.is_null() {
            return Value::Null;
        }
        json!({
            "met": state["steady_state_met"],
            "probes": list(&state["probes"], |probe| json!({
                "name": probe["activity"]["name"], "status": probe["status"],
                "met": probe["tolerance_met"], "output": output(&probe["output"]),
            })),
        })
    };
    let activities = |part: &str| {
        let mut gone = list(&journal[part], |activity| {
            json!({
                "name": activity["activity"]["name"], "status": activity["status"],
                "output": output(&activity["output"]),
            })
        });
        let in_background = |activity: &Value| activity["activity"]["background"] == true;
        if journal[part]
            .as_array()
            .into_iter()
            .flatten()
            .any(in_background)
            && let Some(gone) = gone.as_array_mut()
        {
            gone.sort_by_key(Value::to_string);
        }
        gone
    };
    json!({
        "status": journal["status"],
        "deviated": journal["deviated"],
        "before": states("before"),
        "after": states("after"),
        "run": activities("run"),
        "rollbacks": activities("rollbacks"),
    })
}

fn list(items: &Value, each: impl Fn(&Value) -> Value) -> Value {
    items.as_array().into_iter().flatten().map(each).collect()
}

/// What an activity gave, without what no two requests have in common.
fn output(output: &Value) -> Value {
    let mut output = output.clone();
    if let Some(fields) = output.as_object_mut() {
        fields.remove("headers");
    }
    output
}
