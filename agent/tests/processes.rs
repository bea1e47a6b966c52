//! The process table and selectors on the real kernel.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use backburn_agent::doctor::{self, Availability};
use backburn_agent::metrics::Metrics;
use backburn_agent::processes::{Found, ProcessSelector, ProcessTable, Protection, seen_services};
use backburn_experiments::document::HostMetric;
use backburn_experiments::wire::Refusal;
use common::{VictimProcess, is_root, python, until};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

fn find(selector: Value) -> Result<Found, Refusal> {
    let selector: ProcessSelector = serde_json::from_value(selector).unwrap();
    selector.find(
        "$.process",
        &ProcessTable::default(),
        &Protection::default(),
        1,
    )
}

/// The ids of everyone that a selector means.
fn all(mut selector: Value) -> Vec<i32> {
    selector["select"] = json!("all");
    let mut pids: Vec<i32> = find(selector)
        .unwrap()
        .victims
        .iter()
        .map(|process| process.id.pid)
        .collect();
    pids.sort_unstable();
    pids
}

#[test]
fn selector_finds_a_real_process_by_each_criterion() {
    let name = format!("victim-{}", std::process::id());
    let victim = VictimProcess::start(Command::new("sleep").arg0(&name).arg("61.5"));
    let own = std::process::id();
    let pid = victim.id.pid;
    for selector in [
        json!({"pid": pid}),
        json!({"name": "sleep", "children-of": own, "command-line": "61\\.5"}),
        json!({"command-line": format!("^{name} 61")}),
        json!({"user": rustix::process::geteuid().as_raw(), "command-line": name}),
    ] {
        assert_eq!(all(selector.clone()), [pid], "{selector}");
    }
    let found = find(json!({"pid": pid})).unwrap();
    let process = &found.victims[0];
    assert_eq!(
        (process.id, process.name.as_str(), process.parent),
        (victim.id, "sleep", own as i32)
    );
    assert_eq!(process.to_string(), format!("sleep ({pid})"));
}

#[test]
fn selector_long_name_matches_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a-name-of-more-than-fifteen-bytes");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let victim = VictimProcess::start(Command::new(&program).arg("60"));
    assert_eq!(
        all(json!({"name": "a-name-of-more-than-fifteen-bytes", "pid": victim.id.pid})),
        [victim.id.pid]
    );
    assert_eq!(
        find(json!({"name": "a-name-of-more-than-fifteen"}))
            .unwrap_err()
            .rule,
        "no-match"
    );
    assert_eq!(
        find(json!({"pid": victim.id.pid})).unwrap().victims[0].name,
        "a-name-of-more-than-fifteen-bytes"
    );
}

#[test]
fn process_that_shows_a_secret_in_its_title_is_named_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("exporter-of-a-data-base");
    std::fs::copy("/bin/sleep", &program).unwrap();
    for title in [
        "exporter-of-a-data-base: dsn=postgres://a:secret@b",
        "exporter-of-a-data-base secret",
        "exporter-of-a-data-base\tsecret",
    ] {
        let mut command = Command::new(&program);
        let victim = VictimProcess::start(command.arg0(title).arg("62.5"));
        let found = find(json!({"pid": victim.id.pid})).unwrap();
        assert_eq!(found.victims[0].name, "exporter-of-a-data-base", "{title}");
        assert_eq!(
            all(json!({"name": "exporter-of-a-data-base"})),
            [victim.id.pid]
        );
    }
}

#[test]
fn selector_listening_finds_only_the_listeners() {
    const LISTEN: &str = "
import os, socket, sys, time
kind, family = sys.argv[1:]
family = getattr(socket, family)
s = socket.socket(family, getattr(socket, kind))
s.bind(('::1' if family == socket.AF_INET6 else '127.0.0.1', 0))
if kind == 'SOCK_STREAM': s.listen()
print(s.getsockname()[1], flush=True)
time.sleep(60)";
    for (kind, family) in [
        ("SOCK_STREAM", "AF_INET"),
        ("SOCK_STREAM", "AF_INET6"),
        ("SOCK_DGRAM", "AF_INET"),
    ] {
        let mut victim =
            VictimProcess::start(Command::new("python3").args(["-c", LISTEN, kind, family]));
        let port: u16 = victim.line().parse().unwrap();
        // Somebody who is only connected to the port does not listen on it.
        let client = format!(
            "
import socket, time
s = socket.socket(socket.{family}, socket.{kind})
s.connect(('{}', {port}))
print('ready', flush=True)
time.sleep(60)",
            if family == "AF_INET6" {
                "::1"
            } else {
                "127.0.0.1"
            }
        );
        let _client = python(&client);
        assert_eq!(
            all(json!({"listening": port})),
            [victim.id.pid],
            "{kind} {family}"
        );
        assert_eq!(
            all(json!({"listening": [1, port], "name": "python3"})),
            [victim.id.pid]
        );
        drop(victim);
        assert_eq!(
            find(json!({"listening": port})).unwrap_err().rule,
            "no-match"
        );
    }
    // Our own are spared.
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(
        find(json!({"listening": own.local_addr().unwrap().port()}))
            .unwrap_err()
            .rule,
        "protected"
    );
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(
        find(json!({"listening": own.local_addr().unwrap().port()}))
            .unwrap_err()
            .rule,
        "protected"
    );
}

#[test]
fn selector_listening_in_another_network_finds_the_process() {
    if !is_root("a_port_in_another_network_is_found_there") {
        return;
    }
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut victim = VictimProcess::start(Command::new("python3").args([
            "-c",
            "import socket, time\ns = socket.create_server(('0.0.0.0', 7))\nprint('ready', flush=True)\ntime.sleep(60)",
        ]));
        assert_eq!(victim.line(), "ready");
        assert_eq!(all(json!({"listening": 7})), [victim.id.pid]);
    })
    .join()
    .unwrap();
}

#[test]
fn selector_listening_without_place_searches_the_own_network() {
    if !is_root("port_is_looked_for_in_the_own_network_unless_something_says_where") {
        return;
    }
    std::thread::spawn(|| {
        // A network of this thread's own, so that no other test's ports are in it.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let server = "import socket, time\ns = socket.create_server(('0.0.0.0', 7))\nprint('ready', flush=True)\ntime.sleep(60)";
        let start = |command: &mut Command| {
            let mut victim = VictimProcess::start(command);
            assert_eq!(victim.line(), "ready");
            victim
        };
        let own = start(Command::new("python3").args(["-c", server]));
        let other = start(Command::new("unshare").args(["--net", "python3", "-c", server]));
        let (own_pid, other_pid) = (own.id.pid, other.id.pid);
        let name = format!("python3 ({other_pid})");
        for selector in [
            json!({"listening": 7}),
            json!({"listening": 7, "name": "python3"}),
            json!({"listening": 7, "user": 0}),
        ] {
            assert_eq!(all(selector.clone()), [own_pid], "{selector}");
            let notes = find(selector).unwrap().notes();
            let has = |begin: &str, who: &str| {
                notes.iter().any(|note| note.starts_with(begin) && note.contains(who))
            };
            assert!(has("listening in the agent's own network", "python3"), "{notes:?}");
            assert!(has("not selected", &name), "{notes:?}");
        }
        let mut both = vec![own_pid, other_pid];
        both.sort_unstable();
        assert_eq!(all(json!({"listening": 7, "pid": both})), both);
        assert_eq!(all(json!({"listening": 7, "pid": other_pid})), [other_pid]);
        let notes = find(json!({"listening": 7, "pid": other_pid})).unwrap().notes();
        let elsewhere = format!("listening in a network other than the agent's: {name}");
        assert!(notes.contains(&elsewhere), "{notes:?}");
        // Who is excepted by a port is so in any network.
        let except = json!({"pid": both, "except": {"listening": 7}});
        assert_eq!(find(except).unwrap_err().rule, "no-match");
        drop(own);
        let refusal = find(json!({"listening": 7})).unwrap_err();
        assert_eq!(refusal.rule, "no-match");
        let hint = refusal.hint.unwrap();
        assert!(hint.contains(&name) && hint.contains("`container`"), "{hint}");
        // A socket of our network's counts where it was made, whoever holds it.
        let listener = TcpListener::bind("0.0.0.0:7").unwrap();
        let mut handed = Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .stdin(std::os::fd::OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let pid = handed.id() as i32;
        until("it runs its program", || {
            ProcessTable::default().name(pid).as_deref() == Some("sleep")
        });
        let meant = find(json!({"listening": 7, "name": "sleep"}));
        handed.kill().unwrap();
        handed.wait().unwrap();
        assert_eq!(meant.unwrap().victims[0].id.pid, pid);
    })
    .join()
    .unwrap();
}

#[test]
fn selector_spares_zombies_and_this_process() {
    let mut victim = VictimProcess::start(&mut Command::new("true"));
    until("it is a zombie", || {
        ProcessTable::default().state(victim.id) == Some('Z')
    });
    assert!(!ProcessTable::default().alive(victim.id));
    assert_eq!(
        find(json!({"pid": victim.id.pid})).unwrap_err().rule,
        "protected"
    );
    victim.child.wait().unwrap();
    assert_eq!(
        find(json!({"pid": victim.id.pid})).unwrap_err().rule,
        "no-match"
    );

    let own = find(json!({"pid": std::process::id()})).unwrap_err();
    assert!(own.what.contains("a process of Backburn"), "{own}");
    assert_eq!(find(json!({"pid": 1})).unwrap_err().rule, "protected");
    assert!(
        all(json!({"user": "root", "except": {"name": "sleep"}}))
            .iter()
            .all(|pid| *pid != 2)
    );
}

#[test]
fn metrics_of_this_host_are_all_measured() {
    let mut metrics = Metrics::default();
    for metric in [
        HostMetric::CpuBusyPercent,
        HostMetric::MemoryAvailablePercent,
        HostMetric::DiskFreePercent,
        HostMetric::CpuBusyPercent,
    ] {
        let figure = metrics.measure(metric, None).unwrap();
        assert!((0.0..=100.0).contains(&figure), "{metric:?}: {figure}");
    }
    assert!(metrics.measure(HostMetric::Load1, None).unwrap() >= 0.0);
    assert!(metrics.measure(HostMetric::Processes, None).unwrap() >= 2.0);
    for metric in [
        HostMetric::CpuPressurePercent,
        HostMetric::MemoryPressurePercent,
        HostMetric::IoPressurePercent,
    ] {
        match metrics.measure(metric, None) {
            Ok(figure) => assert!((0.0..=100.0).contains(&figure), "{metric:?}: {figure}"),
            Err(error) => assert!(error.to_string().contains("/proc/pressure/"), "{error}"),
        }
    }
    let error = metrics
        .measure(HostMetric::DiskFreePercent, Some("/nonexistent"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nonexistent: ") && error.contains("\nhint: "),
        "{error}"
    );
}

#[test]
fn metrics_busy_processor_shows_since_the_last_measurement() {
    let mut metrics = Metrics::default();
    let _busy = python("print('ready', flush=True)\nwhile True: pass");
    metrics.measure(HostMetric::CpuBusyPercent, None).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let share = metrics.measure(HostMetric::CpuBusyPercent, None).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(share > 60.0 / processors, "{share}");
}

#[test]
fn metrics_kernel_formats_are_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n");
    write("loadavg", "1.25 0.50 0.10 1/100 4711\n");
    write(
        "meminfo",
        "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n",
    );
    let mut metrics = Metrics::at(folder.path());
    write("stat", "cpu  150 0 130 800 120 0 0 0 0 0\ncpu0 1 1 1 1\n");
    assert_eq!(
        metrics.measure(HostMetric::CpuBusyPercent, None).unwrap(),
        40.0
    );
    // Nothing has passed since: the last share stands.
    assert_eq!(
        metrics.measure(HostMetric::CpuBusyPercent, None).unwrap(),
        40.0
    );
    assert_eq!(metrics.measure(HostMetric::Load1, None).unwrap(), 1.25);
    assert_eq!(
        metrics
            .measure(HostMetric::MemoryAvailablePercent, None)
            .unwrap(),
        25.0
    );
    let error = metrics
        .measure(HostMetric::IoPressurePercent, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("pressure/io: ") && error.contains("hint: "),
        "{error}"
    );
}

#[test]
fn doctor_reports_everything_and_hints_at_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let findings = doctor::examine(folder.path());
    assert!(findings.len() >= 10);
    for finding in &findings {
        println!("{finding}");
        assert_eq!(
            finding.hint.is_some(),
            finding.ok != Availability::Yes,
            "{finding}"
        );
    }
    let ok = |name: &str| {
        findings
            .iter()
            .find(|finding| finding.name == name)
            .unwrap()
            .ok
    };
    assert_eq!(
        (ok("pidfd"), ok("deadline"), ok("process table")),
        (Availability::Yes, Availability::Yes, Availability::Yes)
    );
    let nowhere = doctor::examine(std::path::Path::new("/proc/1/nowhere"));
    assert_eq!(
        nowhere
            .iter()
            .find(|finding| finding.name == "state folder")
            .unwrap()
            .ok,
        Availability::No
    );
}

#[test]
fn services_are_those_that_listen_or_are_connected_and_that_nothing_protects() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = server.local_addr().unwrap();
    let code = format!(
        "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
         c = socket.create_connection(('127.0.0.1', {}))\n\
         c.send(str(s.getsockname()[1]).encode() + b'\\n')\nprint('ready', flush=True)\ntime.sleep(60)",
        peer.port()
    );
    let victim = python(&code);
    // Kept open, so that the victim stays connected.
    let (stream, _) = server.accept().unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut port).unwrap();
    let at = ([127, 0, 0, 1], port.trim().parse().unwrap()).into();
    let name = ProcessTable::default().name(victim.id.pid).unwrap();
    let seen = |protection: &Protection| {
        let all = seen_services(&ProcessTable::default(), protection).unwrap();
        all.into_iter()
            .find(|service| service.listening.contains(&at))
    };
    let service = seen(&Protection::default()).unwrap();
    assert_eq!(
        (service.name.as_str(), service.processes),
        (name.as_str(), 1)
    );
    assert!(
        service.is_in_own_network && service.peers.contains(&peer),
        "{service:?}"
    );
    let protecting = Protection {
        names: vec![name],
        ..Protection::default()
    };
    assert_eq!(seen(&protecting), None);
}
