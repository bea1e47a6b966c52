//! Every entry that a program of ours ever wrote can be read and undone by this one. The files in `ledger_entries` were written by
//! such programs: `old-*` by those of before, the rest by the first that told its namespaces. Add one whenever a change's form
//! changes; never change one.

#![allow(clippy::expect_used, reason = "what a test needs must be there")]

use backburn_agent::changes::{Change, ProcessHelper, ReversibleChange as _, Stop};
use backburn_agent::helpers::HelperSpec;
use backburn_agent::host::{Host, HostRole, Invocation};
use backburn_agent::ledger::{LedgerEntry, VERSION};
use backburn_experiments::HumanDuration;
use serde_json::{Value, json};
use std::path::Path;

fn fixtures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger_entries");
    let mut found: Vec<(String, String)> = std::fs::read_dir(folder)
        .expect("it is there")
        .map(|file| {
            let path = file.expect("it can be listed").path();
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).expect("it can be read"))
        })
        .collect();
    found.sort();
    found
}

fn fixture(name: &str) -> Value {
    let fixtures = fixtures();
    let found = fixtures.iter().find(|(found, _)| found == name);
    serde_json::from_str(&found.expect("there is such a file").1).expect("JSON")
}

fn parse(value: &Value) -> Result<LedgerEntry, String> {
    let injection = value["injection"].as_str().unwrap_or_default();
    LedgerEntry::parse(value.to_string().as_bytes(), injection)
}

fn host() -> Host {
    Host::new(HostRole::Command, Invocation { prefix: Vec::new() })
}

#[test]
fn ledger_entry_of_every_version_is_read_and_written_back_unchanged() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 20, "{}", fixtures.len());
    for (name, text) in &fixtures {
        let entry = LedgerEntry::parse(text.as_bytes(), name);
        let entry = entry.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(!entry.changes.is_empty(), "{name}");
        // All but one form is read by the type that wrote it.
        let unreadable = entry
            .changes
            .iter()
            .any(|change| matches!(change, Change::Unreadable(_)));
        assert_eq!(unreadable, name == "old-latency", "{name}");
        if name == "old-century" {
            continue;
        }
        let written = entry
            .to_json()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(
            written,
            serde_json::from_str::<Value>(text).expect("JSON"),
            "{name}"
        );
    }
}

#[test]
fn ledger_entry_deadline_beyond_a_century_is_read_as_the_longest() {
    let entry = parse(&fixture("old-century")).expect("it is read");
    let [Change::Helper(ProcessHelper { deadline, spec, .. })] = entry.changes.as_slice() else {
        panic!("{:?}", entry.changes);
    };
    assert_eq!(*deadline, HumanDuration::MAX);
    assert!(matches!(spec, HelperSpec::MemoryBallast(_)), "{spec:?}");
}

#[test]
fn change_with_unreadable_part_is_undone_by_the_rest() {
    // Its tables are looked for by their name, although what it did to packets is not understood.
    let entry = parse(&fixture("old-latency")).expect("it is read");
    let change = entry.changes.first().expect("it has one");
    assert_eq!(change.view().kind, "unreadable");
    assert_eq!(change.holds().len(), 1, "{:?}", change.holds());

    let with = |change: Value| {
        let mut value = fixture("pause-stop");
        value["changes"] = json!([change]);
        let entry = parse(&value).expect("it is read");
        let change = entry.changes.into_iter().next().expect("it has one");
        (
            format!("{:?}", change.observe(&host()).expect("it is looked at")),
            change,
        )
    };
    // A change that another program knows.
    let (seen, change) = with(json!({"change": "freeze", "of": "us"}));
    assert!(
        seen.contains("Present") && seen.contains("`freeze`"),
        "{seen}"
    );
    change.undo(&host()).expect("nothing can be done");
    // A helper that leaves nothing when it is gone, with a figure that this program would refuse.
    let role = json!({"role": "cpu", "workers": -1, "load-percent": 5, "new": true});
    let (seen, _) =
        with(json!({"change": "helper", "mark": "nobody-0", "deadline": 5, "role": role}));
    assert!(seen.contains("Absent"), "{seen}");
    // One of which nobody knows what it leaves.
    let (seen, _) = with(
        json!({"change": "helper", "mark": "nobody-0", "deadline": 5, "role": {"role": "new"}}),
    );
    assert!(seen.contains("Present"), "{seen}");
    // Victims of whom one can't be read: the others are not all.
    let (seen, _) = with(json!({"change": "stop", "victims": ["999999@1", "nobody"]}));
    assert!(seen.contains("Present"), "{seen}");
}

#[test]
fn ledger_entry_with_damaged_text_is_undone_all_the_same() {
    let mut value = fixture("pause-stop");
    value["run"] = json!(7);
    value["victims"] = json!([{"kind": 1}]);
    value["stuck"] = json!("?");
    let entry = parse(&value).expect("what people read is not needed");
    assert!(matches!(
        entry.changes.as_slice(),
        [Change::Stop(Stop { .. })]
    ));
}

#[test]
fn ledger_entry_of_a_later_version_is_left_and_reported() {
    let mut value = fixture("pause-stop");
    value["version"] = json!(VERSION + 1);
    let why = parse(&value).expect_err("it is of another program");
    assert!(
        why.contains("version 2") && why.contains("the program that wrote it"),
        "{why}"
    );
    value.as_object_mut().expect("an object").remove("version");
    assert!(parse(&value).is_err());
    // The file's name is what it is removed by.
    let value = fixture("pause-stop");
    let why = LedgerEntry::parse(value.to_string().as_bytes(), "another").expect_err("another");
    assert!(why.contains("another injection"), "{why}");
}

#[test]
fn ledger_entry_that_cannot_be_read_back_is_not_written() {
    let mut entry = parse(&fixture("cpu")).expect("it is read");
    entry.to_json().expect("it is read back");
    if let Some(Change::Helper(helper)) = entry.changes.first_mut() {
        helper.deadline = HumanDuration(HumanDuration::MAX.0 * 2);
    }
    let error = entry.to_json().expect_err("nobody could read it");
    assert!(error.to_string().contains("read back"), "{error}");
}
