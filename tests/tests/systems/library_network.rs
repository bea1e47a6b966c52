//! The library's experiments about networks, run for real with the program as it ships: clusters of
//! real software, each node in a network namespace of its own at one bridge.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::nodes::Nodes;
use backburn_tests::runs::{Ran, assert_clean, library};
use backburn_tests::software::Software;
use backburn_tests::wait::wait_within;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a cluster to find itself on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is a place for temporary files")
}

fn assert_held(ran: &Ran, state: &Path) {
    assert_eq!(
        ran.verdict["outcome"], "held",
        "{}\n{}",
        ran.verdict, ran.said
    );
    assert_eq!(ran.code, 0, "{}\n{}", ran.verdict, ran.said);
    assert_clean(ran, state);
    let (_, injection) = ran.run.injections.iter().next().expect("there is one");
    assert!(injection.acted, "{:?}", injection.effect);
    println!("{:?}", injection.effect);
}

fn takes_connections(address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn said(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn sentinel_with_its_primary_cut_off_fails_over() {
    let programs = [
        "unshare",
        "nsenter",
        "redis-server",
        "redis-sentinel",
        "redis-cli",
    ];
    in_network_namespace(&programs, || {
        let (folder, state) = (folder(), folder());
        let nodes = Nodes::new(3);
        let primary = nodes.address(0);
        let mut running = Vec::new();
        for node in 0..2 {
            let mut redis = quiet(nodes.command(node, "redis-server"));
            redis.args(["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
            redis
                .args(["--repl-timeout", "5"])
                .current_dir(folder.path());
            if node > 0 {
                redis.args(["--replicaof", &primary, "6379"]);
            }
            running.push(Software::start(&mut redis));
        }
        let cli = |address: &str, port: &str, words: &[&str]| {
            said(
                Command::new("redis-cli")
                    .args(["-h", address, "-p", port])
                    .args(words),
            )
        };
        wait_within("the replica follows", LONG, || {
            cli(&nodes.address(1), "6379", &["info", "replication"])
                .contains("master_link_status:up")
        });
        for node in 0..3 {
            let file = folder.path().join(format!("sentinel{node}.conf"));
            let text = format!(
                "port 26379\nprotected-mode no\nsentinel monitor mymaster {primary} 6379 2\n\
                 sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
            );
            std::fs::write(&file, text).expect("a temporary folder can be written to");
            let mut sentinel = quiet(nodes.command(node, "redis-sentinel"));
            running.push(Software::start(
                sentinel.arg(&file).current_dir(folder.path()),
            ));
        }
        wait_within(
            "the Sentinels know each other and the replica",
            LONG,
            || {
                (0..3).all(|node| {
                    let told = cli(
                        &nodes.address(node),
                        "26379",
                        &["sentinel", "master", "mymaster"],
                    );
                    let lines: Vec<&str> = told.lines().collect();
                    let field = |name: &str| {
                        let at = lines.iter().position(|line| *line == name)?;
                        lines.get(at + 1).copied()
                    };
                    field("num-slaves") == Some("1") && field("num-other-sentinels") == Some("2")
                })
            },
        );
        let ran = library(
            "redis-sentinel-failover",
            &[
                ("PRIMARY_NAMESPACE", nodes.namespace(0)),
                ("PRIMARY_HOST", primary.clone()),
                ("SENTINEL_HOST", nodes.address(2)),
            ],
            state.path(),
        );
        assert_held(&ran, state.path());
        // As described: the old primary comes back as a replica of the new one.
        wait_within("the old primary follows", LONG, || {
            let told = cli(&primary, "6379", &["role"]);
            told.starts_with("slave") && told.contains(&nodes.address(1))
        });
        drop(running);
    });
}

/// Where Debian keeps PostgreSQL's programs that it does not put on the path.
fn postgresql_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin"))
        .max()
        .unwrap_or_default()
}

#[test]
fn postgresql_client_under_latency_keeps_within_its_time() {
    let programs = ["unshare", "nsenter", "psql", "setpriv"];
    in_network_namespace(&programs, || {
        let (folder, state) = (folder(), folder());
        let nodes = Nodes::new(1);
        let user = nix::unistd::User::from_name("postgres")
            .expect("users can be read")
            .expect("the package makes the user");
        nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).expect("root may");
        let as_postgres = |program: &str| {
            let mut command = quiet(nodes.command(0, "setpriv"));
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
                "--",
            ]);
            command
                .arg(postgresql_programs().join(program))
                .current_dir(folder.path());
            command
        };
        let data = folder.path().join("data");
        let made = as_postgres("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "--no-sync"])
            .status();
        assert!(made.expect("it starts").success());
        let who = data.join("pg_hba.conf");
        std::fs::write(&who, "host all all 10.8.0.0/24 trust\n").expect("root may");
        let here = folder.path().display().to_string();
        let _postgres = Software::start(as_postgres("postgres").arg("-D").arg(&data).args([
            "-c",
            "listen_addresses=*",
            "-c",
            &format!("unix_socket_directories={here}"),
        ]));
        let host = nodes.address(0);
        wait_within("PostgreSQL is ready", LONG, || {
            said(Command::new("psql").args(["-h", &host, "-U", "postgres", "-XAtqc", "select 1"]))
                == "1"
        });
        let ran = library(
            "postgresql-latency",
            // A machine that builds and tests is slow; the fault adds 0.4 s.
            &[("PGHOST", host), ("LATENCY_LIMIT", "5".to_owned())],
            state.path(),
        );
        assert_held(&ran, state.path());
    });
}

#[test]
fn etcd_with_its_leader_cut_off_keeps_serving() {
    let programs = ["unshare", "nsenter", "etcd", "etcdctl"];
    in_network_namespace(&programs, || {
        let (folder, state) = (folder(), folder());
        let nodes = Nodes::new(3);
        let peers: Vec<String> = (0..3)
            .map(|node| format!("etcd{node}=http://{}:2380", nodes.address(node)))
            .collect();
        let client = |node: usize| format!("http://{}:2379", nodes.address(node));
        let running: Vec<Software> = (0..3)
            .map(|node| {
                let (own, peer) = (client(node), format!("http://{}:2380", nodes.address(node)));
                let mut etcd = quiet(nodes.command(node, "etcd"));
                etcd.args(["--name", &format!("etcd{node}"), "--data-dir"])
                    .arg(folder.path().join(format!("data{node}")))
                    .args([
                        "--listen-client-urls",
                        &own,
                        "--advertise-client-urls",
                        &own,
                    ])
                    .args([
                        "--listen-peer-urls",
                        &peer,
                        "--initial-advertise-peer-urls",
                        &peer,
                    ])
                    .args(["--initial-cluster", &peers.join(",")]);
                Software::start(&mut etcd)
            })
            .collect();
        let leads = |node: usize| {
            let mut status = Command::new("etcdctl");
            status
                .env("ETCDCTL_API", "3")
                .args(["--command-timeout=2s", "endpoint", "status"]);
            let status = said(status.arg(format!("--endpoints={}", client(node))));
            status.split(", ").nth(4) == Some("true")
        };
        let mut leader = None;
        wait_within("etcd has a leader", LONG, || {
            leader = (0..3).find(|node| leads(*node));
            leader.is_some()
        });
        let leader = leader.expect("it was waited for");
        let others: Vec<String> = (0..3).filter(|node| *node != leader).map(client).collect();
        let ran = library(
            "etcd-leader-partitioned",
            &[
                ("LEADER_NAMESPACE", nodes.namespace(leader)),
                ("OTHER_ENDPOINTS", others.join(",")),
            ],
            state.path(),
        );
        assert_held(&ran, state.path());
        // As described: the old leader follows, and has what was written without it.
        wait_within("the old leader follows", LONG, || {
            let mut get = Command::new("etcdctl");
            get.env("ETCDCTL_API", "3")
                .args(["--command-timeout=2s", "get", "--print-value-only"]);
            said(get.args([&format!("--endpoints={}", client(leader)), "backburn-probe"])) == "1"
                && !leads(leader)
        });
        drop(running);
    });
}

#[test]
fn haproxy_with_a_lossy_backend_routes_around_it() {
    let programs = ["unshare", "nsenter", "haproxy", "python3", "curl"];
    in_network_namespace(&programs, || {
        let (folder, state) = (folder(), folder());
        let nodes = Nodes::new(3);
        let mut running: Vec<Software> = (0..2)
            .map(|node| {
                let mut server = quiet(nodes.command(node, "python3"));
                server
                    .args(["-m", "http.server", "8000"])
                    .current_dir(folder.path());
                Software::start(&mut server)
            })
            .collect();
        for node in 0..2 {
            wait_within("the backends answer", LONG, || {
                takes_connections(&nodes.address(node), 8000)
            });
        }
        let (one, other) = (nodes.address(0), nodes.address(1));
        let text = format!(
            "defaults\n mode http\n timeout connect 500ms\n timeout client 10s\n timeout server 2s\n timeout check 250ms\n\
             \x20retries 4\n option redispatch 1\n retry-on all-retryable-errors\n\
             frontend pages\n bind :8080\n default_backend servers\n\
             backend servers\n balance roundrobin\n option httpchk GET /\n\
             \x20default-server check inter 200ms fall 2 rise 20\n server one {one}:8000\n server other {other}:8000\n\
             listen stats\n bind :8404\n stats enable\n stats uri /\n"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("a temporary folder can be written to");
        running.push(Software::start(
            quiet(nodes.command(2, "haproxy"))
                .arg("-db")
                .arg("-f")
                .arg(&file),
        ));
        let stats = || {
            let url = format!("http://{}:8404/;csv", nodes.address(2));
            said(Command::new("curl").args(["--silent", "--max-time", "5", &url]))
        };
        // Of a server's line: how often its checks found it down, field 22 of HAProxy's own table.
        let downs = |name: &str| {
            let table = stats();
            let line = table
                .lines()
                .find(|line| line.starts_with(&format!("servers,{name},")));
            line.and_then(|line| line.split(',').nth(22)?.parse::<u64>().ok())
        };
        wait_within("HAProxy answers", LONG, || downs("one") == Some(0));
        let ran = library(
            "haproxy-lossy-backend",
            &[
                ("BACKEND_NAMESPACE", nodes.namespace(0)),
                ("HAPROXY_URL", format!("http://{}:8080/", nodes.address(2))),
                // A page may be tried several times on a busy machine before it comes.
                ("PAGE_LIMIT", "10".to_owned()),
            ],
            state.path(),
        );
        assert_held(&ran, state.path());
        assert!(downs("one") >= Some(1), "it was taken out: {}", stats());
        drop(running);
    });
}
