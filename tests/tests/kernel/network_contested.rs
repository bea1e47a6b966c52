//! What others do to a fault's devices and interfaces while it acts: it is seen from outside, said, and nothing is left.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{THERE, Wire, at, ip, tcp};
use backburn_tests::network_fault::{Fault, PROGRAMS, SOON};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// What a program says.
fn output(words: &str) -> String {
    let mut words = words.split(' ');
    let program = words.next().expect("a program is named");
    let output = Command::new(program).args(words).output();
    String::from_utf8(output.expect("it starts").stdout).expect("text")
}

/// The names of the devices that shape.
fn shapers() -> Vec<String> {
    let shown = output("ip -brief link show type ifb");
    let names = shown
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn run(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status();
    assert!(status.is_ok_and(|status| status.success()), "{words:?}");
}

/// Waits until a fault of a minute ends before its time; what it was seen to do.
fn ended_early(mut fault: Fault) -> Value {
    wait_within("the fault ends", Duration::from_secs(20), || {
        let status = fault.inject.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    assert!(fault.place.ledger().is_empty());
    fault.seen()
}

#[test]
fn bandwidth_on_a_device_changed_by_others_is_contested_and_ends() {
    let programs = [&PROGRAMS[..], &["tc"]].concat();
    in_network_namespace(&programs, || {
        let wire = Wire::new();
        wire.echo(8000);
        let arguments = json!({"to": THERE[0], "ports": 8000, "rate": "8Mbit/s"});
        for (change, said) in [
            ("ip link delete {}", "is gone"),
            ("ip link set {} down", "was taken down"),
            ("tc qdisc delete dev {} root", "discipline of device"),
            (
                "tc qdisc replace dev {} root handle 9: pfifo",
                "discipline of device",
            ),
            (
                "tc qdisc change dev {} root handle 1: tbf rate 1gbit burst 100kb limit 1mb",
                "discipline of device",
            ),
        ] {
            for which in [0, 1] {
                let fault = Fault::inject("network-bandwidth", &arguments, "60s");
                assert!(tcp(at(THERE[0], 8000), SOON).is_ok());
                wait_within("it is seen to act", Duration::from_secs(20), || {
                    fault.seen()["acts"] == true
                });
                let device = shapers()[which].clone();
                run(&change.replace("{}", &device));
                let effect = ended_early(fault);
                let seen = effect["seen"].as_str().unwrap_or_default().to_owned();
                assert_eq!(effect["acts"], false, "{change}: {effect}");
                assert!(
                    seen.contains("contested") && seen.contains(said),
                    "{change}: {seen}"
                );
                assert_eq!(shapers(), [""; 0], "{change}");
                assert!(tcp(at(THERE[0], 8000), SOON).is_ok(), "{change}");
            }
        }
    });
}

#[test]
fn bandwidth_on_a_renamed_device_acts_and_is_reverted() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        // Somebody else's, which is left alone.
        ip(&["link", "add", "theirs", "type", "ifb"]);
        let arguments = json!({"to": THERE[1], "ports": 8000, "rate": "8Mbit/s"});
        for (signal, change) in [
            ("INT", "name"),
            ("KILL", "name"),
            ("INT", "alias"),
            ("KILL", "alias"),
        ] {
            let fault = Fault::inject("network-bandwidth", &arguments, "60s");
            for (number, device) in shapers()
                .iter()
                .filter(|name| *name != "theirs")
                .enumerate()
            {
                ip(&["link", "set", device, change, &format!("other{number}")]);
            }
            assert!(tcp(at(THERE[1], 8000), SOON).is_ok());
            wait_within("it is seen to act", Duration::from_secs(20), || {
                fault.seen()["acts"] == true
            });
            if signal == "INT" {
                fault.end();
            } else {
                // All of ours die at once, and nobody is left to put it back.
                for pid in fault.everybody() {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
                }
                let status = fault.place.agent(&["revert", "--all"], None).status();
                assert!(status.is_ok_and(|status| status.success()));
            }
            assert_eq!(shapers(), ["theirs"]);
        }
    });
}

#[test]
fn partition_on_a_removed_interface_is_contested_and_ends() {
    in_network_namespace(&PROGRAMS, || {
        for change in ["delete idle", "set idle name other", "set idle down"] {
            ip(&[
                "link", "add", "idle", "type", "veth", "peer", "name", "idler",
            ]);
            ip(&["link", "set", "idle", "up"]);
            let arguments = json!({"interface": "idle", "direction": "egress"});
            let fault = Fault::inject("network-partition", &arguments, "60s");
            run(&format!("ip link {change}"));
            if change.ends_with("down") {
                // Somebody's interface may go down: that is no change of the fault.
                wait_within("it is looked at again", Duration::from_secs(20), || {
                    !fault.seen().is_null()
                });
                fault.end();
            } else {
                let effect = ended_early(fault);
                let seen = effect["seen"].as_str().unwrap_or_default().to_owned();
                assert!(
                    seen.contains("contested") && seen.contains("interface idle"),
                    "{seen}"
                );
            }
            let links = output("ip -brief link");
            for link in ["idle", "other"] {
                if links.contains(&format!("{link}@")) || links.contains(&format!("{link} ")) {
                    ip(&["link", "delete", link]);
                }
            }
        }
    });
}
