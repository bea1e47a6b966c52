//! How network faults end, and where they do not begin: the kernel lets go by itself whatever
//! becomes of us, what is others' is as it was, and what is wrong is said before anything is touched.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{THERE, Wire, at, tcp, udp};
use backburn_tests::network_fault::{Fault, NEVER, PROGRAMS, SOON, figure, ruleset};
use backburn_tests::processes::kill_at_once;
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn network_fault_leaves_a_foreign_ruleset_as_it_was() {
    in_network_namespace(&PROGRAMS, || {
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
fn network_fault_without_a_packet_has_no_effect() {
    in_network_namespace(&PROGRAMS, || {
        let _wire = Wire::new();
        let effect =
            Fault::inject("network-partition", &json!({"to": "10.9.0.77"}), "300ms").wait();
        assert_eq!(effect["acts"], false, "{effect}");
        assert_eq!(figure(&effect, "chosen-packets"), 0.0);
    });
}

#[test]
fn network_fault_in_another_namespace_acts_by_path_and_by_process() {
    in_network_namespace(&PROGRAMS, || {
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
        // What is hit may go away meanwhile. Whether its missing interface is seen before the second is over is a matter of chance.
        let fault = Fault::inject("network-partition", &json!({"of": {"pid": pid}}), "1s");
        drop(wire);
        fault.wait_for(&[0, 9]);
    });
}

/// The helper owns the tables, and everybody is killed at once: nobody of ours is left to put anything back.
#[test]
fn network_fault_of_killed_processes_is_ended_by_the_kernel() {
    in_network_namespace(&PROGRAMS, || {
        const TRIALS: usize = 20;
        let wire = Wire::new();
        wire.echo(8000);
        let mut took = Vec::new();
        for _ in 0..TRIALS {
            let arguments = json!({"to": THERE[0], "ports": 8000});
            let mut fault = Fault::inject("network-partition", &arguments, "60s");
            assert!(udp(at(THERE[0], 8000), Duration::from_millis(50)).is_err());
            let started = kill_at_once(&fault.everybody());
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
    });
}

/// Nobody is dead and nobody does anything any more: the lease in the kernel runs out, and the deadline comes.
#[test]
fn network_fault_of_stopped_processes_is_ended_by_the_kernel() {
    in_network_namespace(&PROGRAMS, || {
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
fn network_fault_with_wrong_arguments_is_refused_and_nothing_is_touched() {
    in_network_namespace(&PROGRAMS, || {
        let _wire = Wire::new();
        let refusals = Refusals::new(|| ruleset().is_empty());
        let refuses = |fault: &str, arguments: Value, code: i32, says: &[&str]| {
            refusals.inject(fault, &arguments, &[], code, says);
        };
        let cut = "network-partition";
        refuses(cut, json!({}), 2, &["no flows are selected"]);
        refuses(
            cut,
            json!({"direction": "both"}),
            2,
            &["no flows are selected"],
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
            &["percent", "every-nth", "gilbert-elliott"],
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
            "network-latency",
            json!({"ports": 80}),
            2,
            &["`delay` is missing"],
        );
        for delay in ["-1ms", "0s", "soon", "61s"] {
            refuses(
                "network-latency",
                json!({"ports": 80, "delay": delay}),
                2,
                &["$.delay"],
            );
        }
        refuses(
            "network-reject",
            json!({"ports": 80, "with": "love"}),
            2,
            &["$.with"],
        );
        for other in [json!({"protocol": "udp"}), json!({"interface": "here"})] {
            let mut arguments = json!({"ports": 80, "established": "kill"});
            for (key, value) in other.as_object().expect("an object") {
                arguments[key] = value.clone();
            }
            refuses("network-reject", arguments, 2, &["$.established"]);
        }
    });
}

#[test]
fn packet_holder_that_dies_lets_the_flow_go_on() {
    in_network_namespace(&PROGRAMS, || {
        use std::io::{Read as _, Write as _};
        let wire = Wire::new();
        wire.echo(8000);
        let mut stream = std::net::TcpStream::connect(at(THERE[0], 8000)).expect("it answers");
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a socket waits so long");
        let arguments = json!({"to": THERE[0], "delay": "2s"});
        let mut fault = Fault::inject("network-latency", &arguments, "60s");
        stream.write_all(b"word").expect("it is connected");
        std::thread::sleep(Duration::from_millis(100));
        let started = kill_at_once(&fault.everybody());
        // The echo that was held is lost, as on a wire, and sent again.
        stream.read_exact(&mut [0; 4]).expect("it comes");
        println!(
            "an echo that was held when all were killed came after {:?}",
            started.elapsed()
        );
        fault.inject.wait().expect("it was killed");
        assert_eq!(ruleset(), "");
    });
}

/// Asked to end, the helper takes its rules back by itself: nothing that is held is lost, and traffic does not wait for the helper's death.
#[test]
fn network_latency_reverted_in_peace_loses_nothing() {
    in_network_namespace(&PROGRAMS, || {
        const TRIALS: usize = 20;
        let wire = Wire::new();
        wire.echo(8000);
        for there in THERE {
            let socket = std::net::UdpSocket::bind(at(
                if there.contains(':') { "::" } else { "0.0.0.0" },
                0,
            ))
            .expect("a socket can be bound");
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a socket waits so long");
            let arguments = json!({"to": there, "delay": "50s"});
            let fault = Fault::inject("network-latency", &arguments, "60s");
            for word in 0..10u8 {
                socket
                    .send_to(&[word], at(there, 8000))
                    .expect("it is sent");
            }
            wait_within("all are held", Duration::from_secs(10), || {
                fault.seen()["figures"]["held-packets"].as_f64() >= Some(10.0)
            });
            let effect = fault.end();
            assert!(figure(&effect, "held-packets") >= 10.0, "{effect}");
            for word in 0..10u8 {
                let mut room = [0];
                socket
                    .recv(&mut room)
                    .expect("what was held is not lost: UDP sends nothing again");
                assert_eq!(room, [word], "in order");
            }
        }
        let mut took = Vec::new();
        for _ in 0..TRIALS {
            let arguments = json!({"to": THERE[0], "ports": 8000});
            let fault = Fault::inject("network-partition", &arguments, "60s");
            assert!(udp(at(THERE[0], 8000), Duration::from_millis(50)).is_err());
            let helper = *fault.everybody().last().expect("the helper comes last");
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket can be bound");
            socket.set_nonblocking(true).expect("it need not wait");
            let started = Instant::now();
            kill(Pid::from_raw(helper), Signal::SIGTERM).expect("it is there to be asked");
            // A socket's own patience is counted in the kernel's ticks, which are too long for this.
            while socket.recv(&mut [0]).is_err() {
                assert!(started.elapsed() < Duration::from_secs(5), "still cut");
                socket
                    .send_to(b"w", at(THERE[0], 8000))
                    .expect("a loss is silent");
                std::thread::sleep(Duration::from_micros(100));
            }
            took.push(started.elapsed());
            // Whoever takes its helper away has ended the fault.
            let mut inject = fault.inject;
            inject.wait().expect("it ends");
            assert!(fault.place.ledger().is_empty());
        }
        took.sort();
        println!(
            "traffic whole after the helper was asked to end: median {:?}, longest {:?}, n = {TRIALS}",
            took[TRIALS / 2],
            took[TRIALS - 1]
        );
    });
}
