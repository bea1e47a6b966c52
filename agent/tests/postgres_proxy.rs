//! Statements to a real PostgreSQL that fail or wait on their way through a proxy, by the simple and the extended protocol.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod proxied;

use common::{VictimProcess, until};
use proxied::{Proxied, free_port};
use serde_json::json;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where Debian keeps PostgreSQL's programs that it does not put on the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    versions
        .map(|version| version.path().join("bin"))
        .max()
        .unwrap()
}

/// A server of its own in a folder of its own, with a table `orders`.
struct Server {
    server: VictimProcess,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        let data = folder.path().join("data");
        // It does not run as root.
        let as_postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--init-groups",
                    "--",
                ])
                .arg(programs().join(program))
                .arg("-D")
                .arg(&data)
                .current_dir(folder.path());
            command
        };
        let made = as_postgres("initdb")
            .args(["-A", "trust", "--no-sync"])
            .output();
        assert!(made.unwrap().status.success());
        let port = free_port();
        let server = VictimProcess::start(as_postgres("postgres").args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "log_min_messages=panic",
            "-p",
            &port.to_string(),
        ]));
        until("PostgreSQL answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && psql(port, &["select 1"]).0 == "1"
        });
        let made = psql(port, &["create table orders (id int)"]);
        assert_eq!(made.1, "");
        Server {
            server,
            _folder: folder,
            port,
        }
    }
}

impl Drop for Server {
    /// Killed, it would leave its shared memory behind.
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.server.id.pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).ok();
        self.server.child.wait().ok();
    }
}

/// What a client answers and cries that runs these commands, one after the other, on one connection.
fn psql(port: u16, commands: &[&str]) -> (String, String) {
    let mut client = Command::new("psql");
    client.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    client.args(["-U", "postgres", "-XAtq", "-v", "VERBOSITY=verbose"]);
    for command in commands {
        client.args(["-c", command]);
    }
    let output = client.env("PGSSLMODE", "prefer").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    (text(output.stdout), text(output.stderr))
}

/// What `pgbench` says that runs this script ten times on one connection by a protocol.
fn pgbench(port: u16, protocol: &str, script: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let mut bench = Command::new("pgbench");
    bench.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    bench.args([
        "-n",
        "-t",
        "10",
        "-M",
        protocol,
        "--max-tries=1",
        "--failures-detailed",
    ]);
    bench.arg("-f").arg(file.path()).arg("postgres");
    let output = bench.output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn postgres_fail_chosen_statements_fail_with_their_transaction_and_others_pass() {
    let server = Server::start();
    let proxied = Proxied::start(
        "postgres-fail",
        server.port,
        json!({"command": ["insert", "UPDATE"], "statement": "(?i)\\borders\\b", "code": "40001", "message": "not today"}),
    );
    let (answers, errors) = psql(
        proxied.port,
        &[
            "select 1",
            "-- a comment\n /* and another */ insert into orders values (1)",
            "create table others (id int)",
            "insert into others values (1)",
            "begin",
            "insert into others values (2)",
            "update Orders set id = 2",
            "select 2",
            "commit",
            "copy (select repeat('x', 10) from generate_series(1, 20000)) to stdout",
            "select count(*) from others",
        ],
    );
    let lines: Vec<&str> = answers.lines().collect();
    // The insertion into `others` of the failed transaction is gone, and so is the statement after it.
    assert_eq!((lines[0], lines[lines.len() - 1]), ("1", "1"));
    assert_eq!(lines.len(), 20_002, "{errors}");
    let injected = errors.matches("ERROR:  40001: not today").count();
    let aborted = errors.matches("ERROR:  25P02").count();
    assert_eq!((injected, aborted), (2, 1), "{errors}");
    assert_eq!(errors.matches("ERROR").count(), 3, "{errors}");
    assert_eq!(proxied.figure("affected-requests"), 2.0);
    assert_eq!(proxied.figure("requests"), 11.0);
    // A copy from the client, whose rows come as messages that are no statements.
    let copied = psql(
        proxied.port,
        &[
            "\\copy others from program 'seq 1000'",
            "select count(*) from others",
        ],
    );
    assert_eq!(copied, ("1001".to_owned(), String::new()));

    // By prepared statements, each execution counts; what is not chosen on the same connection passes.
    for protocol in ["extended", "prepared"] {
        let before = proxied.figure("affected-requests");
        let said = pgbench(
            proxied.port,
            protocol,
            "\\set id 7\nselect :id;\ninsert into others values (:id);\ninsert into orders values (:id);\n",
        );
        assert!(
            said.contains("number of serialization failures: 10"),
            "{said}"
        );
        assert_eq!(proxied.figure("affected-requests") - before, 10.0, "{said}");
    }
    let said = psql(
        server.port,
        &["select count(*) from orders", "select count(*) from others"],
    );
    assert_eq!(said, ("0\n1021".to_owned(), String::new()));
}

#[test]
fn postgres_fail_delays_resets_and_refuses_tls() {
    let server = Server::start();
    let delayed = Proxied::start(
        "postgres-fail",
        server.port,
        json!({"command": "SELECT", "delay": "200ms", "refuse-tls": true}),
    );
    let begin = Instant::now();
    assert_eq!(
        psql(delayed.port, &["select 3"]),
        ("3".to_owned(), String::new())
    );
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let required = format!(
        "host=127.0.0.1 port={} user=postgres sslmode=require",
        delayed.port
    );
    let refused = Command::new("psql")
        .args(["-X", &required])
        .output()
        .unwrap();
    let cried = String::from_utf8(refused.stderr).unwrap();
    assert!(cried.contains("does not support SSL"), "{cried}");

    let mut reset = Proxied::start(
        "postgres-fail",
        server.port,
        json!({"statement": "secret", "abort": true, "percent": 100}),
    );
    let (answers, errors) = psql(reset.port, &["select 4", "select 'secret'"]);
    assert_eq!(answers, "4");
    assert!(errors.contains("connection"), "{errors}");
    assert_eq!(reset.figure("affected-requests"), 1.0);
    reset.kill();
    assert!(TcpStream::connect(("127.0.0.1", reset.port)).is_err());
}
