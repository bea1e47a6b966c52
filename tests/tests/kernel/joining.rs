//! An agent joins a controller with a token and stays connected over TLS: whoever dies, vanishes
//! or is not what they say, what was broken is put back.

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Command as Say};
use backburn_tests::connector::{Connector, join, strike};
use backburn_tests::controller::{Controller, Linked};
use backburn_tests::crash::Place;
use backburn_tests::isolated::{in_namespaces, in_network_namespace};
use backburn_tests::network::{DEVICE, THERE, Wire, at, ip, tcp};
use backburn_tests::network_fault::{NEVER, PROGRAMS, SOON, ruleset};
use backburn_tests::processes::{self, process};
use backburn_tests::wait::wait_until;
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a process has in memory for itself alone, in KiB: pages of the program are shared, and come and go.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("it says so").parse().expect("a number")
}

/// Somebody to be paused.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        let victim = Victim(command.arg("1000").spawn().expect("`sleep` starts"));
        // A program has its name a moment after whoever starts it goes on.
        let pid = victim.0.id() as i32;
        wait_until("it is there", || {
            process(pid).is_some_and(|p| p.name == "sleep")
        });
        victim
    }

    fn state(&self) -> char {
        process(self.0.id() as i32).expect("it lives").state
    }

    fn is_paused_by(&self, link: &Linked) {
        link.injects(
            "trial",
            "process-pause",
            &json!({"process": {"name": "sleep"}}),
        );
        // Stopped by a signal, or held by tracing.
        assert!(matches!(self.state(), 'T' | 't'));
    }

    fn goes_on(&self) {
        wait_until("the victim goes on", || self.state() == 'S');
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One controller, and an agent that has joined it and is connected.
fn joined(place: &Place) -> (Controller, Connector, Linked) {
    let controller = Controller::here();
    let address = controller.address.to_string();
    join(place, &address, &controller.token("1"), &["--name", "db-1"]).expect("it joins");
    let connector = Connector::new(place);
    let link = controller.link();
    assert_eq!(link.identity.name, "db-1");
    assert_eq!(link.hello().agent, "db-1");
    (controller, connector, link)
}

#[test]
fn agent_joins_injects_and_reverts() {
    in_namespaces(&[], || {
        let place = Place::default();
        let controller = Controller::here();
        let token = controller.token("1");
        let port = controller.address.port();
        let address = format!("localhost:{port}");
        let labels = ["--name", "db-1", "--label", "role=db", "--label", "os=mine"];
        join(&place, &address, &token, &labels).expect("it joins");
        let file = place.state().join("controller.json");
        let mode = file.metadata().expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A controller that takes an agent's own word still hears what was given. This one grants labels.
        let said = controller.labels();
        assert_eq!((said["role"].as_str(), said["os"].as_str()), ("db", "mine"));
        assert!(said.contains_key("kernel") && said.contains_key("arch"));

        let mut connector = Connector::new(&place);
        let link = controller.link();
        let hello = link.hello();
        let found = |name: &String| name != "role" && name != "os";
        assert!(!hello.labels.contains_key("role"), "{:?}", hello.labels);
        assert_ne!(hello.labels["os"], "mine");
        for name in said.keys().filter(|name| found(name)) {
            assert_eq!(hello.labels[name], said[name]);
        }
        assert!(hello.faults.len() > 5);
        let (guardian, worker) = connector.agent();
        for (who, pid) in [
            ("connector", connector.pid()),
            ("guardian", guardian),
            ("worker", worker),
        ] {
            println!("at rest: {who} {} KiB", resident(pid));
        }
        let victim = Victim::new();
        victim.is_paused_by(&link);
        assert_eq!(link.reverts("trial"), Cause::ControllerRequest);
        victim.goes_on();

        // Told to end: everything is put back, said, and then it goes.
        victim.is_paused_by(&link);
        assert_eq!(connector.ends(), Some(0));
        victim.goes_on();
        assert_eq!(link.hears_of_the_end().cause, Cause::Shutdown);
        assert!(link.hears_to_the_end().is_empty());
        assert!(place.ledger().is_empty());
        assert!(processes::of_backburn().is_empty());
    });
}

#[test]
fn connected_agent_with_any_process_killed_reverts() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, mut link) = joined(&place);
        let victim = Victim::new();
        for pick in [|(guardian, _)| guardian, |(_, worker)| worker] {
            victim.is_paused_by(&link);
            strike(pick(connector.agent()), Signal::SIGKILL);
            victim.goes_on();
            link.hears_to_the_end();
            // The connector brings another.
            link = controller.link();
            link.hello();
        }
        victim.is_paused_by(&link);
        strike(connector.pid(), Signal::SIGKILL);
        victim.goes_on();
        link.hears_to_the_end();
        wait_until("the ledger is empty", || place.ledger().is_empty());
    });
}

#[test]
fn agent_of_a_closed_controller_reconnects() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, link) = joined(&place);
        let victim = Victim::new();
        victim.is_paused_by(&link);
        drop(link);
        victim.goes_on();
        let link = controller.link();
        link.hello();
        victim.is_paused_by(&link);
        // A goodbye ends the agent, and not its connector.
        link.says(Say::Shutdown);
        assert_eq!(link.hears_of_the_end().cause, Cause::ControllerRequest);
        victim.goes_on();
        link.hears_to_the_end();
        controller.link().hello();
        assert!(process(connector.pid()).is_some());
        drop(connector);
    });
}

#[test]
fn agent_of_a_silent_controller_reverts() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, link) = joined(&place);
        let victim = Victim::new();
        victim.is_paused_by(&link);
        link.falls_silent();
        assert_eq!(link.hears_of_the_end().cause, Cause::LeaseExpired);
        victim.goes_on();
        drop((link, connector, controller));
    });
}

#[test]
fn agent_of_a_controller_that_does_not_read_reverts() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, link) = joined(&place);
        let victim = Victim::new();
        victim.is_paused_by(&link);
        link.goes_deaf();
        // Each is answered with its own words: more than all buffers between have room for, at the least.
        let fault = "x".repeat(500_000);
        for request in 0..60 {
            let injection =
                json!({"id": "other", "run": "run", "fault": fault, "duration": "1s", "seed": 1});
            link.says(Say::Plan {
                request,
                injection: serde_json::from_value(injection).expect("a request"),
            });
        }
        victim.goes_on();
        wait_until("the ledger is empty", || place.ledger().is_empty());
        drop((link, connector, controller));
    });
}

#[test]
fn tls_link_survives_total_loss_and_a_cut_wire() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        for there in THERE {
            let place = Place::default();
            let listener = wire.there(|| TcpListener::bind(at(there, 0)).expect("a port is free"));
            let lease = HumanDuration::seconds(6);
            let controller = Controller::new(listener, MONTH, lease);
            let address = controller.address.to_string();
            join(
                &place,
                &address,
                &controller.token("1"),
                &["--name", "db-1"],
            )
            .expect("it joins");
            let mut connector = Connector::new(&place);
            let link = controller.link();
            link.hello();
            let everything = json!({"to": ["0.0.0.0/0", "::/0"], "percent": 100});
            link.injects("trial", "network-loss", &everything);
            let started = Instant::now();
            while started.elapsed() < lease.0 * 2 {
                for other in THERE {
                    assert!(tcp(at(other, 8000), NEVER).is_err(), "all else is lost");
                }
            }
            assert!(ruleset().contains("backburn-trial-0"), "it acts still");
            assert_eq!(link.reverts("trial"), Cause::ControllerRequest);
            assert_eq!(ruleset(), "");
            assert!(tcp(at(there, 8000), SOON).is_ok());

            // The controller vanishes: nobody closes anything.
            link.injects("again", "network-loss", &everything);
            ip(&["link", "set", DEVICE, "down"]);
            wait_until("the lease is over", || ruleset().is_empty());
            wait_until("the ledger is empty", || place.ledger().is_empty());
            assert_eq!(connector.ends(), Some(0));
            drop((link, connector, controller));
            ip(&["link", "set", DEVICE, "up"]);
            // Addresses of IPv6 went with it.
            ip(&["address", "replace", "fd09::1/64", "dev", DEVICE, "nodad"]);
        }
    });
}

#[test]
fn certificate_is_renewed_in_time_and_used_when_reconnecting() {
    in_namespaces(&[], || {
        let place = Place::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let lasts = Duration::from_secs(30);
        let controller = Controller::new(listener, lasts, HumanDuration::seconds(10));
        let address = controller.address.to_string();
        join(
            &place,
            &address,
            &controller.token("1"),
            &["--name", "db-1"],
        )
        .expect("it joins");
        let kept = || std::fs::read_to_string(place.state().join("controller.json")).ok();
        let before = kept();
        let connector = Connector::new(&place);
        let first = controller.link();
        first.hello();
        // Two thirds of the life later, while the link stands.
        wait_until("another certificate is kept", || kept() != before);
        drop(first);
        let second = controller.link();
        let issued = controller.issued();
        assert!(issued.iter().all(|agent| agent.name == "db-1"));
        assert!(issued.contains(&second.identity));
        assert_ne!(second.identity.serial, issued[0].serial);
        drop((second, connector));
    });
}

#[test]
fn join_refused_says_why_and_what_to_do() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, other) = (Controller::here(), Controller::here());
        let address = controller.address.to_string();
        let token = controller.token("1");
        join(&place, &address, &token, &[]).expect("it joins");
        let kept = || std::fs::read(place.state().join("controller.json")).expect("it is kept");
        let before = kept();
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let nobody = silent.local_addr().expect("it has one").to_string();
        drop(silent);
        let plain = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let speaks_plainly = plain.local_addr().expect("it has one").to_string();
        std::thread::spawn(move || {
            use std::io::Write as _;
            for mut stream in plain.incoming().flatten() {
                stream.write_all(b"SSH-2.0-hello\r\n").ok();
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let fresh = controller.token("2");
        for (to, token, name, why) in [
            (address.as_str(), token.as_str(), "a", "rule: token"),
            (
                &address,
                &other.token("3"),
                "a",
                "not signed by the authority",
            ),
            (&nobody, &fresh, "a", "Connection refused"),
            (
                "no-such-host.invalid:1",
                &fresh,
                "a",
                "`no-such-host.invalid` could not be resolved",
            ),
            ("host:port", &fresh, "a", "HOST[:PORT]"),
            (&speaks_plainly, &fresh, "a", "does not speak TLS"),
            (&address, "bbj1.1.2.3", "a", "secret"),
            (&address, &fresh, "a/b", "can't be an agent's name"),
        ] {
            let said = join(&place, to, token, &["--name", name]).expect_err(why);
            assert!(
                said.contains(why) && said.contains("hint:"),
                "{why}: {said}"
            );
            assert!(!said.contains("5e5e5e"), "a secret is shown: {said}");
        }
        assert_eq!(kept(), before, "what was joined before is still there");
        join(&place, &address, &fresh, &["--name", "db-2"]).expect("the token is still good");
        assert_ne!(kept(), before, "joining again replaces");
    });
}

/// The lines that a connector says on its standard error.
fn said_by(place: &Place) -> (Connector, impl Iterator<Item = String> + use<>) {
    let mut command = place.agent(&["connect"], None);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    (Connector::of(child), lines.map_while(Result::ok))
}

#[test]
fn revoked_host_is_told_so_and_starts_no_agent() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, link) = joined(&place);
        controller.revoke(&link.identity.serial);
        drop((connector, link));
        let (mut connector, mut lines) = said_by(&place);
        let said = lines.find(|line| line.contains("not connected"));
        let said = said.expect("it says something");
        assert!(said.contains("revoked this agent's certificate"), "{said}");
        assert!(said.contains("hint"), "{said}");
        assert_eq!(processes::of_backburn().len(), 1, "the connector alone");
        assert_eq!(connector.ends(), Some(0));
        assert!(!controller.has_link());
        // A new token makes it good again.
        let address = controller.address.to_string();
        join(
            &place,
            &address,
            &controller.token("2"),
            &["--name", "db-1"],
        )
        .expect("it joins");
        let connector = Connector::new(&place);
        assert_eq!(controller.link().identity.name, "db-1");
        drop(connector);
    });
}

#[test]
fn connect_without_membership_says_what_to_do() {
    let place = Place::default();
    let mut command = place.agent(&["connect"], None);
    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("has not joined") && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn faults_of_a_dead_agent_are_reverted_before_connecting() {
    in_namespaces(&[], || {
        let place = Place::default();
        let (controller, connector, link) = joined(&place);
        let victim = Victim::new();
        victim.is_paused_by(&link);
        // All at once, as when somebody is very thorough.
        let (guardian, worker) = connector.agent();
        for pid in [connector.pid(), guardian, worker] {
            strike(pid, Signal::SIGSTOP);
        }
        for pid in [guardian, worker, connector.pid()] {
            strike(pid, Signal::SIGKILL);
        }
        drop((connector, link, controller));
        assert_eq!(place.ledger().len(), 1, "nobody was left to settle it");
        let mut connector = Connector::new(&place);
        victim.goes_on();
        wait_until("the ledger is empty", || place.ledger().is_empty());
        assert_eq!(connector.ends(), Some(0));
    });
}
