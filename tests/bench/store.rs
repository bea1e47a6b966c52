//! How many events a second become durable, with one, eight and sixty-four runs that append at once,
//! each waiting for its own: the store beside plain SQLite with a transaction for each row (the same
//! log, the same sync at each commit), in turns, on the disk that the build is on. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench store
//! ```

use backburn::store::{NewRun, SqliteStore, Store, Trigger};
use backburn_experiments::journal::JournalEntry;
use backburn_tests::programs::root;
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

const PRODUCERS: [usize; 3] = [1, 8, 64];
/// How long each measurement takes, and how often it is done.
const SPAN: Duration = Duration::from_millis(700);
const ROUNDS: usize = 11;

fn main() {
    let entry: JournalEntry = serde_json::from_value(json!({
        "at": "2026-01-01T00:00:00.123456789Z", "elapsed": 12.345678901, "event": "sampled",
        "phase": "method", "probe": "the shop answers within 200 ms", "hypothesis": true,
        "judgement": "within", "output": {"status": 200, "headers": {"content-type": "text/plain"}, "body": "ok"},
        "took": "12ms"
    }))
    .expect("an entry");
    let bytes = serde_json::to_vec(&entry).expect("it is JSON").len();
    println!(
        "entries of {bytes} bytes; medians, the least and the most of n = {ROUNDS}, events a second"
    );
    println!(
        "{:10} {:>26} {:>26} {:>7}",
        "producers", "store", "a transaction for each row", "ratio"
    );
    for producers in PRODUCERS {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        // The first round finds nothing in any cache.
        for round in 0..=ROUNDS {
            let store = with_store(producers, &entry);
            let row = with_rows(producers, &entry);
            if round > 0 {
                ours.push(store);
                plain.push(row);
            }
        }
        ours.sort_unstable();
        plain.sort_unstable();
        let shown = |found: &[u64]| {
            let (least, most) = (found[0], found[ROUNDS - 1]);
            format!("{} ({least}–{most})", found[ROUNDS / 2])
        };
        println!(
            "{producers:<10} {:>26} {:>26} {:>7.1}",
            shown(&ours),
            shown(&plain),
            ours[ROUNDS / 2] as f64 / plain[ROUNDS / 2] as f64
        );
    }
}

fn folder() -> tempfile::TempDir {
    let target = root().join("target");
    tempfile::tempdir_in(target).expect("the build has a folder")
}

fn with_store(producers: usize, entry: &JournalEntry) -> u64 {
    let folder = folder();
    let store = SqliteStore::open(folder.path()).expect("it opens");
    for producer in 0..producers {
        let run = NewRun {
            id: format!("run-{producer}"),
            experiment: None,
            title: "Measured".into(),
            seed: 1,
            who: "bench".into(),
            because: Trigger::Asked,
            started: Timestamp::UNIX_EPOCH,
        };
        store.open_run(&run).expect("it is open");
    }
    measure(producers, |producer| {
        let run = format!("run-{producer}");
        let store = &store;
        move || {
            store.append(&run, entry).expect("it is durable");
        }
    })
}

fn with_rows(producers: usize, entry: &JournalEntry) -> u64 {
    let folder = folder();
    let connection = Mutex::new(plain(&folder.path().join("plain.db")));
    measure(producers, |producer| {
        let (connection, mut number) = (&connection, 0_u64);
        move || {
            number += 1;
            let entry = serde_json::to_string(entry).expect("it is JSON");
            let connection = connection.lock().expect("nobody died");
            connection
                .prepare_cached("INSERT INTO events (run, number, entry) VALUES (?1, ?2, ?3)")
                .and_then(|mut insert| insert.execute((producer as i64, number as i64, entry)))
                .expect("it is durable");
        }
    })
}

fn plain(file: &Path) -> Connection {
    let connection = Connection::open(file).expect("it opens");
    for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
        connection
            .pragma_update(None, name, value)
            .expect("it is set");
    }
    connection
        .execute_batch(
            "CREATE TABLE events (run INTEGER, number INTEGER, entry TEXT, PRIMARY KEY (run, number)) WITHOUT ROWID",
        )
        .expect("it is made");
    connection
}

/// How many times a second the producers, each on a thread of its own, do it.
fn measure<F: FnMut() + Send>(producers: usize, make: impl Fn(usize) -> F) -> u64 {
    let (begin, over, done) = (
        Barrier::new(producers + 1),
        AtomicBool::new(false),
        AtomicU64::new(0),
    );
    let took = std::thread::scope(|threads| {
        for producer in 0..producers {
            let mut append = make(producer);
            let (begin, over, done) = (&begin, &over, &done);
            threads.spawn(move || {
                begin.wait();
                let mut appended = 0;
                while !over.load(Ordering::Relaxed) {
                    append();
                    appended += 1;
                }
                done.fetch_add(appended, Ordering::Relaxed);
            });
        }
        begin.wait();
        let began = Instant::now();
        std::thread::sleep(SPAN);
        over.store(true, Ordering::Relaxed);
        began
    })
    .elapsed();
    (done.into_inner() as f64 / took.as_secs_f64()) as u64
}
