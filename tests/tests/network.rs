//! Network faults on the real kernel, between two network namespaces: the effect is looked at
//! from the other side, flows beside the chosen ones are untouched, the head is not cut off, and
//! the kernel lets go by itself.

use backburn_tests::crash::Place;
use backburn_tests::network::{
    BESIDE, DEVICE, HERE, THERE, Wire, at, echo_here, ip, send, tcp, udp,
};
use backburn_tests::privately::privately_networked;
use backburn_tests::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 5] = ["unshare", "ip", "nft", "ping", "sleep"];
/// Long enough for a busy machine to answer.
const SOON: Duration = Duration::from_millis(1500);
/// Long enough to say that nothing comes, where answers take microseconds.
const NEVER: Duration = Duration::from_millis(400);

/// A fault that acts, injected by a process of its own.
struct Fault {
    inject: Child,
    place: Place,
}

impl Fault {
    #[track_caller]
    fn inject(name: &str, arguments: &Value, duration: &str) -> Self {
        let place = Place::default();
        let arguments = arguments.to_string();
        let words = [
            "inject",
            name,
            "--id",
            "trial",
            "--json",
            "--duration",
            duration,
            "--arguments",
            &arguments,
        ];
        let mut inject = place
            .agent(&words, None)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let until = Instant::now() + Duration::from_secs(10);
        while !place.ledger().contains(&"trial.json".to_owned())
            || helper().is_none_or(|helper| !owns(helper))
        {
            let over = inject.try_wait().expect("a child can be waited for");
            assert!(
                over.is_none() && Instant::now() < until,
                "{name} {arguments}: not injected: {over:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Fault { inject, place }
    }

    /// Waits for its end; what it was seen to do.
    #[track_caller]
    fn end(self) -> Value {
        let pid = Pid::from_raw(self.inject.id() as i32);
        // It may have come to its end already.
        kill(pid, Signal::SIGINT).ok();
        self.wait()
    }

    #[track_caller]
    fn wait(self) -> Value {
        let output = self.inject.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(self.place.ledger().is_empty());
        assert_eq!(helper(), None);
        let ended = said
            .lines()
            .rev()
            .find(|line| line.contains("\"ended\""))
            .expect("it tells of its end");
        let ended: Value = serde_json::from_str(ended).expect("JSON");
        ended["effect"].clone()
    }

    /// Everybody who might put it back: the injecting program, the guardian, the agent and the helper.
    fn everybody(&self) -> Vec<i32> {
        let alive = processes::alive();
        let mut all = vec![self.inject.id() as i32];
        let mut next = 0;
        while let Some(parent) = all.get(next).copied() {
            all.extend(
                alive
                    .values()
                    .filter(|process| process.parent == parent)
                    .map(|process| process.pid),
            );
            next += 1;
        }
        assert_eq!(all.len(), 4, "{all:?}");
        all
    }
}

fn helper() -> Option<i32> {
    processes::named("backburn-helper")
        .first()
        .map(|process| process.pid)
}

/// Whether a helper has said that it is ready: then its standard output is closed.
fn owns(helper: i32) -> bool {
    std::fs::read_link(format!("/proc/{helper}/fd/1")).is_ok_and(|path| path.ends_with("null"))
}

fn both() -> impl Iterator<Item = (&'static str, &'static str)> {
    THERE.into_iter().zip(BESIDE)
}

fn figure(effect: &Value, name: &str) -> f64 {
    effect["figures"][name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {effect}"))
}

fn ruleset() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .expect("`nft` starts");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// Whether a count is what `n` tries with chance `p` give, in all but one of a thousand cases.
fn likely(count: u64, n: u64, p: f64) -> bool {
    let wide = 3.29 * (n as f64 * p * (1.0 - p)).sqrt() + 0.5;
    (count as f64 - n as f64 * p).abs() <= wide
}

#[test]
fn loss_takes_its_share_and_nothing_beside_it() {
    privately_networked(
        "loss_takes_its_share_and_nothing_beside_it",
        &PROGRAMS,
        || {
            const SENT: u64 = 3000;
            let wire = Wire::new();
            for (there, beside) in both() {
                let chosen = wire.count(there, 7000);
                let untouched = wire.count(beside, 7000);
                let arguments =
                    json!({"to": there, "direction": "egress", "protocol": "udp", "percent": 30});
                let fault = Fault::inject("network-loss", &arguments, "60s");
                send(at(there, 7000), SENT);
                send(at(beside, 7000), SENT);
                std::thread::sleep(Duration::from_millis(200));
                let effect = fault.end();
                let lost = SENT - chosen.load(Ordering::SeqCst);
                println!(
                    "{there}: {lost} of {SENT} lost at 30 %, {} beside",
                    SENT - untouched.load(Ordering::SeqCst)
                );
                assert!(likely(lost, SENT, 0.3), "{lost} of {SENT}");
                assert_eq!(untouched.load(Ordering::SeqCst), SENT);
                assert_eq!(figure(&effect, "chosen-packets"), SENT as f64);
                assert_eq!(figure(&effect, "lost-packets"), lost as f64);
                assert_eq!(effect["acts"], true);
                send(at(there, 7000), 100);
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(
                    chosen.load(Ordering::SeqCst),
                    SENT - lost + 100,
                    "none is lost afterwards"
                );
            }
        },
    );
}

#[test]
fn each_nth_is_lost_exactly() {
    privately_networked("each_nth_is_lost_exactly", &PROGRAMS, || {
        let wire = Wire::new();
        for (number, there) in THERE.into_iter().enumerate() {
            let port = 7001 + number as u16;
            let counted = wire.count(there, port);
            let arguments =
                json!({"to": there, "ports": port, "direction": "egress", "every-nth": 10});
            let fault = Fault::inject("network-loss", &arguments, "60s");
            send(at(there, port), 1000);
            std::thread::sleep(Duration::from_millis(200));
            fault.end();
            assert_eq!(counted.load(Ordering::SeqCst), 900);
        }
        // From the other side: what arrives here.
        let here = std::net::UdpSocket::bind(at(HERE[0], 7003)).expect("a socket can be bound");
        here.set_read_timeout(Some(NEVER))
            .expect("a socket waits so long");
        let arguments =
            json!({"from": THERE[0], "ports": 7003, "direction": "ingress", "every-nth": 4});
        let fault = Fault::inject("network-loss", &arguments, "60s");
        wire.there(|| send(at(HERE[0], 7003), 100));
        fault.end();
        let mut arrived = 0;
        while here.recv(&mut [0; 8]).is_ok() {
            arrived += 1;
        }
        assert_eq!(arrived, 75);
    });
}

#[test]
fn a_partition_is_silent_and_cuts_what_it_names() {
    privately_networked(
        "a_partition_is_silent_and_cuts_what_it_names",
        &PROGRAMS,
        || {
            let wire = Wire::new();
            wire.echo(8000);
            wire.echo(8001);
            for direction in ["both", "egress", "ingress"] {
                for (there, beside) in both() {
                    assert!(tcp(at(there, 8000), SOON).is_ok());
                    let arguments =
                        json!({"to": format!("[{there}]:8000"), "direction": direction});
                    let fault = Fault::inject("network-partition", &arguments, "60s");
                    for (what, error) in [
                        ("tcp", tcp(at(there, 8000), NEVER)),
                        ("udp", udp(at(there, 8000), NEVER)),
                    ] {
                        let error = error.expect_err("it is cut");
                        // A loss has no error: only time runs out.
                        assert!(
                            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
                            "{direction} {what} to {there}: {error}"
                        );
                    }
                    for other in [at(there, 8001), at(beside, 8000)] {
                        assert!(tcp(other, SOON).is_ok(), "{other}");
                        assert!(udp(other, SOON).is_ok(), "{other}");
                    }
                    let effect = fault.end();
                    assert_eq!(effect["acts"], true, "{effect}");
                    assert!(
                        tcp(at(there, 8000), SOON).is_ok() && udp(at(there, 8000), SOON).is_ok()
                    );
                }
            }
        },
    );
}

#[test]
fn a_reject_is_heard_at_the_end_it_belongs_to() {
    privately_networked(
        "a_reject_is_heard_at_the_end_it_belongs_to",
        &PROGRAMS,
        || {
            let wire = Wire::new();
            wire.echo(8000);
            echo_here(8100);
            for (family, (there, beside)) in both().enumerate() {
                let out = at(there, 8000);
                let fault = Fault::inject(
                    "network-reject",
                    &json!({"to": there, "ports": 8000}),
                    "60s",
                );
                for error in [tcp(out, SOON), udp(out, SOON)] {
                    let error = error.expect_err("it is rejected");
                    assert_eq!(
                        error.kind(),
                        ErrorKind::ConnectionRefused,
                        "{there}: {error}"
                    );
                }
                assert!(tcp(at(beside, 8000), SOON).is_ok());
                let effect = fault.end();
                assert!(figure(&effect, "rejected-packets") >= 2.0, "{effect}");
                assert!(tcp(out, SOON).is_ok() && udp(out, SOON).is_ok());

                let home = at(HERE[family], 8100);
                assert!(wire.there(|| tcp(home, SOON)).is_ok());
                let arguments =
                    json!({"from": [there, beside], "ports": 8100, "direction": "ingress"});
                let fault = Fault::inject("network-reject", &arguments, "60s");
                for error in [
                    wire.there(|| tcp(home, SOON)),
                    wire.there(|| udp(home, SOON)),
                ] {
                    let error = error.expect_err("it is rejected");
                    assert_eq!(
                        error.kind(),
                        ErrorKind::ConnectionRefused,
                        "{home}: {error}"
                    );
                }
                assert_eq!(fault.end()["acts"], true);
                assert!(wire.there(|| tcp(home, SOON)).is_ok());

                let arguments = json!({"to": there, "with": "host-unreachable"});
                let fault = Fault::inject("network-reject", &arguments, "60s");
                let error = tcp(out, SOON).expect_err("it is rejected");
                assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
                fault.end();
            }
        },
    );
}

#[test]
fn the_head_stays_on_with_everything_lost() {
    privately_networked("the_head_stays_on_with_everything_lost", &PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(22);
        wire.echo(8000);
        echo_here(22);
        echo_here(8000);
        let connected = std::net::TcpStream::connect(at(THERE[0], 22)).expect("it answers");
        let fault = Fault::inject(
            "network-loss",
            &json!({"interface": DEVICE, "percent": 100}),
            "60s",
        );
        // Neighbours are to be found anew: ARP and its like of IPv6 must get through.
        ip(&["neighbour", "flush", "dev", DEVICE]);
        wire.there(|| ip(&["neighbour", "flush", "dev", "there"]));
        for there in THERE {
            assert!(tcp(at(there, 22), SOON).is_ok(), "{there}");
            assert!(tcp(at(there, 8000), NEVER).is_err(), "{there}");
            let ping = Command::new("ping")
                .args(["-q", "-c", "3", "-i", "0.05", "-W", "1", there])
                .output();
            let said = ping.expect("`ping` starts").stdout;
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains(" 0 received"), "{said}");
        }
        for here in HERE {
            assert!(wire.there(|| tcp(at(here, 22), SOON)).is_ok(), "{here}");
            assert!(wire.there(|| tcp(at(here, 8000), NEVER)).is_err(), "{here}");
        }
        // To ourselves, over the loopback.
        assert!(tcp(at(HERE[0], 8000), SOON).is_ok() && tcp(at("127.0.0.1", 8000), SOON).is_ok());
        use std::io::{Read as _, Write as _};
        let mut connected = connected;
        connected.write_all(b"still").expect("it is connected");
        connected
            .set_read_timeout(Some(SOON))
            .expect("a socket waits so long");
        connected.read_exact(&mut [0; 5]).expect("it answers still");
        assert_eq!(fault.end()["acts"], true);

        let fault = Fault::inject("network-partition", &json!({"to": "127.0.0.1:8000"}), "60s");
        assert!(
            tcp(at("127.0.0.1", 8000), NEVER).is_err(),
            "the loopback is named"
        );
        assert!(tcp(at("::1", 8000), SOON).is_ok());
        fault.end();
    });
}

#[test]
fn a_foreign_ruleset_is_as_it_was() {
    privately_networked("a_foreign_ruleset_is_as_it_was", &PROGRAMS, || {
        const THEIRS: &str = "
            table inet firewall {
                set friends { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
                chain input { type filter hook input priority filter; policy accept; ct state established accept; ip saddr @friends accept; tcp dport 9999 drop; }
                chain forward { type filter hook forward priority filter; policy drop; }
            }
            table ip nat {
                chain postrouting { type nat hook postrouting priority srcnat; policy accept; ip saddr 10.1.0.0/16 masquerade; }
            }
            table netdev shop {
                chain in { type filter hook ingress device \"here\" priority 0; policy accept; udp dport 1 drop; }
            }
            ";
        let wire = Wire::new();
        wire.echo(8000);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("rules");
        std::fs::write(&file, THEIRS).expect("a file can be written");
        assert!(
            Command::new("nft")
                .arg("-f")
                .arg(&file)
                .status()
                .is_ok_and(|status| status.success())
        );
        let before = ruleset();
        for fault in ["network-partition", "network-reject"] {
            let fault = Fault::inject(
                fault,
                &json!({"to": THERE[0], "ports": [8000, "8002-8005"]}),
                "60s",
            );
            let during = ruleset();
            assert!(
                during.starts_with(&before) && during.len() > before.len(),
                "{during}"
            );
            assert!(during.contains("backburn-trial-0"));
            assert!(tcp(at(THERE[0], 8000), NEVER).is_err());
            // Whoever cleans up does not get at what another owns.
            let denied = Command::new("nft")
                .args(["delete", "table", "inet", "backburn-trial-0"])
                .output();
            assert!(!denied.expect("`nft` starts").status.success());
            fault.end();
            assert_eq!(ruleset(), before);
        }
    });
}

#[test]
fn no_packet_is_no_effect() {
    privately_networked("no_packet_is_no_effect", &PROGRAMS, || {
        let _wire = Wire::new();
        let effect =
            Fault::inject("network-partition", &json!({"to": "10.9.0.77"}), "300ms").wait();
        assert_eq!(effect["acts"], false, "{effect}");
        assert_eq!(figure(&effect, "chosen-packets"), 0.0);
    });
}

#[test]
fn another_namespace_by_path_and_by_process() {
    privately_networked(
        "another_namespace_by_path_and_by_process",
        &PROGRAMS,
        || {
            let wire = Wire::new();
            wire.echo(8000);
            let own = ruleset();
            let pid = wire.pid();
            for place in [
                json!({"namespace": wire.namespace()}),
                json!({"of": {"pid": pid}}),
            ] {
                let mut arguments = place;
                arguments["ports"] = json!(8000);
                let fault = Fault::inject("network-partition", &arguments, "60s");
                assert_eq!(ruleset(), own, "nothing is made here");
                assert!(wire.there(ruleset).contains("backburn-trial-0"));
                for there in THERE {
                    assert!(tcp(at(there, 8000), NEVER).is_err());
                }
                assert_eq!(fault.end()["acts"], true);
                assert_eq!(wire.there(ruleset), "");
                assert!(tcp(at(THERE[0], 8000), SOON).is_ok());
            }
            // What is hit may go away meanwhile.
            let fault = Fault::inject("network-partition", &json!({"of": {"pid": pid}}), "1s");
            drop(wire);
            fault.wait();
        },
    );
}

/// The helper owns the tables, and everybody is killed at once: nobody of ours is left to put anything back.
#[test]
fn the_kernel_lets_go_when_all_of_us_are_killed() {
    privately_networked(
        "the_kernel_lets_go_when_all_of_us_are_killed",
        &PROGRAMS,
        || {
            const TRIALS: usize = 20;
            let wire = Wire::new();
            wire.echo(8000);
            let mut took = Vec::new();
            for _ in 0..TRIALS {
                let arguments = json!({"to": THERE[0], "ports": 8000});
                let mut fault = Fault::inject("network-partition", &arguments, "60s");
                assert!(udp(at(THERE[0], 8000), Duration::from_millis(50)).is_err());
                let everybody = fault.everybody();
                let started = Instant::now();
                for pid in everybody {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there to be killed");
                }
                while udp(at(THERE[0], 8000), Duration::from_millis(1)).is_err() {
                    assert!(started.elapsed() < Duration::from_secs(5), "still cut");
                }
                took.push(started.elapsed());
                fault.inject.wait().expect("it was killed");
                assert_eq!(ruleset(), "");
                assert_eq!(fault.place.restart(None).code(), Some(0));
                assert!(fault.place.ledger().is_empty());
            }
            took.sort();
            println!(
                "traffic whole after all were killed: median {:?}, longest {:?}, n = {TRIALS}",
                took[TRIALS / 2],
                took[TRIALS - 1]
            );
            assert!(took[TRIALS / 2] < Duration::from_secs(1));
        },
    );
}

/// Nobody is dead and nobody does anything any more: the lease in the kernel runs out, and the deadline comes.
#[test]
fn the_kernel_lets_go_when_all_of_us_hang() {
    privately_networked("the_kernel_lets_go_when_all_of_us_hang", &PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        let started = Instant::now();
        let mut fault = Fault::inject(
            "network-partition",
            &json!({"to": THERE[1], "ports": 8000}),
            "1s",
        );
        let everybody = fault.everybody();
        for pid in &everybody {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).expect("it is there to be stopped");
        }
        while udp(at(THERE[1], 8000), Duration::from_millis(10)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "still cut");
        }
        let took = started.elapsed();
        println!("1 s of partition, everybody stopped: traffic whole after {took:?}");
        assert!(
            took > Duration::from_secs(1) && took < Duration::from_secs(5),
            "{took:?}"
        );
        for pid in everybody {
            // The helper's deadline has come; the others are still there.
            kill(Pid::from_raw(pid), Signal::SIGCONT).ok();
        }
        fault.inject.wait().expect("it ends");
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_touched() {
    privately_networked(
        "what_is_wrong_is_said_and_nothing_is_touched",
        &PROGRAMS,
        || {
            let _wire = Wire::new();
            let place = Place::default();
            let refuses = |fault: &str, arguments: Value, code: i32, says: &[&str]| {
                let arguments = arguments.to_string();
                let output = place
                    .agent(
                        &[
                            "inject",
                            fault,
                            "--duration",
                            "5s",
                            "--arguments",
                            &arguments,
                        ],
                        None,
                    )
                    .stderr(Stdio::piped())
                    .output()
                    .expect("the agent starts");
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
                for part in says.iter().chain(&["hint"]) {
                    assert!(
                        said.contains(part),
                        "{arguments} does not say `{part}`: {said}"
                    );
                }
                assert!(place.ledger().is_empty() && ruleset().is_empty());
            };
            let cut = "network-partition";
            refuses(cut, json!({}), 2, &["no flows are chosen"]);
            refuses(
                cut,
                json!({"direction": "both"}),
                2,
                &["no flows are chosen"],
            );
            refuses(cut, json!({"to": "10.0.0.0/33"}), 2, &["$.to", "/33"]);
            refuses(cut, json!({"to": ["::1", "10.0.0.256"]}), 2, &["$.to[1]"]);
            refuses(cut, json!({"from": "a b"}), 2, &["$.from"]);
            refuses(
                cut,
                json!({"ports": ["1-0", 0, 80]}),
                2,
                &["$.ports[0]", "$.ports[1]"],
            );
            refuses(cut, json!({"ports": 70000}), 2, &["$.ports"]);
            refuses(
                cut,
                json!({"ports": 80, "protocol": "icmp"}),
                2,
                &["$.protocol"],
            );
            refuses(
                cut,
                json!({"ports": 80, "protocol": "tpc"}),
                2,
                &["$.protocol", "tcp"],
            );
            refuses(cut, json!({"ports": 80, "porst": 80}), 2, &["$.porst"]);
            refuses(
                cut,
                json!({"to": "no-such-host.invalid"}),
                3,
                &["$.to", "no-such-host.invalid"],
            );
            refuses(
                cut,
                json!({"interface": "hree"}),
                3,
                &["$.interface", "did you mean `here`"],
            );
            refuses(
                cut,
                json!({"namespace": "no-such"}),
                3,
                &["$.namespace", "no-such"],
            );
            refuses(
                cut,
                json!({"namespace": "/etc/passwd"}),
                3,
                &["$.namespace", "/etc/passwd"],
            );
            refuses(
                cut,
                json!({"of": {"name": "no-such-process"}}),
                3,
                &["no-such-process"],
            );
            refuses(cut, json!({"of": {"pid": 1}}), 3, &["protected"]);
            refuses(cut, json!({"ports": 22}), 3, &["protected"]);
            refuses(cut, json!({"to": "10.9.0.2:22"}), 3, &["protected"]);
            refuses(
                "network-loss",
                json!({"ports": 80}),
                2,
                &["percent", "every-nth"],
            );
            refuses(
                "network-loss",
                json!({"ports": 80, "percent": 101}),
                2,
                &["$.percent", "100"],
            );
            refuses(
                "network-loss",
                json!({"ports": 80, "percent": -1}),
                2,
                &["$.percent"],
            );
            refuses(
                "network-loss",
                json!({"ports": 80, "percent": 0}),
                2,
                &["$.percent"],
            );
            refuses(
                "network-loss",
                json!({"ports": 80, "every-nth": 1}),
                2,
                &["$.every-nth"],
            );
            refuses(
                "network-reject",
                json!({"ports": 80, "with": "love"}),
                2,
                &["$.with"],
            );
        },
    );
}
