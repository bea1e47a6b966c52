//! `backburn demo`, as root and as somebody without rights: it shows what it promises, in time,
//! and leaves nothing.

use backburn_tests::isolated::in_namespaces;
use backburn_tests::processes::{alive, named, of_backburn};
use backburn_tests::programs::backburn;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the demo runs.
const EXPERIMENTS: [&str; 2] = ["demo-worker-killed", "demo-workers-paused"];

fn demo(mut command: Command) {
    let temporary = tempfile::tempdir().expect("there is a place for temporary files");
    let home = tempfile::tempdir().expect("there is a place for temporary files");
    // Like `/tmp`: anybody may make files there, and nobody may put others' files in their place.
    for folder in [&temporary, &home] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777))
            .expect("it is ours");
    }
    let before: BTreeSet<i32> = alive().into_keys().collect();
    let started = Instant::now();
    let output = command
        .env("TMPDIR", temporary.path())
        .env("HOME", home.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("BACKBURN_STATE")
        .current_dir(home.path())
        .output()
        .expect("it starts");
    let took = started.elapsed();
    let out = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{out}\n{said}", output.status);
    assert!(took < Duration::from_secs(25), "it took {took:?}");

    let row = |name: &str| {
        out.lines()
            .rfind(|line| line.contains(name))
            .unwrap_or_else(|| panic!("no {name} in:\n{out}"))
            .to_owned()
    };
    assert!(row(EXPERIMENTS[0]).contains("held"), "{out}");
    assert!(row(EXPERIMENTS[1]).contains("deviated"), "{out}");

    assert!(
        of_backburn().is_empty(),
        "agents or helpers are left: {:?}",
        of_backburn()
    );
    assert!(
        named("demo-worker").is_empty() && named("demo-service").is_empty(),
        "the service is left"
    );
    let left: Vec<_> = alive()
        .into_values()
        .filter(|process| !before.contains(&process.pid))
        .collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    // Like `/tmp`: anybody may make files there, and nobody may put others' files in their place.
    for folder in [&temporary, &home] {
        let files: Vec<_> = std::fs::read_dir(folder.path())
            .expect("it is there")
            .flatten()
            .collect();
        assert!(files.is_empty(), "files are left: {files:?}");
    }
}

#[test]
fn demo_as_root_runs_as_described() {
    in_namespaces(&[], || {
        let mut command = Command::new(backburn());
        command.arg("demo");
        demo(command);
    });
}

#[test]
fn demo_without_root_runs_as_described() {
    in_namespaces(&["setpriv"], || {
        // Where cargo builds, others may not be let in.
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        let program = folder.path().join("backburn");
        std::fs::copy(backburn(), &program).expect("a temporary folder can be written to");
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--no-new-privs",
            "--",
        ]);
        command.arg(&program).arg("demo");
        demo(command);
    });
}

/// Ended in the middle, it ends the service and what acts on it, too.
#[test]
fn demo_ended_or_killed_leaves_nothing() {
    in_namespaces(&[], || {
        use nix::sys::signal::{Signal, kill};
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let state = tempfile::tempdir().expect("there is a place for temporary files");
            let mut running = Command::new(backburn())
                .arg("demo")
                .env("TMPDIR", state.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("it starts");
            // Every worker stands still: the second experiment is at work.
            backburn_tests::wait::wait_within(
                "the workers stand still",
                Duration::from_secs(20),
                || {
                    let workers = named("demo-worker");
                    workers.len() == 4
                        && workers
                            .iter()
                            .all(|worker| matches!(worker.state, 'T' | 't'))
                },
            );
            kill(nix::unistd::Pid::from_raw(running.id() as i32), signal).expect("it runs");
            let status = running.wait().expect("a child can be waited for");
            assert!(!status.success(), "{signal}: {status}");
            backburn_tests::wait::wait_within(
                &format!("{signal}: all is gone"),
                Duration::from_secs(5),
                || {
                    of_backburn().is_empty()
                        && named("demo-worker").is_empty()
                        && named("demo-service").is_empty()
                },
            );
        }
    });
}
