//! The store under `kill -9` and on a full disk: whatever it has acknowledged is there afterwards.

use backburn::store::{
    AuditHead, AuditRecord, NewRun, SqliteStore, Store, StoreErrorKind, Trigger,
};
use backburn_experiments::journal::JournalEntry;
use backburn_tests::isolated::{in_namespaces, test_name};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Set for the child that is to be killed: where its store is, and the name of its runs.
const FOLDER: &str = "BACKBURN_TEST_STORE";
const ROUND: &str = "BACKBURN_TEST_ROUND";

const KILLS: u64 = 20;
const THREADS: usize = 4;

fn run(id: &str) -> NewRun {
    NewRun {
        id: id.into(),
        experiment: None,
        title: "To be killed".into(),
        seed: 1,
        who: "test".into(),
        because: Trigger::Asked,
        started: Timestamp::UNIX_EPOCH,
    }
}

fn entry(text: &str) -> JournalEntry {
    serde_json::from_value(json!({
        "at": Timestamp::UNIX_EPOCH, "elapsed": 0.0, "event": "agent-lost", "agent": "a", "reason": text
    }))
    .expect("an entry")
}

fn deed(text: &str) -> AuditRecord {
    AuditRecord {
        at: Timestamp::UNIX_EPOCH,
        who: "test".into(),
        role: None,
        what: text.into(),
        about: "store".into(),
        outcome: "done".into(),
        detail: json!({}),
    }
}

/// Writes as fast as it can, from several threads, and prints what was acknowledged.
fn write_until_killed(folder: &Path, round: &str) {
    let store = SqliteStore::open(folder).expect("it opens");
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let store = &store;
            threads.spawn(move || {
                let id = format!("{round}-{thread}");
                store.open_run(&run(&id)).expect("it is open");
                println!("opened {id}");
                for index in 0.. {
                    let text = format!("{index}-{}", "x".repeat(index % 700));
                    let number = store.append(&id, &entry(&text)).expect("it is durable");
                    println!("appended {id} {number} {text}");
                }
            });
        }
        for index in 0.. {
            let head = store
                .audit(&deed(&format!("{round} {index}")))
                .expect("it is durable");
            println!("audited {} {}", head.number, head.hash);
        }
    });
}

/// What a store has acknowledged.
#[derive(Default)]
struct Acknowledged {
    events: BTreeMap<String, BTreeMap<u64, String>>,
    head: Option<AuditHead>,
}

impl Acknowledged {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["opened", run] => {
                self.events.entry((*run).to_owned()).or_default();
            }
            ["appended", run, number, text] => {
                let number = number.parse().expect("a number");
                let events = self.events.entry((*run).to_owned()).or_default();
                assert_eq!(events.insert(number, (*text).to_owned()), None, "{line}");
            }
            ["audited", number, hash] => {
                let number = number.parse().expect("a number");
                let hash = hash.parse().expect("a hash");
                self.head = Some(AuditHead { number, hash });
            }
            // What the test's own program says about tests.
            _ => {}
        }
    }

    /// That all of it is there, whole, and without gaps.
    fn is_in(&self, store: &SqliteStore) {
        for (run, acknowledged) in &self.events {
            let found = store.events(run, 0, u32::MAX).expect("the run is there");
            for (index, event) in found.iter().enumerate() {
                assert_eq!(event.number, index as u64 + 1, "{run} has no gap");
            }
            for (number, text) in acknowledged {
                let event = found.get(*number as usize - 1);
                let event = event.unwrap_or_else(|| panic!("{run} has lost {number}"));
                let event = serde_json::to_value(&event.entry).expect("it is JSON");
                assert_eq!(event["reason"], *text, "{run} {number}");
            }
        }
        let chain = store.verify_audit(self.head.as_ref()).expect("it is read");
        assert_eq!(chain.broken, None);
    }
}

/// Kills a child after so many acknowledgements and a little more.
fn kill_after(lines: usize, more: Duration, folder: &Path, round: u64, all: &mut Acknowledged) {
    let own = std::env::current_exe().expect("a test knows its own program");
    let mut child = Command::new(own)
        .args([&*test_name(), "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut line, mut seen) = (String::new(), 0);
    let mut killed = false;
    loop {
        line.clear();
        let length = output.read_line(&mut line).expect("a pipe is read");
        if length == 0 {
            break;
        }
        // A line that was cut short was not said.
        if let Some(line) = line.strip_suffix('\n') {
            all.line(line);
            seen += 1;
        }
        if seen == lines && !killed {
            std::thread::sleep(more);
            child.kill().expect("it is killed");
            killed = true;
        }
    }
    let status = child.wait().expect("it has ended");
    assert!(killed, "it ended by itself: {status}");
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        return write_until_killed(Path::new(&folder), &round);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut all = Acknowledged::default();
    for round in 0..KILLS {
        // Spread over the beginning, the first commits and the first checkpoints, and over a commit's parts.
        let lines = 5 + (round * round * 3) as usize;
        let more = Duration::from_micros(round * 7919 % 1500);
        kill_after(lines, more, folder.path(), round, &mut all);
        let store = SqliteStore::open(folder.path()).expect("it opens again");
        all.is_in(&store);
        let open = store.open_runs().expect("they are listed").len();
        assert!(open >= all.events.len(), "{open} runs were cut short");
    }
    let events: usize = all.events.values().map(BTreeMap::len).sum();
    assert!(
        events > 1000,
        "{events} events are enough to prove something"
    );
    assert!(all.head.is_some());
}

fn mount(size: &str, folder: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", size, "none"])
        .arg(folder)
        .status();
    assert!(mounted.is_ok_and(|status| status.success()), "mount {size}");
}

#[test]
fn full_disk_loses_nothing_and_is_recovered_from() {
    in_namespaces(&["unshare", "mount"], || {
        let folder = tempfile::tempdir().expect("a folder");
        mount("size=3m", folder.path());
        let ballast = folder.path().join("ballast");
        std::fs::write(&ballast, vec![0; 1 << 20]).expect("there is room");
        let state = folder.path().join("store");
        let store = SqliteStore::open(&state).expect("it opens");
        for thread in 0..THREADS {
            store
                .open_run(&run(&format!("r{thread}")))
                .expect("it is open");
        }
        let acknowledged = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for thread in 0..THREADS {
                let (store, acknowledged) = (&store, &acknowledged);
                threads.spawn(move || {
                    let id = format!("r{thread}");
                    let error = loop {
                        match store.append(&id, &entry(&"x".repeat(900))) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Err(error) => break error,
                        };
                    };
                    assert_eq!(error.kind, StoreErrorKind::Full, "{error:?}");
                    assert!(error.what.contains("the disk is full"), "{error}");
                    assert!(error.hint.is_some());
                });
            }
        });
        let acknowledged = acknowledged.into_inner();
        assert!(acknowledged > 20, "{acknowledged} fitted");
        let count = |store: &SqliteStore| -> usize {
            let runs = (0..THREADS).map(|thread| {
                let run = store.run(&format!("r{thread}")).expect("it is read");
                let events = store.events(&run.new.id, 0, u32::MAX).expect("it is read");
                assert_eq!(events.len() as u64, run.events);
                events.len()
            });
            runs.sum()
        };
        assert_eq!(
            count(&store),
            acknowledged,
            "it is read while the disk is full"
        );

        std::fs::remove_file(&ballast).expect("it is removed");
        for index in 1..=20 {
            store
                .append("r0", &entry("after"))
                .expect("there is room again");
            assert_eq!(count(&store), acknowledged + index);
        }
        drop(store);
        let store = SqliteStore::open(&state).expect("it opens again");
        assert_eq!(count(&store), acknowledged + 20);
    });
}
