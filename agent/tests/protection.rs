//! Who is spared on a real host: what runs Backburn's program under any name, and whatever it was
//! started from. Others are hit whatever they are called.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use backburn_agent::helpers::{HelperSpec, MemoryBallast};
use backburn_agent::processes::{ProcessSelector, ProcessTable, Protection};
use backburn_experiments::wire::Refusal;
use common::{AGENT, VictimProcess, is_root, until};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whom a selector means: their ids, and the notes about those that are spared.
fn find(selector: Value) -> Result<(Vec<i32>, Vec<String>), Refusal> {
    let selector: ProcessSelector = serde_json::from_value(selector).unwrap();
    let protection = Protection::default();
    let found = selector.find("$", &ProcessTable::default(), &protection, 1)?;
    let victims = found.victims.iter();
    Ok((victims.map(|victim| victim.id.pid).collect(), found.notes()))
}

#[track_caller]
fn assert_spared(selector: Value, why: &str) {
    let refusal = find(selector).unwrap_err();
    assert_eq!(refusal.rule, "protected", "{refusal}");
    assert!(refusal.what.contains(why), "{refusal}");
}

fn copy(program: &str, folder: &Path, name: &str) -> PathBuf {
    let to = folder.join(name);
    std::fs::copy(program, &to).unwrap();
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
    to
}

/// The words of a helper that does next to nothing for a minute.
fn quiet_helper(parent: &str) -> Vec<String> {
    let role = HelperSpec::from(MemoryBallast {
        bytes: 4096,
        reserve_bytes: 0,
        ramp: None,
    });
    let role = serde_json::to_string(&role).unwrap();
    ["helper", "test-mark", parent, "60000", &role]
        .map(String::from)
        .to_vec()
}

#[test]
fn protection_renamed_copy_of_the_program_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let program = copy(AGENT, folder.path(), "paymentsvc");
    let us = std::process::id().to_string();
    // Neither its file nor its first argument tells.
    let mut copied = VictimProcess::start(
        Command::new(&program)
            .arg0("paymentsvc")
            .args(quiet_helper(&us)),
    );
    copied.line();
    assert_spared(json!({"pid": copied.id.pid}), "a process of Backburn");
    // Its file removed, as an update does, it is still ours.
    std::fs::remove_file(&program).unwrap();
    assert_spared(json!({"pid": copied.id.pid}), "a process of Backburn");
}

#[test]
fn protection_other_program_of_the_same_name_is_hit() {
    let folder = tempfile::tempdir().unwrap();
    let program = copy("/bin/sleep", folder.path(), "backburn");
    let other = VictimProcess::start(Command::new(&program).arg("60"));
    assert_eq!(
        find(json!({"pid": other.id.pid})).unwrap().0,
        [other.id.pid]
    );
}

#[test]
fn protection_deleted_program_is_spared_unless_demo_service() {
    let folder = tempfile::tempdir().unwrap();
    let program = copy("/bin/cat", folder.path(), "backburn");
    let waiting = |argument: &str| {
        std::fs::write(folder.path().join(argument), "").unwrap();
        let fifo = folder.path().join(format!("fifo-{argument}"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = Command::new(&program);
        VictimProcess::start(command.current_dir(&folder).arg(argument).arg(fifo))
    };
    let (agent, service) = (waiting("agent"), waiting("demo-service"));
    std::fs::remove_file(&program).unwrap();
    assert_spared(json!({"pid": agent.id.pid}), "a process of Backburn");
    assert_eq!(
        find(json!({"pid": service.id.pid})).unwrap().0,
        [service.id.pid]
    );
}

#[test]
fn protection_ancestors_of_this_process_are_spared() {
    let table = ProcessTable::default();
    let mut parent = std::os::unix::process::parent_id() as i32;
    let mut climbed = 0;
    while parent > 1 {
        assert_spared(json!({"pid": parent}), "");
        climbed += 1;
        parent = table.stat(parent).unwrap().parent;
    }
    assert!(climbed > 0, "whoever started this test is there");
    // Whatever it is that they are found by.
    let us = std::process::id();
    let parent = std::os::unix::process::parent_id();
    assert_spared(
        json!({"parent-of": us, "pid": parent}),
        "Backburn was started from it",
    );
}

#[test]
fn protection_ancestors_of_another_backburn_process_are_spared() {
    // The helper wants its parent's id, which only the shell knows.
    let words = quiet_helper("$PARENT")
        .join("' '")
        .replace("'$PARENT'", "$$");
    let script = format!("sleep 60 & {AGENT} '{words}' & wait");
    let mut shell = VictimProcess::start(Command::new("sh").args(["-c", &script]));
    assert!(shell.line().contains("ready"));
    assert_spared(json!({"pid": shell.id.pid}), "Backburn was started from it");
    // Those beside it are not.
    let (beside, notes) = find(json!({"children-of": shell.id.pid, "select": "all"})).unwrap();
    assert_eq!(beside.len(), 1);
    assert!(
        notes
            .iter()
            .any(|note| note.contains("a process of Backburn")),
        "{notes:?}"
    );
    for pid in beside {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

#[test]
fn protection_second_process_of_a_pid_namespace_is_no_kernel_thread() {
    if !is_root("second_process_of_a_pid_namespace_is_no_kernel_thread") {
        return;
    }
    // Seen from inside: process 1 looks at process 2 and at its child.
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let script = format!(
        "sh -c 'sleep 60 & wait' & mount -t proc proc /proc; \
         while ! grep -q sleep /proc/[34]/comm; do :; done; \
         for pid in 2 $(pidof sleep); do {AGENT} plan process-kill --state {0}/state --process-pid $pid; done >{1} 2>&1",
        folder.path().display(),
        said.display(),
    );
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "sh",
            "-c",
            &script,
        ])
        .status()
        .unwrap();
    let said = std::fs::read_to_string(said).unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(said.matches("victim  process").count(), 2, "{said}");
}

#[test]
fn protection_kernel_threads_are_spared() {
    // In a container there may be none to be seen.
    let table = ProcessTable::default();
    for pid in table.pids().unwrap() {
        if table.stat(pid).is_some_and(|stat| stat.is_kernel_thread()) {
            return assert_spared(json!({"pid": pid}), "it is a kernel thread");
        }
    }
    eprintln!("no thread of the kernel's is in sight");
}

#[test]
fn namespace_init_drops_signals_without_a_handler() {
    if !is_root("first_process_of_a_namespace_drops_signals_without_a_handler") {
        return;
    }
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let first = VictimProcess::sleep();
        let table = ProcessTable::default();
        let state = |signal: rustix::process::Signal| {
            table.signal_state(first.id, signal.as_raw()).unwrap()
        };
        let term = rustix::process::Signal::TERM;
        until("it runs its program", || {
            table.name(first.id.pid).as_deref() == Some("sleep")
        });
        assert!(state(term).is_first_of_namespace);
        assert!(state(term).is_dropped());
    })
    .join()
    .unwrap();
}
