//! What becomes of a fault when somebody removes or spoils the ledger, and the worker dies: the guardian still knows what is to be undone,
//! and never says that all is clean.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::paused_victim::{Victim, kill, pause, run, said};
use backburn_tests::processes;
use backburn_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use serde_json::json;
use std::path::Path;
use std::process::{Child, Stdio};

const PROGRAMS: [&str; 3] = ["unshare", "sleep", "strace"];

/// The guardian and the worker below a process that injects.
fn agents(inject: &Child) -> (i32, i32) {
    let child_of = |parent: i32| {
        let mut children = processes::alive().into_values();
        let child = children.find(|process| process.parent == parent);
        child.expect("it has a child").pid
    };
    let guardian = child_of(inject.id() as i32);
    (guardian, child_of(guardian))
}

fn signal(pid: i32, signal: Signal) {
    send(Pid::from_raw(pid), signal).expect("it is there");
}

/// Spoils the ledger of a pause while its worker stands still, kills the worker, and holds what is said against what is wanted.
fn spoiled(how: &str, spoil: impl FnOnce(&Path), named: &str) {
    let (place, victim) = (Place::default(), Victim::start());
    let arguments = json!({"process": {"pid": victim.pid}}).to_string();
    let words = [
        "inject",
        "process-pause",
        "--id",
        "one",
        "--duration",
        "10m",
        "--arguments",
        &arguments,
    ];
    let mut inject = place.agent(&words, None);
    let inject = inject
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    wait_until("the victim is paused", || {
        !place.ledger().is_empty() && victim.is_stopped()
    });
    let (guardian, worker) = agents(&inject);
    // So that neither notices before all of it has happened.
    signal(guardian, Signal::SIGSTOP);
    signal(worker, Signal::SIGSTOP);
    spoil(&place.state().join("ledger"));
    kill(worker);
    signal(guardian, Signal::SIGCONT);
    let output = inject.wait_with_output().expect("it ends");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(6), "{how}: {text}");
    assert!(
        text.contains("one") && text.contains(named),
        "{how}: {text}"
    );
    assert!(
        !text.contains("everything that it had done was reverted"),
        "{how}: {text}"
    );
    wait_until("the victim runs on", || !victim.is_stopped());
}

#[test]
fn guardian_with_a_spoiled_ledger_reverts_from_memory_and_is_not_clean() {
    in_namespaces(&PROGRAMS, || {
        let entry = |ledger: &Path| ledger.join("one.json");
        let write =
            |path: &Path, text: &str| std::fs::write(path, text).expect("it can be written");
        spoiled(
            "garbage",
            |ledger| write(&entry(ledger), "\0nonsense"),
            "cannot be read",
        );
        spoiled(
            "truncated",
            |ledger| {
                let text = std::fs::read_to_string(entry(ledger)).expect("it is there");
                write(
                    &entry(ledger),
                    text.get(..text.len() / 2).expect("it is ASCII"),
                );
            },
            "cannot be read",
        );
        spoiled(
            "a folder",
            |ledger| {
                std::fs::remove_file(entry(ledger)).expect("it is there");
                std::fs::create_dir(entry(ledger)).expect("a folder can be made");
            },
            "cannot be read",
        );
        spoiled(
            "an entry deleted",
            |ledger| std::fs::remove_file(entry(ledger)).expect("it is there"),
            "has disappeared",
        );
        spoiled(
            "all deleted",
            |ledger| std::fs::remove_dir_all(ledger).expect("it is there"),
            "has disappeared",
        );
        spoiled(
            "a file in the ledger's place",
            |ledger| {
                std::fs::remove_dir_all(ledger).expect("it is there");
                write(ledger, "");
            },
            "Not a directory",
        );
    });
}

#[test]
fn status_of_a_vanished_ledger_says_so() {
    in_namespaces(&PROGRAMS, || {
        let (place, victim) = (Place::default(), Victim::start());
        let mut inject = pause(&place, &victim);
        let (guardian, worker) = agents(&inject);
        signal(guardian, Signal::SIGSTOP);
        signal(worker, Signal::SIGSTOP);
        std::fs::remove_dir_all(place.state()).expect("it is there");
        for words in [&["status"][..], &["revert", "--all"]] {
            let output = run(&place, &["env"], words);
            assert_eq!(
                output.status.code(),
                Some(6),
                "{words:?}: {}",
                said(&output)
            );
            assert!(
                said(&output).contains("has disappeared"),
                "{words:?}: {}",
                said(&output)
            );
            assert!(!place.state().exists(), "{words:?}: looking made it again");
        }
        // The guardian remembers.
        kill(worker);
        signal(guardian, Signal::SIGCONT);
        assert_eq!(inject.wait().expect("it ends").code(), Some(6));
        wait_until("the victim runs on", || !victim.is_stopped());
        let output = run(&place, &["env"], &["status"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    });
}

#[test]
fn guardian_of_a_worker_that_owes_nothing_is_clean_without_a_ledger() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        // Before its first effect, which makes the ledger's folder.
        let words = [
            "inject",
            "cpu-stress",
            "--id",
            "one",
            "--duration",
            "1s",
            "--workers",
            "1",
        ];
        let mut inject = place.agent(&words, Some("worker:before:1"));
        let output = inject
            .stderr(Stdio::piped())
            .output()
            .expect("the agent starts");
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(!place.state().exists());
        let output = run(&place, &["env"], &["status"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    });
}
