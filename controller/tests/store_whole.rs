//! That a store is whole: the audit log shows what somebody did to it, and what is exported is
//! what is imported, to the byte.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::store::{
    ApiTokenRecord, AuditHead, AuditRecord, EnrolledAgent, ExperimentRef, Hash, ImportError,
    JoinTokenRecord, LineProblem, NewRun, Role, RunEnd, SqliteStore, Store, StoreErrorKind,
    TokenOrigin, Trigger,
};
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn opened() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    (folder, store)
}

fn deed(what: &str, role: Option<Role>) -> AuditRecord {
    AuditRecord {
        at: Timestamp::new(1_800_000_000, 5).unwrap(),
        who: "ada".into(),
        role,
        what: what.into(),
        about: "db".into(),
        outcome: "done".into(),
        detail: json!({"from": "192.0.2.1"}),
    }
}

/// A store with five deeds, one of which somebody altered.
fn tampered(with: &str) -> (TempDir, SqliteStore, Vec<AuditHead>) {
    let (folder, store) = opened();
    let heads = (0..5)
        .map(|number| store.audit(&deed(&format!("deed {number}"), Some(Role::Admin))))
        .collect::<Result<_, _>>()
        .unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    connection.execute_batch(with).unwrap();
    drop(connection);
    let store = SqliteStore::open(folder.path()).unwrap();
    (folder, store, heads)
}

#[test]
fn audit_log_that_is_unchanged_verifies() {
    let (_folder, store) = opened();
    let empty = store.verify_audit(None).unwrap();
    assert_eq!((empty.head.number, empty.broken), (0, None));
    let deeds = [
        deed("halt", Some(Role::Operator)),
        deed("resume", None),
        deed("", Some(Role::Viewer)),
    ];
    for (index, deed) in deeds.iter().enumerate() {
        let head = store.audit(deed).unwrap();
        assert_eq!(head.number, index as u64 + 1);
        let chain = store.verify_audit(Some(&head)).unwrap();
        assert_eq!((chain.head, chain.broken), (head, None));
    }
    let all = store.audited(0, 9).unwrap();
    assert_eq!(
        all.iter().map(|entry| &entry.record).collect::<Vec<_>>(),
        deeds.iter().collect::<Vec<_>>()
    );
    assert_eq!(all[1].previous, all[0].hash);
    assert_eq!(store.audited(1, 1).unwrap(), all[1..2]);
}

#[test]
fn audit_log_that_was_changed_fails_at_the_entry() {
    let cases = [
        (
            "UPDATE audit SET who = 'eve' WHERE number = 3",
            3,
            "changed",
        ),
        (
            "UPDATE audit SET role = NULL WHERE number = 2",
            2,
            "changed",
        ),
        (
            "UPDATE audit SET at = '2026-01-01T00:00:00Z' WHERE number = 1",
            1,
            "changed",
        ),
        (
            "UPDATE audit SET detail = '{}' WHERE number = 5",
            5,
            "changed",
        ),
        (
            "UPDATE audit SET hash = previous WHERE number = 4",
            4,
            "changed",
        ),
        (
            "UPDATE audit SET previous = hash WHERE number = 4",
            4,
            "does not follow",
        ),
        ("DELETE FROM audit WHERE number = 3", 3, "missing"),
        ("DELETE FROM audit WHERE number = 1", 1, "missing"),
        (
            "UPDATE audit SET number = number + 1 WHERE number = 5",
            5,
            "missing",
        ),
        (
            "UPDATE audit SET number = 9 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3; \
             UPDATE audit SET number = 3 WHERE number = 9",
            2,
            "does not follow",
        ),
    ];
    for (with, number, why) in cases {
        let (_folder, store, heads) = tampered(with);
        let chain = store.verify_audit(None).unwrap();
        let broken = chain.broken.unwrap_or_else(|| panic!("not found: {with}"));
        assert_eq!(broken.number, number, "{with}: {broken:?}");
        assert!(broken.why.contains(why), "{with}: {broken:?}");
        assert_eq!(chain.head.number, number - 1, "{with}");
        if number > 1 {
            assert_eq!(chain.head, heads[number as usize - 2], "{with}");
        }
    }
}

#[test]
fn audit_log_that_was_cut_short_fails_against_a_known_head() {
    let (_folder, store, heads) = tampered("DELETE FROM audit WHERE number > 3");
    let unknown = store.verify_audit(None).unwrap();
    assert_eq!((unknown.head, unknown.broken), (heads[2], None));
    let broken = store.verify_audit(heads.last()).unwrap().broken.unwrap();
    assert_eq!(broken.number, 4, "{broken:?}");
    // Written on as if nothing had happened.
    for number in 3..7 {
        store
            .audit(&deed(&format!("forged {number}"), None))
            .unwrap();
    }
    assert_eq!(store.verify_audit(None).unwrap().broken, None);
    let broken = store.verify_audit(heads.last()).unwrap().broken.unwrap();
    assert_eq!(broken.number, 5, "{broken:?}");
    assert!(broken.why.contains("known"), "{broken:?}");
}

fn exported(store: &SqliteStore) -> String {
    let mut lines = Vec::new();
    store.export(&mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

fn problems(store: &SqliteStore, export: &str) -> Vec<(u64, String)> {
    match store.import(&mut export.as_bytes()) {
        Err(ImportError::Problems(problems)) => problems
            .into_iter()
            .map(|LineProblem { line, what }| (line, what))
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// What a store may be asked to do.
#[derive(Debug, Clone)]
enum Step {
    Put(String, Value),
    Remove(String),
    Run(u64, Option<String>),
    Append(u64, f64, Value),
    Close(u64, Value),
    EnrolledAgent(String, BTreeMap<String, String>),
    JoinTokenRecord(String, Option<String>),
    ApiTokenRecord(String, Option<i64>),
    Set(String, Value),
    Audit(String, Value),
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || "[ab\u{e9}\"\n]{1,2}";
    let step = prop_oneof![
        (name(), values()).prop_map(|(name, document)| Step::Put(name, document)),
        name().prop_map(Step::Remove),
        (0..4_u64, prop::option::of(name())).prop_map(|(run, of)| Step::Run(run, of)),
        (0..4_u64, any::<f64>(), values())
            .prop_map(|(run, elapsed, output)| Step::Append(run, elapsed, output)),
        (0..4_u64, values()).prop_map(|(run, verdict)| Step::Close(run, verdict)),
        (
            name(),
            prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3)
        )
            .prop_map(|(name, labels)| Step::EnrolledAgent(name, labels)),
        (name(), prop::option::of(name())).prop_map(|(id, agent)| Step::JoinTokenRecord(id, agent)),
        (name(), prop::option::of(0..99_i64))
            .prop_map(|(id, expires)| Step::ApiTokenRecord(id, expires)),
        (name(), values()).prop_map(|(name, value)| Step::Set(name, value)),
        (".{0,8}", values()).prop_map(|(what, detail)| Step::Audit(what, detail)),
    ];
    prop::collection::vec(step, 0..40)
}

/// Does it, as far as it may be done: a name may be taken, a run closed.
fn play(store: &SqliteStore, step: Step) {
    let at = Timestamp::new(1_800_000_000, 1).unwrap();
    let done = match step {
        Step::Put(name, document) => store
            .put_experiment(&name, &document, "ada", at)
            .map(|_| ()),
        Step::Remove(name) => store.remove_experiment(&name, "bob", at).map(|_| ()),
        Step::Run(run, of) => store.open_run(&NewRun {
            id: format!("r{run}"),
            experiment: of.map(|name| ExperimentRef { name, version: 1 }),
            title: "A \"title\"\n".into(),
            seed: u64::MAX - run,
            who: "ada".into(),
            because: Trigger::Schedule,
            started: at,
        }),
        Step::Append(run, elapsed, output) => {
            let entry: JournalEntry = serde_json::from_value(json!({
                "at": at, "elapsed": if elapsed.is_finite() { elapsed } else { 0.0 },
                "event": "activity-finished", "phase": "method", "index": 0, "activity": "a",
                "status": "succeeded", "output": output, "took": "1s"
            }))
            .unwrap();
            store.append(&format!("r{run}"), &entry).map(|_| ())
        }
        Step::Close(run, verdict) => store.close_run(
            &format!("r{run}"),
            &RunEnd {
                ended: at,
                outcome: Outcome::NotClean,
                verdict,
            },
        ),
        Step::EnrolledAgent(name, labels) => store.put_agent(&EnrolledAgent {
            name,
            serials: vec!["01".into()],
            labels_by: labels.contains_key("by").then(|| "ada".into()),
            labels,
            enrolled: at,
            revoked: Some(at),
            heard: None,
        }),
        Step::JoinTokenRecord(id, agent) => store.put_join_token(&JoinTokenRecord {
            hash: Hash::of(id.as_bytes()),
            id,
            who: "ada".into(),
            expires: at,
            labels: agent
                .iter()
                .map(|agent| ("agent".to_owned(), agent.clone()))
                .collect(),
            agent,
        }),
        Step::ApiTokenRecord(id, expires) => store.put_api_token(&ApiTokenRecord {
            hash: Hash::of(id.as_bytes()),
            id,
            name: "ci".into(),
            person: "ada".into(),
            teams: ["shop".to_owned()].into(),
            origin: TokenOrigin::Login,
            role: Role::Operator,
            is_blind: false,
            created: at,
            expires: expires.map(|second| Timestamp::new(second, 0).unwrap()),
            revoked: None,
        }),
        Step::Set(name, value) => store.set(&name, &value),
        Step::Audit(what, detail) => store
            .audit(&AuditRecord {
                what,
                detail,
                ..deed("", None)
            })
            .map(|_| ()),
    };
    if let Err(error) = done {
        assert!(
            matches!(
                error.kind,
                StoreErrorKind::NotThere | StoreErrorKind::Conflict
            ),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_of_an_import_has_the_same_bytes(steps in steps()) {
        let (_one, store) = opened();
        for step in steps {
            play(&store, step);
        }
        let first = exported(&store);
        let (_two, other) = opened();
        let records = other.import(&mut first.as_bytes()).unwrap();
        prop_assert_eq!(records as usize, first.lines().count() - 2);
        prop_assert_eq!(exported(&other), first);
        // And it reads the same.
        prop_assert_eq!(other.experiments(None, 99).unwrap(), store.experiments(None, 99).unwrap());
        prop_assert_eq!(other.open_runs().unwrap(), store.open_runs().unwrap());
        for run in store.open_runs().unwrap() {
            let run = run.new.id;
            prop_assert_eq!(other.events(&run, 0, 99).unwrap(), store.events(&run, 0, 99).unwrap());
        }
        prop_assert_eq!(other.agents(None, 99).unwrap(), store.agents(None, 99).unwrap());
        prop_assert_eq!(other.join_tokens().unwrap(), store.join_tokens().unwrap());
        prop_assert_eq!(other.api_tokens().unwrap(), store.api_tokens().unwrap());
        let chain = other.verify_audit(None).unwrap();
        prop_assert_eq!(&chain, &store.verify_audit(None).unwrap());
        prop_assert_eq!(chain.broken, None);
    }
}

const WHOLE: &str = r#"{"kind":"backburn-export","format":2}
{"kind":"experiment","name":"db","version":1,"document":{"n":1.0e3},"who":"ada","at":"2026-01-01T00:00:00Z"}
{"kind":"run","id":"r1","experiment":"db","version":1,"title":"T","seed":"7","who":"ada","because":"asked","started":"2026-01-01T00:00:00Z"}
{"kind":"event","run":"r1","number":1,"entry":{"at":"2026-01-01T00:00:00Z","elapsed":0.10,"event":"run-ended"}}
{"kind":"setting","name":"halt","value":null}
{"kind":"end","records":4}
"#;

#[test]
fn export_has_these_lines() {
    let (_folder, store) = opened();
    assert_eq!(store.import(&mut WHOLE.as_bytes()).unwrap(), 4);
    assert_eq!(exported(&store), WHOLE);
    // The run goes on where it was.
    let entry = &store.events("r1", 0, 9).unwrap()[0].entry;
    assert_eq!(store.append("r1", entry).unwrap(), 2);
}

#[test]
fn import_into_a_store_that_is_not_empty_is_refused() {
    let (_folder, store) = opened();
    store.set("a", &json!(1)).unwrap();
    let before = exported(&store);
    match store.import(&mut WHOLE.as_bytes()) {
        Err(ImportError::Store(error)) => {
            assert_eq!(error.kind, StoreErrorKind::Conflict, "{error}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(exported(&store), before);
}

#[test]
fn import_problems_are_reported_all_at_once() {
    let (_folder, store) = opened();
    let empty = exported(&store);
    let wrong = WHOLE
        .replace(
            r#""at":"2026-01-01T00:00:00Z"}"#,
            r#""at":"yesterday","more":1}"#,
        )
        .replace(r#""because":"asked""#, r#""because":"boredom""#)
        .replace(r#""event":"run-ended""#, r#""event":"run-vanished""#)
        .replace(
            r#"{"kind":"setting","name":"halt","value":null}"#,
            "{\"kind\":\"song\"}\nnonsense",
        )
        .replace(r#""records":4"#, r#""records":3"#);
    let found = problems(&store, &wrong);
    let expected = [
        (2, "`at`: `yesterday` must be a time"),
        (2, "there is no field `more`"),
        (3, "`because`: `boredom` must be"),
        (4, "`entry`: unknown variant"),
        (5, "there is no kind `song`"),
        (6, "it is not a JSON object"),
        (7, "there are 5 records before it"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, what), (expected, begins)) in found.iter().zip(expected) {
        assert!(
            *line == expected && what.starts_with(begins),
            "{line}: {what}"
        );
    }
    assert_eq!(exported(&store), empty, "nothing of it is there");
}

#[test]
fn import_that_is_incomplete_is_refused() {
    let (_folder, store) = opened();
    let cases = [
        (String::new(), 0, "it is empty"),
        (
            WHOLE
                .lines()
                .skip(1)
                .map(|line| format!("{line}\n"))
                .collect(),
            1,
            "it is not an export",
        ),
        (
            WHOLE.replace(r#""format":2"#, r#""format":3"#),
            1,
            "its format is 3",
        ),
        (
            WHOLE
                .lines()
                .take(5)
                .map(|line| format!("{line}\n"))
                .collect(),
            5,
            "the last line is missing",
        ),
        (
            WHOLE.replace(r#""number":1,"#, r#""number":2,"#),
            6,
            "events of run `r1` are missing",
        ),
        (
            WHOLE.replace(r#""number":1,"#, ""),
            4,
            "`number` is missing",
        ),
        (
            WHOLE.replace(r#""run":"r1""#, r#""run":"r2""#),
            4,
            "it conflicts with the lines before it",
        ),
        (
            format!("{WHOLE}{{\"kind\":\"end\",\"records\":4}}\n"),
            7,
            "it comes after the last line",
        ),
    ];
    for (export, line, what) in cases {
        let found = problems(&store, &export);
        let (at, said) = &found[0];
        assert!(
            *at == line && said.starts_with(what),
            "{found:?}, expected {line}: {what}"
        );
    }
    assert_eq!(
        store.import(&mut WHOLE.as_bytes()).unwrap(),
        4,
        "it is empty still"
    );
}
