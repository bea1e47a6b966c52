//! Flows whose addresses are translated on their way: a service's address that stands for a server, and a port that is published for
//! one behind this host. They are chosen by what they were before, in both directions, and others like them are not.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{HERE, THERE, Wire, at, ip, keeper, tcp, udp, within};
use backburn_tests::network_fault::{Fault, NEVER, PROGRAMS, SOON, figure};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Addresses that no interface has.
const SERVICES: [&str; 2] = ["10.96.0.10", "fd96::10"];

fn nft(rules: &str) {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("`nft` starts");
    let mut words = nft.stdin.take().expect("it is a pipe");
    words.write_all(rules.as_bytes()).expect("it reads");
    drop(words);
    assert!(nft.wait().is_ok_and(|status| status.success()), "{rules}");
}

/// Whether a word comes back by TCP, and by UDP.
fn answers(to: SocketAddr, patience: Duration) -> [bool; 2] {
    [tcp(to, patience).is_ok(), udp(to, patience).is_ok()]
}

/// As clusters do it: whoever connects to a service from this host comes to a server.
fn with_services() -> Wire {
    let wire = Wire::new();
    for port in [8000, 8001] {
        wire.echo(port);
    }
    ip(&["route", "add", "10.96.0.0/16", "via", THERE[0]]);
    ip(&["-6", "route", "add", "fd96::/64", "via", THERE[1]]);
    nft(&format!(
        "table ip nat {{ chain out {{ type nat hook output priority -100
             ip daddr {0} tcp dport 80 dnat to {2}:8000
             ip daddr {0} udp dport 80 dnat to {2}:8000
             ip daddr {0} tcp dport 81 dnat to {2}:8001
             ip daddr {0} udp dport 81 dnat to {2}:8001
         }}\n}}
         table ip6 nat {{ chain out {{ type nat hook output priority -100
             ip6 daddr {1} tcp dport 80 dnat to [{3}]:8000
             ip6 daddr {1} udp dport 80 dnat to [{3}]:8000
             ip6 daddr {1} tcp dport 81 dnat to [{3}]:8001
             ip6 daddr {1} udp dport 81 dnat to [{3}]:8001
         }}\n}}\n",
        SERVICES[0], SERVICES[1], THERE[0], THERE[1]
    ));
    wire
}

#[test]
fn translated_service_address_is_cut_each_way() {
    in_network_namespace(&PROGRAMS, || {
        let _wire = with_services();
        for family in [0, 1] {
            let service = at(SERVICES[family], 80);
            let other = at(SERVICES[family], 81);
            let direct = at(THERE[family], 8000);
            assert_eq!(answers(service, SOON), [true, true]);
            for (fault, more, hit) in [
                ("network-partition", json!({}), [true, true]),
                (
                    "network-partition",
                    json!({"direction": "egress"}),
                    [true, true],
                ),
                (
                    "network-partition",
                    json!({"direction": "ingress"}),
                    [true, true],
                ),
                (
                    "network-partition",
                    json!({"protocol": "udp"}),
                    [false, true],
                ),
                (
                    "network-loss",
                    json!({"percent": 100, "direction": "egress"}),
                    [true, true],
                ),
                ("network-reject", json!({}), [true, true]),
                (
                    "network-reject",
                    json!({"direction": "egress", "with": "prohibited"}),
                    [true, true],
                ),
            ] {
                let mut arguments = json!({"to": service.to_string()});
                for (key, value) in more.as_object().expect("an object") {
                    arguments[key] = value.clone();
                }
                let acting = Fault::inject(fault, &arguments, "60s");
                let [by_tcp, by_udp] = answers(service, NEVER);
                assert_eq!([!by_tcp, !by_udp], hit, "{fault} {arguments}");
                assert_eq!(answers(other, SOON), [true, true], "{fault} {arguments}");
                assert_eq!(answers(direct, SOON), [true, true], "{fault} {arguments}");
                let effect = acting.end();
                assert_eq!(effect["acts"], true, "{effect}");
                assert_eq!(answers(service, SOON), [true, true]);
            }
            // What is excepted is spared for what it was, though what it became is named.
            let arguments = json!({"to": direct.to_string(), "except": other.ip().to_string()});
            let acting = Fault::inject("network-partition", &arguments, "60s");
            assert_eq!(answers(service, SOON), [true, true]);
            assert_eq!(answers(direct, NEVER), [false, false]);
            acting.end();
        }
    });
}

#[test]
fn translated_service_address_is_delayed_and_duplicated() {
    in_network_namespace(&PROGRAMS, || {
        let wire = with_services();
        for family in [0, 1] {
            let service = at(SERVICES[family], 80);
            let other = at(SERVICES[family], 81);
            let took = |to| {
                let started = Instant::now();
                assert_eq!(answers(to, SOON), [true, true]);
                started.elapsed()
            };
            let arguments =
                json!({"to": service.to_string(), "delay": "150ms", "direction": "ingress"});
            let acting = Fault::inject("network-latency", &arguments, "60s");
            // To connect, to hear the word, and to hear it by UDP.
            let slow = took(service);
            // No packet of another is held: then it could not be so quick, however often it is tried.
            wait_within("another is quick", Duration::from_secs(60), || {
                took(other) < Duration::from_millis(430)
            });
            let effect = acting.end();
            assert!(slow > Duration::from_millis(430), "{slow:?}");
            assert!(figure(&effect, "held-packets") >= 3.0, "{effect}");

            // Whole packets, by a device of ours, and each word twice.
            let arguments = json!({"to": service.to_string(), "percent": 100, "protocol": "udp", "direction": "egress", "backend": "nfqueue"});
            let acting = Fault::inject("network-duplicate", &arguments, "60s");
            took(service);
            let effect = acting.end();
            assert_eq!(figure(&effect, "duplicated-packets"), 1.0, "{effect}");
            let arguments =
                json!({"to": service.to_string(), "direction": "egress", "rate": "80kbit/s"});
            let acting = Fault::inject("network-bandwidth", &arguments, "60s");
            took(service);
            took(other);
            let effect = acting.end();
            assert_eq!(effect["acts"], true, "{effect}");
            let shaped = figure(&effect, "shaped-packets");
            assert!((5.0..12.0).contains(&shaped), "only one of two: {effect}");
        }
        drop(wire);
    });
}

/// A server behind this host, with a port here that is published for it, as containers have it.
struct Published {
    server: Child,
    wire: Wire,
}

/// The addresses of the server, and of this host on the way to it.
const INSIDE: [&str; 2] = ["10.77.0.2", "fd77::2"];
const GATES: [&str; 2] = ["10.77.0.1", "fd77::1"];

impl Published {
    fn new() -> Self {
        let wire = Wire::new();
        let server = keeper();
        let pid = server.id().to_string();
        ip(&[
            "link", "add", "gate", "type", "veth", "peer", "name", "inside", "netns", &pid,
        ]);
        for (gate, inside) in GATES.into_iter().zip(INSIDE) {
            let bits = if gate.contains(':') { 64 } else { 24 };
            ip(&[
                "address",
                "add",
                &format!("{gate}/{bits}"),
                "dev",
                "gate",
                "nodad",
            ]);
            within(server.id(), || {
                ip(&[
                    "address",
                    "add",
                    &format!("{inside}/{bits}"),
                    "dev",
                    "inside",
                    "nodad",
                ]);
            });
        }
        ip(&["link", "set", "gate", "up"]);
        within(server.id(), || {
            ip(&["link", "set", "inside", "up"]);
            ip(&["route", "add", "default", "via", GATES[0]]);
            ip(&["-6", "route", "add", "default", "via", GATES[1]]);
        });
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("it is this test's own");
        }
        for address in INSIDE {
            let (tcp, udp) = within(server.id(), || {
                (
                    TcpListener::bind(at(address, 8000)).expect("a port can be listened on"),
                    UdpSocket::bind(at(address, 8000)).expect("a port can be bound"),
                )
            });
            std::thread::spawn(move || {
                for stream in tcp.incoming().flatten() {
                    let mut back = stream.try_clone().expect("a socket can be had twice");
                    std::thread::spawn(move || std::io::copy(&mut &stream, &mut back));
                }
            });
            std::thread::spawn(move || {
                let mut room = [0; 64];
                while let Ok((count, from)) = udp.recv_from(&mut room) {
                    drop(udp.send_to(&room[..count], from));
                }
            });
        }
        nft(&format!(
            "table inet nat {{ chain pre {{ type nat hook prerouting priority -100
                 iifname here meta nfproto ipv4 tcp dport {{ 8080, 8081 }} dnat ip to {0}:8000
                 iifname here meta nfproto ipv4 udp dport {{ 8080, 8081 }} dnat ip to {0}:8000
                 iifname here meta nfproto ipv6 tcp dport {{ 8080, 8081 }} dnat ip6 to [{1}]:8000
                 iifname here meta nfproto ipv6 udp dport {{ 8080, 8081 }} dnat ip6 to [{1}]:8000
             }}\n}}\n",
            INSIDE[0], INSIDE[1]
        ));
        Published { server, wire }
    }

    fn answers(&self, family: usize, port: u16, patience: Duration) -> [bool; 2] {
        self.wire
            .there(|| answers(at(HERE[family], port), patience))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

#[test]
fn translated_published_port_is_hit_each_way() {
    in_network_namespace(&PROGRAMS, || {
        let published = Published::new();
        for family in [0, 1] {
            assert_eq!(published.answers(family, 8080, SOON), [true, true]);
            for (fault, arguments) in [
                ("network-reject", json!({"ports": 8080})),
                (
                    "network-reject",
                    json!({"ports": 8080, "direction": "ingress"}),
                ),
                (
                    "network-reject",
                    json!({"to": format!("{}", at(HERE[family], 8080))}),
                ),
                ("network-partition", json!({"ports": 8080})),
                (
                    "network-partition",
                    json!({"ports": 8080, "direction": "egress"}),
                ),
                (
                    "network-partition",
                    json!({"ports": 8080, "direction": "ingress", "interface": "gate"}),
                ),
            ] {
                let acting = Fault::inject(fault, &arguments, "60s");
                let cut = published.answers(family, 8080, NEVER);
                assert_eq!(cut, [false, false], "{fault} {arguments}");
                let beside = published.answers(family, 8081, SOON);
                assert_eq!(beside, [true, true], "{fault} {arguments}");
                let effect: Value = acting.end();
                assert_eq!(effect["acts"], true, "{effect}");
                assert_eq!(published.answers(family, 8080, SOON), [true, true]);
            }
        }
    });
}
