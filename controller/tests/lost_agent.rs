//! The real agent, lost in the middle of a real fault: whoever of its two processes dies or hangs, the
//! victim runs on, and the run knows that it does.
#![allow(clippy::unwrap_used)] // A test ends by panicking.
#![cfg(feature = "local-agent")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with(['t', 'T'])
}

/// A process of a name that nobody else has.
fn victim(folder: &Path) -> Child {
    let name = format!("v{}", std::process::id());
    let program = folder.join(name);
    if !program.exists() {
        std::fs::copy("/bin/sleep", &program).unwrap();
    }
    Command::new(program).arg("600").spawn().unwrap()
}

#[test]
fn agent_process_that_is_killed_leaves_the_victim_running_and_ends_the_run() {
    // Stopped first: the second would otherwise see the first one's end, and act on it.
    lose(&[Signal::SIGSTOP, Signal::SIGKILL]);
}

#[test]
fn agent_that_is_stopped_ends_the_run_before_its_fault_and_everything_is_reverted() {
    lose(&[Signal::SIGSTOP]);
}

/// Has each of an agent's processes, and both, lost by these signals, in the middle of a run. It ends after a lease of 5 s, which may take
/// longer on a busy machine, and well before the fault's 60 s.
fn lose(signals: &[Signal]) {
    let within = Duration::from_secs(40);
    for who in ["worker", "guardian", "both"] {
        let folder = tempfile::tempdir().unwrap();
        let mut victim = victim(folder.path());
        let document = json!({"title": "t", "description": "d", "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "duration": "60s", "arguments": {"process": {"pid": victim.id()}}}}]});
        std::fs::write(folder.path().join("x.json"), document.to_string()).unwrap();
        let mut run = Command::new(snapbox::cmd::cargo_bin!("backburn"))
            .args(["run", "x.json", "--json"])
            .current_dir(folder.path())
            .env("BACKBURN_STATE", folder.path().join("state"))
            .env_remove("BACKBURN_POLICY")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut events: Vec<Value> = Vec::new();
        let mut killed = None;
        for line in BufReader::new(run.stdout.take().unwrap()).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == "effect-seen" {
                assert!(is_stopped(victim.id()), "{who}");
                let guardian = children(run.id().try_into().unwrap())[0];
                let worker = children(guardian)[0];
                killed = Some(Instant::now());
                let agents = match who {
                    "worker" => vec![worker],
                    "guardian" => vec![guardian],
                    _ => vec![guardian, worker],
                };
                for signal in signals {
                    for &pid in &agents {
                        kill(Pid::from_raw(pid), *signal).unwrap();
                    }
                }
            }
            events.push(event);
        }
        let code = run.wait().unwrap().code();
        let seen = format!("{who}: {events:#?}");
        assert!(killed.is_some_and(|at| at.elapsed() < within), "{seen}");
        assert!(!is_stopped(victim.id()), "{seen}");
        assert_eq!(code, Some(4), "{seen}");
        let verdict = &events.last().unwrap()["verdict"];
        assert_eq!(
            (&verdict["outcome"], &verdict["owed"]),
            (&json!("aborted"), &json!([])),
            "{seen}"
        );
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
}
