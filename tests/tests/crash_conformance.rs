//! Crash conformance: for every fault, for every n, the n-th effect fails, or somebody is killed
//! before it or after it: the agent, its guardian, both, or the program that asked. Afterwards
//! the host's fingerprint is the one before and nothing is owed. Printed as a table.

use backburn_tests::crash::{Case, Strike, Trial, trial, trial_of_the_rescue};
use backburn_tests::crash_world::World;
use backburn_tests::privately::privately_networked as privately;
use backburn_tests::programs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const PROGRAMS: [&str; 9] = [
    "unshare", "mount", "umount", "python3", "strace", "nft", "tc", "ip", "sleep",
];

/// Long enough to be struck while it acts, short enough for hundreds of trials.
const SHORT: Option<&str> = Some("150ms");

const CASES: &[Case] = &[
    Case {
        name: "process-kill",
        fault: "process-kill",
        arguments: |world: &World| json!({"process": {"pid": world.threaded()}}),
        duration: None,
        victims_survive: false,
    },
    Case {
        name: "process-kill, asking first",
        fault: "process-kill",
        arguments: |world| json!({"process": {"pid": world.threaded()}, "grace": "100ms"}),
        duration: None,
        victims_survive: false,
    },
    Case {
        name: "process-pause, traced by us",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": world.threaded()}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "process-pause, by signal",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": world.traced()}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "process-pause, both ways",
        fault: "process-pause",
        arguments: |world| json!({"process": {"pid": [world.threaded(), world.traced()], "select": "all"}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "cpu-stress",
        fault: "cpu-stress",
        arguments: |_| json!({"workers": 1, "load-percent": 20}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "memory-fill",
        fault: "memory-fill",
        arguments: |_| json!({"size": "16MiB"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "disk-fill",
        fault: "disk-fill",
        arguments: |world| json!({"path": world.folder(), "reserve": "1MiB"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-fail",
        fault: "dns-fail",
        arguments: |_| json!({"names": ["db.example.org", "*.test"], "with": "timeout"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-slow, elsewhere",
        fault: "dns-slow",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "names": "*", "delay": "20ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "dns-spoof",
        fault: "dns-spoof",
        arguments: |_| json!({"names": "*", "server": "10.9.0.2", "addresses": ["10.9.0.3", "fd09::3"]}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-latency",
        fault: "network-latency",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-latency, varying",
        fault: "network-latency",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms", "jitter": "5ms", "keep-order": false}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-bandwidth",
        fault: "network-bandwidth",
        arguments: |_| json!({"to": ["10.9.0.2", "fd09::2"], "rate": "1Mbit/s"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-bandwidth, elsewhere",
        fault: "network-bandwidth",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "direction": "ingress", "rate": "1Mbit/s"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-corrupt",
        fault: "network-corrupt",
        arguments: |_| json!({"to": "10.9.0.2", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-duplicate",
        fault: "network-duplicate",
        arguments: |_| json!({"to": "10.9.0.2", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-reorder",
        fault: "network-reorder",
        arguments: |_| json!({"to": "10.9.0.2", "delay": "20ms", "percent": 10}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-loss, in bursts",
        fault: "network-loss",
        arguments: |_| json!({"to": "10.9.0.2", "gilbert-elliott": {"p": 5, "r": 25}}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-loss",
        fault: "network-loss",
        arguments: |_| json!({"to": ["10.9.0.2", "fd09::2"], "percent": 30}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-partition, elsewhere",
        fault: "network-partition",
        arguments: |world| json!({"of": {"pid": world.wire().pid()}, "ports": [80, "443-445"]}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "network-reject",
        fault: "network-reject",
        arguments: |_| json!({"from": "10.9.0.0/24", "except": "10.9.0.3", "established": "kill"}),
        duration: SHORT,
        victims_survive: true,
    },
    Case {
        name: "tcp-proxy",
        fault: "tcp-proxy",
        arguments: |_| json!({"listen": "127.0.0.1:15432", "upstream": "127.0.0.1:9", "to-client": {"latency": "20ms"}}),
        duration: SHORT,
        victims_survive: true,
    },
];

/// What is done at each place, and whether an agent is started again afterwards.
const WAYS: [(&str, &str, bool); 9] = [
    ("the effect fails", "fail:{n}", false),
    ("agent killed before", "before:{n}", false),
    ("agent killed after", "after:{n}", false),
    ("guardian killed before", "before:{n}:guardian", false),
    ("guardian killed after", "after:{n}:guardian", false),
    ("both killed before, restart", "before:{n}:both", true),
    ("both killed after, restart", "after:{n}:both", true),
    ("controller killed before", "before:{n}:controller", false),
    ("controller killed after", "after:{n}:controller", false),
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
fn each(row: &mut Row, way: &str, role: &str, run: impl Fn(&Strike) -> Trial, needs_restart: bool) {
    for n in 1.. {
        let failpoint = format!("{role}:{}", way.replace("{n}", &n.to_string()));
        let outcome = run(&Strike {
            failpoint: failpoint.clone(),
            needs_restart,
        });
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

/// How often everything is done; `tests/run` says.
fn repeats() -> usize {
    std::env::var("BACKBURN_CRASH_TRIALS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

#[test]
fn every_fault_has_a_case() {
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
fn whoever_dies_at_whichever_effect_nothing_is_left() {
    privately(
        "whoever_dies_at_whichever_effect_nothing_is_left",
        &PROGRAMS,
        || {
            let mut rows = BTreeMap::new();
            for _ in 0..repeats() {
                for case in CASES {
                    for (way, failpoint, needs_restart) in WAYS {
                        let row: &mut Row = rows.entry((case.name, way)).or_default();
                        each(
                            row,
                            failpoint,
                            "worker",
                            |strike| trial(case, strike),
                            needs_restart,
                        );
                    }
                }
            }
            conclude(&rows);
        },
    );
}

#[test]
fn whoever_comes_to_the_rescue_may_die_as_well() {
    privately(
        "whoever_comes_to_the_rescue_may_die_as_well",
        &PROGRAMS,
        || {
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
                for case in CASES.iter().filter(|case| case.duration.is_some()) {
                    for (way, role, failpoint) in ways {
                        let row: &mut Row = rows.entry((case.name, way)).or_default();
                        each(
                            row,
                            failpoint,
                            role,
                            |strike| trial_of_the_rescue(case, strike, role == "hand"),
                            true,
                        );
                    }
                }
            }
            conclude(&rows);
        },
    );
}
