//! What belongs to others is byte for byte as it was: rules, queueing disciplines with their classes and filters,
//! interfaces; before and after every network fault, and the interfaces' own disciplines while it acts. And what the kernel does not
//! let go of by itself is put away by whoever comes after us.

use backburn_tests::crash::Place;
use backburn_tests::datagrams::{exchange, receiver};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{DEVICE, HERE, THERE, Wire, at, tcp, udp};
use backburn_tests::network_fault::{Fault, PROGRAMS, SOON};
use backburn_tests::processes::kill_at_once;
use backburn_tests::programs;
use backburn_tests::refusals::Refusals;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

fn output(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Rules, disciplines, classes, filters and interfaces, but for what counts.
fn listings() -> String {
    [
        "nft list ruleset",
        "tc qdisc show",
        "tc class show dev here",
        "tc filter show dev here",
        "tc filter show dev here ingress",
        "ip -6 route show table all",
        "ip link",
    ]
    .map(output)
    .join("\n")
}

/// The disciplines of the interface that is not ours, and every route.
fn theirs() -> String {
    let every = output("tc qdisc show dev here") + &output("ip -6 route show table all");
    every + &output("tc class show dev here") + &output("tc filter show dev here")
}

#[test]
fn shaping_leaves_foreign_qdiscs_and_rules_as_they_were() {
    in_network_namespace(&[&PROGRAMS[..], &["tc"]].concat(), || {
        const RULES: &str = "
            table inet firewall {
                chain input { type filter hook input priority filter; policy accept; ct state established accept; tcp dport 9999 drop; }
            }
            table netdev shop {
                chain in { type filter hook ingress device \"here\" priority 0; policy accept; udp dport 1 drop; }
                chain out { type filter hook egress device \"here\" priority 0; policy accept; udp dport 1 drop; }
            }";
        let wire = Wire::new();
        wire.echo(8000);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("rules");
        std::fs::write(&file, RULES).expect("a file can be written");
        output(&format!("nft -f {}", file.display()));
        for line in [
            "tc qdisc add dev here root handle 1: htb default 20",
            "tc class add dev here parent 1: classid 1:1 htb rate 800mbit",
            "tc class add dev here parent 1:1 classid 1:10 htb rate 500mbit ceil 800mbit",
            "tc class add dev here parent 1:1 classid 1:20 htb rate 300mbit ceil 800mbit",
            "tc filter add dev here parent 1: protocol ip prio 1 u32 match ip dport 80 0xffff flowid 1:10",
            "tc qdisc add dev here ingress",
            "tc filter add dev here ingress protocol ip prio 1 u32 match ip dport 9 0xffff flowid ffff:1",
        ] {
            output(line);
        }
        let (before, own) = (listings(), theirs());
        let to = json!({"to": THERE, "ports": 8000});
        for (fault, more) in [
            ("network-partition", json!({})),
            ("network-reject", json!({})),
            ("network-loss", json!({"percent": 50})),
            (
                "network-loss",
                json!({"gilbert-elliott": {"p": 5, "r": 50}}),
            ),
            ("network-latency", json!({"delay": "5ms", "jitter": "1ms"})),
            ("network-reorder", json!({"delay": "5ms", "percent": 50})),
            ("network-corrupt", json!({"percent": 50})),
            ("network-duplicate", json!({"percent": 50})),
            ("network-bandwidth", json!({"rate": "1Mbit/s"})),
        ] {
            let mut arguments = to.clone();
            for (key, value) in more.as_object().expect("arguments are an object") {
                arguments[key] = value.clone();
            }
            let fault = Fault::inject(fault, &arguments, "60s");
            assert_eq!(theirs(), own, "{arguments}: while it acts");
            // Traffic by the fault, whatever becomes of it.
            udp(at(THERE[0], 8000), Duration::from_millis(50)).ok();
            udp(at(THERE[1], 8000), Duration::from_millis(50)).ok();
            fault.end();
            assert_eq!(listings(), before, "{arguments}: afterwards");
            for there in THERE {
                assert!(tcp(at(there, 8000), SOON).is_ok(), "{there}");
            }
        }
    });
}

/// Everybody is killed at once: the kernel takes the rules away, so that nothing goes to the devices any more; these go with the next start.
#[test]
fn shaping_of_killed_processes_leaves_idle_devices_for_the_next_start() {
    in_network_namespace(&[&PROGRAMS[..], &["tc"]].concat(), || {
        let wire = Wire::new();
        let before = listings();
        let to = wire.there(|| receiver(THERE[0], 7000));
        let arguments =
            json!({"interface": DEVICE, "rate": "8kbit/s", "burst": "2kB", "queue": "2kB"});
        let mut fault = Fault::inject("network-bandwidth", &arguments, "60s");
        let slow = exchange(&to, 500, Duration::ZERO, |send| send());
        assert!(slow.len() < 400, "{}", slow.len());
        kill_at_once(&fault.everybody());
        fault.inject.wait().expect("it was killed");
        wait_within("the rules are still there", SOON, || {
            output("nft list ruleset").is_empty()
        });
        // To another socket: what the device still had comes late, and is not of these.
        let after = wire.there(|| receiver(THERE[0], 7001));
        let whole = exchange(&after, 500, Duration::ZERO, |send| send());
        assert_eq!(whole.len(), 500);
        assert!(
            output("ip -brief link").contains("bb"),
            "the devices are not the kernel's to remove"
        );
        assert_eq!(fault.place.restart(None).code(), Some(0));
        assert!(fault.place.ledger().is_empty());
        assert_eq!(listings(), before);
    });
}

#[test]
fn shaping_with_wrong_arguments_is_refused_and_nothing_is_touched() {
    in_network_namespace(&[&PROGRAMS[..], &["tc"]].concat(), || {
        let _wire = Wire::new();
        let before = listings();
        let refusals = Refusals::new(|| listings() == before);
        let refuses = |fault: &str, more: Value, code: i32, says: &str| {
            let mut arguments = json!({"ports": 80});
            for (key, value) in more.as_object().expect("arguments are an object") {
                arguments[key] = value.clone();
            }
            refusals.inject(fault, &arguments, &[], code, &[says]);
        };
        let latency = "network-latency";
        let more = |more: Value| {
            let mut all = json!({"delay": "10ms"});
            for (key, value) in more.as_object().expect("arguments are an object") {
                all[key] = value.clone();
            }
            all
        };
        refuses(latency, json!({"delay": "-1ms"}), 2, "$.delay");
        refuses(latency, more(json!({"jitter": "0s"})), 2, "$.jitter");
        refuses(latency, more(json!({"jitter": "11ms"})), 2, "$.jitter");
        refuses(
            latency,
            more(json!({"correlation": 10})),
            2,
            "$.correlation",
        );
        refuses(
            latency,
            more(json!({"distribution": "normal"})),
            2,
            "$.distribution",
        );
        let bad = json!({"jitter": "1ms", "distribution": "gauss"});
        refuses(latency, more(bad), 2, "$.distribution");
        let bad = json!({"jitter": "1ms", "correlation": 101});
        refuses(latency, more(bad), 2, "$.correlation");
        let bad = json!({"backend": "nfqueue", "direction": "egress"});
        refuses(latency, more(bad), 2, "$.direction");
        refuses(latency, more(json!({"backend": "magic"})), 2, "$.backend");
        for fault in ["network-corrupt", "network-duplicate"] {
            refuses(fault, json!({"percent": 101}), 2, "$.percent");
            refuses(fault, json!({"percent": 0}), 2, "$.percent");
            refuses(fault, json!({"percent": -1}), 2, "$.percent");
            refuses(fault, json!({}), 2, "percent");
        }
        let reorder = "network-reorder";
        refuses(reorder, more(json!({})), 2, "percent");
        refuses(reorder, more(json!({"percent": 100})), 2, "$.percent");
        refuses(reorder, more(json!({"gap": 1})), 2, "$.gap");
        refuses(
            reorder,
            more(json!({"gap": 5, "correlation": 5})),
            2,
            "$.correlation",
        );
        let rate = "network-bandwidth";
        refuses(rate, json!({"rate": 0}), 2, "$.rate");
        refuses(rate, json!({"rate": "fast"}), 2, "$.rate");
        refuses(rate, json!({"rate": "-1Mbit/s"}), 2, "$.rate");
        refuses(rate, json!({"rate": "1Mbit/s", "burst": 10}), 2, "$.burst");
        refuses(
            rate,
            json!({"rate": "1Mbit/s", "queue": "9TiB"}),
            2,
            "$.queue",
        );
        for model in [
            json!({"p": 0, "r": 5}),
            json!({"p": 5, "r": 0}),
            json!({"p": 5, "r": 101}),
        ] {
            refuses(
                "network-loss",
                json!({"gilbert-elliott": model}),
                2,
                "$.gilbert-elliott",
            );
        }
        let alike = json!({"p": 5, "r": 5, "loss-when-bad": 5, "loss-when-good": 5});
        refuses(
            "network-loss",
            json!({"gilbert-elliott": alike}),
            2,
            "loss-when-bad",
        );
        let doctor = Command::new(programs::backburn_agent())
            .arg("doctor")
            .output();
        let doctor = String::from_utf8(doctor.expect("the agent starts").stdout).expect("text");
        let netem = doctor
            .lines()
            .find(|line| line.starts_with("netem"))
            .expect("it tells of netem");
        if !netem.contains("yes") {
            let both = json!({"direction": "both"});
            refuses(latency, more(both), 3, "$.direction");
            refuses(latency, more(json!({"backend": "netem"})), 3, "$.backend");
            refuses(
                "network-duplicate",
                json!({"percent": 5, "direction": "ingress"}),
                3,
                "$.direction",
            );
            refuses(
                "network-corrupt",
                json!({"percent": 5, "direction": "egress"}),
                3,
                "$.direction",
            );
        }
    });
}

/// Two shape at a time: what comes back from the devices of one does not go to those of the other, and nothing is lost.
#[test]
fn shaping_by_two_faults_at_once_loses_nothing() {
    in_network_namespace(&[&PROGRAMS[..], &["tc"]].concat(), || {
        let wire = Wire::new();
        let before = listings();
        let place = Place::default();
        let mut all = Vec::new();
        for (id, rate) in [("one", "100Mbit/s"), ("two", "90Mbit/s")] {
            let arguments = match id {
                "one" => json!({"interface": DEVICE, "rate": rate}).to_string(),
                // Of every interface there is, so of those of the first as well.
                _ => json!({"ports": "7000-7010", "direction": "egress", "rate": rate}).to_string(),
            };
            let words = [
                "inject",
                "network-bandwidth",
                "--id",
                id,
                "--duration",
                "60s",
                "--arguments",
                &arguments,
            ];
            all.push(place.agent(&words, None).spawn().expect("the agent starts"));
            wait_within(
                &format!("{id} is not injected"),
                Duration::from_secs(10),
                || output("nft list ruleset").contains(&format!("backburn-{id}-0")),
            );
        }
        // What arrives leaves by the first one's device on its way in.
        let here = receiver(HERE[0], 7000);
        let arrived = exchange(&here, 500, Duration::ZERO, |send| wire.there(send));
        assert_eq!(arrived.len(), 500);
        for mut inject in all {
            kill(Pid::from_raw(inject.id() as i32), Signal::SIGINT).expect("it is there");
            assert!(inject.wait().expect("it ends").success());
        }
        assert_eq!(listings(), before);
    });
}
