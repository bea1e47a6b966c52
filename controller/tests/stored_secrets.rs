//! Secrets that a document writes out: stored apart, run with, and shown or exported to nobody who does not ask for them.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::store::{SqliteStore, Store, missing_secrets};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;

const SECRET: &str = "hunter2-is-the-secret";

fn document(secret: &str) -> Value {
    json!({
        "title": "t", "description": "d", "secrets": {"shop": {"token": secret, "file": {"type": "file", "path": "/f"}}},
        "method": [{"type": "probe", "name": "p", "secrets": {"own": secret},
            "provider": {"type": "python", "module": "m", "func": "f"}}],
    })
}

fn opened() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    (folder, store)
}

fn exported(store: &SqliteStore, with_secrets: bool) -> String {
    let mut lines = Vec::new();
    match with_secrets {
        true => store.export_with_secrets(&mut lines).unwrap(),
        false => store.export(&mut lines).unwrap(),
    }
    String::from_utf8(lines).unwrap()
}

/// How often a text is in the files of this folder.
fn count_in(folder: &Path, text: &str) -> usize {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let counts = files.map(|entry| {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        bytes
            .windows(text.len())
            .filter(|window| *window == text.as_bytes())
            .count()
    });
    counts.sum()
}

#[test]
fn document_with_secrets_is_returned_without_them_and_run_with_them() {
    let (_folder, store) = opened();
    let put = |secret: &str| {
        let at = Timestamp::UNIX_EPOCH;
        store
            .put_experiment("x", &document(secret), "ada", at)
            .unwrap()
    };
    assert_eq!(put(SECRET).version, 1);
    let shown = store.experiment("x", None).unwrap().document;
    assert!(!shown.to_string().contains(SECRET), "{shown}");
    assert_eq!(shown["secrets"]["shop"]["token"], json!({"type": "stored"}));
    assert_eq!(
        shown["secrets"]["shop"]["file"],
        json!({"type": "file", "path": "/f"})
    );
    let listed = format!("{:?}", store.experiments(None, 9).unwrap());
    assert!(!listed.contains(SECRET), "{listed}");
    let whole = store.experiment_with_secrets("x", None).unwrap().document;
    assert_eq!(whole, document(SECRET));
    // The same again is no new version, and another secret is.
    assert!(!put(SECRET).changed);
    assert_eq!(put("another").version, 2);
    let first = store
        .experiment_with_secrets("x", Some(1))
        .unwrap()
        .document;
    assert_eq!(first, document(SECRET));
}

#[test]
fn export_without_secrets_imports_as_an_experiment_that_lacks_them() {
    let (_folder, store) = opened();
    let at = Timestamp::UNIX_EPOCH;
    store
        .put_experiment("x", &document(SECRET), "ada", at)
        .unwrap();
    let without = exported(&store, false);
    assert!(!without.contains(SECRET), "{without}");
    let (_other_folder, other) = opened();
    other.import(&mut without.as_bytes()).unwrap();
    let imported = other.experiment_with_secrets("x", None).unwrap().document;
    let missing: Vec<String> = missing_secrets(&imported)
        .into_iter()
        .map(|secret| secret.at)
        .collect();
    assert_eq!(missing, ["$.secrets.shop.token", "$.method[0].secrets.own"]);
    let with = exported(&store, true);
    assert!(with.contains(SECRET));
    let (_third_folder, third) = opened();
    third.import(&mut with.as_bytes()).unwrap();
    let imported = third.experiment_with_secrets("x", None).unwrap().document;
    assert_eq!(imported, document(SECRET));
    assert_eq!(exported(&third, true), with);
}

#[test]
fn export_of_an_earlier_version_is_imported_with_its_secrets_apart() {
    let line = json!({"kind": "experiment", "name": "x", "version": 1, "document": document(SECRET), "who": "ada", "at": "2026-01-01T00:00:00Z"});
    let export = format!(
        "{}\n{line}\n{}\n",
        json!({"kind": "backburn-export", "format": 1}),
        json!({"kind": "end", "records": 1})
    );
    let (_folder, store) = opened();
    store.import(&mut export.as_bytes()).unwrap();
    let shown = store.experiment("x", None).unwrap().document;
    assert!(!shown.to_string().contains(SECRET), "{shown}");
    let whole = store.experiment_with_secrets("x", None).unwrap().document;
    assert_eq!(whole, document(SECRET));
    assert!(!exported(&store, false).contains(SECRET));
}

#[test]
fn store_of_an_earlier_version_is_migrated_with_its_secrets_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(include_str!("fixtures/store-1.sql"))
        .unwrap();
    let removed = json!({"title": SECRET.repeat(400)}).to_string();
    for (version, text) in [(7, document(SECRET).to_string()), (8, removed)] {
        let insert = "INSERT INTO experiments (name, version, document, who, at) VALUES ('x', ?1, ?2, 'ada', '2026-01-01T00:00:00Z')";
        database
            .execute(insert, rusqlite::params![version, text])
            .unwrap();
    }
    database
        .execute("DELETE FROM experiments WHERE version = 8", [])
        .unwrap();
    drop(database);
    let store = SqliteStore::open(folder.path()).unwrap();
    let shown = store.experiment("x", Some(7)).unwrap().document;
    assert!(!shown.to_string().contains(SECRET), "{shown}");
    let whole = store.experiment_with_secrets("x", None).unwrap().document;
    assert_eq!(whole, document(SECRET));
    drop(store);
    // The two places of the document, and nothing of what was deleted or moved.
    assert_eq!(count_in(folder.path(), SECRET), 2);
}
