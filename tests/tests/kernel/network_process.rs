//! Network faults for the flows of one process that shares its network with others: by its control
//! group. The process is this side's or the listening one; whoever is beside it is untouched.

use backburn_tests::cgroups::Group;
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{HERE, THERE, Wire, at, echo_here, tcp, udp};
use backburn_tests::network_fault::{Fault, NEVER, SOON, figure, ruleset};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A process in a control group that does as it is told, with sockets of its own.
struct Puppet {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

const PUPPET: &str = r#"
import socket, sys, threading, time
def family(host): return socket.AF_INET6 if ':' in host else socket.AF_INET
def serve(listener):
    while True:
        stream, _ = listener.accept()
        stream.sendall(stream.recv(16)); stream.close()
for line in sys.stdin:
    kind, host, port, patience = line.split()
    try:
        started = time.monotonic()
        if kind == 'listen':
            listener = socket.create_server((host, int(port)), family=family(host))
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        else:
            s = socket.socket(family(host), socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
            s.settimeout(float(patience)); s.connect((host, int(port))); s.send(b'word'); s.recv(4); s.close()
        print('well', int((time.monotonic() - started) * 1000), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"#;

impl Puppet {
    fn new(group: &Group) -> Self {
        let mut child = group
            .command("python3")
            .args(["-c", PUPPET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`sh` starts");
        Puppet {
            told: child.stdin.take().expect("it is piped"),
            says: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    /// What becomes of a word there and back, or of listening.
    fn does(&mut self, what: &str, host: &str, port: u16, patience: Duration) -> String {
        writeln!(self.told, "{what} {host} {port} {}", patience.as_secs_f64()).expect("it listens");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }

    /// The time of a word there and back.
    fn takes(&mut self, what: &str, host: &str, port: u16) -> Duration {
        let said = self.does(what, host, port, SOON);
        let millis = said
            .strip_prefix("well ")
            .and_then(|time| time.parse().ok());
        Duration::from_millis(millis.unwrap_or_else(|| panic!("{what} {host}: {said}")))
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const WITH_PYTHON: [&str; 6] = ["unshare", "ip", "nft", "sleep", "python3", "sh"];

#[test]
fn network_partition_of_a_process_spares_its_neighbours() {
    in_network_namespace(&WITH_PYTHON, || {
        let wire = Wire::new();
        wire.echo(8000);
        let group = Group::new("client");
        let mut puppet = Puppet::new(&group);
        for there in THERE {
            puppet.takes("tcp", there, 8000);
            for (direction, percent) in [("both", 100.0), ("egress", 100.0), ("ingress", 100.0)] {
                let arguments = json!({"of": {"pid": puppet.child.id()}, "to": there, "direction": direction, "percent": percent});
                let fault = Fault::inject("network-loss", &arguments, "60s");
                // A loss has no error: only time runs out, for whoever sends UDP too.
                for kind in ["tcp", "udp"] {
                    assert_eq!(
                        puppet.does(kind, there, 8000, NEVER),
                        "TimeoutError",
                        "{direction} {kind} {there}"
                    );
                }
                assert!(tcp(at(there, 8000), SOON).is_ok() && udp(at(there, 8000), SOON).is_ok());
                assert!(!ruleset().contains("mark"), "nobody's marks are touched");
                let effect = fault.end();
                assert!(figure(&effect, "lost-packets") >= 2.0, "{effect}");
                assert_eq!(
                    effect["figures"]["chosen-packets"],
                    effect["figures"]["lost-packets"]
                );
                puppet.takes("tcp", there, 8000);
                puppet.takes("udp", there, 8000);
            }
            let of = json!({"cgroup": group.0});
            let fault = Fault::inject(
                "network-latency",
                &json!({"of": of, "delay": "300ms"}),
                "60s",
            );
            assert!(puppet.takes("udp", there, 8000) >= Duration::from_millis(300));
            let started = std::time::Instant::now();
            udp(at(there, 8000), SOON).expect("it answers");
            assert!(started.elapsed() < Duration::from_millis(300));
            assert_eq!(fault.end()["acts"], true);

            let fault = Fault::inject("network-reject", &json!({"of": of}), "60s");
            assert_eq!(
                puppet.does("tcp", there, 8000, SOON),
                "ConnectionRefusedError"
            );
            assert!(tcp(at(there, 8000), SOON).is_ok());
            fault.end();
        }
        // The one that listens.
        for here in HERE {
            assert!(puppet.does("listen", here, 8100, SOON).starts_with("well"));
        }
        echo_here(8200);
        let arguments = json!({"of": {"pid": puppet.child.id()}});
        let fault = Fault::inject("network-partition", &arguments, "60s");
        for here in HERE {
            let from_there = |port: u16, patience| wire.there(|| tcp(at(here, port), patience));
            assert!(from_there(8100, NEVER).is_err(), "{here}");
            assert!(from_there(8200, SOON).is_ok(), "{here}");
        }
        fault.end();
        for here in HERE {
            assert!(wire.there(|| tcp(at(here, 8100), SOON)).is_ok());
        }
        drop(puppet);
    });
}

#[test]
fn network_fault_of_an_indistinguishable_process_is_refused() {
    in_network_namespace(&WITH_PYTHON, || {
        let group = Group::new("shared");
        let (one, other) = (Puppet::new(&group), Puppet::new(&group));
        let mut puppets = [one, other];
        for puppet in &mut puppets {
            // It answers from within its group.
            puppet.does("tcp", "127.0.0.1", 1, SOON);
        }
        let mut outside = Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("it starts");
        let place = Place::default();
        let refuses = |arguments: Value, says: &[&str]| {
            let arguments = arguments.to_string();
            let words = [
                "inject",
                "network-partition",
                "--duration",
                "5s",
                "--arguments",
                &arguments,
            ];
            let output = place.agent(&words, None).stderr(Stdio::piped()).output();
            let output = output.expect("the agent starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{arguments}: {said}");
            for part in says.iter().chain(&["hint", "$."]) {
                assert!(
                    said.contains(part),
                    "{arguments} does not say `{part}`: {said}"
                );
            }
            assert!(place.ledger().is_empty() && ruleset().is_empty());
        };
        let pids = [puppets[0].child.id(), puppets[1].child.id()];
        refuses(
            json!({"of": {"pid": pids[0]}}),
            &[
                "also holds",
                &format!("({})", pids[1]),
                "select all of them",
            ],
        );
        refuses(
            json!({"of": {"pid": outside.id()}}),
            &["no control group of its own"],
        );
        refuses(json!({"of": {"pid": pids}, "protocol": "icmp"}), &["ICMP"]);
        // Both are all.
        let fault = Fault::inject("network-partition", &json!({"of": {"pid": pids}}), "60s");
        fault.end();
        outside.kill().ok();
        outside.wait().ok();
        drop(puppets);
    });
}
