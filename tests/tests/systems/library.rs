//! Each experiment of the library, run for real with the program as it ships against real software
//! that the test starts for itself, in namespaces of its own: the verdict is the one that its
//! description promises, and nothing is left.

use backburn_experiments::journal::Event;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::processes::{Process, alive, named};
use backburn_tests::programs::{backburn, root};
use backburn_tests::runs::{Ran, assert_clean, library};
use backburn_tests::software::{Software, free_port};
use backburn_tests::wait::wait_within;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is a place for temporary files")
}

fn assert_verdict(ran: &Ran, outcome: &str, code: i32) {
    assert_eq!(
        ran.verdict["outcome"], outcome,
        "{}\n{}",
        ran.verdict, ran.said
    );
    assert_eq!(ran.code, code, "{}\n{}", ran.verdict, ran.said);
}

/// Those that were there are there, and run; whoever is new is one of theirs.
fn assert_running(before: &[Process], name: &str) {
    for process in before {
        let now = alive().remove(&process.pid);
        assert!(
            now.as_ref().is_some_and(|now| now.start == process.start),
            "{name}: {process:?} is gone: {now:?}"
        );
        assert!(
            now.is_some_and(|now| !matches!(now.state, 'T' | 't')),
            "{name}: {process:?} stands still"
        );
    }
}

fn started_by(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdout(Stdio::null());
    command
}

/// nginx with two workers and one short page.
fn nginx(folder: &Path) -> (Software, u16, PathBuf) {
    let port = free_port();
    let pid_file = folder.join("nginx.pid");
    let configuration = folder.join("nginx.conf");
    let here = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .concat();
    let text = format!(
        "user root;\nworker_processes 2;\ndaemon off;\npid {};\nerror_log stderr crit;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off;\n{temporary}server {{ listen 127.0.0.1:{port}; location / {{ return 200 'well'; }} }} }}\n",
        pid_file.display()
    );
    std::fs::write(&configuration, text).expect("a temporary folder can be written to");
    let mut nginx = Software::start(
        started_by("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(folder)
            .arg("-c")
            .arg(&configuration),
    );
    nginx.wait_for_port(port);
    (nginx, port, pid_file)
}

#[test]
fn library_experiments_are_valid_and_tested() {
    let files = std::fs::read_dir(root().join("experiments/library")).expect("there is a library");
    let own = std::fs::read_to_string(root().join("tests/tests/systems/library.rs"))
        .expect("this file can be read");
    let neighbours = ["kernel/demo.rs", "systems/library_network.rs"].map(|name| {
        std::fs::read_to_string(root().join("tests/tests").join(name))
            .expect("its neighbour can be read")
    });
    let mut number = 0;
    for file in files.flatten().map(|file| file.path()) {
        let judged = Command::new(backburn())
            .arg("validate")
            .arg(&file)
            .output()
            .expect("it starts");
        assert!(
            judged.status.success(),
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&judged.stderr)
        );
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let quoted = format!("\"{name}\"");
        assert!(
            own.contains(&quoted) || neighbours.iter().any(|text| text.contains(&quoted)),
            "{name} is run by no test"
        );
        number += 1;
    }
    assert!(number >= 7, "only {number}");
}

#[test]
fn nginx_with_a_worker_killed_under_load_holds() {
    in_namespaces(&["nginx", "wrk"], || {
        let (folder, state) = (folder(), folder());
        let (nginx, port, pid_file) = nginx(folder.path());
        let workers = || {
            named("nginx")
                .into_iter()
                .filter(|process| process.parent == nginx.pid())
                .collect::<Vec<_>>()
        };
        wait_within("nginx has two workers", Duration::from_secs(5), || {
            workers().len() == 2
        });
        let before = workers();
        let ran = library(
            "nginx-worker-killed",
            &[
                ("NGINX_URL", format!("http://127.0.0.1:{port}/")),
                ("NGINX_PORT", port.to_string()),
                ("NGINX_PID_FILE", pid_file.display().to_string()),
            ],
            state.path(),
        );
        assert_verdict(&ran, "held", 0);
        assert_clean(&ran, state.path());
        let after = workers();
        assert_eq!(after.len(), 2, "the master brought the worker back");
        let kept = before.iter().filter(|worker| {
            after
                .iter()
                .any(|now| now.pid == worker.pid && now.start == worker.start)
        });
        assert_eq!(
            kept.count(),
            1,
            "one of two was killed: {before:?} {after:?}"
        );
        assert_running(&after, "nginx");
        // The load was real: wrk says how many requests were answered.
        let load = activity_output(&ran, "load");
        let requests = load
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .expect("wrk says how many");
        assert!(
            requests.0.parse::<u64>().expect("a number") > 1000,
            "{load}"
        );
        assert!(named("wrk").is_empty(), "the load has ended");
    });
}

/// What a program of the method said on stdout.
fn activity_output(ran: &Ran, name: &str) -> String {
    let output = ran.entries.iter().find_map(|entry| match &entry.event {
        Event::ActivityFinished {
            activity, output, ..
        } if activity == name => Some(output.clone()),
        _ => None,
    });
    output.unwrap_or_else(|| panic!("no activity {name}"))["stdout"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn redis_when_paused_deviates_and_recovers() {
    in_namespaces(&["redis-server", "redis-cli"], || {
        let (folder, state) = (folder(), folder());
        let port = free_port();
        let mut redis = Software::start(
            started_by("redis-server")
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &port.to_string(),
                    "--save",
                    "",
                    "--dir",
                ])
                .arg(folder.path()),
        );
        redis.wait_for_port(port);
        let cli = |words: &[&str]| {
            let output = Command::new("redis-cli")
                .args(["-p", &port.to_string()])
                .args(words)
                .output()
                .expect("it starts");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        assert_eq!(cli(&["set", "key", "value"]), "OK");
        let before = named("redis-server");
        assert_eq!(before.len(), 1);
        let ran = library(
            "redis-paused",
            &[("REDIS_PORT", port.to_string())],
            state.path(),
        );
        assert_verdict(&ran, "deviated", 1);
        assert_clean(&ran, state.path());
        assert_eq!(
            ran.run.aborts.first().map(|abort| abort.rule.as_str()),
            Some("Redis does not answer")
        );
        assert!(
            ran.run.elapsed < 12.0,
            "ended by the rule, not by the duration: {} s",
            ran.run.elapsed
        );
        assert!(
            ran.run.recovery.is_some_and(|recovery| recovery.is_ok()),
            "it holds again"
        );
        assert_running(&before, "redis");
        assert_eq!(cli(&["get", "key"]), "value");
    });
}

/// Where Debian keeps PostgreSQL's programs that it does not put on the path.
fn postgresql_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    versions
        .map(|version| version.path().join("bin"))
        .max()
        .unwrap_or_default()
}

#[test]
fn postgresql_with_a_backend_killed_under_load_holds() {
    in_namespaces(&["psql", "pgbench", "setpriv"], || {
        let (folder, state) = (folder(), folder());
        let programs = postgresql_programs();
        let user = nix::unistd::User::from_name("postgres")
            .expect("users can be read")
            .expect("the package makes the user");
        nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).expect("root may");
        let as_postgres = |program: &str| {
            let mut command = started_by("setpriv");
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
                "--",
            ]);
            command
                .arg(programs.join(program))
                .current_dir(folder.path());
            command
        };
        let (data, port, here) = (
            folder.path().join("data"),
            free_port(),
            folder.path().display().to_string(),
        );
        let made = as_postgres("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "--no-sync"])
            .status();
        assert!(made.expect("it starts").success());
        let mut postgres = Software::start(as_postgres("postgres").arg("-D").arg(&data).args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            &format!("unix_socket_directories={here}"),
            "-c",
            "log_min_messages=panic",
            "-p",
            &port.to_string(),
        ]));
        postgres.wait_for_port(port);
        let environment = [
            ("PGHOST", here),
            ("PGPORT", port.to_string()),
            ("PGUSER", "postgres".to_owned()),
            ("PGDATABASE", "pgbench".to_owned()),
        ];
        let client = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command
                .args(&words[1..])
                .envs(environment.iter().map(|(key, value)| (key, value)))
                .stderr(Stdio::null());
            let output = command.output().expect("it starts");
            assert!(
                output.status.success(),
                "{words:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        wait_within("PostgreSQL is ready", Duration::from_secs(10), || {
            let mut ready = Command::new("pg_isready");
            ready
                .envs(environment.iter().map(|(key, value)| (key, value)))
                .stdout(Stdio::null());
            ready.status().is_ok_and(|status| status.success())
        });
        client(&["psql", "-d", "postgres", "-qc", "create database pgbench"]);
        client(&["pgbench", "-i", "-q", "-s", "1", "pgbench"]);
        let mut load = started_by("pgbench");
        load.args(["-n", "-c", "4", "-T", "60", "pgbench"])
            .stderr(Stdio::null());
        let mut load =
            Software::start(load.envs(environment.iter().map(|(key, value)| (key, value))));
        let sessions = || {
            client(&[
                "psql",
                "-XAtqc",
                "select count(*) from pg_stat_activity where application_name = 'pgbench'",
            ])
        };
        wait_within("pgbench has its sessions", Duration::from_secs(10), || {
            sessions() == "4"
        });
        let before = [alive().remove(&postgres.pid()).expect("it runs")];
        let ran = library("postgresql-backend-killed", &environment, state.path());
        assert_verdict(&ran, "held", 0);
        assert_clean(&ran, state.path());
        assert_running(&before, "postgres");
        let moved: u64 = client(&["psql", "-XAtqc", "select count(*) from pgbench_history"])
            .parse()
            .expect("a number");
        assert!(moved > 100, "the load was real: {moved} transactions");
        assert!(
            !load.wait().success(),
            "as described, every session is thrown out, so pgbench gives up"
        );
    });
}

#[test]
fn disk_filled_to_a_reserve_lets_an_application_write() {
    in_namespaces(&["mkfs.ext4", "mount"], || {
        let (folder, state) = (folder(), folder());
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::create_dir(&mounted).expect("a temporary folder can be written to");
        let file = std::fs::File::create(&image).expect("a temporary folder can be written to");
        file.set_len(96 << 20).expect("a file can be sparse");
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .status();
        assert!(made.expect("it starts").success());
        // The mount is in this test's own namespace and goes with it.
        let mount = Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mounted)
            .status();
        assert!(mount.expect("it starts").success());
        let free = || {
            let figures = nix::sys::statvfs::statvfs(&mounted).expect("it is mounted");
            figures.blocks_available() * figures.fragment_size()
        };
        let before = free();
        let ran = library(
            "disk-filled-to-reserve",
            &[("DISK_FOLDER", mounted.display().to_string())],
            state.path(),
        );
        assert_verdict(&ran, "held", 0);
        assert_clean(&ran, state.path());
        // ext4 counts a removed file's blocks as free once its journal is written.
        let root = std::fs::File::open(&mounted).expect("it is mounted");
        nix::unistd::syncfs(&root).expect("it is mounted");
        drop(root);
        assert_eq!(free(), before, "every byte is given back");
        let mut left: Vec<_> = std::fs::read_dir(&mounted)
            .expect("it is mounted")
            .flatten()
            .map(|file| file.file_name())
            .collect();
        left.retain(|name| name != "lost+found");
        assert!(left.is_empty(), "files are left: {left:?}");
        let unmounted = Command::new("umount").arg(&mounted).status();
        assert!(
            unmounted.expect("it starts").success(),
            "nobody holds the file system"
        );
    });
}

#[test]
fn page_beside_busy_processors_comes_in_time() {
    in_namespaces(&["nginx", "curl"], || {
        let (folder, state) = (folder(), folder());
        let (_nginx, port, _) = nginx(folder.path());
        let before = named("nginx");
        let ran = library(
            "cpu-stress-latency",
            &[("APP_URL", format!("http://127.0.0.1:{port}/"))],
            state.path(),
        );
        assert_clean(&ran, state.path());
        assert_running(&before, "nginx");
        let (_, stress) = ran.run.injections.iter().next().expect("there is one");
        // A machine that others keep busy gives less than half, and then nothing was shown.
        if ran.verdict["reasons"]
            .to_string()
            .contains("less than half")
        {
            assert_verdict(&ran, "inconclusive", 5);
            return;
        }
        assert_verdict(&ran, "held", 0);
        assert!(
            stress.acted,
            "processors were seen busy: {:?}",
            stress.effect
        );
    });
}
