//! The store, as whoever uses it sees it: what it keeps, what it refuses, and that many may write at once.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::store::{
    ApiTokenRecord, EnrolledAgent, ExperimentRecord, ExperimentRef, Hash, JoinTokenRecord, NewRun,
    Role, RunEnd, RunFilter, SqliteStore, Store, StoreError, StoreErrorKind, TokenOrigin, Trigger,
};
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + second, 123_456_789).unwrap()
}

fn opened() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state/store")).unwrap();
    (folder, store)
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}

fn new_run(id: &str) -> NewRun {
    NewRun {
        id: id.into(),
        experiment: None,
        title: "A title".into(),
        seed: u64::MAX,
        who: "ada".into(),
        because: Trigger::Asked,
        started: at(0),
    }
}

fn end(outcome: Outcome) -> RunEnd {
    RunEnd {
        ended: at(9),
        outcome,
        verdict: json!({"outcome": outcome, "why": ["it is so"]}),
    }
}

/// An entry whose text tells it from every other.
fn entry(text: &str) -> JournalEntry {
    serde_json::from_value(json!({
        "at": at(1), "elapsed": 0.1, "event": "agent-lost", "agent": "a", "reason": text
    }))
    .unwrap()
}

fn reason(entry: &JournalEntry) -> String {
    serde_json::to_value(entry).unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn experiment_changes_and_removals_make_versions() {
    let (_folder, store) = opened();
    let first = json!({"title": "One", "method": []});
    let second = json!({"title": "Two", "method": []});
    let put = |document: &Value, second| store.put_experiment("db", document, "ada", at(second));
    let put = |document, second| put(document, second).map(|put| (put.version, put.changed));
    assert_eq!(put(&first, 1).unwrap(), (1, true));
    assert_eq!(put(&first, 2).unwrap(), (1, false), "the same again");
    assert_eq!(put(&second, 3).unwrap(), (2, true));
    let expected = ExperimentRecord {
        name: "db".into(),
        version: 2,
        document: second.clone(),
        who: "ada".into(),
        at: at(3),
    };
    assert_eq!(store.experiment("db", None).unwrap(), expected);
    assert_eq!(store.experiment("db", Some(1)).unwrap().document, first);
    assert_eq!(
        kind(store.experiment("db", Some(3))),
        StoreErrorKind::NotThere
    );

    assert_eq!(store.remove_experiment("db", "bob", at(4)).unwrap(), 3);
    assert_eq!(
        kind(store.remove_experiment("db", "bob", at(5))),
        StoreErrorKind::NotThere
    );
    assert_eq!(kind(store.experiment("db", None)), StoreErrorKind::NotThere);
    assert_eq!(store.experiments(None, 10).unwrap(), []);
    assert_eq!(store.experiment("db", Some(2)).unwrap().document, second);
    assert_eq!(put(&second, 6).unwrap(), (4, true), "it can be put again");
    let history = store.experiment_versions("db").unwrap();
    let history: Vec<_> = history
        .iter()
        .map(|step| (step.version, step.who.as_str(), step.at, step.removed))
        .collect();
    let expected = [
        (1, "ada", at(1), false),
        (2, "ada", at(3), false),
        (3, "bob", at(4), true),
        (4, "ada", at(6), false),
    ];
    assert_eq!(history, expected);
    assert_eq!(
        kind(store.experiment_versions("other")),
        StoreErrorKind::NotThere
    );
}

/// A process's arguments may be an object, and are then its keys and values in turn.
#[test]
fn experiment_with_another_order_of_keys_is_another_version() {
    let (_folder, store) = opened();
    for (text, version) in [
        (r#"{"a":1,"b":2}"#, 1),
        (r#"{ "a": 1, "b": 2 }"#, 1),
        (r#"{"b":2,"a":1}"#, 2),
    ] {
        let document: Value = serde_json::from_str(text).unwrap();
        let put = store.put_experiment("db", &document, "ada", at(0)).unwrap();
        assert_eq!(put.version, version, "{text}");
    }
}

#[test]
fn experiments_are_listed_in_pages() {
    let (_folder, store) = opened();
    for name in ["d", "a", "c", "b"] {
        for title in ["old", "new"] {
            let document = json!({"title": title});
            store.put_experiment(name, &document, "ada", at(0)).unwrap();
        }
    }
    store.remove_experiment("b", "ada", at(0)).unwrap();
    let page = |after, limit| {
        let found = store.experiments(after, limit).unwrap();
        assert!(found.iter().all(|found| found.document["title"] == "new"));
        found
            .into_iter()
            .map(|found| found.name)
            .collect::<String>()
    };
    assert_eq!(page(None, 2), "ac");
    assert_eq!(page(Some("c"), 2), "d");
    assert_eq!(page(Some("d"), 2), "");
}

#[test]
fn run_is_opened_written_and_closed() {
    let (_folder, store) = opened();
    store
        .put_experiment("db", &json!({}), "ada", at(0))
        .unwrap();
    let of = |version| {
        let name = "db".into();
        Some(ExperimentRef { name, version })
    };
    let run = NewRun {
        experiment: of(1),
        because: Trigger::Schedule,
        ..new_run("r1")
    };
    let of_none = NewRun {
        experiment: of(2),
        ..new_run("r2")
    };
    assert_eq!(kind(store.open_run(&of_none)), StoreErrorKind::NotThere);
    store.open_run(&run).unwrap();
    assert_eq!(kind(store.open_run(&run)), StoreErrorKind::Conflict);
    for (index, text) in ["one", "two", "three"].into_iter().enumerate() {
        assert_eq!(store.append("r1", &entry(text)).unwrap(), index as u64 + 1);
    }
    assert_eq!(
        kind(store.append("r2", &entry("x"))),
        StoreErrorKind::NotThere
    );
    let more = ["four", "five"].map(entry);
    store.append_all("r1", &more).unwrap();
    assert_eq!(
        kind(store.append_all("r2", &more)),
        StoreErrorKind::NotThere
    );
    let events = |after, limit| {
        let found = store.events("r1", after, limit).unwrap();
        let found = found
            .iter()
            .map(|event| (event.number, reason(&event.entry)));
        found.collect::<Vec<_>>()
    };
    assert_eq!(events(1, 1), [(2, "two".to_owned())]);
    assert_eq!(events(0, 9).len(), 5);
    assert_eq!(
        events(3, 9),
        [(4, "four".to_owned()), (5, "five".to_owned())]
    );
    assert_eq!(events(u64::MAX, 9), []);
    assert_eq!(kind(store.events("r2", 0, 9)), StoreErrorKind::NotThere);

    let open = store.open_runs().unwrap();
    assert_eq!((open.len(), &open[0].new, open[0].events), (1, &run, 5));
    store.close_run("r1", &end(Outcome::NotClean)).unwrap();
    assert_eq!(
        kind(store.close_run("r1", &end(Outcome::Held))),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.close_run("r2", &end(Outcome::Held))),
        StoreErrorKind::NotThere
    );
    assert_eq!(
        kind(store.append("r1", &entry("late"))),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.append_all("r1", &more)),
        StoreErrorKind::Conflict
    );
    assert_eq!(store.open_runs().unwrap(), []);
    let closed = store.run("r1").unwrap();
    assert_eq!(
        (closed.new, closed.end),
        (run, Some(end(Outcome::NotClean)))
    );
    assert_eq!(kind(store.run("r2")), StoreErrorKind::NotThere);
}

#[test]
fn runs_are_filtered_and_listed_in_pages() {
    let (_folder, store) = opened();
    store
        .put_experiment("db", &json!({}), "ada", at(0))
        .unwrap();
    for number in 0..6 {
        let experiment = (number % 2 == 0).then(|| ExperimentRef {
            name: "db".into(),
            version: 1,
        });
        let id = format!("r{number}");
        let run = NewRun {
            experiment,
            ..new_run(&id)
        };
        store.open_run(&run).unwrap();
        match number {
            0 | 1 => store.close_run(&id, &end(Outcome::Held)).unwrap(),
            2 | 3 => store.close_run(&id, &end(Outcome::NotStarted)).unwrap(),
            _ => {}
        }
    }
    let list = |filter: &RunFilter, before, limit| {
        let found = store.runs(filter, before, limit).unwrap();
        let ids: Vec<String> = found.into_iter().map(|run| run.new.id).collect();
        ids.join(" ")
    };
    let all = RunFilter::default();
    assert_eq!(list(&all, None, 4), "r5 r4 r3 r2");
    assert_eq!(list(&all, Some("r2"), 4), "r1 r0");
    assert_eq!(
        kind(store.runs(&all, Some("r9"), 4)),
        StoreErrorKind::NotThere
    );
    let of = RunFilter {
        experiment: Some("db".into()),
        ..all.clone()
    };
    assert_eq!(list(&of, None, 9), "r4 r2 r0");
    assert_eq!(list(&of, Some("r4"), 1), "r2");
    let outcome = RunFilter {
        outcome: Some(Outcome::NotStarted),
        ..all.clone()
    };
    assert_eq!(list(&outcome, None, 9), "r3 r2");
    let open = |open| RunFilter {
        open: Some(open),
        ..of.clone()
    };
    assert_eq!(list(&open(true), None, 9), "r4");
    assert_eq!(list(&open(false), None, 9), "r2 r0");
    let open: Vec<String> = store
        .open_runs()
        .unwrap()
        .into_iter()
        .map(|run| run.new.id)
        .collect();
    assert_eq!(open, ["r4", "r5"]);
}

#[test]
fn runs_closed_long_ago_are_deleted_one_by_one() {
    let (_folder, store) = opened();
    // The last two digits of a second are left out where they are none: text is in another order than time.
    let ends = [
        Some((9, 0)),
        None,
        Some((3, 0)),
        Some((5, 123_000_000)),
        Some((5, 0)),
    ];
    for (number, ended) in ends.into_iter().enumerate() {
        let id = format!("r{number}");
        store.open_run(&new_run(&id)).unwrap();
        store.append(&id, &entry(&id)).unwrap();
        let Some((second, nanosecond)) = ended else {
            continue;
        };
        let ended = Timestamp::new(1_800_000_000 + second, nanosecond).unwrap();
        let end = RunEnd {
            ended,
            ..end(Outcome::Held)
        };
        store.close_run(&id, &end).unwrap();
    }
    let forgotten = |second| store.forget_run(at(second)).unwrap();
    assert_eq!(forgotten(3), None);
    assert_eq!(forgotten(6).as_deref(), Some("r2"));
    assert_eq!(forgotten(5), None);
    assert_eq!(forgotten(6).as_deref(), Some("r3"));
    assert_eq!(forgotten(6).as_deref(), Some("r4"));
    assert_eq!(forgotten(6), None);
    assert_eq!(kind(store.events("r2", 0, 9)), StoreErrorKind::NotThere);
    assert_eq!(forgotten(1000).as_deref(), Some("r0"));
    // One that is open is kept, whenever it was opened, and goes on.
    assert_eq!(forgotten(1000), None);
    store.append("r1", &entry("more")).unwrap();
    let events = store.events("r1", 0, 9).unwrap();
    let events: Vec<String> = events.iter().map(|event| reason(&event.entry)).collect();
    assert_eq!(events, ["r1", "more"]);
    store.open_run(&new_run("r2")).unwrap();
    assert_eq!(store.run("r2").unwrap().events, 0);
}

#[test]
fn agents_are_stored_listed_and_revoked() {
    let (_folder, store) = opened();
    let agent = |name: &str, zone: &str| EnrolledAgent {
        name: name.into(),
        serials: vec!["0a".into(), "0b".into()],
        labels: [("zone".to_owned(), zone.to_owned())].into(),
        labels_by: (zone == "y").then(|| "ada".into()),
        enrolled: at(0),
        revoked: None,
        heard: None,
    };
    for agent in [agent("b", "x"), agent("a", "x"), agent("b", "y")] {
        store.put_agent(&agent).unwrap();
    }
    assert_eq!(
        store.agents(None, 9).unwrap(),
        [agent("a", "x"), agent("b", "y")]
    );
    assert_eq!(store.agents(Some("a"), 9).unwrap(), [agent("b", "y")]);
    for second in [5, 6] {
        store.revoke_agent("b", at(second)).unwrap();
    }
    assert_eq!(store.agent("b").unwrap().revoked, Some(at(5)));
    assert_eq!(kind(store.agent("c")), StoreErrorKind::NotThere);
    assert_eq!(
        kind(store.revoke_agent("c", at(0))),
        StoreErrorKind::NotThere
    );
}

#[test]
fn join_token_is_used_up_once() {
    let (_folder, store) = opened();
    let token = |id: &str| JoinTokenRecord {
        id: id.into(),
        hash: Hash::of(b"secret"),
        who: "ada".into(),
        expires: at(10),
        agent: Some("a".into()),
        labels: [("role".to_owned(), "db".to_owned())].into(),
    };
    for id in ["one", "two", "three"] {
        store.put_join_token(&token(id)).unwrap();
    }
    assert_eq!(
        kind(store.put_join_token(&token("one"))),
        StoreErrorKind::Conflict
    );
    let take = |id: &str, secret: &[u8], now| store.take_join_token(id, &Hash::of(secret), at(now));
    assert_eq!(kind(take("one", b"guess", 0)), StoreErrorKind::NotThere);
    assert_eq!(kind(take("none", b"secret", 0)), StoreErrorKind::NotThere);
    assert_eq!(
        kind(take("one", b"secret", 10)),
        StoreErrorKind::NotThere,
        "expired"
    );
    let taken: Vec<_> = std::thread::scope(|threads| {
        let takers: Vec<_> = (0..8)
            .map(|_| threads.spawn(|| take("one", b"secret", 9)))
            .collect();
        takers
            .into_iter()
            .filter_map(|taker| taker.join().unwrap().ok())
            .collect()
    });
    assert_eq!(taken, [token("one")]);
    store.remove_join_token("two").unwrap();
    assert_eq!(
        kind(store.remove_join_token("two")),
        StoreErrorKind::NotThere
    );
    assert_eq!(store.join_tokens().unwrap(), [token("three")]);
}

#[test]
fn api_tokens_are_stored_and_revoked() {
    let (_folder, store) = opened();
    let token = |id: &str, role| ApiTokenRecord {
        id: id.into(),
        hash: Hash::of(id.as_bytes()),
        name: "ci".into(),
        person: "ada".into(),
        teams: BTreeSet::new(),
        origin: TokenOrigin::Made,
        role,
        is_blind: false,
        created: at(0),
        expires: Some(at(100)),
        revoked: None,
    };
    let tokens = [
        token("a", Role::Admin),
        token("b", Role::Viewer),
        token("d", Role::Admin),
    ];
    for token in &tokens {
        store.put_api_token(token).unwrap();
    }
    assert_eq!(
        kind(store.put_api_token(&tokens[0])),
        StoreErrorKind::Conflict
    );
    assert_eq!(store.api_tokens().unwrap(), tokens);
    for second in [5, 6] {
        store.revoke_api_token("a", at(second)).unwrap();
    }
    let revoked = ApiTokenRecord {
        revoked: Some(at(5)),
        ..tokens[0].clone()
    };
    assert_eq!(store.api_token("a").unwrap(), revoked);
    assert_eq!(kind(store.api_token("c")), StoreErrorKind::NotThere);
    assert_eq!(
        kind(store.revoke_api_token("c", at(0))),
        StoreErrorKind::NotThere
    );
}

#[test]
fn last_admin_cannot_be_revoked() {
    let (_folder, store) = opened();
    let put = |id: &str, person: &str, role, expires: Option<i64>, origin| {
        let token = ApiTokenRecord {
            id: id.into(),
            hash: Hash::of(id.as_bytes()),
            name: id.into(),
            person: person.into(),
            teams: BTreeSet::new(),
            origin,
            role,
            is_blind: false,
            created: at(0),
            expires: expires.map(at),
            revoked: None,
        };
        store.put_api_token(&token).unwrap();
    };
    put("a", "ada", Role::Admin, None, TokenOrigin::Made);
    put("b", "ada", Role::Operator, None, TokenOrigin::Made);
    // None of these keeps the fleet manageable: expired, of a log-in, or of another role.
    put("c", "bob", Role::Admin, Some(5), TokenOrigin::Made);
    put("d", "cyd", Role::Admin, None, TokenOrigin::Login);
    put("e", "dan", Role::Operator, None, TokenOrigin::Made);
    let refused = store.revoke_api_token("a", at(10)).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Conflict);
    assert!(refused.what.contains("without token `a`"), "{refused}");
    assert_eq!(
        kind(store.revoke_person("ada", at(10))),
        StoreErrorKind::Conflict
    );
    assert_eq!(store.api_token("b").unwrap().revoked, None, "all or none");
    // Others can be, and the last one as soon as there is another.
    assert_eq!(store.revoke_person("dan", at(10)).unwrap(), ["e"]);
    store.revoke_api_token("d", at(10)).unwrap();
    put("f", "eve", Role::Admin, Some(20), TokenOrigin::BreakGlass);
    assert_eq!(store.revoke_person("ada", at(10)).unwrap(), ["a", "b"]);
    assert_eq!(
        kind(store.revoke_api_token("f", at(11))),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.revoke_person("nobody", at(0))),
        StoreErrorKind::NotThere
    );
    assert_eq!(
        store.revoke_person("ada", at(12)).unwrap(),
        [""; 0],
        "again"
    );
}

#[test]
fn settings_survive_a_restart() {
    let (folder, store) = opened();
    assert_eq!(store.setting("halt").unwrap(), None);
    for value in [json!({"halted": true}), Value::Null, json!([1.5])] {
        store.set("halt", &value).unwrap();
        assert_eq!(store.setting("halt").unwrap(), Some(value));
    }
    drop(store);
    let store = SqliteStore::open(&folder.path().join("state/store")).unwrap();
    assert_eq!(store.setting("halt").unwrap(), Some(json!([1.5])));
}

#[test]
fn concurrent_appends_get_distinct_numbers() {
    const THREADS: usize = 16;
    const EACH: usize = 60;
    let (_folder, store) = opened();
    for run in 0..4 {
        store.open_run(&new_run(&format!("r{run}"))).unwrap();
    }
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let store = &store;
            threads.spawn(move || {
                let run = format!("r{}", thread % 4);
                let mut last = 0;
                for index in 0..EACH {
                    let text = format!("{thread}-{index}");
                    let number = store.append(&run, &entry(&text)).unwrap();
                    assert!(number > last, "{number} after {last}");
                    last = number;
                    // It is there for whoever looks, at once.
                    let found = store.events(&run, number - 1, 1).unwrap();
                    assert_eq!((found[0].number, reason(&found[0].entry)), (number, text));
                    // A write that fails takes no other with it.
                    assert_eq!(
                        kind(store.append("none", &entry("x"))),
                        StoreErrorKind::NotThere
                    );
                    assert_eq!(
                        kind(store.open_run(&new_run("r0"))),
                        StoreErrorKind::Conflict
                    );
                }
            });
        }
    });
    for run in 0..4 {
        let events = store.events(&format!("r{run}"), 0, u32::MAX).unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
        assert_eq!(
            numbers,
            (1..=(THREADS / 4 * EACH) as u64).collect::<Vec<_>>()
        );
    }
}
