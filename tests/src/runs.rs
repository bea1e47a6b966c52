//! A run of ours as a test sees it: the program's end, its journal, and what is left behind.

use crate::{processes, programs};
use backburn_experiments::journal::{JournalEntry, Run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// The verdict, as `--json` prints it.
    pub verdict: Value,
    /// What the journal folds to.
    pub run: Run,
    /// Its events.
    pub entries: Vec<JournalEntry>,
    /// What was said on stderr.
    pub said: String,
}

/// Runs an experiment of the library, configured by environment variables, its state in `state`.
///
/// # Panics
/// There is no verdict, or the journal does not fold.
pub fn library(name: &str, environment: &[(&str, String)], state: &Path) -> Ran {
    let file = programs::root().join(format!("experiments/library/{name}.json"));
    let mut command = Command::new(programs::backburn());
    command
        .arg("run")
        .arg(file)
        .args(["--json", "--seed", "1"])
        .arg("--state")
        .arg(state);
    command.envs(environment.iter().map(|(key, value)| (key, value)));
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = output
        .stdout
        .split(|byte| *byte == b'\n')
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    let told: Value = serde_json::from_slice(last)
        .unwrap_or_else(|error| panic!("{name}: no verdict: {error}: {said}"));
    let entries = newest_journal(state);
    let run = Run::fold(&entries).expect("a journal folds");
    Ran {
        code: output.status.code().unwrap_or(-1),
        verdict: told["verdict"].clone(),
        run,
        entries,
        said,
    }
}

/// What a run must not leave: processes of ours, anything in the ledger, an injection without a clean end.
///
/// # Panics
/// Something is left.
pub fn assert_clean(ran: &Ran, state: &Path) {
    assert!(ran.run.ended, "the journal goes to the end");
    assert_eq!(ran.run.open().count(), 0, "every injection has ended");
    assert_eq!(
        ran.verdict["owed"],
        serde_json::json!([]),
        "nothing is owed"
    );
    assert_eq!(owed(state), "", "the ledger is empty");
    let left = processes::of_backburn();
    assert!(left.is_empty(), "processes of ours are left: {left:?}");
}

/// The ledger's entries in a state folder, by name.
pub fn owed(state: &Path) -> String {
    let files = std::fs::read_dir(state.join("ledger"))
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name.ends_with(".json"));
    names.sort();
    names.join(" ")
}

/// The entries of the newest journal below a folder.
///
/// # Panics
/// There is none, or a line of it is no event.
pub fn newest_journal(folder: &Path) -> Vec<JournalEntry> {
    let journal = journals(folder)
        .pop()
        .unwrap_or_else(|| panic!("no journal below {}", folder.display()));
    let text = std::fs::read_to_string(&journal).expect("a journal can be read");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Every journal (`*.jsonl`) below a folder, oldest first.
pub fn journals(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    found
}
