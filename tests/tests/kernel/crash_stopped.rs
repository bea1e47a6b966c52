//! The crash conformance suite's columns of those that hang: somebody of ours is stopped before or after an effect, and all of ours are
//! frozen at once. Afterwards the host's fingerprint is the one before, nothing is owed, and no process of ours is there, a stopped
//! one least of all: nobody but ours ends one. Printed as a table, with how late the end was at the most.
//! `BACKBURN_CRASH_CASE=NAME` tries only the cases with this in their names; `BACKBURN_CRASH_TRIALS=N` with N above 1 stops at every
//! effect of every case.

use backburn_tests::crash::Case;
use backburn_tests::crash_cases::{chosen, repeats};
use backburn_tests::crash_random::table;
use backburn_tests::crash_slots::{self, Outcome, Task};
use backburn_tests::freezer::FreezerVersion;
use backburn_tests::isolated::skip;
use backburn_tests::programs;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// An end is promised two seconds after it was due. A machine that is busy, or looks late, has as much again several times; what it was is
/// printed.
const LATEST: Duration = Duration::from_secs(20);

/// How many trials at a time: most of each is waiting for a heartbeat that does not come.
const SLOTS: usize = 6;

/// The worker's change itself, after the ledger's folder, the entry, and its rename.
const ACTS: usize = 4;

/// The cases that are stopped at every effect of theirs; the others at one.
const EVERYWHERE: [&str; 4] = [
    "process-pause, traced by us",
    "process-pause, by signal",
    "disk-fill",
    "network-bandwidth",
];

const STOPS: [(&str, &str); 7] = [
    ("stop-before", "self"),
    ("stop-after", "self"),
    ("stop-before", "guardian"),
    ("stop-after", "guardian"),
    ("stop-after", "controller"),
    ("stop-after", "helper"),
    // Nobody but the one that asked is left to end them, when its lease is over.
    ("stop-after", "both"),
];

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_crash"))
}

/// Whether trials can be done here; says so where not.
fn is_possible() -> bool {
    let missing = crash_slots::missing();
    if let Some(why) = &missing {
        skip(why);
    }
    missing.is_none()
}

/// Does these, and demands that nothing is left and no end is far too late.
fn all_are_whole(tasks: Vec<(String, String)>) -> Vec<Outcome> {
    let tasks: Vec<Task> = (0..)
        .zip(tasks)
        .map(|(number, (case, strike))| Task {
            number,
            case,
            strike: strike.parse().expect("it is a strike"),
        })
        .collect();
    let mut outcomes = Vec::new();
    crash_slots::run(program(), SLOTS, tasks.into_iter(), |outcome| {
        outcomes.push(outcome);
    });
    println!("{}", table(outcomes.iter()));
    let wrong: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.residue.is_some() || outcome.late > LATEST)
        .map(|outcome| format!("{outcome:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    outcomes
}

/// How many effects each case has.
fn effects(cases: &[&Case]) -> BTreeMap<String, usize> {
    let nowhere = |case: &&Case| (case.name.to_owned(), "worker:stop-before:9999".to_owned());
    let outcomes = all_are_whole(cases.iter().map(nowhere).collect());
    let counts = outcomes.into_iter();
    counts
        .map(|outcome| (outcome.task.case, outcome.effects))
        .collect()
}

#[test]
fn actor_stopped_at_any_effect_leaves_nothing() {
    if !is_possible() {
        return;
    }
    // Built before, since the slots build nothing.
    programs::backburn_agent();
    let cases = chosen();
    let effects = effects(&cases);
    let mut tasks = Vec::new();
    for case in cases {
        let all = effects[case.name];
        assert!(all >= ACTS, "{}: {all} effects", case.name);
        let everywhere = EVERYWHERE.contains(&case.name) || repeats() > 1;
        for (when, who) in STOPS {
            if case.is_brief() && who != "helper" {
                continue;
            }
            let places = match everywhere && !matches!(who, "controller" | "both") {
                true => 1..=all,
                false => ACTS..=ACTS,
            };
            for place in places {
                tasks.push((case.name.to_owned(), format!("worker:{when}:{place}:{who}")));
            }
        }
    }
    let outcomes = all_are_whole(tasks);
    let reached = outcomes.iter().filter(|outcome| outcome.reached).count();
    // Effects are counted in several threads: now and then there is one less.
    assert!(
        reached * 10 >= outcomes.len() * 9,
        "{reached} of {}",
        outcomes.len()
    );
}

#[test]
fn processes_frozen_during_a_fault_leave_nothing_after_the_thaw() {
    if !is_possible() {
        return;
    }
    programs::backburn_agent();
    let mut tasks = Vec::new();
    for case in chosen().into_iter().filter(|case| !case.is_brief()) {
        for version in FreezerVersion::all() {
            let version = match version {
                FreezerVersion::V1 => "v1",
                FreezerVersion::V2 => "v2",
            };
            // Past the end that the kernel gives to helpers, two seconds after their own.
            tasks.push((case.name.to_owned(), format!("at:60:freeze:{version}:2500")));
        }
    }
    let outcomes = all_are_whole(tasks);
    let reached = outcomes.iter().filter(|outcome| outcome.reached).count();
    assert!(
        reached * 2 > outcomes.len(),
        "{reached} of {}",
        outcomes.len()
    );
}

fn crash(results: &Path, words: &[&str]) -> Output {
    let binaries = programs::backburn_agent();
    Command::new(program())
        .args(words)
        .arg("--results")
        .arg(results)
        .env(
            "BACKBURN_BINARIES",
            binaries.parent().expect("a program is in a folder"),
        )
        .output()
        .expect("the program starts")
}

#[test]
fn random_trials_of_two_sittings_add_up() {
    if !is_possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let results = folder.path().join("crash.jsonl");
    let numbers = || {
        let text = std::fs::read_to_string(&results).expect("results are written");
        let lines = text.lines();
        let mut numbers: Vec<u64> = lines
            .map(|line| backburn_tests::crash_random::read_line(line).expect("a line is whole"))
            .filter(|done| done.outcome.reached)
            .map(|done| done.outcome.task.number)
            .collect();
        numbers.sort_unstable();
        let all = numbers.len();
        numbers.dedup();
        assert_eq!(all, numbers.len(), "no trial is done twice");
        all
    };
    for trials in [2, 1] {
        let before = results.exists().then(&numbers).unwrap_or(0);
        let output = crash(
            &results,
            &[&trials.to_string(), "--seed", "3", "--slots", "2"],
        );
        let said = String::from_utf8_lossy(&output.stdout);
        let cried = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{cried}");
        assert!(numbers() >= before + trials, "{said}");
        assert!(said.contains("**all**"), "{said}");
    }
    let output = crash(&results, &["1", "--case", "no such"]);
    assert_eq!(output.status.code(), Some(2));
}
