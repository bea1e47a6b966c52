//! Crash conformance: for every fault, for every n, the n-th effect fails, or somebody is killed
//! before it or after it: the agent, its guardian, both, or the program that asked. Afterwards
//! the host's fingerprint is the one before and nothing is owed. Printed as a table. Those that are stopped or frozen instead are in
//! `crash_stopped`. `BACKBURN_CRASH_CASE=NAME` tries only the cases with this in their names.

use backburn_agent::changes::Change;
use backburn_agent::helpers::HelperSpec;
use backburn_agent::packet_filter::PacketEffect;
use backburn_tests::crash::{Place, Trial, trial, trial_of_the_rescue};
use backburn_tests::crash_cases::{
    CASES, MACHINE_ONLY, MACHINE_ONLY_CHANGE, MACHINE_ONLY_HELPER, PROGRAMS, SERVICE_CASE,
    SERVICE_CHANGE, chosen, repeats,
};
use backburn_tests::crash_plugins::PLUGIN_CASES;
use backburn_tests::crash_strike::Strike;
use backburn_tests::crash_world::World;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::programs;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

/// What is done at each place to the effects, the agent and the program that asked.
const WAYS_OF_AGENT: &[(&str, &str)] = &[
    ("the effect fails", "fail:{n}"),
    ("agent killed before", "before:{n}"),
    ("agent killed after", "after:{n}"),
    ("controller killed before", "before:{n}:controller"),
    ("controller killed after", "after:{n}:controller"),
];

/// What is done at each place to the guardian, alone and with the agent.
const WAYS_OF_GUARDIAN: &[(&str, &str)] = &[
    ("guardian killed before", "before:{n}:guardian"),
    ("guardian killed after", "after:{n}:guardian"),
    ("both killed before, restart", "before:{n}:both"),
    ("both killed after, restart", "after:{n}:both"),
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

/// What is done to a case that has fewer ways, and to one of which a few strikes are enough.
const FEWER_WAYS: [&str; 3] = [
    "the effect fails",
    "agent killed after",
    "both killed after, restart",
];

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
        let is_elsewhere = MACHINE_ONLY.contains(&name) || name == SERVICE_CASE.fault;
        assert!(
            is_elsewhere != CASES.iter().any(|case| case.fault == name),
            "`{name}` has no crash case"
        );
    }
    assert!(!faults.is_empty());
}

/// The names under which a type's variants are serialized, as serde lists them to whoever gives another one.
fn serialized_variants<T: DeserializeOwned>(tag: &str) -> BTreeSet<String> {
    let refused = serde_json::from_value::<T>(json!({tag: "no such variant"})).err();
    let refused = refused.expect("there is no such variant").to_string();
    let (_, expected) = refused
        .split_once("expected")
        .unwrap_or_else(|| panic!("no list of variants: {refused}"));
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The texts under a key, anywhere in a value.
fn texts_under(key: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => {
            for value in values {
                texts_under(key, value, found);
            }
        }
        Value::Object(fields) => {
            found.extend(
                fields
                    .get(key)
                    .and_then(Value::as_str)
                    .map(ToOwned::to_owned),
            );
            for value in fields.values() {
                texts_under(key, value, found);
            }
        }
        _ => {}
    }
}

/// The changes of the agent's ledger. A new one makes this fail to build: give it a crash case as well.
fn name_of_change(change: &Change) -> Option<&'static str> {
    match change {
        Change::Stop(_) => Some("stop"),
        Change::Kill(_) => Some("kill"),
        Change::FileLimit(_) => Some("file-limit"),
        Change::ProcessClock(_) => Some("process-clock"),
        Change::HostClock(_) => Some(MACHINE_ONLY_CHANGE),
        Change::Helper(_) => Some("helper"),
        Change::Replace(_) => Some("replace"),
        Change::ReadOnlyMount(_) => Some("read-only-mount"),
        Change::StoppedUnits(_) => Some(SERVICE_CHANGE),
        Change::Plugin(_) => Some("plug-in"),
        // What another version wrote; no fault makes one.
        Change::Unreadable(_) => None,
    }
}

/// How many effects an agent may have before it has written the entry of an injection.
const MAX_STEPS_BEFORE_ENTRY: usize = 24;

#[test]
fn changes_helpers_and_packet_effects_each_have_a_crash_case() {
    in_network_namespace(&PROGRAMS, || {
        let [mut changes, mut helpers, mut effects] = [const { BTreeSet::new() }; 3];
        for case in CASES.iter().chain(PLUGIN_CASES) {
            // All are killed when the entry is written: agent and guardian before anything is done, and who asked before it settles that.
            // A plug-in is pinned by whoever knows it first: here before, so that nobody is killed over that.
            let written = (4..=MAX_STEPS_BEFORE_ENTRY).find_map(|step| {
                let (world, place) = (World::new(), Place::of(case));
                place.know_plugins();
                let point = format!("worker:before:{step}:both,hand:before:1");
                place.inject(case, &world, Some(&point));
                let entry = place.state().join("ledger/trial.json");
                let entry = std::fs::read_to_string(entry).ok()?;
                Some((world, place, entry))
            });
            let (_world, place, entry) =
                written.unwrap_or_else(|| panic!("{}: no entry is written", case.name));
            let entry: Value = serde_json::from_str(&entry).expect("an entry is JSON");
            let read: Vec<Change> = serde_json::from_value(entry["changes"].clone())
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            changes.extend(read.iter().filter_map(name_of_change).map(str::to_owned));
            texts_under("role", &entry["changes"], &mut helpers);
            texts_under("harm", &entry["changes"], &mut effects);
            assert_eq!(place.restart(None).code(), Some(0), "{}", case.name);
        }
        let all = [
            "file-limit",
            "helper",
            "host-clock",
            "kill",
            "plug-in",
            "process-clock",
            "read-only-mount",
            "replace",
            "stop",
            SERVICE_CHANGE,
        ]
        .map(str::to_owned);
        // Its crash trials are under a systemd.
        assert!(changes.insert(SERVICE_CHANGE.to_owned()));
        // Its crash trials are in the virtual machine.
        assert!(changes.insert(MACHINE_ONLY_CHANGE.to_owned()));
        assert_eq!(changes, BTreeSet::from(all));
        // So are this one's.
        assert!(helpers.insert(MACHINE_ONLY_HELPER.to_owned()));
        assert_eq!(helpers, serialized_variants::<HelperSpec>("role"));
        assert_eq!(effects, serialized_variants::<PacketEffect>("harm"));
    });
}

/// Every case, killed in these ways wherever it has an effect.
fn killed_at_any_effect_leaves_nothing(ways: &'static [(&str, &str)]) {
    in_network_namespace(&PROGRAMS, || {
        let mut rows = BTreeMap::new();
        for _ in 0..repeats() {
            for case in chosen() {
                for &(way, failpoint) in ways {
                    if (case.is_brief() || case.has_fewer_ways()) && !FEWER_WAYS.contains(&way) {
                        continue;
                    }
                    let row: &mut Row = rows.entry((case.name, way)).or_default();
                    if case.is_brief() {
                        // Only when it acts: at its change, which is the fourth effect.
                        let failpoint = format!("worker:{}", failpoint.replace("{n}", "4"));
                        let outcome = trial(case, &Strike::Failpoint(failpoint.clone()));
                        assert!(outcome.reached, "{}: {failpoint}", case.name);
                        row.add(&failpoint, outcome);
                        continue;
                    }
                    each(row, failpoint, "worker", |strike| trial(case, strike));
                }
            }
        }
        conclude(&rows);
    });
}

// Two tests, since one alone would go on when all others have ended.
#[test]
fn agent_killed_at_any_effect_leaves_nothing() {
    killed_at_any_effect_leaves_nothing(WAYS_OF_AGENT);
}

#[test]
fn guardian_killed_at_any_effect_leaves_nothing() {
    killed_at_any_effect_leaves_nothing(WAYS_OF_GUARDIAN);
}

#[test]
fn plugin_whose_agent_is_killed_at_any_effect_leaves_nothing() {
    in_network_namespace(&PROGRAMS, || {
        let mut rows = BTreeMap::new();
        for case in PLUGIN_CASES {
            let place = Place::of(case);
            place.know_plugins();
            let in_peace = place.inject(case, &World::new(), None);
            assert!(in_peace.success(), "{}: {in_peace}", case.name);
            for (way, failpoint) in [
                ("agent killed after", "after:{n}"),
                ("both killed after, restart", "after:{n}:both"),
            ] {
                let row: &mut Row = rows.entry((case.name, way)).or_default();
                each(row, failpoint, "worker", |strike| trial(case, strike));
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
            for case in chosen()
                .iter()
                .filter(|case| case.duration.is_some() && !case.is_brief())
            {
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
