//! A person's `inject` whose agent hangs, worker and guardian alike, so that neither can end the other: it is ended from outside, and
//! what it owes is put back.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::processes;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 2] = ["unshare", "sleep"];
const LONG: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(5);

fn is_held(pid: u32) -> bool {
    let process = processes::process(pid as i32);
    process.is_some_and(|process| matches!(process.state, 'T' | 't'))
}

fn child_of(parent: i32) -> i32 {
    let children = processes::alive().into_values();
    let children = children.filter(|process| process.parent == parent);
    let first = children.map(|process| process.pid).min();
    first.expect("it has a child")
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there to get a signal");
}

/// Pauses the victim by hand; who injects, its guardian and its worker, once the victim stands still.
fn pause(place: &Place, victim: &Child) -> (Child, i32, i32) {
    let arguments = json!({"process": {"pid": victim.id()}}).to_string();
    let words = [
        "inject",
        "process-pause",
        "--id",
        "trial",
        "--duration",
        "10m",
        "--arguments",
        &arguments,
    ];
    let inject = place.agent(&words, None).spawn().expect("the agent starts");
    wait_within("the victim stands still", LONG, || is_held(victim.id()));
    let guardian = child_of(inject.id() as i32);
    let worker = child_of(guardian);
    (inject, guardian, worker)
}

#[test]
fn inject_with_a_stopped_agent_reverts_within_a_lease() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let mut victim = Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("it starts");
        let (mut inject, guardian, worker) = pause(&place, &victim);
        let began = Instant::now();
        send(guardian, Signal::SIGSTOP);
        send(worker, Signal::SIGSTOP);
        assert_eq!(inject.wait().expect("it ends").code(), Some(4));
        assert!(
            began.elapsed() < LEASE + Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert!(!is_held(victim.id()));
        assert!(place.ledger().is_empty(), "{:?}", place.ledger());
        let ours = processes::of_backburn();
        assert!(ours.is_empty(), "{ours:?}");
        victim
            .kill()
            .and_then(|()| victim.wait())
            .expect("it is there");
    });
}

#[test]
fn inject_stopped_with_its_agent_gives_it_time_to_answer() {
    in_namespaces(&PROGRAMS, || {
        let place = Place::default();
        let mut victim = Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("it starts");
        let (mut inject, guardian, worker) = pause(&place, &victim);
        let all = [inject.id() as i32, guardian, worker];
        all.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
        // Longer than the lease: that much has to pass.
        std::thread::sleep(LEASE + Duration::from_secs(1));
        all.iter().for_each(|pid| send(*pid, Signal::SIGCONT));
        // The agent's own lease is over; it is not killed for having been stopped along with who injects.
        assert_eq!(inject.wait().expect("it ends").code(), Some(0));
        assert!(!is_held(victim.id()));
        assert!(place.ledger().is_empty(), "{:?}", place.ledger());
        victim
            .kill()
            .and_then(|()| victim.wait())
            .expect("it is there");
    });
}
