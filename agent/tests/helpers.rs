//! Helpers as real processes on the real kernel: what they do, and that all of it ends with them.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use backburn_agent::helpers::{self, Freeze, HelperSpec, Terminate};
use backburn_agent::processes::{ProcessId, ProcessTable};
use common::{Helper, VictimProcess, python, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const LONG: u64 = 60_000;

/// Three busy threads beside the main one.
const BUSY: &str = "
import threading
def spin():
    while True: sum(range(1000))
for _ in range(3): threading.Thread(target=spin, daemon=True).start()
print('ready', flush=True)
spin()";

fn hold(victims: &[&VictimProcess]) -> HelperSpec {
    HelperSpec::from(Freeze {
        victims: victims.iter().map(|victim| victim.id).collect(),
    })
}

fn signal(id: ProcessId, signal: Signal) {
    kill(Pid::from_raw(id.pid), signal).unwrap();
}

#[test]
fn freeze_process_with_threads_stops_all_and_ends_with_the_helper() {
    let table = ProcessTable::default();
    let victim = python(BUSY);
    let role = hold(&[&victim]);
    let mut helper = Helper::start(&role, LONG);
    assert!(
        helper
            .ready()
            .contains("1 of 1 processes stopped, 4 threads"),
        "{}",
        helper.said
    );
    assert_eq!(
        table.name(helper.id.pid).as_deref(),
        Some("backburn-helper")
    );
    for thread in table.threads(victim.id.pid) {
        assert_eq!(table.thread_stat(victim.id.pid, thread).unwrap().state, 't');
        assert_eq!(
            table.thread_tracer(victim.id.pid, thread),
            Some(helper.id.pid)
        );
    }
    let before = table.cpu_seconds(victim.id);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        table.cpu_seconds(victim.id),
        before,
        "it ran while it was held"
    );
    let effect = role.helper().effect(helper.id.pid, &table);
    assert!(effect.acts, "{effect:?}");
    assert_eq!(effect.seen, "1 of 1 processes stopped");

    let begin = Instant::now();
    helper.kill();
    until("it runs on", || {
        table.state(victim.id) == Some('R') && table.tracer(victim.id.pid).is_none()
    });
    println!("released after {:?}", begin.elapsed());
    assert!(!role.helper().effect(helper.id.pid, &table).acts);
    until("it uses time again", || {
        table.cpu_seconds(victim.id) > before
    });
    assert_eq!(role.helper().residue(&table).unwrap(), None);
}

#[test]
fn freeze_stopped_process_leaves_it_stopped() {
    let table = ProcessTable::default();
    let victim = VictimProcess::sleep();
    signal(victim.id, Signal::SIGSTOP);
    until("it stops", || table.state(victim.id) == Some('T'));
    let mut helper = Helper::start(&hold(&[&victim]), LONG);
    helper.ready();
    assert_eq!(table.state(victim.id), Some('t'));
    helper.kill();
    until("it is let go", || table.tracer(victim.id.pid).is_none());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(table.state(victim.id), Some('T'));
}

#[test]
fn freeze_victim_killed_meanwhile_is_reaped_by_its_parent() {
    let mut victim = python(BUSY);
    let other = VictimProcess::sleep();
    let mut helper = Helper::start(&hold(&[&victim, &other]), LONG);
    helper.ready();
    signal(victim.id, Signal::SIGKILL);
    until("its parent hears of it", || {
        victim.child.try_wait().unwrap().is_some()
    });
    let table = ProcessTable::default();
    let effect = hold(&[&victim, &other])
        .helper()
        .effect(helper.id.pid, &table);
    assert_eq!(effect.seen, "1 of 2 processes stopped, 1 gone");
    helper.kill();
}

#[test]
fn freeze_and_release_loses_no_signal() {
    // Real-time signals queue, and the interpreter's own handler writes a byte for each delivery,
    // so every single one must be counted.
    const ROUNDS: usize = 30;
    const EACH: usize = 5000;
    let mut victim = python(&format!(
        "
import os, signal
taken, given = os.pipe()
os.set_blocking(given, False)
signal.set_wakeup_fd(given)
signal.signal(signal.SIGRTMIN + 3, lambda *_: None)
print('ready', flush=True)
seen = 0
while seen < {}: seen += len(os.read(taken, 4096))
print(seen, flush=True)",
        ROUNDS * EACH
    ));
    let table = ProcessTable::default();
    for round in 0..ROUNDS {
        let mut flood = python(&format!(
            "
import os, signal
print('ready', flush=True)
for _ in range({EACH}): os.kill({}, signal.SIGRTMIN + 3)",
            victim.id.pid
        ));
        let mut helper = Helper::start(&hold(&[&victim]), LONG);
        helper.ready();
        flood.child.wait().unwrap();
        assert_eq!(table.state(victim.id), Some('t'), "round {round}");
        helper.kill();
    }
    until("every signal has arrived", || {
        victim.child.try_wait().unwrap().is_some()
    });
    assert_eq!(victim.line(), (ROUNDS * EACH).to_string());
}

#[test]
fn freeze_signal_sent_meanwhile_arrives_on_release() {
    let mut victim = VictimProcess::sleep();
    let mut helper = Helper::start(&hold(&[&victim]), LONG);
    helper.ready();
    signal(victim.id, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        victim.child.try_wait().unwrap().is_none(),
        "it died while it was held"
    );
    helper.kill();
    until("it ends", || victim.child.try_wait().unwrap().is_some());
}

#[test]
fn freeze_process_that_keeps_starting_threads_stops_all() {
    let table = ProcessTable::default();
    let victim = python(
        "
import threading
print('ready', flush=True)
while True:
    threads = [threading.Thread(target=lambda: sum(range(2000))) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()",
    );
    for _ in 0..20 {
        let role = hold(&[&victim]);
        let mut helper = Helper::start(&role, LONG);
        helper.ready();
        let threads = table.threads(victim.id.pid);
        assert_eq!(
            role.helper().effect(helper.id.pid, &table).seen,
            "1 of 1 processes stopped"
        );
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(table.threads(victim.id.pid), threads);
        helper.kill();
        until("it is let go", || table.tracer(victim.id.pid).is_none());
    }
}

#[test]
fn freeze_process_without_first_thread_succeeds() {
    let table = ProcessTable::default();
    let victim = python(
        "
import ctypes, threading
def spin():
    while True: sum(range(1000))
threading.Thread(target=spin).start()
print('ready', flush=True)
ctypes.CDLL(None).pthread_exit(None)",
    );
    until("its first thread ends", || {
        table.state(victim.id) == Some('Z')
    });
    assert!(table.alive(victim.id));
    let role = hold(&[&victim]);
    let mut helper = Helper::start(&role, LONG);
    assert!(
        helper
            .ready()
            .contains("1 of 1 processes stopped, 1 thread"),
        "{}",
        helper.said
    );
    assert!(role.helper().effect(helper.id.pid, &table).acts);
    let before = table.cpu_seconds(victim.id);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(table.cpu_seconds(victim.id), before);
    helper.kill();
    until("it runs on", || table.cpu_seconds(victim.id) > before);
}

#[test]
fn helper_with_recycled_process_id_hits_nobody() {
    let table = ProcessTable::default();
    let mut stranger = VictimProcess::sleep();
    let meant = ProcessId {
        start: stranger.id.start + 1,
        ..stranger.id
    };
    assert!(table.open_pidfd_checked(meant).unwrap().is_none());
    assert!(table.open_pidfd_checked(stranger.id).unwrap().is_some());

    let helper = Helper::start(
        &HelperSpec::from(Freeze {
            victims: vec![meant],
        }),
        LONG,
    );
    assert!(
        helper.failed().contains("is there any more"),
        "{}",
        helper.said
    );
    assert_eq!(table.tracer(stranger.id.pid), None);

    let mut helper = Helper::start(
        &HelperSpec::from(Terminate {
            victims: vec![meant],
            grace_ms: 0,
        }),
        LONG,
    );
    helper.ready();
    assert!(helper.child.wait().unwrap().success());
    assert!(stranger.child.try_wait().unwrap().is_none());
    assert_eq!(table.state(stranger.id), Some('S'));
}

#[test]
fn freeze_traced_process_is_refused_with_its_tracer() {
    let table = ProcessTable::default();
    let victim = VictimProcess::sleep();
    let mut first = Helper::start(&hold(&[&victim]), LONG);
    first.ready();
    assert_eq!(
        helpers::check_traceable(&table, victim.id),
        Err(helpers::NotTraceable::Traced(first.id.pid))
    );
    let other = VictimProcess::sleep();
    let second = Helper::start(&hold(&[&other, &victim]), LONG);
    assert!(
        second
            .failed()
            .contains(&format!("process {} traces it already", first.id.pid)),
        "{}",
        second.said
    );
    until("the other is let go", || {
        table.tracer(other.id.pid).is_none()
    });
    first.kill();
    assert_eq!(helpers::check_traceable(&table, victim.id), Ok(()));
}

#[test]
fn helper_stopped_at_its_deadline_is_killed() {
    let table = ProcessTable::default();
    let victim = VictimProcess::sleep();
    let mut helper = Helper::start(&hold(&[&victim]), 300);
    helper.ready();
    signal(helper.id, Signal::SIGSTOP);
    until("the helper stops", || table.state(helper.id) == Some('T'));
    until("it is killed", || {
        helper.child.try_wait().unwrap().is_some()
    });
    until("the victim runs on", || {
        table.tracer(victim.id.pid).is_none() && table.state(victim.id) == Some('S')
    });
}

#[test]
fn helper_with_another_parent_does_nothing() {
    let victim = VictimProcess::sleep();
    let mut helper = Helper::start_as_child_of(1, &hold(&[&victim]), LONG);
    assert_eq!(helper.said, "");
    assert!(!helper.child.wait().unwrap().success());
    assert_eq!(ProcessTable::default().tracer(victim.id.pid), None);
}

#[test]
fn helper_dies_with_its_parent_and_is_found_by_its_mark() {
    let table = ProcessTable::default();
    let victim = VictimProcess::sleep();
    let mark = format!("mark-{}", victim.id.pid);
    let role = serde_json::to_string(&hold(&[&victim])).unwrap();
    let parent = python(&format!(
        "
import os, subprocess, time
subprocess.Popen([{:?}, 'helper', {mark:?}, str(os.getpid()), '60000', {role:?}], stdout=subprocess.PIPE).stdout.readline()
print('ready', flush=True)
time.sleep(60)",
        common::AGENT
    ));
    assert_eq!(table.state(victim.id), Some('t'));
    assert_eq!(table.find_marked(&mark).unwrap().len(), 1);
    assert_eq!(table.find_marked(&mark[..mark.len() - 1]).unwrap(), []);
    let begin = Instant::now();
    signal(parent.id, Signal::SIGKILL);
    until("the victim runs on", || table.state(victim.id) == Some('S'));
    println!("released after {:?}", begin.elapsed());
    until("the helper is gone", || {
        table.find_marked(&mark).unwrap().is_empty()
    });
}

#[test]
fn helper_is_not_reached_by_control_c() {
    let victim = VictimProcess::sleep();
    let helper = Helper::start(&hold(&[&victim]), LONG);
    helper.ready();
    let group = nix::unistd::getpgid(Some(Pid::from_raw(helper.id.pid))).unwrap();
    assert_eq!(group.as_raw(), helper.id.pid);
}

#[test]
fn terminate_sends_term_first_and_kills_the_rest() {
    let table = ProcessTable::default();
    let mut polite = VictimProcess::sleep();
    let mut deaf = python(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)",
    );
    let role = HelperSpec::from(Terminate {
        victims: vec![polite.id, deaf.id],
        grace_ms: 300,
    });
    let mut helper = Helper::start(&role, LONG);
    helper.ready();
    until("the polite one ends", || {
        polite.child.try_wait().unwrap().is_some()
    });
    assert!(deaf.child.try_wait().unwrap().is_none());
    assert_eq!(
        role.helper().effect(helper.id.pid, &table).seen,
        "1 of 2 processes gone"
    );
    until("the deaf one is killed", || {
        deaf.child.try_wait().unwrap().is_some()
    });
    assert!(helper.child.wait().unwrap().success());
    assert_eq!(
        role.helper().effect(0, &table).seen,
        "2 of 2 processes gone"
    );
}

#[test]
fn terminate_helper_dead_within_grace_kills_nobody() {
    let mut deaf = python(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)",
    );
    let mut helper = Helper::start(
        &HelperSpec::from(Terminate {
            victims: vec![deaf.id],
            grace_ms: 200,
        }),
        LONG,
    );
    helper.ready();
    helper.kill();
    std::thread::sleep(Duration::from_millis(400));
    assert!(deaf.child.try_wait().unwrap().is_none());
}
