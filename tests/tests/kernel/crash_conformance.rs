//! Crash conformance: for every fault, for every n, the n-th effect fails, or somebody is killed
//! before it or after it: the agent, its guardian, both, or the program that asked. Afterwards
//! the host's fingerprint is the one before and nothing is owed. Printed as a table. Those that are stopped or frozen instead are in
//! `crash_stopped`. `BACKBURN_CRASH_CASE=NAME` tries only the cases with this in their names.

use backburn_tests::crash::{Trial, trial, trial_of_the_rescue};
use backburn_tests::crash_cases::{CASES, PROGRAMS, chosen, repeats};
use backburn_tests::crash_strike::Strike;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::programs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// What is done at each place.
const WAYS: [(&str, &str); 9] = [
    ("the effect fails", "fail:{n}"),
    ("agent killed before", "before:{n}"),
    ("agent killed after", "after:{n}"),
    ("guardian killed before", "before:{n}:guardian"),
    ("guardian killed after", "after:{n}:guardian"),
    ("both killed before, restart", "before:{n}:both"),
    ("both killed after, restart", "after:{n}:both"),
    ("controller killed before", "before:{n}:controller"),
    ("controller killed after", "after:{n}:controller"),
];

#[derive(Default)]
struct Row {
    trials: usize,
    residues: Vec<String>,
    longest: Duration,
}

impl Row {
    fn add(&mut self, place: &str, trial: Trial) {
        self.trials += 1;
        self.longest = self.longest.max(trial.took);
        self.residues
            .extend(trial.residue.map(|residue| format!("{place}: {residue}")));
    }
}

/// Every trial of one way: n goes up until the run has no n-th effect any more.
fn each(row: &mut Row, way: &str, role: &str, run: impl Fn(&Strike) -> Trial) {
    for n in 1.. {
        let failpoint = format!("{role}:{}", way.replace("{n}", &n.to_string()));
        let outcome = run(&Strike::Failpoint(failpoint.clone()));
        if !outcome.reached {
            assert!(
                outcome.residue.is_none(),
                "{failpoint}, not reached: {:?}",
                outcome.residue
            );
            assert!(n > 1, "{failpoint}: there was no effect at all");
            return;
        }
        row.add(&failpoint, outcome);
    }
}

fn table(rows: &BTreeMap<(&str, &str), Row>) {
    println!(
        "\n{:28} {:34} {:>6} {:>8} {:>12}",
        "fault", "what happens at each effect", "trials", "residues", "longest"
    );
    for ((case, way), row) in rows {
        println!(
            "{case:28} {way:34} {:>6} {:>8} {:>9} ms",
            row.trials,
            row.residues.len(),
            row.longest.as_millis()
        );
    }
    let trials: usize = rows.values().map(|row| row.trials).sum();
    let residues: Vec<&String> = rows.values().flat_map(|row| &row.residues).collect();
    println!("{trials} trials, {} residues", residues.len());
    for residue in residues {
        println!("  {residue}");
    }
}

fn conclude(rows: &BTreeMap<(&str, &str), Row>) {
    table(rows);
    assert!(
        rows.values().all(|row| row.residues.is_empty()),
        "something was left behind"
    );
}

#[test]
fn catalogue_faults_each_have_a_crash_case() {
    let output = Command::new(programs::backburn_agent())
        .args(["faults", "--json"])
        .output()
        .expect("the agent starts");
    let faults: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    for fault in &faults {
        let name = fault["name"].as_str().expect("a fault has a name");
        assert!(
            CASES.iter().any(|case| case.fault == name),
            "`{name}` has no crash case"
        );
    }
    assert!(!faults.is_empty());
}

#[test]
fn process_killed_at_any_effect_leaves_nothing() {
    in_network_namespace(&PROGRAMS, || {
        let mut rows = BTreeMap::new();
        for _ in 0..repeats() {
            for case in chosen() {
                for (way, failpoint) in WAYS {
                    let row: &mut Row = rows.entry((case.name, way)).or_default();
                    each(row, failpoint, "worker", |strike| trial(case, strike));
                }
            }
        }
        conclude(&rows);
    });
}

#[test]
fn rescuer_killed_at_any_effect_leaves_nothing() {
    in_network_namespace(&PROGRAMS, || {
        let ways = [
            ("guardian's effect fails", "guardian", "fail:{n}"),
            ("guardian killed before", "guardian", "before:{n}"),
            ("guardian killed after", "guardian", "after:{n}"),
            ("by hand: the effect fails", "hand", "fail:{n}"),
            ("by hand: killed before", "hand", "before:{n}"),
            ("by hand: killed after", "hand", "after:{n}"),
        ];
        let mut rows = BTreeMap::new();
        for _ in 0..repeats() {
            for case in chosen().iter().filter(|case| case.duration.is_some()) {
                for (way, role, failpoint) in ways {
                    let row: &mut Row = rows.entry((case.name, way)).or_default();
                    each(row, failpoint, role, |strike| {
                        trial_of_the_rescue(case, strike, role == "hand")
                    });
                }
            }
        }
        conclude(&rows);
    });
}
