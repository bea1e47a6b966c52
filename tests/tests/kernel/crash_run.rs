//! `kill -9` of `backburn run` at each event of its journal: what it injected is put back, its
//! children are gone, and the journal tells the story up to the last event.

use backburn_experiments::journal::{JournalEntry, Outcome, Run, verdict};
use backburn_tests::isolated::in_namespaces;
use backburn_tests::wait::wait_within;
use backburn_tests::{processes, programs};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// A pause in the background, a child that would run for long, and a hypothesis beside them.
fn experiment(victim: u32) -> String {
    json!({
        "title": "Killed at each event", "description": "A pause and a long child",
        "steady-state-hypothesis": {"title": "It is there", "probes": [
            {"type": "probe", "name": "there", "tolerance": 0,
             "provider": {"type": "process", "path": "test", "arguments": ["-d", format!("/proc/{victim}")]}}]},
        "method": [
            {"type": "action", "name": "pause", "background": true,
             "provider": {"type": "fault", "fault": "process-pause", "duration": "10m",
                          "arguments": {"process": {"pid": victim}}}},
            {"type": "action", "name": "child",
             "provider": {"type": "process", "path": "sleep", "arguments": ["4711"]}}
        ]
    })
    .to_string()
}

/// The one journal of this state folder, as far as it is written.
fn journal(state: &Path) -> Option<(PathBuf, String)> {
    // Notes of late reverts may stand beside it.
    let mut files = std::fs::read_dir(state.join("runs"))
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let file = files.find(|file| file.extension().is_some_and(|end| end == "jsonl"))?;
    let text = std::fs::read_to_string(&file).ok()?;
    Some((file, text))
}

struct Killed {
    events: usize,
    last: String,
    outcome: Outcome,
    took: Duration,
}

/// Kills the run once its journal has `at` events, and looks at what is left.
fn kill_at(at: usize) -> Killed {
    let mut victim: Child = Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("`sleep` starts");
    let state = tempfile::tempdir().expect("a temporary folder can be made");
    let file = state.path().join("experiment.json");
    std::fs::write(&file, experiment(victim.id())).expect("the experiment can be written");
    let mut run = Command::new(programs::backburn())
        .arg("run")
        .arg(&file)
        .args(["--hypothesis-frequency", "20ms", "--state"])
        .arg(state.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`backburn` starts");
    wait_within("the journal has its events", PATIENCE, || {
        journal(state.path()).is_some_and(|(_, text)| text.lines().count() >= at)
    });
    run.kill().expect("it is there to be killed");
    let killed = Instant::now();
    run.wait().expect("it ends");
    let is_back = || {
        let runs = processes::process(victim.id() as i32)
            .is_some_and(|process| !matches!(process.state, 'T' | 't'));
        let ledger = std::fs::read_dir(state.path().join("ledger"));
        let owed = ledger
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|e| e == "json"));
        let child = processes::alive().keys().any(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.ends_with(b"sleep\x004711\0"))
        });
        runs && !owed && !child && processes::of_backburn().is_empty()
    };
    wait_within("everything is back", PATIENCE, is_back);
    let took = killed.elapsed();
    victim.kill().expect("the victim is there");
    victim.wait().expect("it ends");
    let (_, text) = journal(state.path()).expect("the journal is there");
    let entries: Vec<JournalEntry> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let folded = Run::fold(&entries).expect("the journal tells what can be");
    let last = serde_json::to_value(entries.last()).expect("an entry is JSON")["event"].to_string();
    Killed {
        events: entries.len(),
        last,
        outcome: verdict(&folded).outcome,
        took,
    }
}

#[test]
fn run_killed_at_each_event_is_reverted() {
    in_namespaces(&["unshare", "sleep"], || {
        println!(
            "{:>3} {:>7} {:24} {:>12} {:>9}",
            "at", "events", "last event", "verdict", "back in"
        );
        // Joined, planned, gate, sampled, method, started, requested, injected, effect, samples …
        for at in 1..=16 {
            let killed = kill_at(at);
            println!(
                "{at:>3} {:>7} {:24} {:>12} {:>6} ms",
                killed.events,
                killed.last,
                killed.outcome.to_string(),
                killed.took.as_millis()
            );
            assert!(
                matches!(killed.outcome, Outcome::Inconclusive | Outcome::NotClean),
                "a journal that was cut short says nothing for sure: {}",
                killed.outcome
            );
        }
    });
}
