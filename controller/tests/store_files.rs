//! The store's files: whose they are, who may hold them, what comes of damaged, old and newer ones.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::store::{NewRun, Role, SqliteStore, Store, StoreErrorKind, TokenOrigin, Trigger};
use backburn_experiments::journal::{JournalEntry, Outcome};
use jiff::Timestamp;
use serde_json::json;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn opened() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state/store")).unwrap();
    (folder, store)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn store_files_are_readable_by_the_owner_only() {
    let (folder, store) = opened();
    store.set("a", &json!(1)).unwrap();
    let store_folder = folder.path().join("state/store");
    assert_eq!(mode(&folder.path().join("state")), 0o700);
    assert_eq!(mode(&store_folder), 0o700);
    let files: Vec<_> = std::fs::read_dir(&store_folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(
        files.len() >= 4,
        "database, log, its index and lock: {files:?}"
    );
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn store_in_use_refuses_a_second_controller() {
    let (folder, store) = opened();
    let path = folder.path().join("state/store");
    let refused = SqliteStore::open(&path).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Locked);
    assert!(
        refused.what.contains("only one controller may use a store"),
        "{refused}"
    );
    assert!(refused.hint.is_some());
    drop(store);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn store_in_use_can_be_shared_by_a_command_on_its_host() {
    let (folder, store) = opened();
    let path = folder.path().join("state/store");
    let shared = SqliteStore::open_shared(&path).unwrap();
    shared.set("from", &json!("beside")).unwrap();
    assert_eq!(store.setting("from").unwrap(), Some(json!("beside")));
    store.set("from", &json!("controller")).unwrap();
    assert_eq!(shared.setting("from").unwrap(), Some(json!("controller")));
    drop(shared);
    // The controller's lock is still held.
    let refused = SqliteStore::open(&path).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Locked);
    drop(store);
    // Nothing is created where no store is.
    let nowhere = folder.path().join("nowhere");
    let refused = SqliteStore::open_shared(&nowhere).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotThere);
    assert!(!nowhere.exists());
}

#[test]
fn store_that_is_damaged_is_reported_as_damaged() {
    let (folder, store) = opened();
    let file = folder.path().join("state/store/store.db");
    let run = NewRun {
        id: "r1".into(),
        experiment: None,
        title: "A title".into(),
        seed: 1,
        who: "ada".into(),
        because: Trigger::Asked,
        started: Timestamp::UNIX_EPOCH,
    };
    store.open_run(&run).unwrap();
    for number in 0..200 {
        let entry: JournalEntry = serde_json::from_value(json!({
            "at": Timestamp::UNIX_EPOCH, "elapsed": 0.1, "event": "agent-lost", "agent": "a",
            "reason": format!("{number} {}", "x".repeat(500))
        }))
        .unwrap();
        store.append("r1", &entry).unwrap();
    }
    drop(store);
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 20 * 4096, "the log went into the file");

    // Pages in the middle: found where they are read.
    let mut damaged = whole.clone();
    let middle = whole.len() - 12 * 4096;
    damaged[middle..middle + 8 * 4096].fill(0x5a);
    std::fs::write(&file, &damaged).unwrap();
    let store = SqliteStore::open(file.parent().unwrap()).unwrap();
    let error = store.events("r1", 0, 1000).unwrap_err();
    assert_eq!(
        error.kind,
        StoreErrorKind::Corrupt,
        "{error}: {:?}",
        error.source()
    );
    assert!(error.hint.is_some() && error.source().is_some());
    drop(store);

    // The beginning: found when it is opened.
    let mut damaged = whole;
    damaged[..16].fill(0x5a);
    std::fs::write(&file, &damaged).unwrap();
    let error = SqliteStore::open(file.parent().unwrap()).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    assert!(error.what.contains("not a database"), "{error}");
}

/// Written by the first version of the program; what comes after must go on reading it.
#[test]
fn store_of_version_1_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = include_str!("fixtures/store-1.sql");
    rusqlite::Connection::open(folder.path().join("store.db"))
        .unwrap()
        .execute_batch(fixture)
        .unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let run = store.run("20260101-run").unwrap();
    assert_eq!((run.new.seed, run.events), (u64::MAX, 2));
    assert_eq!(run.end.unwrap().outcome, Outcome::Held);
    assert_eq!(store.events("20260101-run", 0, 9).unwrap().len(), 2);
    assert_eq!(
        store.experiment("db", None).unwrap().document["title"],
        "Slow database"
    );
    assert_eq!(store.agents(None, 9).unwrap()[0].labels["zone"], "a");
    assert_eq!(store.join_tokens().unwrap().len(), 1);
    let token = &store.api_tokens().unwrap()[0];
    assert_eq!(token.role, Role::Operator);
    // Tokens belonged to nobody in particular, and were for all teams.
    assert_eq!((token.person.as_str(), token.teams.len()), ("ci", 0));
    assert_eq!(token.origin, TokenOrigin::Made);
    assert_eq!(
        store.setting("halt").unwrap(),
        Some(json!({"halted": false}))
    );
    let chain = store.verify_audit(None).unwrap();
    assert_eq!((chain.head.number, chain.broken), (2, None));
}

#[test]
fn store_of_a_newer_version_is_refused() {
    let (folder, store) = opened();
    let path = folder.path().join("state/store");
    drop(store);
    let connection = rusqlite::Connection::open(path.join("store.db")).unwrap();
    connection
        .pragma_update(None, "user_version", 4711)
        .unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Newer);
    assert!(refused.what.contains("4711"), "{refused}");
}
